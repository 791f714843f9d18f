"""Opens a server with one key of the vault after the other, until one fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from pgproxy.auth.secrets import Credentials
from pgproxy.link.server import OpenFailed, ServerConnection
from pgproxy.link.vault import Vault, VaultClosed
from pgproxy.pool.trouble import Cause, Stage

AFTER_LOGIN_FAILED = 0.1
"""Seconds until a server process that has refused us is taken to have given back its place."""


async def open_with_keys(
    reactor: Any,
    vault: Vault,
    user: str,
    make: Callable[[Credentials], ServerConnection],
    attempt: Callable[[ServerConnection], Deferred[ServerConnection]],
) -> ServerConnection:
    """
    Give a server that is logged in to. Raises `OpenFailed`, with what the first refusal said.

    `make` makes a connection, not yet opened; `attempt` opens it within its time. Cancelling the Deferred of
    this coroutine ends what is under way.
    """
    refused: list[Credentials] = []
    why: OpenFailed | None = None
    while True:
        asking = make(Credentials())
        asking.stage = Stage.LOGIN
        try:
            key = await vault.key(user, asking.host, refused)
        except CancelledError as error:
            raise OpenFailed(asking.trouble(Cause.KEY_UNKNOWN, "not wanted any more")) from error
        except VaultClosed as error:
            raise OpenFailed(asking.trouble(Cause.KEY_UNKNOWN, str(error))) from error
        if key is None:
            raise why or OpenFailed(asking.trouble(Cause.NO_SECRET, "no password is known for this user"))
        try:
            opened = await attempt(make(key))
        except OpenFailed as error:
            if not error.trouble.key_refused:
                raise
            why = why or error
            refused.append(key)
            asking.log.info("server_refused_key", keys_tried=len(refused))
            try:
                await deferLater(reactor, AFTER_LOGIN_FAILED)
            except CancelledError:
                raise error from None
        else:
            vault.fits(user, key)
            return opened
