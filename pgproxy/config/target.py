"""A PostgreSQL, or a cluster of them: how it is reached, watched, and how much of it may be used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from pgproxy.config.discovery import Discovery
from pgproxy.config.kinds import Address, Addresses, Choice, File, Name, Seconds, Statements, Whole, option
from pgproxy.config.ranges import A_DAY, SERVERS

ServerTlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


@frozen(kw_only=True)
class Target:
    """A PostgreSQL that pgproxy stands in front of. There must be one at least."""

    server: tuple[Address, ...] = field(
        metadata=option(
            Addresses("HOST:PORT or [IPv6]:PORT, like 127.0.0.1:5432, or an array of such"),
            "Where it listens; of a cluster, where each of its hosts does. With more than one, pgproxy finds "
            "out which of them is the writer, and follows it.",
        )
    )
    tls: ServerTlsMode = field(
        default="prefer",
        metadata=option(
            Choice(("disable", "prefer", "require", "verify-ca", "verify-full")),
            "As libpq's sslmode: prefer takes TLS where the server has it; verify-ca checks its certificate "
            "against `ca`; verify-full checks the host name, too.",
        ),
    )
    max_connections_percent: int = field(
        default=100,
        metadata=option(
            Whole(1, 100),
            "How many servers all pools together may have: percent of the target's max_connections, less "
            "what it reserves for superusers. That is read from each server when it is opened.",
        ),
    )
    max_server_connections: int = field(
        default=0, metadata=option(SERVERS, "The same as a number; the lower limit holds. 0: percent only.")
    )
    max_idle_connections_percent: int | None = field(
        default=None,
        metadata=option(
            Whole(0, 100),
            "How many servers may stay idle for over 5 minutes: percent as above. Without it half of "
            "`max_connections_percent`.",
        ),
    )
    admin_connections: int = field(
        default=2,
        metadata=option(
            Whole(0, 100), "How many of these servers are for `admin_users` only, where there are any."
        ),
    )
    max_connecting_servers: int = field(
        default=4, metadata=option(Whole(1, 100), "How many servers are opened at a time.")
    )
    ca: Path | None = field(
        default=None, metadata=option(File(), "The authorities for verify-ca and verify-full: PEM.")
    )
    certificate: Path | None = field(
        default=None,
        metadata=option(File(), "What we show the server where it asks: PEM, with the chain behind it."),
    )
    key: Path | None = field(
        default=None, metadata=option(File(), "Its private key: PEM, without a passphrase.")
    )

    watch_user: str = field(
        default="",
        metadata=option(
            Name(optional=True),
            "As whom pgproxy asks the hosts which of them is the writer; its password is taken from the "
            "users file, or from a secret of `aws.secrets`. It needs no rights but to connect. Without it, "
            "pgproxy asks as the clients that have logged in. A target with one host is only watched if this "
            "is given.",
        ),
    )
    watch_database: str = field(
        default="postgres",
        metadata=option(Name(), "The database that `watch_user` connects to."),
    )
    watch_interval: float = field(
        default=1.0,
        metadata=option(
            Seconds(60, positive=True),
            "How often each host is asked while all is well. From the first sign of trouble on it is asked "
            "every 0.1 s.",
        ),
    )
    host_timeout: float = field(
        default=3.0,
        metadata=option(
            Seconds(300, positive=True),
            "How long a watched host may leave the question unanswered. Then it is given up: the connections "
            "to it are closed, and their clients are told.",
        ),
    )
    max_reader_lag: float = field(
        default=30.0,
        metadata=option(
            Seconds(A_DAY),
            "How far a reader may be behind the writer. One that is further gets no clients until it has "
            "caught up to half of that. 0: no limit.",
        ),
    )
    standby_connections: int = field(
        default=2,
        metadata=option(
            Whole(0, 1000),
            "How many servers of each pool that has clients are kept open at each of the first two readers, "
            "for the case that it becomes the writer.",
        ),
    )
    init_query: str = field(
        default="",
        metadata=option(
            Statements(),
            "What is run in each new server before anybody gets it, and again after each DISCARD ALL of "
            "pgproxy's own: SET statements and calls of functions that set something, with ; between them. "
            "What it sets is what sessions begin with; in transaction mode a RESET leads back to it. It may "
            "leave nothing else: no temporary table, no LISTEN, no PREPARE. If it fails, so does the "
            "opening. Walsenders don't run it. It is no place for secrets.",
        ),
    )

    discovery: Discovery | None = None

    @property
    def reached(self) -> tuple[object, ...]:
        """All that says which server it is and how it is reached."""
        return (self.server, self.discovery, self.tls, self.ca, self.certificate, self.key)

    @property
    def watched(self) -> bool:
        """Whether it is found out which of its hosts is the writer, and whether they are there."""
        return self.has_several_hosts or bool(self.watch_user)

    @property
    def has_several_hosts(self) -> bool:
        """Whether there is or may be more than one host."""
        return len(self.server) > 1 or self.discovery is not None
