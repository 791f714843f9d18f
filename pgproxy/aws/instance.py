"""
What an EC2 instance knows of itself, by IMDSv2 through botocore.

Documentation: EC2 User Guide, "Instance identity documents". AWS_EC2_METADATA_DISABLED turns the question
off, AWS_EC2_METADATA_SERVICE_ENDPOINT leads it elsewhere.
"""

from __future__ import annotations

import json
import os
from typing import Any

from attrs import frozen

_PATH = "latest/dynamic/instance-identity/document"
_SECONDS = 1.0
_ATTEMPTS = 2


@frozen
class Instance:
    """An instance, or nothing."""

    id: str = ""
    account: str = ""
    region: str = ""

    @classmethod
    def look_up(cls) -> Instance:
        """Ask. Blocks for a few seconds at most where nobody answers."""
        from botocore.utils import IMDSFetcher

        class Fetcher(IMDSFetcher):  # type: ignore[misc]
            def document(self) -> Any:
                token = self._fetch_metadata_token()
                return json.loads(self._get_request(_PATH, self._default_retry, token).text)

        endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        config: dict[str, Any] = {"ec2_metadata_v1_disabled": True}
        if endpoint:
            config["ec2_metadata_service_endpoint"] = endpoint
        fetcher = Fetcher(timeout=_SECONDS, num_attempts=_ATTEMPTS, env=os.environ, config=config)
        try:
            values = fetcher.document()
        except Exception:
            # Whatever the reason is, botocore's own exceptions for it are not public.
            return cls()
        if not isinstance(values, dict):
            return cls()
        return cls(
            *(str(values.get(name, "")) for name in ("instanceId", "accountId", "region")),
        )
