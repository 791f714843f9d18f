"""The rows of the tables about targets: their hosts, how their roles have changed, what logs in to them."""

from __future__ import annotations

from pgproxy.console.process import Process, Rows
from pgproxy.console.tables import Value
from pgproxy.console.values import at_most_int4, date, moment
from pgproxy.link.target import TargetPools
from pgproxy.pool.retry import Retry
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Judge


def targets(process: Process) -> Rows:
    """Give a row for each host of each target."""
    rows: Rows = []
    now = process.now()
    judges = process.front.judges()
    for name, target in process.config().targets.items():
        judge = judges.get(name)
        addresses = [(one.name, one.port) for one in judge.hosts] if judge is not None else []
        for host, port in addresses or [(one.host, one.port) for one in target.server]:
            at = next((one for one in process.targets if one.where == (name, host, port)), None)
            rows.append([name, host, port, *_seen(judge, (host, port), at, now), *_held(at)])
    return rows


def history(process: Process) -> Rows:
    """Give a row for each change of roles that is remembered."""
    now = process.now()
    return [
        [name, moment(entry.at, now), entry.change.value, str(entry.host), entry.why]
        for name, judge in process.front.judges().items()
        for entry in judge.history.entries()
    ]


def secrets(process: Process) -> Rows:
    """Give a row for each secret that is used; nothing of what is in it."""
    vault = process.front.vault
    return [
        [
            name,
            "Secrets Manager",
            date(made) if made is not None else None,
            "known" if made is not None else "unread",
        ]
        for name, made in (vault.ages() if vault is not None else ())
    ]


def _seen(judge: Judge | None, host: tuple[str, int], pools: TargetPools | None, now: float) -> list[Value]:
    """Give a host's role, state, lag, and since when; of one that nobody watches what its servers tell."""
    known = judge.hosts.get(Address(*host)) if judge is not None else None
    if judge is None or known is None:
        retry = _retry(pools)
        working = pools is not None and pools.pools.target.working
        return ["unknown", "up" if working else "down" if retry is not None else "unknown", None, None]
    roles, address = judge.roles, known.address
    role = "writer" if roles.writer == address else "reader" if address in roles.readers else "none"
    if known.trouble is not None:
        state = known.trouble.value
    else:
        state = "up" if known.answer is not None else "unknown"
    entries = [entry for entry in judge.history.entries() if entry.host == address]
    since = moment(entries[-1].at, now) if entries else None
    return [role, state, round(known.lag, 3) if known.answer is not None else None, since]


def _held(target: TargetPools | None) -> list[Value]:
    """Give a host's servers, how many there may be, who waits, and what went wrong the last time."""
    if target is None:
        return [0, 0, 0, None]
    account, retry = target.pools.target, _retry(target)
    waiting = sum(pool.waiting for pool in target.pools.pools)
    trouble = retry.trouble.complaint.text if retry is not None else None
    return [account.count, at_most_int4(account.most), waiting, trouble]


def _retry(target: TargetPools | None) -> Retry | None:
    if target is None:
        return None
    retries = (retry for pool in target.pools.pools for lane in pool.lanes.values() for retry in lane.retries)
    return target.pools.target.retry or next(retries, None)
