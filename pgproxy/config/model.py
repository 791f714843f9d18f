"""The options: each with its default, its meaning, its range and its unit; and what follows from several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from attrs import evolve, field, frozen

from pgproxy.config.aws import Aws
from pgproxy.config.kinds import (
    Address,
    Addresses,
    Choice,
    File,
    HostPattern,
    Identifier,
    Kind,
    Name,
    OneAddress,
    PinningFilters,
    Query,
    Seconds,
    ServerIp,
    Share,
    Size,
    Statements,
    Switch,
    Url,
    Urls,
    UserNames,
    Whole,
    Workers,
    option,
)

PoolMode = Literal["session", "transaction"]
AuthMethod = Literal["trust", "md5", "scram-sha-256", "cert"]
ClientTlsMode = Literal["off", "allow", "require"]
ServerTlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
DiscoveryKind = Literal["dns", "aurora", "rds", "patroni"]
DnsRecords = Literal["any", "A", "AAAA"]
Timeout = Literal["idle_client_timeout", "idle_transaction_timeout", "transaction_timeout", "query_timeout"]
"""The limits of a client's life after login."""

EVERY_OTHER = "*"
"""The entry of [databases] for the databases that have none of their own."""

_POOL_MODES = Choice(("session", "transaction"))
_POOL_SIZES = Whole(1, 10_000)
_SERVERS = Whole(0, 10_000)
_A_DAY = 86_400
_IDLE_TIMES = Seconds(28_800)
_TIMES = Seconds(_A_DAY)

_AUTH_QUERY = """\
SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
WHERE rolname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND rolcanlogin \
AND (rolvaliduntil IS NULL OR rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now())"""
"""
Every name is qualified, as nobody's search_path may change what it means. A password past VALID UNTIL is
none. The parameter is text: as a `name` it would be cut to 63 bytes, and so could mean another user.
"""


def _before(kind: Kind, wider: str) -> dict[str, Any]:
    """Describe an option that, where it is set, holds instead of wider ones."""
    return option(kind, f"Goes before {wider}.")


_IN_PROXY = "the one in [proxy]"
_IN_BOTH = "the database's and the one in [proxy]"
_MOST_SERVERS = option(_SERVERS, "The most servers of all its pools together. 0: no limit.")
_LEAST_SERVERS = option(
    _SERVERS, "So many of the target's servers are kept free for its pools: others don't get them."
)

_ENHANCED = option(
    Switch(),
    "Whether the log has a line (`statement`) for each batch of statements, with their digests and what it "
    "took, of clients that log in from then on. It ends a day after the configuration was loaded.",
)


@frozen(kw_only=True)
class ProxyTls:
    """TLS on the clients' leg, TLS 1.2 or newer. The files are read again on SIGHUP."""

    mode: ClientTlsMode = field(
        default="off",
        metadata=option(Choice(("off", "allow", "require")), "Whether clients may use TLS, or must."),
    )
    certificate: Path | None = field(
        default=None,
        metadata=option(
            File(), "What we show clients: PEM, with the chain behind it. Needed unless `mode` is off."
        ),
    )
    key: Path | None = field(
        default=None, metadata=option(File(), "Its private key: PEM, without a passphrase.")
    )
    client_ca: Path | None = field(
        default=None,
        metadata=option(File(), "The authorities that clients' certificates are checked against: PEM."),
    )
    client_certificate: Literal["ignore", "require"] = field(
        default="ignore",
        metadata=option(
            Choice(("ignore", "require")),
            "Whether a client must show a certificate that `client_ca` vouches for. "
            '`auth = "cert"` implies it.',
        ),
    )


@frozen(kw_only=True)
class AuthQuery:
    """
    Where the secrets of users come from that the users file does not know: a query on the target.

    The query gives one row of two columns, the user's name and its secret as pg_authid stores it; no row, or
    no secret, is an unknown user.
    """

    query: str = field(
        default=_AUTH_QUERY, metadata=option(Query(), "The query. Qualify every name and operator in it.")
    )
    user: str = field(
        metadata=option(
            Name(),
            "The user that runs it. Its password is in `users_file`, in plain, and it may read what the "
            "query reads: GRANT SELECT ON pg_catalog.pg_authid.",
        )
    )
    database: str = field(
        default="",
        metadata=option(
            Name(optional=True), "Where it runs; empty for the database that the client asked for."
        ),
    )


@frozen(kw_only=True)
class Proxy:
    """What holds for all clients."""

    listen: tuple[Address, ...] = field(
        default=(Address("127.0.0.1", 6432),),
        metadata=option(Addresses(), "Where clients connect; 0.0.0.0 and [::] stand for every address."),
    )
    listen_read_only: tuple[Address, ...] = field(
        default=(),
        metadata=option(
            Addresses(may_be_none=True),
            "Where clients connect that only read: they get servers of the readers. A target with one host "
            "has no reader.",
        ),
    )
    read_only_fallback: bool = field(
        default=False,
        metadata=option(
            Switch(), "Whether clients that only read get servers of the writer where there is no reader."
        ),
    )
    workers: int = field(
        default=1,
        metadata=option(
            Workers(64),
            "How many processes carry clients, on as many processors; auto: one for each processor that we "
            "may use. All limits are for all of them together. It takes pools with more servers than there "
            "are workers to be worth it: servers change between workers only by being opened anew.",
        ),
    )
    pool_mode: PoolMode = field(
        default="transaction",
        metadata=option(
            _POOL_MODES,
            "How long a client keeps its server: for a transaction, after which its session follows it to "
            "other servers, or until it leaves.",
        ),
    )
    pool_size: int = field(
        default=20,
        metadata=option(
            _POOL_SIZES, "The most servers of one pool. Every pair of user and database has a pool."
        ),
    )
    min_pool_size: int = field(
        default=0,
        metadata=option(
            _SERVERS,
            "How many servers of a pool are kept open, also while nobody wants them, once a client has used "
            "the pool. They are kept free for it within the target's budget.",
        ),
    )
    max_waiting_clients: int = field(
        default=1000,
        metadata=option(
            Whole(1, 1_000_000),
            "How many clients may wait for the servers of one pool; whoever comes then is refused (53300).",
        ),
    )
    max_prepared_statements: int = field(
        default=200,
        metadata=option(
            Whole(1, 100_000),
            "How many of the clients' prepared statements a server keeps in transaction mode; the one used "
            "longest ago goes first, and is prepared again when it is needed.",
        ),
    )
    session_pinning_filters: frozenset[str] = field(
        default=frozenset(),
        metadata=option(
            PinningFilters(),
            "What is neither to pin a client nor to follow it, in transaction mode: reasons to pin, or names "
            "of settings. Where a client leaves such a thing behind it is lost, and cleaned before anybody "
            "else gets the server.",
        ),
    )
    session_audit: float = field(
        default=0.0,
        metadata=option(
            Share(),
            "At what share of the ends of transactions the server is asked what it holds although nothing "
            "was suspicious. What it finds is taken over, and logged as `audit_found`.",
        ),
    )
    auth: AuthMethod = field(
        default="scram-sha-256",
        metadata=option(
            Choice(("trust", "md5", "scram-sha-256", "cert")),
            "How clients prove who they are. trust asks for nothing, so it is for loopback addresses only; "
            "md5 uses SCRAM for users whose secret is a SCRAM verifier; "
            "cert takes the CN of the client's certificate.",
        ),
    )
    allow_remote_trust: bool = field(
        default=False,
        metadata=option(Switch(), 'Allow `auth = "trust"` on addresses that other machines reach.'),
    )
    users_file: Path | None = field(
        default=None,
        metadata=option(
            File(),
            'The users and their secrets: lines of `"user" "secret"`, the secret plain, md5 or a SCRAM '
            "verifier, as in PgBouncer's userlist.txt. Read again on SIGHUP.",
        ),
    )
    certificate_names: Mapping[str, frozenset[str]] = field(
        factory=dict,
        metadata=option(
            UserNames(),
            'With `auth = "cert"`: which users a certificate\'s CN may be. A CN that is not here is the user '
            "of that name.",
            entries="certificate names",
        ),
    )
    max_client_connections: int = field(
        default=1000, metadata=option(Whole(1, 1_000_000), "The most clients at a time.")
    )
    max_logins: int = field(
        default=1000,
        metadata=option(
            Whole(1, 1_000_000),
            "The most clients that log in at a time; whoever comes then is refused (53300), before TLS. Each "
            "worker has its part of this and of the next.",
        ),
    )
    max_connection_rate: int = field(
        default=0,
        metadata=option(
            Whole(0, 1_000_000),
            "The most new connections of clients in a second; whoever comes then is refused (53300), before "
            "TLS. 0: no limit.",
        ),
    )
    admin_users: frozenset[str] = field(
        default=frozenset(),
        metadata=option(
            UserNames(may_be_none=True),
            "Administrators: users who may say everything on the console, for whom each target keeps "
            "`admin_connections` servers free, and who may come beyond `max_client_connections`, so that "
            "they get in when everything is in use.",
        ),
    )
    stats_users: frozenset[str] = field(
        default=frozenset(),
        metadata=option(
            UserNames(may_be_none=True),
            "Readers: users who may say SHOW on the console, and nothing else. Others may not enter.",
        ),
    )
    statement_statistics: bool = field(
        default=True,
        metadata=option(
            Switch(),
            "Whether it is counted what statements cost, by digest (SHOW STATEMENTS on the console): of a "
            "sample of transactions, the 500 digests seen last.",
        ),
    )
    log_connections: bool = field(
        default=True,
        metadata=option(
            Switch(),
            "Whether the log has a line for each client that logs in, and one for each that goes of its own "
            "accord. What goes wrong is logged in any case.",
        ),
    )
    login_timeout: float = field(
        default=15.0,
        metadata=option(
            Seconds(3600, positive=True),
            "How long a client may take to log in, TLS included; then it is ended with 57014.",
        ),
    )
    connection_borrow_timeout: float = field(
        default=120.0,
        metadata=option(
            Seconds(300),
            "How long a client waits for a server; with 0 it doesn't wait, but for 0.1 s where there are "
            "several workers: so long may it take them to come to terms.",
        ),
    )
    server_lifetime: float = field(
        default=3600.0,
        metadata=option(
            Seconds(7 * _A_DAY),
            "How long a server is used, give or take a tenth; it is closed when nobody is linked to it. 0: "
            "without end.",
        ),
    )
    server_idle_timeout: float = field(
        default=600.0,
        metadata=option(
            Seconds(7 * _A_DAY), "After which time a server is closed that nobody has wanted. 0: never."
        ),
    )
    server_check_delay: float = field(
        default=30.0,
        metadata=option(
            Seconds(_A_DAY),
            "After which time of silence an idle server is asked whether it is still there, before it serves "
            "anybody else. 0: never.",
        ),
    )
    connection_borrow_notice: float = field(
        default=5.0,
        metadata=option(
            Seconds(300),
            "How long a client waits for a server before it gets a NOTICE that says so, and who has the "
            "servers; 0 for none.",
        ),
    )
    connect_timeout: float = field(
        default=5.0,
        metadata=option(Seconds(3600, positive=True), "How long a new server may take: TCP, TLS and login."),
    )
    cancel_timeout: float = field(
        default=10.0,
        metadata=option(
            Seconds(3600, positive=True),
            "How long a query may take to end once it was cancelled; then its server is closed.",
        ),
    )
    idle_client_timeout: float = field(
        default=1800.0,
        metadata=option(
            _IDLE_TIMES,
            "How long a client may have nothing under way, be in no transaction and send nothing; then it is "
            "ended with 57P05. 0 for no limit. A client that listens (LISTEN) is waiting, not idle.",
        ),
    )
    idle_transaction_timeout: float = field(
        default=0.0,
        metadata=option(
            _TIMES,
            "How long a client may do nothing in a transaction, be it a failed one; then it is ended with "
            "25P03, and the transaction is undone. 0 for no limit.",
        ),
    )
    transaction_timeout: float = field(
        default=0.0,
        metadata=option(
            _TIMES,
            "How long a transaction may take, from its first statement, or a statement outside of one; then "
            "the client is ended with 25P04. 0 for no limit.",
        ),
    )
    query_timeout: float = field(
        default=0.0,
        metadata=option(
            _TIMES,
            "How long the server may take for a query, or for all up to a Sync, COPY's data included; then "
            "it is cancelled and the client is ended with 57014. Waiting for a server doesn't count. 0 for "
            "no limit.",
        ),
    )
    client_buffer: int = field(
        default=64 * 1024,
        metadata=option(
            Size(4 * 1024, 16 * 1024 * 1024),
            "How much of what a client sends is held while it waits for a server; then it is not read.",
        ),
    )
    tcp_keepidle: int = field(
        default=30,
        metadata=option(
            Whole(0, 32_767),
            "Seconds without a byte after which the kernel asks the other end of a connection, client or "
            "server, whether it is still there. This and the next three: 0 leaves the system's.",
        ),
    )
    tcp_keepintvl: int = field(
        default=10,
        metadata=option(Whole(0, 32_767), "Seconds after which it asks again where there is no answer."),
    )
    tcp_keepcnt: int = field(
        default=3,
        metadata=option(
            Whole(0, 127),
            "How many times it asks in vain before the connection has ended: with the defaults, "
            "a host that goes without a word is found out within a minute.",
        ),
    )
    tcp_user_timeout: float = field(
        default=0.0,
        metadata=option(
            Seconds(_A_DAY),
            "How long what was sent may wait for the other end's kernel to take it before the connection has "
            "ended. Who is there but does not read is cut as well: a psql that shows a long result page by "
            "page, a server that a COPY waits for. With 0 a host that has gone while something was on its "
            "way to it is given up after the system's retries, a quarter of an hour on Linux.",
        ),
    )
    drain_timeout: float = field(
        default=10.0,
        metadata=option(
            Seconds(3600), "How long clients get to finish their transaction when pgproxy stops."
        ),
    )
    restart_drain_timeout: float = field(
        default=3600.0,
        metadata=option(
            Seconds(7 * _A_DAY),
            "How long clients may stay with the old process after another has taken over (SIGUSR2, "
            "docs/operations.md); then it stops as ever.",
        ),
    )
    tls: ProxyTls = field(factory=ProxyTls)
    auth_query: AuthQuery | None = None


@frozen(kw_only=True)
class Http:
    """
    What is served over HTTP: the status page at /, Prometheus metrics at /metrics.

    It takes the extra `pgproxy[metrics]`.

    On loopback addresses everybody on this machine may read it; on others a token is needed, and somebody in
    front who speaks TLS.
    """

    listen: tuple[Address, ...] = field(
        default=(),
        metadata=option(
            Addresses(may_be_none=True), "Where HTTP is served, 127.0.0.1:9127 for example; [] for nowhere."
        ),
    )
    token_file: Path | None = field(
        default=None,
        metadata=option(
            File(),
            "A file with the token that requests have to bear (`Authorization: Bearer …`, or in a browser as "
            "the password of any user), in its first line. Read again on SIGHUP.",
        ),
    )
    page: bool = field(
        default=True,
        metadata=option(Switch(), "Whether the status page is served, see docs/page.md."),
    )


@frozen(kw_only=True)
class Discovery:
    """
    How the hosts of a target are found, where `server` doesn't say it all; docs/failover.md tells more.

    `server` is then where pgproxy begins. Each kind has options of its own: those of another are refused.
    """

    kind: DiscoveryKind = field(
        metadata=option(
            Choice(("dns", "aurora", "rds", "patroni")),
            "Who is asked: name servers, about the names in `server`; the cluster itself, by "
            "aurora_replica_status(); the RDS API; Patroni's REST API.",
        )
    )
    timeout: float = field(
        default=4.0,
        metadata=option(
            Seconds(60, positive=True),
            "How long it may take to find the hosts; until that works again the ones found before are used.",
        ),
    )
    interval: float = field(
        default=30.0,
        metadata=option(
            Seconds(3600, positive=True),
            "How often the hosts are looked for while all is well; at the first sign of trouble at once. "
            "Not for dns: there the records say it, and a minute is the most.",
        ),
    )
    dns_server: Address | None = field(
        default=None,
        metadata=option(
            ServerIp(),
            "dns: the name server that is asked, instead of those in /etc/resolv.conf; /etc/hosts is not "
            "heeded then.",
        ),
    )
    dns_records: DnsRecords = field(
        default="any",
        metadata=option(
            Choice(("any", "A", "AAAA")),
            "dns: whether the IPv4 addresses (A) or the IPv6 addresses (AAAA) of a name are its hosts. "
            "any: the IPv4 addresses, or where it has none the others.",
        ),
    )
    host_pattern: Address | None = field(
        default=None,
        metadata=option(
            HostPattern(),
            "aurora: an instance's endpoint, with ? for its identifier, like "
            "?.abc123.eu-west-1.rds.amazonaws.com:5432.",
        ),
    )
    cluster: str = field(
        default="",
        metadata=option(Identifier(), "rds: the identifier of a cluster, Aurora or Multi-AZ."),
    )
    instance: str = field(
        default="",
        metadata=option(
            Identifier(), "rds: the identifier of an instance that is in no cluster; with its replicas."
        ),
    )
    region: str = field(
        default="", metadata=option(Identifier(), "rds: the region; without it the one that boto3 finds.")
    )
    endpoint_url: str = field(
        default="",
        metadata=option(Url(), "rds: where the API is, if it is not AWS's own (a VPC endpoint, a test)."),
    )
    urls: tuple[str, ...] = field(
        default=(),
        metadata=option(
            Urls(), "patroni: where its REST API is, best on several members; the first that answers counts."
        ),
    )
    ca: Path | None = field(
        default=None,
        metadata=option(
            File(), "patroni: the authorities for https, PEM; without them the system's are taken."
        ),
    )
    addresses: Mapping[str, Address] = field(
        factory=dict,
        metadata=option(
            OneAddress(),
            "aurora, rds, patroni: where to connect to instead, by an instance's or member's name or by the "
            "host name that was found. verify-full goes on to check the name that was found.",
            entries="the names of instances, members or hosts",
        ),
    )

    OWN: ClassVar[Mapping[DiscoveryKind, tuple[str, ...]]] = {
        "dns": ("dns_server", "dns_records"),
        "aurora": ("interval", "host_pattern", "addresses"),
        "rds": ("interval", "cluster", "instance", "region", "endpoint_url", "addresses"),
        "patroni": ("interval", "urls", "ca", "addresses"),
    }
    """The options that each kind has, beside `kind` and `timeout`."""

    @property
    def foreign(self) -> list[str]:
        """The options that are set, but belong to other kinds."""
        others = {name for own in self.OWN.values() for name in own} - set(self.OWN[self.kind])
        defaults = Discovery(kind=self.kind)
        return sorted(name for name in others if getattr(self, name) != getattr(defaults, name))


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
        default=0, metadata=option(_SERVERS, "The same as a number; the lower limit holds. 0: percent only.")
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
            Seconds(_A_DAY),
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


@frozen(kw_only=True)
class Database:
    """
    A database that clients may ask for; `[databases."*"]` is for all that have no table of their own.

    Without any such table, every name is taken to the only target as it is.
    """

    target: str = field(
        default="",
        metadata=option(
            Name(optional=True), "The target that has it; may be left out where there is one only."
        ),
    )
    name: str = field(
        default="",
        metadata=option(Name(optional=True), "Its name there; empty for the name that the client asked for."),
    )
    init_query: str | None = field(
        default=None, metadata=option(Statements(), "Goes before the target's; empty for none.")
    )
    pool_mode: PoolMode | None = field(default=None, metadata=_before(_POOL_MODES, _IN_PROXY))
    pool_size: int | None = field(default=None, metadata=_before(_POOL_SIZES, _IN_PROXY))
    min_pool_size: int | None = field(default=None, metadata=_before(_SERVERS, _IN_PROXY))
    max_server_connections: int = field(default=0, metadata=_MOST_SERVERS)
    min_server_connections: int = field(default=0, metadata=_LEAST_SERVERS)
    enhanced_logging: bool = field(default=False, metadata=_ENHANCED)
    idle_client_timeout: float | None = field(default=None, metadata=_before(_IDLE_TIMES, _IN_PROXY))
    idle_transaction_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_PROXY))
    transaction_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_PROXY))
    query_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_PROXY))
    statement_statistics: bool | None = field(default=None, metadata=_before(Switch(), _IN_PROXY))


@frozen(kw_only=True)
class User:
    """What is different for a user."""

    pool_mode: PoolMode | None = field(default=None, metadata=_before(_POOL_MODES, _IN_BOTH))
    pool_size: int | None = field(default=None, metadata=_before(_POOL_SIZES, _IN_BOTH))
    min_pool_size: int | None = field(default=None, metadata=_before(_SERVERS, _IN_BOTH))
    max_server_connections: int = field(default=0, metadata=_MOST_SERVERS)
    min_server_connections: int = field(default=0, metadata=_LEAST_SERVERS)
    enhanced_logging: bool = field(default=False, metadata=_ENHANCED)
    idle_client_timeout: float | None = field(default=None, metadata=_before(_IDLE_TIMES, _IN_BOTH))
    idle_transaction_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_BOTH))
    transaction_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_BOTH))
    query_timeout: float | None = field(default=None, metadata=_before(_TIMES, _IN_BOTH))
    statement_statistics: bool | None = field(default=None, metadata=_before(Switch(), _IN_BOTH))


@frozen(kw_only=True)
class Config:
    """A whole configuration."""

    proxy: Proxy = field(factory=Proxy)
    targets: Mapping[str, Target] = field(factory=dict)
    databases: Mapping[str, Database] = field(factory=dict)
    users: Mapping[str, User] = field(factory=dict)
    http: Http = field(factory=Http)
    aws: Aws | None = None

    def database(self, name: str) -> Database | None:
        """Give what a client gets that asks for a database, target and name filled in; None if unknown."""
        found = self._entry(name)
        if found is None:
            return None
        return evolve(found, target=found.target or next(iter(self.targets)), name=found.name or name)

    def init_query(self, database: str) -> str:
        """Give what is run in new servers: the database's, else its target's."""
        entry = self.database(database)
        if entry is None:
            return ""
        return self.targets[entry.target].init_query if entry.init_query is None else entry.init_query

    def pool_mode(self, database: str, user: str) -> PoolMode:
        """Give the mode: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.pool_mode is not None:
                return entry.pool_mode
        return self.proxy.pool_mode

    def pool_size(self, database: str, user: str) -> int:
        """Give the most servers of a pool: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.pool_size is not None:
                return entry.pool_size
        return self.proxy.pool_size

    def min_pool_size(self, database: str, user: str) -> int:
        """Give how many servers of a pool are kept: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.min_pool_size is not None:
                return entry.min_pool_size
        return self.proxy.min_pool_size

    def counts_statements(self, database: str, user: str) -> bool:
        """Say whether statements are counted: the user's word, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            if entry is not None and entry.statement_statistics is not None:
                return entry.statement_statistics
        return self.proxy.statement_statistics

    def timeout(self, which: Timeout, database: str, user: str) -> float:
        """Give a limit of a client's life in seconds: the user's, else the database's, else the proxy's."""
        for entry in (self.users.get(user), self._entry(database)):
            own: float | None = getattr(entry, which, None)
            if own is not None:
                return own
        common: float = getattr(self.proxy, which)
        return common

    @property
    def timeouts(self) -> list[float]:
        """All limits of clients' lives, whosesoever, in seconds; 0 for none."""
        tables = (self.proxy, *self.databases.values(), *self.users.values())
        return [getattr(table, which) or 0.0 for table in tables for which in get_args(Timeout)]

    def _entry(self, database: str) -> Database | None:
        if not self.databases:
            return Database()
        return self.databases.get(database) or self.databases.get(EVERY_OTHER)
