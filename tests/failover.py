"""Ways for the writer of a cluster to go, and what clients at work behind pgproxy see of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from pgproxy.demo.process import wait_until
from tests.cluster import Change, Cluster, Host
from tests.fix_pgproxy import WORKERS, Pgproxy, PgproxyFactory, Toml
from tests.ledger import Verdict
from tests.toil import Plan, Toil, lay_table

SPARES = 2
"""The default of standby_connections."""
_SECONDS = 30.0

Happens = Callable[[Cluster], Change]


def place(host: Host) -> str:
    """Give where a host is, as configurations and logs say it."""
    return f"{host.at[0]}:{host.at[1]}"


def proxy_before(
    pgproxy: PgproxyFactory,
    cluster: Cluster,
    *,
    server: Sequence[str] | str | None = None,
    pool_size: int = 20,
    extra: str = "",
    proxy: dict[str, Toml] | None = None,
    **target: Toml,
) -> Pgproxy:
    """Start pgproxy before a cluster; `server` says where it begins, if not at all of its hosts."""
    named = server if server is not None else [place(host) for host in cluster.hosts]
    return pgproxy(
        auth="trust",
        pool_size=pool_size,
        proxy={"max_client_connections": 1000, **(proxy or {})},
        target={
            "server": named if isinstance(named, str) else list(named),
            "watch_user": "toil",
            "watch_database": "toil",
            "standby_connections": SPARES,
            **target,
        },
        users={"toil": "toil"},
        server=_Nowhere(),
        extra=extra,
    )


class _Nowhere:
    """Instead of the tests' PostgreSQL: `target` says where it is."""

    port = 1


def few(run: Pgproxy, **changed: float) -> Plan:
    """Plan the work of few clients, for what is about the change more than about the crowd."""
    plan: dict[str, float] = {
        **{"inserting": 12, "selecting": 8, "preparing": 4, "transacting": 8, "idle": 8},
        **changed,
    }
    return Plan([("127.0.0.1", run.port)], **plan)  # type: ignore[arg-type]


# What happens to a writer.


def the_next(cluster: Cluster) -> Host:
    """Give the standby that has all that was acknowledged."""
    assert cluster.synchronous is not None
    return cluster.synchronous


def kill(cluster: Cluster) -> Change:
    """It dies."""
    after = the_next(cluster)
    return cluster.promote(after, cluster.kill())


def stop(cluster: Cluster) -> Change:
    """It is shut down."""
    after = the_next(cluster)
    return cluster.promote(after, cluster.stop())


def freeze(cluster: Cluster) -> Change:
    """It hangs."""
    after = the_next(cluster)
    return cluster.promote(after, cluster.freeze())


def freeze_and_wait(cluster: Cluster) -> Change:
    """It hangs, and who decides about a failover takes some time, as they do."""
    after, fault = the_next(cluster), cluster.freeze()
    time.sleep(2.0)
    return cluster.promote(after, fault)


def cut_off(cluster: Cluster) -> Change:
    """Each packet from and to it is lost."""
    after, fault = the_next(cluster), cluster.cut_off()
    time.sleep(1.0)
    return cluster.promote(after, fault)


def switch_over(cluster: Cluster) -> Change:
    """It is replaced in order."""
    return cluster.switch_over(the_next(cluster))


def restart(cluster: Cluster) -> Change:
    """It dies, and starts again where it was."""
    cut, gone = cluster.kill()
    cluster.writer.start()
    started = time.monotonic()
    return Change(cut, gone, started, started)


SILENT: frozenset[Happens] = frozenset({freeze, freeze_and_wait, cut_off})
"""After these nobody is told that the old writer is gone."""


# What clients see of it.


def known(run: Pgproxy, host: Host) -> float:
    """Wait until pgproxy has said that a host is the writer; gives when, as `time.monotonic()` tells it."""
    run.await_everywhere("role_changed", host=place(host), change="became_writer")
    said = [
        datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in run.log()
        if (event["event"], event.get("host")) == ("role_changed", place(host))
        and event["change"] == "became_writer"
    ]
    return max(said) - time.time() + time.monotonic()


def await_spares(run: Pgproxy, cluster: Cluster) -> None:
    """Wait until servers are open at both standbys, for the case that one becomes the writer."""
    hosts = {place(standby) for standby in cluster.standbys}
    wait_until(
        lambda: (
            Counter(
                event["host"]
                for event in run.log()
                if event["event"] == "server_opened" and event["host"] in hosts
            )
            >= Counter(dict.fromkeys(hosts, SPARES * WORKERS))
        ),
        20.0,
    )


def at_work(
    run: Pgproxy,
    cluster: Cluster,
    happens: Happens,
    directory: Path,
    plan: Plan | None = None,
    *,
    hangs: bool = False,
) -> Verdict:
    """Have clients work through a change, 200 where no plan says otherwise; `hangs`: the writer does."""
    lay_table(cluster.writer)
    with Toil(plan or Plan([("127.0.0.1", run.port)]), directory) as toil:
        toil.await_work()
        change = happens(cluster)
        outcomes = toil.finish(since=change.writable)
        # What is sent to a host that hangs is under way until it is known that another is the writer.
        until = known(run, cluster.writer) if hangs or happens in SILENT else None
        verdict = outcomes.judge(cluster.writer, change, until=until)
        print(f"\n{verdict}")
        assert not outcomes.unfinished
        return verdict


def was_told(run: Pgproxy, change: str) -> list[str]:
    """Give the hosts of which (the first worker of) pgproxy has said that this happened to them, in order."""
    return [
        event["host"]
        for event in run.log()
        if event["event"] == "role_changed" and event["change"] == change and event.get("worker", 1) == 1
    ]


def opened_at(run: Pgproxy, host: Host) -> int:
    """Say how many servers were opened at a host so far."""
    events = [event for event in run.log() if event["event"] == "server_opened"]
    return sum(event["host"] == place(host) for event in events)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something; fails the test where it doesn't come true."""
    assert wait_until(true, _SECONDS), what
