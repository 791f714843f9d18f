"""The rows of the tables about clients: who is here, who is pinned and why, who waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgproxy.console.process import Process, Rows
from pgproxy.console.tables import Value
from pgproxy.console.values import ends, moment, replication, tls, whole_and_rest
from pgproxy.link.client import ClientConnection
from pgproxy.link.splice import Splice
from pgproxy.session.pins import words


def clients(process: Process) -> Iterator[list[Value]]:
    """
    Give a row for each client.

    Who has which server, and who waits, is looked at in one moment: else one server might be seen with two.
    """
    since, now = _waiting_since(process), process.now()
    links = [
        (
            client,
            began := since.get(client.splice),
            _client_state(client, began is not None),
            _server_of(client),
        )
        for client in sorted(process.front.clients, key=lambda client: client.number)
    ]
    for client, began, state, server in links:
        startup = client.startup
        if startup is None:
            continue
        wait = max(0.0, now - began) if began is not None else 0.0
        identity = process.id_of(client.number)
        reasons = client.pins.now if client.pins is not None else {}
        yield [
            "C",
            startup.user,
            startup.database,
            replication(dict(startup.parameters)),
            state,
            *ends(client.transport),
            moment(client.since, now),
            moment(began, now) if began is not None else None,
            *whole_and_rest(wait),
            0,
            str(identity),
            str(process.id_of(server)) if server is not None else "",
            None,
            tls(client.transport),
            dict(startup.parameters).get("application_name", ""),
            client.splice.talk.prepared if client.splice is not None else 0,
            identity,
            process.number,
            ", ".join(words(frozenset(reasons))),
        ]


def _waiting_since(process: Process) -> dict[Any, float]:
    return {
        client: waiter.since
        for _target, pool, _lender in process.lenders()
        for lane in pool.lanes.values()
        for client, waiter in lane.waiters.items()
    }


def _client_state(client: ClientConnection, waits: bool) -> str:
    if client.visit is not None:
        return "active"
    if client.splice is None:
        return "login"
    if waits:
        return "waiting"
    return "active" if client.splice.server is not None else "idle"


def _server_of(client: ClientConnection) -> int | None:
    server = client.splice.server if client.splice is not None else None
    return server.record.number if server is not None else None


def pins(process: Process) -> Rows:
    """Give a row for each reason that keeps a client on its server."""
    now = process.now()
    rows: Rows = []
    for client in sorted(process.front.clients, key=lambda client: client.number):
        startup, splice = client.startup, client.splice
        if client.pins is None or startup is None or splice is None:
            continue
        for reason, (since, digest) in client.pins.now.items():
            rows.append(
                [
                    process.id_of(client.number),
                    startup.database,
                    startup.user,
                    reason.value,
                    digest,
                    moment(since, now),
                    round(max(0.0, now - since), 3),
                    splice.server.pid if splice.server is not None else None,
                    process.number,
                ]
            )
    return rows


def queue(process: Process) -> Rows:
    """Give a row for each client that waits for a server."""
    now, here = process.now(), process.by_splice()
    rows: Rows = []
    for _target, pool, lender in process.lenders():
        waiting = [
            (waiter.since, here[splice])
            for lane in pool.lanes.values()
            for splice, waiter in lane.waiters.items()
            if isinstance(splice, Splice) and splice in here
        ]
        for since, client in sorted(waiting, key=lambda one: one[0]):
            assert client.splice is not None
            detail, hint = lender.account(client.splice)
            waits_for = "RESUME" if pool.paused else f"a server of pool {lender.names[0]}/{lender.names[1]}"
            rows.append(
                [
                    process.id_of(client.number),
                    *lender.names,
                    waits_for,
                    moment(since, now),
                    round(max(0.0, now - since), 3),
                    detail,
                    hint,
                    process.number,
                ]
            )
    return rows
