"""
What of a target is kept free for minimums that are not reached.

The law:

1. A server may be opened if, after it, every minimum of a pool, a user or a database that it is not of can
   still be reached. A database's minimum covers its pools'.
2. Where the minimums are more than there is, they don't keep a pool without any server from getting one.
"""

from __future__ import annotations

from typing import Any

from pgproxy.pool.budget import NO_LIMIT, Account
from pgproxy.pool.lane import Lane


class Reserve:
    """The minimums within one target."""

    def __init__(self, target: Account) -> None:
        self._target = target
        self._databases: dict[str, Account] = {}
        self._users: dict[str, Account] = {}
        self._pools: dict[Account, dict[Account, None]] = {}
        """By database, the pools with a minimum."""
        self._asked = 0
        """Servers: all minimums together."""

    def database(self, name: str, most: int | None = None, least: int = 0) -> Account:
        """Give the account of a database, and set its limits if they are given."""
        return self._account(self._databases, f"database {name}", name, most, least)

    def user(self, name: str, most: int | None = None, least: int = 0) -> Account:
        """Give the account of a user, and set its limits if they are given."""
        return self._account(self._users, f"user {name}", name, most, least)

    def drop(self, account: Account) -> None:
        """Forget a database or a user that has no pool, unless it has limits."""
        if account.most == NO_LIMIT and not account.least:
            for known in (self._databases, self._users):
                for name in [name for name, one in known.items() if one is account]:
                    del known[name]

    def pool(self, database: Account, account: Account) -> None:
        """Enter a pool's limits."""
        self.forget(database, account)
        if account.least:
            self._pools.setdefault(database, {})[account] = None
        self._asked = self._ask()

    def forget(self, database: Account, account: Account) -> None:
        """Forget a pool."""
        pools = self._pools.get(database, {})
        pools.pop(account, None)
        if not pools:
            self._pools.pop(database, None)
        self._asked = self._ask()

    def full(self, lane: Lane[Any]) -> list[Account]:
        """Give the limits that keep a lane from opening one more server, the narrowest first."""
        return [
            account
            for account in lane.accounts
            if (self._room(lane) <= 0 if account is self._target else account.full)
        ]

    def may_lose(self, lane: Lane[Any], other: Lane[Any]) -> bool:
        """Say whether no minimum keeps a server of `lane` from `other`."""
        return (
            not self._asked
            or self.overdrawn(other)
            or not any(account.needy and account not in other.accounts for account in lane.accounts)
        )

    def _room(self, lane: Lane[Any]) -> int:
        """Say how many servers the target has left for a lane."""
        target = self._target
        held = 0 if not self._asked or self.overdrawn(lane) else self._held(lane)
        return target.most - held - target.count - target.kept

    def overdrawn(self, lane: Lane[Any]) -> bool:
        """Say whether minimums must not stand in the way: there are too many, and the pool has nothing."""
        return self._asked >= self._target.most and not lane.pool.account.share

    def owed(self, lane: Lane[Any]) -> bool:
        """Say whether a minimum is not reached that a lane counts for."""
        return self._asked > 0 and any(account.owing for account in lane.accounts)

    def _ask(self) -> int:
        databases = {account for account in self._databases.values() if account.least} | set(self._pools)
        return sum(
            max(database.least, sum(pool.least for pool in self._pools.get(database, ())))
            for database in databases
        ) + sum(user.least for user in self._users.values())

    def _held(self, lane: Lane[Any]) -> int:
        """Say how many servers others' minimums still need."""
        held = sum(user.owing for user in self._users.values() if user.least and user not in lane.accounts)
        for database in self._databases.values():
            pools = sum(pool.owing for pool in self._pools.get(database, ()) if pool not in lane.accounts)
            held += pools if database in lane.accounts else max(database.owing, pools)
        return held

    def _account(
        self, known: dict[str, Account], shown: str, name: str, most: int | None, least: int
    ) -> Account:
        account = known.get(name)
        if account is None:
            account = known[name] = Account(shown)
        if most is not None:
            account.most, account.least = most or NO_LIMIT, least
            self._asked = self._ask()
        return account
