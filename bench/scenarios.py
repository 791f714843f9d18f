"""What is measured: the scenarios, and the order in which the routes take their turns at them."""

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType

import psycopg
from attrs import define, evolve, field, frozen

from bench import pgbench, processes
from bench.pgbench import Access, PgbenchError, Run
from bench.processes import Pooler, PoolMode, Setup, StartError

POOL_SIZE = 20
_SETTLE_SECONDS = 1.0
"""Seconds from the last client's query to the look at the memory."""
_CONNECT_SECONDS = 0.1
"""Seconds that each idle client gets to connect, on average."""
_CONNECTING_TOGETHER = 8
"""Idle clients that connect at the same time."""
_CROWD_TRANSACTIONS = 30
"""Transactions that each client of a crowd makes for each second of a turn: about as many as it can."""
_SPARE_CLIENTS = 200
"""How many clients more a pooler is allowed than are wanted: those of before may not have gone yet."""


class Route(StrEnum):
    """The way from pgbench to PostgreSQL."""

    DIRECT = "direct"
    PGPROXY = "pgproxy"
    PURE = "pgproxy, pure"
    """Without its compiled twin."""
    WORKERS = "pgproxy, 2 workers"
    PGBOUNCER = "pgbouncer"


class Metric(StrEnum):
    """A figure, and its unit."""

    CPU = "CPU µs/query"
    THROUGHPUT = "transactions/s"
    P50 = "p50 ms"
    P99 = "p99 ms"
    CONNECTING = "connecting ms"
    MEMORY = "KiB/idle client"


Sample = Mapping[Metric, float]


class Sort(StrEnum):
    """What of a figure has a bar."""

    TIMES = "÷ pgbouncer's"
    ADDED = "more than direct, ÷ pgbouncer's"
    """What it has more than the direct way, beside what PgBouncer has more."""
    ITSELF = "itself"


@frozen
class Bar:
    """What one route is built to reach in a scenario: throughput at least, anything else at most."""

    route: Route
    metric: Metric
    limit: float
    sort: Sort = Sort.TIMES


@frozen
class Scenario:
    """One thing that pgbench is made to do; without arguments for it, clients that do nothing."""

    name: str
    title: str
    pool_mode: PoolMode
    tls: bool
    arguments: tuple[str, ...] = ()
    queries: int = 1
    """Queries that the proxy carries per transaction."""
    script: str = ""
    """What pgbench is made to say, if it is nothing of its own."""
    server_tls: bool = False
    bars: tuple[Bar, ...] = ()
    clients: int | None = None
    """How many pgbench has, if this is about their number."""
    beside: str = ""
    """The scenario whose PgBouncer counts, where PgBouncer can't do this one."""

    @property
    def routes(self) -> list[Route]:
        """The ways that are measured."""
        wanted = {Route.PGPROXY, Route.PGBOUNCER, *(bar.route for bar in self.bars)}
        # Idle clients without a pooler cost no pooler anything, and a crowd would need a server for each.
        if not self.idle and (self.clients or 0) <= POOL_SIZE:
            wanted.add(Route.DIRECT)
        return [route for route in Route if route in wanted]

    @property
    def connects(self) -> bool:
        """Whether each transaction has a connection of its own."""
        return "-C" in self.arguments

    @property
    def idle(self) -> bool:
        """Whether the clients do nothing."""
        return not self.arguments and not self.script


_MARKED = """\\set aid random(1, 100000)
\\set trace random(100000000, 999999999)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid /*action='show',traceparent='00-:trace:trace-01'*/;
"""
_ROWS = "SELECT * FROM generate_series(1, 100000);\n"


def _cpu(limit: float, pure: float | None = None) -> tuple[Bar, ...]:
    """Say what a query may cost, with the compiled twin and without."""
    bars = (Bar(Route.PGPROXY, Metric.CPU, limit),)
    return bars if pure is None else (*bars, Bar(Route.PURE, Metric.CPU, pure))


def _two_workers(limit: float) -> Bar:
    return Bar(Route.WORKERS, Metric.THROUGHPUT, limit)


def _memory(kib: float) -> tuple[Bar, ...]:
    return (Bar(Route.PGPROXY, Metric.MEMORY, kib, Sort.ITSELF),)


_PLAIN = (
    Scenario("select", "-S", "transaction", False, ("-S",), bars=(*_cpu(1.0, 1.5), _two_workers(1.5))),
    Scenario("select-session", "-S", "session", False, ("-S",)),
    # BEGIN, an UPDATE, a SELECT, two UPDATEs, an INSERT, END
    Scenario("tpcb", "TPC-B", "transaction", False, ("-b", "tpcb-like"), queries=7),
    Scenario(
        "extended", "-S -M extended", "transaction", False, ("-S", "-M", "extended"), bars=_cpu(1.0, 1.5)
    ),
    Scenario(
        "prepared",
        "-S -M prepared",
        "transaction",
        False,
        ("-S", "-M", "prepared"),
        bars=_cpu(1.0),
        beside="extended",
    ),
    Scenario("prepared-session", "-S -M prepared", "session", False, ("-S", "-M", "prepared")),
    Scenario("marked", "-S, each with a comment", "transaction", False, script=_MARKED),
    Scenario("rows", "100,000 rows", "transaction", False, script=_ROWS, bars=_cpu(1.0)),
    Scenario("servers", "-S, servers in TLS", "transaction", False, ("-S",), server_tls=True),
    Scenario("connect", "-S -C (connections)", "transaction", False, ("-S", "-C"), bars=(_two_workers(1.0),)),
    Scenario("idle", "idle clients", "transaction", False, bars=_memory(12)),
    Scenario(
        "one",
        "-S, 1 client",
        "transaction",
        False,
        ("-S",),
        clients=1,
        bars=(Bar(Route.PGPROXY, Metric.P50, 1.1, Sort.ADDED),),
    ),
    Scenario(
        "crowd",
        "-S, 500 clients",
        "transaction",
        False,
        ("-S",),
        clients=500,
        bars=(Bar(Route.PGPROXY, Metric.P99, 1.0),),
    ),
)
_TLS_BARS = {
    "select": _cpu(1.1),
    "servers": _cpu(1.2),
    "connect": (_two_workers(1.0),),
    "idle": _memory(40),
}
_CLEAR_ONLY = {"marked", "one", "crowd"}
SCENARIOS = (
    *_PLAIN,
    *(
        evolve(
            plain,
            name=f"{plain.name}-tls",
            title=f"{plain.title}, TLS",
            tls=True,
            bars=_TLS_BARS.get(plain.name, ()),
            beside=plain.beside and f"{plain.beside}-tls",
        )
        for plain in _PLAIN
        if plain.name not in _CLEAR_ONLY
    ),
)


@define
class Result:
    """What one route made of one scenario: samples, one a round, or the reason why there are none."""

    scenario: Scenario
    route: Route
    samples: list[Sample] = field(factory=list)
    reason: str | None = None

    def median(self, metric: Metric) -> float | None:
        """Return the median over the rounds; None where there is no such figure."""
        values = [sample[metric] for sample in self.samples if metric in sample]
        return statistics.median(values) if values and self.reason is None else None

    def words(self) -> str:
        """Tell the last sample, or the reason why there are none."""
        if self.reason is not None:
            return f"n/a: {self.reason}"
        last = self.samples[-1]
        return ", ".join(f"{metric} {figure(last[metric])}" for metric in Metric if metric in last)


def figure(value: float) -> str:
    """Write a figure with about three digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


@frozen
class Plan:
    """How long, how often and with what."""

    scenarios: Sequence[Scenario]
    rounds: int
    seconds: int
    clients: int
    idle_clients: int
    cores: int
    pgbench: Path
    database: Access
    verifier: str
    certificate: processes.Certificate
    directory: Path


class Lane:
    """A route in a scenario: what is open of it, and what became of it so far."""

    def __init__(self, plan: Plan, scenario: Scenario, route: Route, directory: Path) -> None:
        self.result = Result(scenario, route)
        self._plan = plan
        self._scenario = scenario
        self._directory = directory
        self._access = plan.database
        self._clients = scenario.clients or plan.clients
        self._pooler: Pooler | None = None

    def open(self, stack: ExitStack) -> None:
        """Start the pooler, which the stack will stop, and warm it up."""
        try:
            if self.result.route is not Route.DIRECT:
                self._pooler = stack.enter_context(STARTERS[self.result.route](self.setup()))
                self._access = evolve(self._plan.database, port=self._pooler.port)
            if not self._scenario.idle:
                self._pgbench("-t", "2" if self._scenario.script else "10")
        except (PgbenchError, StartError, OSError) as error:
            self.result.reason = self._reason(error)

    def take(self) -> None:
        """Add a sample to the result, or the reason why there is none."""
        try:
            if self._scenario.idle:
                sample = self._idle()
            else:
                sample = self._pgbench(*self.extent())
        except (PgbenchError, StartError, OSError) as error:
            self.result.reason = self._reason(error)
        else:
            self.result.samples.append(sample)

    def extent(self) -> tuple[str, str]:
        """Say how much pgbench does in one turn: by the clock, unless a crowd takes longer to connect."""
        seconds = self._plan.seconds
        if self._clients > POOL_SIZE:
            return "-t", str(_CROWD_TRANSACTIONS * seconds)
        return "-T", str(seconds)

    def _reason(self, error: Exception) -> str:
        """Say why there is no figure: that the pooler has ended is the better reason."""
        if self._pooler is not None:
            try:
                self._pooler.check()
            except StartError as end:
                return str(end)
        return str(error)

    def setup(self) -> Setup:
        """Say what the pooler is to be."""
        plan = self._plan
        return Setup(
            pool_mode=self._scenario.pool_mode,
            server_tls=self._scenario.server_tls,
            # In session mode a client that gets no server would wait until another has left.
            pool_size=max(POOL_SIZE, self._clients) if self._scenario.pool_mode == "session" else POOL_SIZE,
            workers=2 if self.result.route is Route.WORKERS else 1,
            most_clients=max(plan.idle_clients, self._clients) + _SPARE_CLIENTS,
            server_port=plan.database.port,
            user=plan.database.user,
            verifier=plan.verifier,
            certificate=plan.certificate,
            directory=self._directory / self.result.route.name.lower(),
        )

    def count(self, pooler: Pooler, *extent: str) -> int:
        """Run pgbench once through a pooler that somebody else has started; returns the queries."""
        self._access = evolve(self._plan.database, port=pooler.port)
        return self._run(*extent).report.transactions * self._scenario.queries

    def _run(self, *extent: str) -> Run:
        plan, scenario = self._plan, self._scenario
        # A thread of pgbench connects one client at a time, so with -C each client needs one of its own.
        jobs = self._clients if scenario.connects else min(self._clients, max(1, plan.cores // 4))
        return pgbench.run(
            plan.pgbench,
            self._access,
            [*self._arguments(), "-c", str(self._clients), "-j", str(jobs), *extent],
            tls=scenario.tls,
            seconds=plan.seconds,
            directory=self._directory,
        )

    def _pgbench(self, *extent: str) -> Sample:
        """Run pgbench once; what the pooler's CPU does meanwhile belongs to it."""
        scenario, pooler = self._scenario, self._pooler
        before = pooler.cpu_seconds() if pooler else 0.0
        run = self._run(*extent)
        sample = {
            Metric.THROUGHPUT: run.report.per_second,
            Metric.P50: run.p50_ms,
            Metric.P99: run.p99_ms,
        }
        # A crowd's logins would weigh more than its queries.
        if pooler and self._clients <= POOL_SIZE:
            used = pooler.cpu_seconds() - before
            sample[Metric.CPU] = used * 1e6 / (run.report.transactions * scenario.queries)
        if run.report.connection_ms is not None:
            sample[Metric.CONNECTING] = run.report.connection_ms
        return sample

    def _arguments(self) -> list[str]:
        if not self._scenario.script:
            return [*self._scenario.arguments]
        script = self._directory / "script.sql"
        script.write_text(self._scenario.script)
        return ["-f", str(script)]

    def _idle(self) -> Sample:
        """Connect the idle clients, each of which asks one query, and see what they cost the pooler."""
        assert self._pooler is not None
        many = self._plan.idle_clients
        with ExitStack() as clients, ThreadPoolExecutor(_CONNECTING_TOGETHER) as together:
            with _time_limit(int(10 + many * _CONNECT_SECONDS), together):
                try:
                    # The first client makes the pooler build what it has once for all of them.
                    clients.callback(self._connect().close)
                    time.sleep(_SETTLE_SECONDS)
                    before = self._pooler.memory_kib()
                    for client in together.map(lambda _: self._connect(), range(many)):
                        clients.callback(client.close)
                    time.sleep(_SETTLE_SECONDS)
                    grown = self._pooler.memory_kib() - before
                except psycopg.Error as error:
                    words = str(error).strip().splitlines()
                    raise PgbenchError(words[-1] if words else type(error).__name__) from error
        return {Metric.MEMORY: grown / many}

    def _connect(self) -> psycopg.Connection:
        access = self._access
        client = psycopg.connect(
            access.conninfo(self._scenario.tls), password=access.password, autocommit=True
        )
        client.execute("SELECT 1")
        return client


STARTERS: Mapping[Route, Callable[[Setup], AbstractContextManager[Pooler]]] = {
    Route.PGPROXY: processes.pgproxy,
    Route.PURE: processes.pure_pgproxy,
    Route.WORKERS: processes.pgproxy,
    Route.PGBOUNCER: processes.pgbouncer,
}


@contextmanager
def _time_limit(seconds: int, together: ThreadPoolExecutor) -> Iterator[None]:
    """
    Raise PgbenchError in what is still under way after so many seconds, and have nothing more begun.

    Of use in the main thread only.
    """

    def give_up(number: int, frame: FrameType | None) -> None:
        together.shutdown(wait=False, cancel_futures=True)
        raise PgbenchError(f"the clients were not connected within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def measure(plan: Plan, tell: Callable[[str], None]) -> Iterator[Result]:
    """Go through the plan, telling about each step; yields the results scenario by scenario."""
    for number, scenario in enumerate(plan.scenarios, start=1):
        label = f"[{number}/{len(plan.scenarios)}] {scenario.name}"
        directory = plan.directory / scenario.name
        # PgBouncer's user must get through to its own directory in there.
        directory.mkdir(mode=0o711)
        lanes = [Lane(plan, scenario, route, directory) for route in scenario.routes]
        with ExitStack() as stack:
            for lane in lanes:
                lane.open(stack)
                if lane.result.reason is not None:
                    tell(f"{label}, {lane.result.route}: {lane.result.words()}")
            rounds = 1 if scenario.idle else plan.rounds
            for round_ in range(1, rounds + 1):
                for lane in lanes:
                    result = lane.result
                    if result.reason is None:
                        lane.take()
                        tell(f"{label}, round {round_} of {rounds}, {result.route}: {result.words()}")
        yield from (lane.result for lane in lanes)
