"""What is to be done: what the pools decide, for those who perform it."""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen

from pgproxy.pool.lane import Lane
from pgproxy.pool.states import CloseReason, Server
from pgproxy.wire.errors import Complaint

Client = TypeVar("Client")


@frozen
class Open:
    """Open this server."""

    server: Server


@frozen
class Link(Generic[Client]):
    """Give this server to this client."""

    client: Client
    server: Server


@frozen
class Close:
    """Close this server's connection, and say `gone` when it has ended."""

    server: Server
    reason: CloseReason


@frozen
class Check:
    """Ask this server whether it is still there, and say `checked`, or close it."""

    server: Server


@frozen
class Refuse(Generic[Client]):
    """Tell this client that it gets no server."""

    lane: Lane[Client]
    client: Client
    complaint: Complaint


@frozen
class Expire(Generic[Client]):
    """Tell this client that it has waited long enough."""

    lane: Lane[Client]
    client: Client


Todo = Open | Link[Client] | Close | Check | Refuse[Client] | Expire[Client]
