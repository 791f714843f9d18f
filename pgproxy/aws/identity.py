"""
Whom a key of aws.iam.identities means: an ARN, and perhaps a claim that AWS makes of its bearer.

The law:

1. The ARN comes first, and always counts: a claim of the same words from another account is another one.
2. After a space, `principal_tags/KEY=VALUE` or `org_id=VALUE`: what the token's https://sts.amazonaws.com/
   says. Both are compared to the letter, and have no wildcards.
3. `request_tags` are no claim: who asks for the token chooses them.
4. Who has shown no JWT makes no claims.

Documentation: IAM User Guide, "Understanding token claims".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from pgproxy.aws.arn import Arn, ArnPattern

_TAGS, _ORGANISATION = "principal_tags", "org_id"
_FORM = "behind the ARN there may be one of principal_tags/KEY=VALUE and org_id=VALUE, without wildcards"


@frozen
class IdentityPattern:
    """Some identities of one account, with a claim or without."""

    arn: ArnPattern
    claim: tuple[str, ...] = ()
    """The names on the way to it."""
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> IdentityPattern:
        """Read a key. Raises ValueError, in words of what is wrong."""
        arn, space, rest = text.partition(" ")
        pattern = ArnPattern.parse(arn)
        if not space:
            return cls(pattern)
        name, _, value = rest.partition("=")
        kind, slash, tag = name.partition("/")
        if not value or "*" in rest or not ((kind == _TAGS and tag) or (kind == _ORGANISATION and not slash)):
            raise ValueError(_FORM)
        return cls(pattern, (kind, tag) if slash else (kind,), value)

    @property
    def needs_claims(self) -> bool:
        """Whether only a JWT can fulfil it."""
        return bool(self.claim)

    def matches(self, arn: Arn, claims: Mapping[str, Any]) -> bool:
        """Say whether it means this identity; `claims` are AWS's own of a JWT that is verified."""
        if not self.arn.matches(arn):
            return False
        if not self.claim:
            return True
        found: Any = claims
        for name in self.claim:
            found = found.get(name) if isinstance(found, Mapping) else None
        return isinstance(found, str) and found == self.value
