"""
Keeps users' passwords as Secrets Manager has them: read at the start, again and again, and when one is wrong.

What was read stays in force while AWS can't be reached. A login that fails has the secrets of its user read
anew before it is refused, or all of them where nobody knows that user: a new one may be in a secret that
rotates between two users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, gatherResults

from pgproxy.auth.secrets import Credentials, Passwords
from pgproxy.aws.client import AwsError, Client
from pgproxy.aws.reading import Reader
from pgproxy.aws.renewal import Renewal, Stopped
from pgproxy.aws.rotation import Secret
from pgproxy.aws.shelf import Shelf
from pgproxy.aws.threads import AwsThreads
from pgproxy.config.aws_kinds import SecretSource
from pgproxy.link.vault import VaultClosed

GAP = 2.0
"""Seconds between two times that a secret is read, whoever asks."""
GAP_OF_ALL = 3.0
"""Seconds between two times that all are, for users whom nobody knows."""
PATIENCE = 6.0
"""Seconds that a login waits for AWS."""
MOST = 1000
"""Secrets that are read: more are hardly meant."""
_A_PASS = 120.0
"""Seconds that reading all of them may take."""
_AT_ONCE = 4
"""Secrets that are read at a time where all of them are: threads are left for the ones that logins need."""
_LATER = (1.0, 30.0)
"""Seconds after which they are read again where that has failed: at first, and at most."""
_MOST_REFUSED = 6
"""Passwords that a server is tried with for one opening."""


class Secrets:
    """All of them. `wall` gives the seconds since 1970, `chance` random numbers from 0 to 1."""

    def __init__(
        self,
        client: Client,
        threads: AwsThreads,
        clock: Any,
        wall: Callable[[], float],
        chance: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._reading = Reader(client, threads)
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._log = log
        self._shelf = Shelf(0.0)
        self._sources: tuple[SecretSource, ...] = ()
        self._interval = 0.0
        self._entries: dict[str, Renewal] = {}
        self._origins: dict[str, set[SecretSource]] = {}
        """By secret, which sources it is of."""
        self._troubles: dict[str, str] = {}
        """By secret, why it could not be read the last time; "" is the list of them."""
        self._all = Renewal(self._read_all, clock, GAP_OF_ALL)
        self._timer: Any = None
        self._failed = 0
        """Passes in a row."""
        self._loaded = False
        self._said = False
        """Whether it is in the log that all of them have been read."""
        self._ended: list[Deferred[None]] = []
        """Those who wait for the end of a pass."""
        self._running = False

    def configure(
        self, sources: tuple[SecretSource, ...], interval: float, grace: float, reserved: Iterable[str]
    ) -> None:
        """Take other sources; what is only of others is forgotten, whether AWS can be reached or not."""
        self._shelf.configure(grace, reserved)
        changed = sources != self._sources
        self._sources, self._interval = sources, interval
        for name in [name for name, origins in self._origins.items() if not origins & set(sources)]:
            self._forget(name)
        if changed and self._running:
            self._loaded = self._said = False
            self._pass()

    def start(self) -> None:
        """Begin to read."""
        self._running = True
        self._pass()

    def stop(self) -> None:
        """Read no more."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for renewal in (self._all, *self._entries.values()):
            renewal.stop()

    # What is known.

    @property
    def failing(self) -> int:
        """How many secrets could not be read the last time."""
        return sum(1 for name in self._troubles if name)

    @property
    def count(self) -> int:
        """How many secrets there are."""
        return len(self._entries)

    def ages(self) -> list[tuple[str, float | None]]:
        """Give each ARN with when its current version was made, since 1970; None where that is not known."""
        return self._shelf.ages()

    def has(self, user: str) -> bool:
        """Say whether a user is in a secret."""
        return bool(self._shelf.secrets_of(user))

    async def known(self, user: str) -> Passwords | None:
        """Give what lets a client in. Raises `VaultClosed`."""
        found = self._passwords(user)
        if found is None and not self._loaded and self._sources:
            await self._end_of_pass()
            found = self._passwords(user)
        if found is None and (self._shelf.in_doubt or not self._loaded) and self._sources:
            raise VaultClosed(f"secrets could not be read yet: {self._trouble}")
        return found

    async def _end_of_pass(self) -> None:
        """Wait for the pass that is under way, be it in vain."""
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        ended.addTimeout(PATIENCE, self._clock)
        await DeferredList([ended], consumeErrors=True)

    def _passwords(self, user: str) -> Passwords | None:
        passwords = self._shelf.for_clients(user, self._wall())
        return Passwords(passwords) if passwords else None

    async def renewed(self, user: str) -> Passwords | None:
        """Give the same from now on. Raises `VaultClosed`."""
        await self._renew(user)
        return await self.known(user)

    async def key(self, user: str, refused: Sequence[Credentials]) -> Credentials | None:
        """Give a password for a server that was not refused yet. Raises `VaultClosed`."""
        over = {credentials.password for credentials in refused}
        if len(over) >= _MOST_REFUSED:
            return None
        found = self._key(user, over)
        if found is None:
            await self._renew(user)
            found = self._key(user, over)
        return found

    def _key(self, user: str, over: set[str | None]) -> Credentials | None:
        passwords = self._shelf.for_servers(user)
        return next((Credentials(password=one) for one in passwords if one not in over), None)

    def fits(self, user: str, password: str) -> None:
        """Take the word that a server has taken a password."""
        self._shelf.worked(user, password)

    async def _renew(self, user: str) -> None:
        names = self._shelf.secrets_of(user)
        reading = [self._entries[name] for name in names if name in self._entries] or [self._all]
        trouble = await self._settled(*(one.soon(PATIENCE) for one in reading))
        if trouble:
            raise VaultClosed(f"the secret of the user cannot be read anew: {trouble}")

    async def _settled(self, *reading: Deferred[None]) -> str:
        """Wait for all of these; say why one failed of which it is not known what it would have said."""
        outcomes: list[tuple[bool, Any]] = await DeferredList(reading, consumeErrors=True)
        for success, result in outcomes:
            if not success:
                if result.check(Stopped) is not None:
                    continue
                if result.check(TimeoutError) is not None:
                    return "AWS has not answered in time"
                if result.check(AwsError) is None:
                    self._log.error("defect", failure=result.getTraceback())
                    return "a defect in pgproxy; its log says more"
                if result.value.says_nothing:
                    return str(result.value)
        return ""

    @property
    def _trouble(self) -> str:
        return next(iter(self._troubles.values()), "AWS has not answered yet")

    # Reading.

    def _pass(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if not self._sources:
            return
        self._all.soon(_A_PASS).addBoth(self._passed)

    def _passed(self, _result: object) -> None:
        ended, self._ended = self._ended, []
        for one in ended:
            if not one.called:
                one.callback(None)
        if not self._running:
            return
        if self._loaded and not self._troubles:
            self._failed = 0
            seconds = self._interval
        else:
            first, most = _LATER
            seconds = min(self._interval, most, first * 2**self._failed)
            self._failed = min(self._failed + 1, 10)
            if not self._loaded or self._shelf.in_doubt:
                self._log.warning(
                    "waiting_for_secrets",
                    why=self._trouble,
                    seconds=round(seconds),
                    remedy="check that this machine reaches Secrets Manager, its role and its region; until "
                    "then users who are not in users_file are refused with 57P03",
                )
        self._timer = self._clock.callLater(seconds * (0.9 + 0.2 * self._chance()), self._pass)

    async def _read_all(self) -> None:
        names: dict[str, set[SecretSource]] = {}
        sources = self._sources
        unlisted: AwsError | None = None
        for source in sources:
            try:
                found = await self._reading.names(source)
            except AwsError as error:
                # One that can't be listed has what it had, and keeps no other from being read.
                found = [name for name, origins in self._origins.items() if source in origins]
                unlisted = unlisted or error
            for name in found:
                names.setdefault(name, set()).add(source)
        if sources != self._sources:
            return
        if unlisted is None:
            self._went_right("")
        else:
            self._went_wrong("", unlisted)
        if len(names) > MOST:
            self._log.error("too_many_secrets", secrets=len(names), most=MOST, remedy="narrow aws.secrets")
            names = dict(list(names.items())[:MOST])
        for name in [name for name in self._entries if name not in names]:
            self._forget(name)
        self._origins = names
        for name in names:
            if name not in self._entries:
                self._entries[name] = Renewal(self._reader(name), self._clock, GAP)
        trouble = await self._read_each(list(self._entries.items()))
        if sources != self._sources:
            return
        if unlisted is not None:
            raise unlisted
        self._loaded = True
        if not self._shelf.in_doubt and not self._said:
            self._said = True
            self._log.info(
                "secrets_read", secrets=len(names), failing=self.failing, users=len(self._shelf.users)
            )
        if trouble:
            raise AwsError("Unread", trouble, passing=True)

    async def _read_each(self, entries: Sequence[tuple[str, Renewal]]) -> str:
        """Read these, a few at a time; say as `_settled` does what has gone wrong."""
        left = iter(entries)
        end = self._clock.seconds() + _A_PASS

        async def read_some() -> str:
            trouble = ""
            for name, entry in left:
                if self._entries.get(name) is not entry:
                    continue
                if self._clock.seconds() < end:
                    trouble = await self._settled(entry.soon(_A_PASS)) or trouble
                else:
                    late = AwsError("Timeout", "AWS was too slow for all the secrets before", passing=True)
                    self._could_not_read(name, late)
                    trouble = str(late)
            return trouble

        troubles = await gatherResults([Deferred.fromCoroutine(read_some()) for _ in range(_AT_ONCE)])
        return next(filter(None, troubles), "")

    def _forget(self, name: str) -> None:
        self._entries.pop(name).stop()
        self._origins.pop(name, None)
        self._shelf.drop(name)
        self._troubles.pop(name, None)
        self._log.info("secret_gone", secret=name)

    def _reader(self, name: str) -> Callable[[], Any]:
        async def read() -> None:
            try:
                await self._read(name)
            except AwsError as error:
                if name in self._entries:
                    self._could_not_read(name, error)
                raise
            self._went_right(name)

        return read

    def _could_not_read(self, name: str, error: AwsError) -> None:
        if error.says_nothing:
            self._shelf.doubt(name)
        elif error.is_missing:
            self._shelf.drop(name)
        else:
            self._shelf.settle(name)
        self._went_wrong(name, error)

    async def _read(self, name: str) -> None:
        before = self._shelf.get(name) or Secret()
        secret = await self._reading.secret(name, before)
        if name not in self._entries:
            return
        self._shelf.put(name, secret, self._wall())
        if secret != before:
            stages = {"current": secret.current, "pending": secret.pending, "previous": secret.previous}
            versions = {stage: version.id for stage, version in stages.items() if version is not None}
            self._log.info("secret_read", secret=name, users=sorted(secret.users), **versions)

    def _went_wrong(self, name: str, error: AwsError) -> None:
        if self._troubles.get(name) != str(error):
            self._log.warning(
                "secret_unread" if name else "secrets_not_listed",
                secret=name,
                why=str(error),
                in_force="what was read before" if self._shelf.get(name) or not name else "nothing",
            )
        self._troubles[name] = str(error)

    def _went_right(self, name: str) -> None:
        if self._troubles.pop(name, None) is not None and name:
            self._log.info("secret_read_again", secret=name)
