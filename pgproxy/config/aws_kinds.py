"""The kinds of value that the options of [aws] take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

from pgproxy.config.kinds import Unfit, each_once
from pgproxy.config.problems import shown

Verifier = Literal["rds-db", "sts-caller-identity", "web-identity"]
VERIFIERS: tuple[Verifier, ...] = ("rds-db", "sts-caller-identity", "web-identity")

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
_SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]{1,519}"
)
_SECRET_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_TAG = re.compile(r"[^=\0]{1,128}=[^\0]{0,256}")
ISSUER = re.compile(r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~-]{1,100}){0,5}")
LOCAL_ISSUER = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}(/[A-Za-z0-9._~-]{1,100}){0,5}")
SERVER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,252}")
NAMESPACE = re.compile(r"(?!AWS/)[A-Za-z0-9./_#:-]{1,255}")


@frozen
class SecretSource:
    """Which secrets are meant."""

    kind: Literal["name", "prefix", "tag"]
    value: str
    """An ARN or a name; how names begin; KEY=VALUE."""

    def takes(self, name: str, tags: Mapping[str, str]) -> bool:
        """Say whether a secret is one of them."""
        match self.kind:
            case "name":
                return name == self.value
            case "prefix":
                return name.startswith(self.value)
            case "tag":
                key, _, value = self.value.partition("=")
                return tags.get(key) == value


@frozen
class SecretSources:
    """Secrets, each by itself or many at a time."""

    words: str = (
        'an array of secrets: ARNs, "name:NAME", "prefix:BEGINNING" for all whose name begins so, '
        '"tag:KEY=VALUE" for all with this tag'
    )

    def read(self, value: object, directory: Path) -> tuple[SecretSource, ...]:
        """Give what is meant. Raises `Unfit`."""
        values = value if isinstance(value, list) else [value]
        return each_once(map(_source, values)) if values else ()


def _source(value: object) -> SecretSource:
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is not a text")
    if _SECRET_ARN.fullmatch(value):
        return SecretSource("name", value)
    kind, _, rest = value.partition(":")
    if kind == "name" and _SECRET_NAME.fullmatch(rest):
        return SecretSource("name", rest)
    if kind == "prefix" and _SECRET_NAME.fullmatch(rest):
        return SecretSource("prefix", rest)
    if kind == "tag" and _TAG.fullmatch(rest):
        return SecretSource("tag", rest)
    raise Unfit(f"{shown(value)} is neither the ARN of a secret nor one of the other forms")


@frozen
class Text:
    """A text of a certain form; "" is none where that is allowed."""

    words: str
    form: re.Pattern[str]

    def read(self, value: object, directory: Path) -> str:
        """Give the text. Raises `Unfit`."""
        if not isinstance(value, str) or (value and not self.form.fullmatch(value)):
            raise Unfit(f"{shown(value)} is not of this form")
        return value


@frozen
class Texts:
    """An array of texts of a certain form."""

    words: str
    forms: tuple[re.Pattern[str], ...]

    def read(self, value: object, directory: Path) -> tuple[str, ...]:
        """Give the texts. Raises `Unfit`."""
        found = []
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str) or not any(form.fullmatch(one) for form in self.forms):
                raise Unfit(f"{shown(one)} is not of this form")
            found.append(one)
        return each_once(found) if found else ()


@frozen
class Verifiers:
    """Ways to verify a token."""

    words: str = "an array of " + ", ".join(map(shown, VERIFIERS))

    def read(self, value: object, directory: Path) -> tuple[Verifier, ...]:
        """Give the ways. Raises `Unfit`."""
        found: list[Verifier] = []
        for one in value if isinstance(value, list) else [value]:
            known = [verifier for verifier in VERIFIERS if verifier == one]
            if not known:
                raise Unfit(f"{shown(one)} is none of them")
            found += known
        return each_once(found) if found else ()
