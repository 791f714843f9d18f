"""Performs the console's commands: asks all processes, and makes one table of what they say."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from pgproxy import __version__
from pgproxy.config import Config
from pgproxy.config.adjust import changeable
from pgproxy.console import columns, stats
from pgproxy.console.chatter import Chat
from pgproxy.console.columns import SHOWN
from pgproxy.console.commands import Act, Command, Set, Show, help_rows
from pgproxy.console.company import Company, Refused, Reply, Request, error_of, refuse
from pgproxy.console.parts import next_turn
from pgproxy.console.tables import Row, Table, Value, merged
from pgproxy.console.talk import Done
from pgproxy.link.front import CONSOLE
from pgproxy.wire.errors import Complaint, Refusal, complaint

_STEP = 0.05
"""Seconds between two looks whether a PAUSE is done."""
_FIGURES = frozenset({"stats", "stats_totals", "stats_averages", "statements"})
"""Tables that are made of what is counted."""
_PGBOUNCERS = {
    "max_client_conn": "proxy.max_client_connections",
    "default_pool_size": "proxy.pool_size",
    "pool_mode": "proxy.pool_mode",
    "min_pool_size": "proxy.min_pool_size",
    "server_lifetime": "proxy.server_lifetime",
    "server_idle_timeout": "proxy.server_idle_timeout",
    "query_wait_timeout": "proxy.connection_borrow_timeout",
    "max_prepared_statements": "proxy.max_prepared_statements",
}
"""Options that PgBouncer's tools look for by its own names."""

_CANCELED = Refusal("57014", "canceling statement due to user request", severity="ERROR")
_NO_SUCH_DATABASE = Refusal(
    "3D000", 'there is no database "{name}"', "SHOW DATABASES lists them. {hint}", severity="ERROR"
)
_NOT_THE_CONSOLE = Refusal("22023", "the console itself cannot be had to {verb}", severity="ERROR")
_NO_SUCH_CLIENT = Refusal(
    "22023", 'there is no client "{name}"', "Take the id that SHOW CLIENTS gives.", severity="ERROR"
)
_NO_SUCH_TARGET = Refusal(
    "42704", 'there is no target "{name}"', "SHOW TARGETS lists them.", severity="ERROR"
)
_ONE_HOST = Refusal(
    "55000",
    'target "{name}" has one host only',
    "There is no other that could become its writer.",
    severity="ERROR",
)
_STILL_IN_USE = Refusal(
    "55006",
    "{servers} servers are still in use, so nothing is paused",
    "A transaction, a pin or a client in session mode holds them: SHOW POOLS, SHOW PINS and SHOW CLIENTS say "
    "more. PAUSE and SWITCHOVER wait for connection_borrow_timeout ({seconds} s), as clients that wait for "
    "them fail then.",
    severity="ERROR",
)


class Desk:
    """Whom the users of one process's console speak to."""

    def __init__(self, company: Company, reactor: Any, log: FilteringBoundLogger) -> None:
        self._company = company
        self._reactor = reactor
        self._log = log

    def next_turn(self) -> Deferred[None]:
        """Fire in the reactor's next turn, when other clients have had theirs."""
        return next_turn(self._reactor)

    async def perform(self, command: Command, user: str) -> Done | Complaint:
        """Do what a command says, in the reactor's next turn; what is wrong with it comes back."""
        try:
            # One message may hold a thousand commands: other clients have their turn between them.
            await self.next_turn()
            match command:
                case Show(what):
                    return Done("SHOW", Table(SHOWN[what], tuple(await self._table(what))))
                case Act(verb, name):
                    self._log.info("console_command", user=user, command=verb, name=name)
                    return await self._act(verb, name)
                case Set(path, value):
                    self._log.info("console_command", user=user, command="set", name=path, value=value[:200])
                    _check(await self._company.head({"set": [path, value]}))
                    return Done("SET")
                case Chat():
                    raise TypeError(command)
        except Refused as refused:
            return refused.why
        except CancelledError:
            return complaint(_CANCELED)

    # Showing.

    async def _table(self, what: str) -> list[Row]:
        match what:
            case "help":
                return list(help_rows())
            case "version":
                return [(f"pgproxy {__version__}",)]
            case "config":
                return list(config_rows(self._company.config))
            case "history" | "secrets":
                # Each process watches and reads for itself, and sees the same.
                replies = await self._company.everybody({"rows": what})
                return list(replies[0].get("rows", ())) if replies else []
            case "state":
                return await self._state()
        if what in _FIGURES:
            replies = await self._company.everybody({"figures": True})
            return stats.rows(what, [reply["figures"] for reply in replies if "figures" in reply])
        replies = await self._company.everybody({"rows": what})
        rows = merged(SHOWN[what], (row for reply in replies for row in reply.get("rows", ())))
        if what == "lists":
            for row in rows:
                if row[0] in ("databases", "users", "pools"):
                    # The same one may be in several workers.
                    of = str(row[0])
                    row[1] = len(merged(SHOWN[of], await self._rows(of)))
        if what in ("workers", "targets"):
            head = await self._company.head({"posts": True})
            if what == "workers":
                rows = _with_posts(rows, {post["worker"]: post for post in head["posts"]})
            elif "budgets" in head:
                rows = _with_budgets(rows, head["budgets"])
        return list(rows)

    async def _state(self) -> list[Row]:
        databases = merged(columns.DATABASES, await self._rows("databases"))
        paused = [column.name for column in columns.DATABASES].index("paused")
        stopping = (await self._company.head({"posts": True}))["stopping"]
        return [
            ("active", _yes(not stopping and not any(row[paused] for row in databases))),
            ("paused", _yes(any(row[paused] for row in databases))),
            ("suspended", "no"),
            ("shutting_down", _yes(stopping)),
        ]

    async def _rows(self, what: str) -> list[list[Value]]:
        replies = await self._company.everybody({"rows": what})
        return [row for reply in replies for row in reply.get("rows", ())]

    # Acting.

    async def _act(self, verb: str, name: str) -> Done | Complaint:
        match verb:
            case "reload" | "shutdown" | "shutdown_wait_for_servers" | "shutdown_wait_for_clients":
                _check(await self._company.head({"act": verb}))
            case "switchover":
                if name not in self._company.config.targets:
                    raise refuse(_NO_SUCH_TARGET, name=name)
                if not self._company.config.targets[name].has_several_hosts:
                    raise refuse(_ONE_HOST, name=name)
                await self._everybody({"act": "drain", "name": name})
                await self._emptied(name, "undrained", "undrain")
            case "kill_client":
                await self._kill_client(name)
            case _:
                await self._check_database(verb, name)
                await self._everybody({"act": verb, "name": name})
                if verb == "pause":
                    await self._emptied(name, "left", "resume")
        return Done(verb.upper().partition("_WAIT")[0])

    async def _everybody(self, request: Request) -> list[Reply]:
        replies = await self._company.everybody(request)
        for reply in replies:
            _check(reply)
        return replies

    async def _check_database(self, verb: str, name: str) -> None:
        config = self._company.config
        if name in CONSOLE and name not in config.databases:
            raise refuse(_NOT_THE_CONSOLE, verb=verb)
        if name and config.database(name) is None:
            near = difflib.get_close_matches(name, config.databases, n=1)
            raise refuse(_NO_SUCH_DATABASE, name=name, hint=f"Did you mean {near[0]}?" if near else "")

    async def _emptied(self, name: str, question: str, revocation: str) -> None:
        """Wait until no server is left of what was paused; where that takes too long it goes on."""
        seconds = self._company.config.proxy.connection_borrow_timeout
        end = self._reactor.seconds() + seconds
        try:
            while servers := sum(
                reply.get("servers", 0) for reply in await self._everybody({"act": question, "name": name})
            ):
                if self._reactor.seconds() >= end:
                    raise refuse(_STILL_IN_USE, servers=servers, seconds=f"{seconds:g}")
                await deferLater(self._reactor, _STEP)
        except (CancelledError, Refused):
            await self._company.everybody({"act": revocation, "name": name})
            raise

    async def _kill_client(self, name: str) -> None:
        if not (name.isascii() and name.isdigit()) or len(name) > 18:
            raise refuse(_NO_SUCH_CLIENT, name=name)
        replies = await self._everybody({"act": "kill_client", "name": name})
        if not any(reply.get("found") for reply in replies):
            raise refuse(_NO_SUCH_CLIENT, name=name)


def _check(reply: Reply) -> None:
    why = error_of(reply)
    if why is not None:
        raise Refused(why)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _with_posts(rows: list[list[Value]], posts: dict[int, dict[str, Any]]) -> list[list[Value]]:
    """Enter when workers were started, and those that have not answered."""
    names = [column.name for column in columns.WORKERS]
    since, number = names.index("since"), names.index("worker")
    for row in rows:
        post = posts.pop(int(row[number] or 0), None)
        row[since] = post["since"] if post is not None else None
    for worker, post in posts.items():
        rows.append([worker, post["pid"], "starting", post["since"], 0, 0, 0, 0.0, 0])
    return sorted(rows, key=lambda row: int(row[number] or 0))


def _with_budgets(rows: list[list[Value]], budgets: dict[str, int]) -> list[list[Value]]:
    """Enter how many servers targets may have where workers share them."""
    most = [column.name for column in columns.TARGETS].index("max_servers")
    for row in rows:
        row[most] = budgets.get(str(row[0]), 0)
    return rows


def config_rows(config: Config) -> Iterator[Row]:
    """Give the options in force, by their paths, and behind them some by PgBouncer's names."""
    shown = {}
    for path, value, default in _options(config, Config(), ()):
        shown[path] = value, default, _yes(changeable(path))
        yield path, *shown[path]
    for name, path in _PGBOUNCERS.items():
        yield name, *shown[path]
    yield "max_user_connections", "0", "0", "no"


def _options(table: Any, default: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, str | None]]:
    for one in attrs.fields(type(table)):
        value = getattr(table, one.name, None)
        usual: Any = getattr(default, one.name, None) if default is not None else one.default
        if isinstance(usual, attrs.Factory):  # type: ignore[arg-type]
            usual = usual.factory()
        here = (*path, one.name)
        if attrs.has(type(value)) and not one.metadata:
            yield from _options(value, usual, here)
        elif isinstance(value, dict) and not one.metadata:
            for key, entry in value.items():
                yield from _options(entry, None, (*here, key))
        else:
            yield ".".join(here), _shown(value), None if usual is attrs.NOTHING else _shown(usual)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    return str(value)
