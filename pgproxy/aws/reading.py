"""Reads secrets: which of them a source means, and what the versions of one hold."""

from __future__ import annotations

from collections.abc import Sequence

from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.rotation import Secret, UnreadableSecret, Version, read_secret
from pgproxy.aws.threads import AwsThreads
from pgproxy.config.aws_kinds import SecretSource

_STAGES = {"AWSCURRENT": "current", "AWSPENDING": "pending", "AWSPREVIOUS": "previous"}


class Reader:
    """Asks Secrets Manager, in threads."""

    def __init__(self, client: Client, threads: AwsThreads) -> None:
        self._client = client
        self._threads = threads

    async def names(self, source: SecretSource) -> Sequence[str]:
        """Give the ARNs, or the name, of the secrets that a source means. Raises `AwsError`."""
        if source.kind == "name":
            return [source.value]
        if source.kind == "prefix":
            filters = [{"Key": "name", "Values": [source.value]}]
        else:
            key, _, value = source.value.partition("=")
            filters = [{"Key": "tag-key", "Values": [key]}, {"Key": "tag-value", "Values": [value]}]
        found = await self._threads.call(self._client.list_secrets, filters)
        # The filters are wider than what is asked for: they leave out case, and which value is whose key's.
        return [entry.arn for entry in found if source.takes(entry.name, entry.tags)]

    async def secret(self, name: str, before: Secret) -> Secret:
        """Give a secret as it is now; what `before` has of it isn't read again. Raises `AwsError`."""
        description = await self._threads.call(self._client.describe_secret, name)
        versions = {version.id: version for version in before.versions}
        staged: dict[str, Version] = {}
        for id, stages in description.versions.items():
            wanted = [_STAGES[stage] for stage in stages if stage in _STAGES]
            if wanted and id not in versions:
                version = await self._version(description.arn, id, must_be="current" in wanted)
                if version is None:
                    continue
                versions[id] = version
            staged.update((stage, versions[id]) for stage in wanted)
        return Secret(**staged)

    async def _version(self, arn: str, id: str, must_be: bool) -> Version | None:
        """Read a version; others than the current one may have no value yet, or none that is for us."""
        try:
            value = await self._threads.call(self._client.secret_value, arn, id)
            return Version(id, read_secret(value.text), value.created)
        except UnreadableSecret as error:
            if must_be:
                raise AwsError("Unreadable", str(error), passing=False) from None
        except AwsError as error:
            if must_be or error.passing:
                raise
        return None
