"""Those whom a console speaks for: all processes that carry clients, and the one that is their head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import frozen

from pgproxy.config import Config
from pgproxy.wire.errors import Complaint, Refusal, complaint

Request = dict[str, Any]
"""What JSON can carry: between workers it does."""
Reply = dict[str, Any]


class Company(Protocol):
    """All processes of one pgproxy."""

    @property
    def config(self) -> Config:
        """The configuration in force, as the operator has written it."""

    async def everybody(self, request: Request) -> list[Reply]:
        """Have each process that carries clients answer a request; give the replies of those that could."""

    async def head(self, request: Request) -> Reply:
        """Have the one answer that reads the configuration, and stops all."""


@frozen
class Refused(Exception):
    """A request can't be done, and why."""

    why: Complaint


def refuse(refusal: Refusal, detail: str = "", hint: str = "", **names: object) -> Refused:
    """Make the exception for one of the errors."""
    return Refused(complaint(refusal, detail, hint, **names))


def as_reply(why: Complaint) -> Reply:
    """Give an error the form of a reply."""
    return {"error": [why.sqlstate, why.text, why.detail, why.hint]}


def error_of(reply: Mapping[str, Any]) -> Complaint | None:
    """Give the error that a reply is, if it is one."""
    if "error" not in reply:
        return None
    sqlstate, text, detail, hint = reply["error"]
    return Complaint("ERROR", sqlstate, text, detail, hint)
