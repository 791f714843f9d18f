"""
Which idle servers are due: to be closed, or to be asked whether they are still there.

Times are those of the looks, so they are exact to the time between two of them: nothing reads the clock when
a server becomes idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pgproxy.pool.rules import Rules
from pgproxy.pool.states import CloseReason, Server


def due(
    idle: Iterable[Server], rules: Rules, most_idle: int, now: float
) -> Iterator[tuple[Server, CloseReason | None]]:
    """
    Give the idle servers that are due, with the reason to close them; None: to be asked.

    `most_idle` is how many servers may stay idle for long. Whoever takes one has it counted before asking
    for the next, as minimums are looked at anew each time.
    """
    servers = sorted(idle, key=lambda server: server.turn)
    for server in servers:
        if server.seen != server.turn:
            server.seen = server.turn
            server.quiet_since = server.heard = now
    too_many = sum(now - server.quiet_since >= rules.long_idle for server in servers) - most_idle
    # Half of a lane's stay at hand: whoever comes meanwhile need not wait for the answers.
    to_ask = Counter(server.lane for server in servers)
    asked: Counter[object] = Counter()
    for server in servers:
        quiet = now - server.quiet_since
        needed = any(account.needy for account in server.lane.accounts)
        if server.retiring is not None:
            yield server, server.retiring
        elif rules.idle_timeout and quiet >= rules.idle_timeout and not needed:
            too_many -= 1
            yield server, CloseReason.IDLE_TIMEOUT
        elif too_many > 0 and quiet >= rules.long_idle and not needed:
            too_many -= 1
            yield server, CloseReason.TOO_MANY_IDLE
        elif rules.check_after and now - server.heard >= rules.check_after:
            if 2 * asked[server.lane] < to_ask[server.lane]:
                asked[server.lane] += 1
                yield server, None
