"""
Who somebody is in IAM, and which of them a pattern means.

The law:

1. An ARN is read to the letter: what has another form than AWS's own is nobody's.
2. A pattern has one partition and one account, never a wildcard for them: a role of the same name in another
   account is another one.
3. `*` stands for characters that are neither / nor :, none or many; it may only be in the last part of the
   name. So `role/app-*` is no role with a path, and `assumed-role/app/*` no other role's session.
4. A session of a role is the role as well: STS tells `assumed-role/NAME/SESSION`, without the role's path.

Documentation: IAM User Guide, "IAM identifiers"; sts:GetCallerIdentity.
"""

from __future__ import annotations

import re

from attrs import frozen

MAX_ARN = 2048
"""Characters: IAM's."""

_LETTERS = r"[A-Za-z0-9_+=,.@-]"
_arn_form = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z]+){0,3}):(?P<service>iam|sts)::(?P<account>[0-9]{12}):(?P<resource>[^:]+)"
)
_iam_resource = re.compile(rf"(?:role|user)/(?:{_LETTERS}+/){{0,64}}{_LETTERS}{{1,128}}")
_sts_resource = re.compile(rf"(?:assumed-role/{_LETTERS}{{1,128}}|federated-user)/{_LETTERS}{{1,64}}")


@frozen
class Arn:
    """An identity."""

    partition: str
    service: str
    account: str
    resource: str
    """Like role/NAME, user/PATH/NAME, assumed-role/NAME/SESSION."""

    @classmethod
    def parse(cls, text: str) -> Arn:
        """Read an ARN. Raises ValueError for what is none of an identity."""
        found = _arn_form.fullmatch(text) if len(text) <= MAX_ARN else None
        if found is None:
            raise ValueError("this is not the ARN of a role, a user or a session")
        arn = cls(**found.groupdict())
        form = _iam_resource if arn.service == "iam" else _sts_resource
        if not form.fullmatch(arn.resource):
            raise ValueError("this is not the ARN of a role, a user or a session")
        return arn

    @property
    def role(self) -> Arn | None:
        """The role of a session, without its path; None for what is no session of a role."""
        kind, _, rest = self.resource.partition("/")
        if self.service != "sts" or kind != "assumed-role":
            return None
        return Arn(self.partition, "iam", self.account, f"role/{rest.partition('/')[0]}")

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}::{self.account}:{self.resource}"


@frozen
class ArnPattern:
    """Some identities of one account."""

    arn: Arn
    """With an asterisk for each wildcard."""

    @classmethod
    def parse(cls, text: str) -> ArnPattern:
        """Read a pattern. Raises ValueError, in words of what is wrong."""
        head, slash, last = text.rpartition("/")
        if "*" in head or "?" in text:
            raise ValueError("wildcards may only be in the last part, and there only *")
        # A letter that every part may have stands in, so that what is around the wildcards is checked.
        plain = Arn.parse(f"{head}{slash}{last.replace('*', '_')}")
        prefix = str(plain)[: len(text) - len(last)]
        return cls(Arn(plain.partition, plain.service, plain.account, (prefix + last).split(":", 5)[5]))

    def matches(self, arn: Arn) -> bool:
        """Say whether it means this identity, or the role that this is a session of."""
        return any(self._is(one) for one in (arn, arn.role) if one is not None)

    def _is(self, arn: Arn) -> bool:
        own = self.arn
        if (own.partition, own.service, own.account) != (arn.partition, arn.service, arn.account):
            return False
        form = "[^/:]*".join(map(re.escape, own.resource.split("*")))
        return re.fullmatch(form, arn.resource) is not None
