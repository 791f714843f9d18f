"""
Clients at work, in a process of their own: `python -m tests.toil DIRECTORY`, started by `Toil`.

Each client does one thing again and again, thinks a while in between, and notes what it has sent and what
came of it (`ledger.Step`). Nothing is sent a second time: after an error a client goes on with the next thing
on the same connection, and one that was disconnected logs in again and goes on likewise. Each statement has a
token of its own, so that an answer of another shows.

Who waits for a server is no kind of client: behind a pool, those who work are more than there are servers.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import attrs

from bench.crowd import Crowd, Fatal, Gone, Peer, Script, Stuck, allow_open_files
from pgproxy.demo.process import DemoError, end, spawn, tail, wait_until
from pgproxy.wire import messages
from tests.cluster import Change, Host
from tests.ledger import Kind, Outcome, Row, Step, Verdict, judge
from tests.raw import SYNC, bind, execute, parse

_TABLE = "create table toil (client int, seq int, part int, token text)"
"""No unique key: what is done twice shall show."""
_ENOUGH = 3
"""Successes that a client has to have had behind the change before the work ends."""
_POLL = 0.02


@attrs.frozen
class Plan:
    """How many clients do what, and where. Times in seconds."""

    addresses: Sequence[tuple[str, int]]
    """Where they log in; with several, the first that takes writes is taken, as libpq does."""
    inserting: int = 60
    """INSERT ... RETURNING, each a transaction of its own."""
    selecting: int = 40
    """SELECT of a literal."""
    preparing: int = 20
    """The same by a statement that was prepared once, at the login."""
    transacting: int = 40
    """BEGIN, INSERT, pg_sleep, INSERT, COMMIT."""
    idle: int = 40
    """Set three settings and wait; they are asked for them in the end."""
    think: float = 0.1
    """Between two things that a client does, in the mean."""
    nap: float = 0.03
    """How long a transaction sleeps."""
    retry: float = 0.1
    """Between two attempts to log in."""
    patience: float = 20.0
    """After so long without an answer a client gives its connection up."""
    login_patience: float = 2.0
    """The same at its login."""
    limit: float = 60.0
    """How long all may take from when they are told to end."""
    user: str = "toil"
    database: str = "toil"

    @property
    def clients(self) -> int:
        """How many there are."""
        return self.inserting + self.selecting + self.preparing + self.transacting + self.idle


@attrs.frozen
class Outcomes:
    """What the clients have noted."""

    plan: Plan
    steps: list[Step]
    settings_lost: list[str]
    unfinished: int
    """Clients that had had no success behind the change when the time was up."""

    def judge(self, writer: Host, change: Change | None = None, *, until: float | None = None) -> Verdict:
        """Hold it against what the surviving writer has; see `ledger.judge`."""
        found = writer.execute("select client, seq, part from toil", dbname=self.plan.database)
        rows: list[Row] = [(row[0], row[1], row[2]) for row in found]
        return judge(
            self.steps,
            rows,
            change,
            until=until,
            nap=self.plan.nap,
            settings_lost=self.settings_lost,
        )


class Toil:
    """Clients that work from the start to `finish`. Their table has to be there: `lay_table`."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "toil.log"
        (directory / "plan.json").write_text(json.dumps(attrs.asdict(plan)))
        self._process = spawn(
            [sys.executable, "-m", "tests.toil", directory],
            log=self._log,
            cwd=Path(__file__).parent.parent,
        )

    def await_work(self, seconds: float = 60.0) -> None:
        """Wait until every client has logged in and had a success."""
        self._await("ready", seconds)

    def finish(self, since: float = 0.0) -> Outcomes:
        """End the work when each client has had successes behind a moment; gives what was."""
        order = self._directory / "order.new"
        order.write_text(str(since))
        order.rename(self._directory / "order")
        self._await("outcomes.json", self.plan.limit + 30)
        found = json.loads((self._directory / "outcomes.json").read_text())
        steps = [Step(*fields) for fields in found["steps"]]
        return Outcomes(self.plan, steps, found["settings_lost"], found["unfinished"])

    def close(self) -> None:
        """End it, whatever it does."""
        end(self._process, signal.SIGTERM, 5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await(self, name: str, seconds: float) -> None:
        path = self._directory / name
        wait_until(lambda: path.exists() or self._process.poll() is not None, seconds)
        if not path.exists():
            raise DemoError(f"no {name} of the clients at work in {seconds:.0f} s:\n{tail(self._log, 40)}")


def lay_table(writer: Host) -> None:
    """Make the table that clients work on, and empty."""
    writer.execute("drop table if exists toil", _TABLE, "alter table toil owner to toil", dbname="toil")


class _Team:
    """All clients, and what they have in common."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.steps: list[Step] = []
        self.settings_lost: list[str] = []
        self.since: float | None = None
        """Once they are to end: when the change was."""
        self.crowd = Crowd(plan.addresses[0][1], plan.patience)
        self._directory = directory
        self._limit = float("inf")
        kinds: list[tuple[int, Callable[[_Client], Script[None]]]] = [
            (plan.inserting, _Client.insert),
            (plan.selecting, _Client.select),
            (plan.preparing, _Client.prepared),
            (plan.transacting, _Client.transact),
        ]
        self.busy: list[_Client] = []
        self.all: list[_Client] = []
        for count, kind in kinds:
            for _ in range(count):
                client = _Client(self, len(self.all), prepares=kind is _Client.prepared)
                self.all.append(client)
                self.busy.append(client)
                self.crowd.add(client.work(kind), 0.002 * client.number)
        for _ in range(plan.idle):
            client = _Client(self, len(self.all))
            self.all.append(client)
            self.crowd.add(client.sit(), 0.002 * client.number)

    @property
    def is_over(self) -> bool:
        """Whether there is no more time."""
        return time.monotonic() > self._limit

    def run(self) -> None:
        """Have them work until they have done so, and write down what was."""
        self.crowd.add(self._lead())
        self.crowd.run(3600.0)
        outcomes = {
            "steps": [attrs.astuple(step) for step in self.steps],
            "settings_lost": self.settings_lost,
            "unfinished": sum(not client.has_finished for client in self.all),
        }
        result = self._directory / "outcomes.new"
        result.write_text(json.dumps(outcomes))
        result.rename(self._directory / "outcomes.json")

    def _lead(self) -> Script[None]:
        """Tell when all work, and look for the order to end."""
        while not all(client.successes >= client.needs for client in self.all):
            yield _POLL
        (self._directory / "ready").touch()
        order = self._directory / "order"
        while not order.exists():
            yield _POLL
        self._limit = time.monotonic() + self.plan.limit
        self.since = float(order.read_text())


class _Client:
    def __init__(self, team: _Team, number: int, *, prepares: bool = False) -> None:
        self.team = team
        self.plan = team.plan
        self.number = number
        self.successes = 0
        self.needs = 1
        """So many successes until it is at work."""
        self.has_finished = False
        self._prepares = prepares
        self._random = Random(number)
        self._peer: Peer | None = None
        self._was_served = False
        """Since its last login."""
        self._seq = 0
        self._late_successes = 0
        self._begun: tuple[int, float] | None = None
        """The transaction that it is in: the sequence number of its BEGIN, and when that was sent."""

    # What it does.

    def work(self, kind: Callable[[_Client], Script[None]]) -> Script[None]:
        """Do one kind of thing until enough of it was done."""
        while not self.has_finished and not self.team.is_over:
            if self._peer is None:
                yield from self._log_in()
                continue
            before = self.successes
            yield from kind(self)
            self.has_finished = self.team.since is not None and self._late_successes >= _ENOUGH
            if self.successes > before and not self.has_finished:
                yield self.plan.think * self._random.uniform(0.5, 1.5)
            elif self._peer is not None:
                yield 0.001  # the next thing, at once, and yet let others have a turn
            elif not self._was_served:
                yield self.plan.retry
        self._leave()

    def insert(self) -> Script[None]:
        token = self._token()
        query = f"insert into toil values ({self.number}, {self._seq + 1}, 0, '{token}') returning token"
        yield from self._say("insert", messages.query(query), token)

    def select(self) -> Script[None]:
        token = self._token()
        yield from self._say("select", messages.query(f"select '{token}'"), token)

    def prepared(self) -> Script[None]:
        token = self._token()
        yield from self._say("select", bind("ask", values=[token]) + execute() + SYNC, token)

    def transact(self) -> Script[None]:
        if not (yield from self._say("begin", messages.query("begin"))):
            return
        seq = self._seq
        for part in (0, 1):
            token = self._token()
            query = f"insert into toil values ({self.number}, {seq}, {part}, '{token}') returning token"
            if not (yield from self._say("work", messages.query(query), token)):
                break
            if part == 0:
                nap = messages.query(f"select pg_sleep({self.plan.nap})")
                if not (yield from self._say("nap", nap)):
                    break
        else:
            yield from self._say("commit", messages.query("commit"))
        if self._begun is not None:
            yield from self._say("rollback", messages.query("rollback"))

    def sit(self) -> Script[None]:
        """Have settings, wait, and ask for them in the end."""
        # The answer to the statement behind them says that it is known what they have left.
        self.needs = 2
        mine = [f"idle-{self.number}", f"{4096 + self.number}kB", self._token()]
        names = ["application_name", "work_mem", "toil.mine"]
        set_all = ";".join(f"set {name} = '{value}'" for name, value in zip(names, mine, strict=True))
        while self._peer is None and not self.team.is_over:
            yield from self._log_in()
        yield from self._say("set", messages.query(set_all))
        yield from self.select()
        while self.team.since is None or any(not client.has_finished for client in self.team.busy):
            if self.team.is_over:
                break
            yield _POLL
        asked = "||'/'||".join(f"current_setting('{name}', true)" for name in names)
        while not self.has_finished and not self.team.is_over:
            if self._peer is None:
                yield from self._log_in()
                continue
            found: list[str | None] = []
            self.has_finished = yield from self._say("ask", messages.query(f"select {asked}"), found=found)
            if self.has_finished and found != ["/".join(mine)]:
                self.team.settings_lost.append(f"client {self.number}: {found} and not {'/'.join(mine)}")
            elif not self.has_finished:
                self.team.settings_lost.append(f"client {self.number}: the question has failed")
                self.has_finished = True
        self._leave()

    # How it does that.

    def _token(self) -> str:
        return f"{self.number}-{self._seq + 1}-{self._random.getrandbits(32):08x}"

    def _log_in(self) -> Script[None]:
        """Log in at the first address that takes writes; where there is none, wait a little."""
        for address in self.plan.addresses:
            self._seq += 1
            began = time.monotonic()
            peer = Peer(self.team.crowd, address)
            peer.patience = self.plan.login_patience
            try:
                yield from peer.log_in(self.plan.user, self.plan.database)
            except (Fatal, Gone, Stuck) as error:
                peer.leave(politely=False)
                self._note("login", began, "lost", *_reason(error))
                continue
            if len(self.plan.addresses) > 1 and peer.reported.get("in_hot_standby") == "on":
                peer.leave()
                self._note("login", began, "lost", "read-only", "a standby")
                continue
            self._peer = peer
            if self._prepares:
                peer.send(parse("select $1::text", "ask"), SYNC)
                try:
                    yield from peer.until("Z")
                except (Fatal, Gone, Stuck) as error:
                    self._lose()
                    self._note("login", began, "lost", *_reason(error))
                    continue
            peer.patience = self.plan.patience
            self._note("login", began, "ok")
            return
        yield self.plan.retry

    def _say(
        self, kind: Kind, data: bytes, want: str | None = None, found: list[str | None] | None = None
    ) -> Script[bool]:
        """Send something, wait for its end, note it; gives whether it was a success."""
        peer = self._peer
        if peer is None:
            return False
        self._seq += 1
        began = time.monotonic()
        if kind == "begin":
            self._begun = self._seq, began
        peer.send(data)
        try:
            answer = yield from peer.until("Z")
        except (Fatal, Gone, Stuck) as error:
            self._note(kind, began, "lost", *_reason(error))
            self._lose()
            return False
        values = [_first_value(payload) for tag, payload in answer if tag == "D"]
        status = answer[-1][1].decode()
        fault = next((messages.read_error_fields(payload) for tag, payload in answer if tag == "E"), None)
        if found is not None:
            found.extend(values)
        if fault is not None:
            said = f"{fault.get('M')} {fault.get('H', '')}".strip()
            self._note(kind, began, "error", fault["C"], said, status=status)
        else:
            is_right = want is None or values == [want]
            confirmed = kind == "insert" or (kind == "commit" and ("C", b"COMMIT\0") in answer)
            warned = any(tag == "N" for tag, _ in answer)
            self._note(
                kind,
                began,
                "ok" if is_right else "wrong",
                said="" if is_right else f"{values} and not {want}",
                status=status,
                acknowledged=confirmed,
                warned=warned,
            )
        if status == "I":
            self._begun = None
        return fault is None

    def _note(
        self,
        kind: Kind,
        began: float,
        outcome: Outcome,
        code: str = "",
        said: str = "",
        *,
        status: str = "",
        acknowledged: bool = False,
        warned: bool = False,
    ) -> None:
        first, transaction = self._begun or (0, None)
        ended = time.monotonic()
        if kind == "login":
            self._was_served = False
        elif outcome == "ok":
            self._was_served = True
            self.successes += 1
            self._late_successes += self.team.since is not None and began >= self.team.since
        self.team.steps.append(
            Step(
                *(self.number, kind, self._seq, began, ended, outcome, code, said, status),
                *(acknowledged, warned, transaction, first),
            )
        )

    def _lose(self) -> None:
        if self._peer is not None:
            self._peer.leave(politely=False)
        self._peer = self._begun = None

    def _leave(self) -> None:
        if self._peer is not None:
            self._peer.leave()
        self._peer = None


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, Fatal):
        return error.fields.get("C", ""), error.fields.get("M", "")
    return ("timeout" if isinstance(error, Stuck) else ""), ""


def _first_value(payload: bytes) -> str | None:
    size = int.from_bytes(payload[2:6], "big", signed=True)
    return None if size < 0 else payload[6 : 6 + size].decode()


def main(arguments: Sequence[str]) -> None:
    """Work as the plan in a directory says."""
    directory = Path(arguments[0])
    found = json.loads((directory / "plan.json").read_text())
    addresses = [(str(host), int(port)) for host, port in found.pop("addresses")]
    plan = Plan(addresses=addresses, **found)
    allow_open_files(plan.clients + 100)
    _Team(plan, directory).run()


if __name__ == "__main__":
    main(sys.argv[1:])
