"""What all clients share: who is here, who may come in, and which lender has servers for whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from structlog.typing import FilteringBoundLogger
from twisted.internet.defer import Deferred

from pgproxy.auth.secrets import Known
from pgproxy.config import Config
from pgproxy.link.accounts import Accounts
from pgproxy.link.auth_query import UsersUnavailable
from pgproxy.link.departures import Departures
from pgproxy.link.elsewhere import Elsewhere
from pgproxy.link.look_ups import AT_ONCE, LookUps
from pgproxy.link.materials import Materials
from pgproxy.link.patience import Patience
from pgproxy.link.splice import Terms
from pgproxy.link.targets import Targets
from pgproxy.link.threads import Threads
from pgproxy.link.vault import Vault, VaultClosed
from pgproxy.observe.client import ClientLog
from pgproxy.observe.enhanced import (
    Enhancement,
    RecordedConversation,
    RecordedFollowing,
    Recorder,
    recording,
)
from pgproxy.observe.pins import Pins
from pgproxy.pool.cancel import CancelKeys
from pgproxy.pool.rate import Rate
from pgproxy.pool.states import Parameters
from pgproxy.session.conversation import Conversation
from pgproxy.session.deadlines import NO_DEADLINES, Attention, Deadlines, time_between_looks
from pgproxy.session.following import Following
from pgproxy.session.suspicion import Verdicts
from pgproxy.targets.judge import Judge
from pgproxy.wire import errors
from pgproxy.wire.errors import Complaint, complaint
from pgproxy.wire.startup import StartupMessage

if TYPE_CHECKING:
    from pgproxy.link.client import ClientConnection

__all__ = ["Front", "UsersUnavailable"]

Key = TypeVar("Key")
Value = TypeVar("Value")

_KEPT = 1000
"""Startup messages for which is kept what follows from them."""
_MOST_PARAMETERS, _LONGEST = 30, 2000
"""Of one that is kept: parameters, and letters in them. Drivers send less."""
_BEYOND = 100
"""
Connections taken in beyond the limit: administrators, and others to be told that there are too many. More are
told as they come, and closed at once.
"""


class Visit(Protocol):
    """A client's talk with the console."""

    greeting: bytes
    """The parameters that it is told at login."""

    def received(self, data: bytes) -> None:
        """Take what it has sent."""

    def cancel(self) -> None:
        """End what it waits for."""

    def lost(self) -> None:
        """Take the word that its connection has ended."""


class Console(Protocol):
    """The administrators' console, for those who ask for its database."""

    def refuses(self, user: str) -> Complaint | None:
        """Say why a user may not enter, if so."""

    def enter(
        self,
        startup: StartupMessage,
        write: Callable[[bytes], None],
        unsent: Callable[[], int],
        goodbye: Callable[[str], None],
        log: ClientLog,
    ) -> Visit:
        """Let a user in; `unsent` counts what it has not taken, `goodbye` is called to end the connection."""


CONSOLE = frozenset({"pgproxy", "pgbouncer"})
"""The databases that are the console, unless the configuration has a table for one of that name."""


class Front:
    """The clients' side of the proxy; `configure` gives those who come later other materials."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        materials: Materials,
        random_bytes: Callable[[int], bytes],
        log: FilteringBoundLogger,
        elsewhere: Elsewhere | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.reactor = reactor
        self.vault = vault
        """Who knows more of users than the users file, if there is anybody."""
        self.elsewhere = elsewhere
        """The other workers, if there are any."""
        self.threads = threads
        self.materials = materials
        self.keys: CancelKeys[ClientConnection] = CancelKeys(random_bytes)
        self.mock_key = random_bytes(32)
        """Makes the salts of users that are not there; stable, so that asking twice tells nothing."""
        self.clients: set[ClientConnection] = set()
        self.console: Console | None = None
        self.judges: Callable[[], Mapping[str, Judge]] = dict
        """Gives what is known of the hosts of the targets that are watched, by target."""
        self.disabled: set[str] = set()
        """The databases for which no new clients are taken in."""
        self.stopping = False
        self.predecessor: Callable[[int, bytes], Deferred[bool]] | None = None
        """Has the process before this one cancel, see `Elsewhere.cancel`; None where there was none."""
        self.pins = Pins(reactor.seconds)
        self.enhancement = Enhancement(materials.config, reactor.seconds, log)
        self._log = log
        self._look_ups = LookUps(threads.query, elsewhere.look_ups if elsewhere is not None else AT_ONCE)
        self._verdicts = Verdicts()
        self._chance = Random(random_bytes(8)).random
        self.accounts = Accounts(materials.config)
        self.targets = Targets(
            reactor,
            threads,
            materials.config,
            materials.hosts,
            self._chance,
            log,
            elsewhere,
            vault,
            self.accounts,
        )
        self._rate = Rate()
        self.patience: Patience[ClientConnection] = Patience(
            reactor, lambda client, seconds: client.login_too_slow(seconds)
        )
        """How long those who have not proved who they are may take."""
        self.departures = Departures(reactor)
        self.logging_in = 0
        """How many clients have not logged in yet."""
        self._parameters: dict[Parameters, Parameters] = {}
        self._attention = Attention()
        self._terms: dict[StartupMessage, Terms] = {}
        self._deadlines: dict[StartupMessage, Deadlines] = {}
        """What each client has, once for all that say the same."""
        self.time_between_sweeps = _time_between_sweeps(materials.config)
        """Seconds."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.materials.config

    def configure(self, materials: Materials) -> None:
        """Take other materials."""
        self.materials = materials
        self.accounts.config = materials.config
        self.targets.configure(materials.config, materials.hosts)
        self.time_between_sweeps = _time_between_sweeps(self.config)
        self.enhancement.configure(materials.config)
        self._terms.clear()
        self._deadlines.clear()
        for client in self.clients:
            client.configure()

    # Who is here.

    def arrived(self, client: ClientConnection) -> bool:
        """Take a connection in; False if there is no room to wait for what it wants."""
        if self._everywhere >= self.config.proxy.max_client_connections + _BEYOND:
            return False
        self.clients.add(client)
        if self.elsewhere is not None:
            self.elsewhere.clients_changed(self.config.proxy.max_client_connections)
        return True

    @property
    def full(self) -> bool:
        """Whether there are more clients than there may be."""
        return self._everywhere > self.config.proxy.max_client_connections

    @property
    def present(self) -> int:
        """How many clients there are here, without those who have taken their leave."""
        return len(self.clients) - len(self.departures)

    @property
    def _everywhere(self) -> int:
        """How many clients there are, those of other workers included."""
        return self.present + (self.elsewhere.clients if self.elsewhere is not None else 0)

    def shed(self) -> Complaint | None:
        """Say why a client that has just come is not even to log in, if so."""
        proxy = self.config.proxy
        if self.logging_in > proxy.max_logins:
            return complaint(errors.TOO_MANY_LOGINS, limit=proxy.max_logins, each=self._each)
        most = proxy.max_connection_rate
        if most and not self._rate.take(most, self.reactor.seconds()):
            return complaint(errors.TOO_FAST, limit=most, each=self._each)
        return None

    @property
    def _each(self) -> str:
        return errors.IN_EACH_WORKER if self.elsewhere is not None else ""

    def departed(self, client: ClientConnection) -> None:
        """Forget a connection."""
        self.clients.discard(client)
        self.departures.gone(client)
        if self.elsewhere is not None:
            self.elsewhere.clients_changed(self.config.proxy.max_client_connections)

    # Who may come in.

    def at_console(self, database: str) -> bool:
        """Say whether a database is the console."""
        return self.console is not None and database in CONSOLE and database not in self.config.databases

    async def secret(self, user: str, database: str) -> Known | None:
        """Give a user's secret; None for an unknown one. Raises `UsersUnavailable` or `VaultClosed`."""
        known: Known | None = self.materials.users.get(user)
        if known is not None:
            return known
        closed = None
        if self.vault is not None:
            try:
                known = await self.vault.known(user)
            except VaultClosed as error:
                closed = error
        if known is None and self.materials.auth_queries:
            known = await self._look_up(user, database)
        if known is None and closed is not None:
            raise closed
        return known

    async def _look_up(self, user: str, database: str) -> Known | None:
        if not (_is_text(user) and _is_text(database)):
            return None
        entry = self.config.database(database) if not self.at_console(database) else None
        # Somebody who asks for a database that is not here is asked for a password all the same.
        target = entry.target if entry is not None else next(iter(self.materials.auth_queries))
        where = self.config.proxy.auth_query
        assert where is not None
        asked = where.database or (entry.name if entry is not None else where.user)
        return await self._look_ups.ask(self.materials.auth_queries[target], asked, user)

    # On what terms.

    def terms(self, startup: StartupMessage) -> Terms:
        """Say on what terms a client uses servers; a walsender keeps its server, whatever the mode."""
        terms = self._terms.get(startup)
        if terms is None:
            mode = self.config.pool_mode(startup.database, startup.user)
            terms = Terms(
                session=mode == "session" or startup.replication,
                parameters=self._once(startup.parameters),
                buffer_limit=self.config.proxy.client_buffer,
                replication=startup.replication,
            )
            _keep(self._terms, startup, terms, startup.parameters)
        return terms

    def _once(self, parameters: Parameters) -> Parameters:
        """Give the same object for equal parameters: to look for them is quicker then."""
        known = self._parameters.get(parameters)
        if known is None:
            known = parameters
            _keep(self._parameters, parameters, parameters, parameters)
        return known

    def deadlines(self, startup: StartupMessage) -> Deadlines:
        """Give the limits of a client's life; a walsender has none."""
        known = self._deadlines.get(startup)
        if known is None:
            known = NO_DEADLINES if startup.replication else self._deadlines_of(startup)
            _keep(self._deadlines, startup, known, startup.parameters)
        return known

    def _deadlines_of(self, startup: StartupMessage) -> Deadlines:
        config, database, user = self.config, startup.database, startup.user
        return Deadlines(
            idle_client_timeout=config.timeout("idle_client_timeout", database, user),
            idle_transaction_timeout=config.timeout("idle_transaction_timeout", database, user),
            transaction_timeout=config.timeout("transaction_timeout", database, user),
            query_timeout=config.timeout("query_timeout", database, user),
            connection_borrow_notice=config.proxy.connection_borrow_notice,
        )

    def conversation(self, terms: Terms, recorder: Recorder | None = None) -> Conversation:
        """Make what stands between a client and its servers; `recorder` is told of all that goes there."""
        if terms.session:
            return Conversation() if recorder is None else recording(RecordedConversation(), recorder)
        proxy = self.config.proxy
        share = proxy.session_audit
        audit = (lambda: self._chance() < share) if share else None
        if recorder is not None:
            following = RecordedFollowing(self._verdicts, proxy.session_pinning_filters, audit)
            return recording(following, recorder)
        return Following(self._verdicts, proxy.session_pinning_filters, audit)

    def sweep(self) -> None:
        """Do what is due: end clients and cleanings that last too long, forget pools that nobody uses."""
        now = self._attention.look(self.reactor.seconds(), self.time_between_sweeps)
        for client in list(self.clients):
            client.look(now)
        self.enhancement.look()
        self.targets.sweep()


def _time_between_sweeps(config: Config) -> float:
    return time_between_looks((*config.timeouts, config.proxy.connection_borrow_notice))


def _keep(known: dict[Key, Value], key: Key, value: Value, parameters: Parameters) -> None:
    """Keep what follows from a startup message, of which nobody may have answered for who sent it."""
    if len(parameters) > _MOST_PARAMETERS or sum(map(len, chain(*parameters))) > _LONGEST:
        return
    if len(known) >= _KEPT:
        known.clear()
    known[key] = value


def _is_text(name: str) -> bool:
    """Say whether a name from a startup message was UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
