"""
The keys of PgBouncer's [pgbouncer] section: which option of ours each is, or why there is none.

Where PgBouncer's default is another than ours, it is written although it was not said.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from pgproxy.config import Proxy
from pgproxy.convert.draft import Draft, number, seconds, truth
from pgproxy.convert.ini import Entry


@frozen
class Same:
    """An option of [proxy] that means the same, but for what `zero` says of 0."""

    option: str
    read: Callable[[str], float | int | None] = seconds
    default: str | None = None
    """PgBouncer's default, where ours is another."""
    zero: float | None = None
    """What is written for 0, where PgBouncer means "no limit" by it and ours takes none."""


_FOREVER = 1e14
"""To be cut to what the option takes."""

SAME = {
    "default_pool_size": Same("pool_size", number, zero=_FOREVER),
    "min_pool_size": Same("min_pool_size", number),
    "max_client_conn": Same("max_client_connections", number, default="100"),
    "max_prepared_statements": Same("max_prepared_statements", number),
    "client_login_timeout": Same("login_timeout", default="60", zero=_FOREVER),
    "query_wait_timeout": Same("connection_borrow_timeout", zero=_FOREVER),
    "query_wait_notify": Same("connection_borrow_notice"),
    "server_lifetime": Same("server_lifetime"),
    "server_idle_timeout": Same("server_idle_timeout"),
    "server_check_delay": Same("server_check_delay"),
    "server_connect_timeout": Same("connect_timeout", default="15", zero=_FOREVER),
    "client_idle_timeout": Same("idle_client_timeout", default="0"),
    "idle_transaction_timeout": Same("idle_transaction_timeout"),
    "transaction_timeout": Same("transaction_timeout"),
    "query_timeout": Same("query_timeout"),
    "tcp_keepidle": Same("tcp_keepidle", number),
    "tcp_keepintvl": Same("tcp_keepintvl", number),
    "tcp_keepcnt": Same("tcp_keepcnt", number),
}

ELSEWHERE = frozenset(
    {
        # places
        "listen_addr",
        "listen_port",
        "pool_mode",
        "max_db_connections",
        "max_user_connections",
        "server_tls_sslmode",
        "server_tls_ca_file",
        "server_tls_cert_file",
        "server_tls_key_file",
        # logins
        "auth_type",
        "auth_file",
        "auth_hba_file",
        "auth_user",
        "auth_query",
        "auth_dbname",
        "admin_users",
        "stats_users",
        "client_tls_sslmode",
        "client_tls_ca_file",
        "client_tls_cert_file",
        "client_tls_key_file",
    }
)
"""Keys that others than this file see to."""

_OWN_WAY = "pgproxy has its own way, which needs no setting"
_NOT_NEEDED = "not needed: every setting follows its client, whatever its name"
_UNIX = "pgproxy listens on TCP only"
_LOG = "pgproxy logs one JSON object a line to standard output, or to twistd's --logfile"
_TWISTD = "is an option of twistd or of the systemd unit, see docs/operations.md"
_NO_CLIENT_LIMIT = "there is no limit of clients by database or user; servers are limited instead"
_CIPHERS = "TLS 1.2 and newer with OpenSSL's defaults; there is no setting"
_DNS = (
    "names are looked up by the system at each connection; a target whose hosts DNS tells has "
    '[targets.NAME.discovery] with kind = "dns"'
)

NONE: dict[str, str] = {
    "reserve_pool_size": "there is no reserve pool; pool_size is the most. Add it there if you need it",
    "reserve_pool_timeout": "there is no reserve pool",
    "reserve_pool": "there is no reserve pool",
    "max_db_client_connections": _NO_CLIENT_LIMIT,
    "max_user_client_connections": _NO_CLIENT_LIMIT,
    "server_round_robin": "the server used last is taken first, always",
    "server_fast_close": "servers of a place that a reload has changed are closed as they are given back",
    "server_login_retry": "after a failure there is a pause of 0.1 s, doubled up to 2 s",
    "server_reset_query": "DISCARD ALL cleans servers in which anything is left, in session mode all",
    "server_reset_query_always": "servers are cleaned where anything is left in them",
    "server_check_query": "a Sync is sent instead, which runs nothing",
    "autodb_idle_timeout": "pools that nobody uses are forgotten",
    "pool_idle_timeout": "pools that nobody uses are forgotten",
    "cancel_wait_timeout": "cancel requests don't wait; cancel_timeout is how long one may take",
    "suspend_timeout": "there is no SUSPEND",
    "disable_pqexec": "the simple protocol can't be forbidden",
    "application_name_add_host": "it is the client's own; the log and SHOW CLIENTS have its address",
    "ignore_startup_parameters": _NOT_NEEDED + "; none is ignored",
    "track_extra_parameters": _NOT_NEEDED,
    "scram_iterations": "pgproxy passwd --iterations sets it for the verifiers it makes",
    "login_notify_message": "there is none",
    "stats_period": _OWN_WAY,
    "so_reuseport": "instead of several processes beside each other, pgproxy has proxy.workers",
    "peer_id": "workers pass cancel requests on by themselves: proxy.workers",
    "listen_backlog": _OWN_WAY + "; with systemd's socket activation it is Backlog= in pgproxy.socket",
    "max_packet_size": "messages of any size are passed on in bounded memory",
    "pkt_buf": _OWN_WAY,
    "sbuf_loopcnt": _OWN_WAY,
    "tcp_defer_accept": _OWN_WAY,
    "tcp_socket_buffer": _OWN_WAY,
    "dns_max_ttl": _DNS,
    "dns_nxdomain_ttl": _DNS,
    "dns_zone_check_period": _DNS,
    "resolv_conf": _DNS,
    "unix_socket_dir": _UNIX,
    "unix_socket_mode": _UNIX,
    "unix_socket_group": _UNIX,
    "logfile": _LOG,
    "syslog": _LOG,
    "syslog_facility": _LOG,
    "syslog_ident": _LOG,
    "log_pooler_errors": "always",
    "log_stats": "figures of pins are logged every 5 minutes where they have changed",
    "verbose": "there is one level",
    "pidfile": _TWISTD,
    "user": _TWISTD,
    "conffile": _TWISTD,
    "job_name": _TWISTD,
    "service_name": _TWISTD,
    "auth_ident_file": "proxy.certificate_names says which users a certificate's CN may be",
    "auth_ldap_options": "there is no LDAP",
    "client_tls_protocols": _CIPHERS,
    "client_tls_ciphers": _CIPHERS,
    "client_tls13_ciphers": _CIPHERS,
    "client_tls_ecdhcurve": _CIPHERS,
    "client_tls_dheparams": _CIPHERS,
    "server_tls_protocols": _CIPHERS,
    "server_tls_ciphers": _CIPHERS,
    "server_tls13_ciphers": _CIPHERS,
}
"""Keys without a counterpart, and what there is instead."""

SILENT = {
    "server_reset_query": ("DISCARD ALL",),
    "track_extra_parameters": ("IntervalStyle",),
    "ignore_startup_parameters": ("",),
    "login_notify_message": ("",),
    "log_pooler_errors": ("1",),
    **dict.fromkeys(
        (
            *("server_reset_query_always", "reserve_pool_size", "reserve_pool", "disable_pqexec", "verbose"),
            *("max_db_client_connections", "max_user_client_connections", "application_name_add_host"),
            *("so_reuseport", "pool_idle_timeout"),
        ),
        ("0",),
    ),
}
"""Values that say what is so in any case."""


def convert_keys(keys: dict[str, Entry], draft: Draft) -> None:
    """Take over what has a counterpart in [proxy], note what has none."""
    for name, same in SAME.items():
        entry = keys.get(name)
        text = entry.value if entry is not None else same.default
        if text is None:
            continue
        value = same.read(text)
        if value is None:
            draft.note(entry, "is not a number; left out")
            continue
        if value == 0 and same.zero is not None:
            value = same.zero
        draft.put(draft.proxy, Proxy, same.option, value, entry)
    _keepalive(keys, draft)
    _lines(keys, draft)
    for name, entry in keys.items():
        if name in NONE:
            if entry.value not in SILENT.get(name, ()):
                draft.note(entry, NONE[name])
        elif name not in SAME and name not in ELSEWHERE and name not in _SEEN_TO:
            draft.note(entry, "PgBouncer has no such key that is known here; left out")


_SEEN_TO = frozenset({"tcp_keepalive", "tcp_user_timeout", "log_connections", "log_disconnections"})


def _lines(keys: dict[str, Entry], draft: Draft) -> None:
    """Take over whether clients that come and go are logged: here it is both or neither."""
    said = [keys[name] for name in ("log_connections", "log_disconnections") if name in keys]
    off = [entry for entry in said if truth(entry.value) is False]
    if off and len(off) == 2:
        draft.proxy["log_connections"] = False
    elif off:
        draft.note(off[0], "pgproxy logs both, or neither (log_connections = false); it logs both")


def _keepalive(keys: dict[str, Entry], draft: Draft) -> None:
    on = keys.get("tcp_keepalive")
    if on is not None and on.value == "0":
        draft.note(on, "keepalive is always on; tcp_keepidle and its like say how often")
    limit = keys.get("tcp_user_timeout")
    if limit is not None:
        milliseconds = number(limit.value)
        if milliseconds is None:
            draft.note(limit, "is not a number; left out")
        else:
            draft.put(draft.proxy, Proxy, "tcp_user_timeout", milliseconds / 1000, limit)
