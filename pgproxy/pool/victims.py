"""Whose idle servers are closed, so that somebody else gets one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pgproxy.pool.budget import Account
from pgproxy.pool.lane import Lane
from pgproxy.pool.states import Server

Client = TypeVar("Client")


def victims(
    lanes: Iterable[Lane[Client]],
    lane: Lane[Client],
    full: list[Account],
    may_lose: Callable[[Lane[Client], Lane[Client]], bool],
) -> list[Server]:
    """
    Choose idle servers whose end makes room for `lane` within all limits that are `full`.

    None is chosen if that can't be. `may_lose` says whether one lane's servers may be closed for another.
    """
    at_hand = [other for other in lanes if other.idle and may_lose(other, lane)]
    chosen: list[Server] = []
    for account in full:
        if any(account in server.lane.accounts for server in chosen):
            continue
        found = [_first(other.idle) for other in at_hand if account in other.accounts]
        if not found:
            return []
        chosen.append(min(found, key=rank))
    return chosen


def _first(idle: list[Server]) -> Server:
    """Give the lowest in rank of those of a lane, which are in the order of their turns."""
    return next((server for server in idle if server.session.reserved is None), idle[0])


def rank(server: Server) -> tuple[bool, int]:
    """Say which one is missed least: the one idle longest of those that nobody may come back to."""
    return server.session.reserved is not None, server.turn
