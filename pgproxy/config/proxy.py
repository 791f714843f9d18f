"""What holds for all clients, unless their database or their user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from pgproxy.config.access import AuthQuery, ProxyTls
from pgproxy.config.kinds import (
    Address,
    Addresses,
    Choice,
    File,
    PinningFilters,
    Seconds,
    Share,
    Size,
    Switch,
    UserNames,
    Whole,
    Workers,
    option,
)
from pgproxy.config.ranges import A_DAY, IDLE_TIMES, POOL_MODES, POOL_SIZES, SERVERS, TIMES, PoolMode

AuthMethod = Literal["trust", "md5", "scram-sha-256", "cert"]


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
            POOL_MODES,
            "How long a client keeps its server: for a transaction, after which its session follows it to "
            "other servers, or until it leaves.",
        ),
    )
    pool_size: int = field(
        default=20,
        metadata=option(
            POOL_SIZES, "The most servers of one pool. Every pair of user and database has a pool."
        ),
    )
    min_pool_size: int = field(
        default=0,
        metadata=option(
            SERVERS,
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
            "longest ago goes first, and is prepared again when it is needed. While a client's pipeline is "
            "under way it keeps as many more as that client has.",
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
            Seconds(7 * A_DAY),
            "How long a server is used, give or take a tenth; it is closed when nobody is linked to it. 0: "
            "without end.",
        ),
    )
    server_idle_timeout: float = field(
        default=600.0,
        metadata=option(
            Seconds(7 * A_DAY), "After which time a server is closed that nobody has wanted. 0: never."
        ),
    )
    server_check_delay: float = field(
        default=30.0,
        metadata=option(
            Seconds(A_DAY),
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
            IDLE_TIMES,
            "How long a client may have nothing under way, be in no transaction and send nothing; then it is "
            "ended with 57P05. 0 for no limit. A client that listens (LISTEN) is waiting, not idle.",
        ),
    )
    idle_transaction_timeout: float = field(
        default=0.0,
        metadata=option(
            TIMES,
            "How long a client may do nothing in a transaction, be it a failed one; then it is ended with "
            "25P03, and the transaction is undone. 0 for no limit.",
        ),
    )
    transaction_timeout: float = field(
        default=0.0,
        metadata=option(
            TIMES,
            "How long a transaction may take, from its first statement, or a statement outside of one; then "
            "the client is ended with 25P04. 0 for no limit.",
        ),
    )
    query_timeout: float = field(
        default=0.0,
        metadata=option(
            TIMES,
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
            Seconds(A_DAY),
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
            Seconds(7 * A_DAY),
            "How long clients may stay with the old process after another has taken over (SIGUSR2, "
            "docs/operations.md); then it stops as ever.",
        ),
    )
    tls: ProxyTls = field(factory=ProxyTls)
    auth_query: AuthQuery | None = None
