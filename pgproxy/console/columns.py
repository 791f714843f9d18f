"""
The tables that SHOW gives: their columns, and what these mean.

Those that PgBouncer has, too, have its columns, by name, type and order as in 1.25 (but for `id`, which is
int4 there), and behind them what earlier versions had and what we have beside: tools that look for columns
by name find them.
"""

from __future__ import annotations

from pgproxy.console.tables import Column, Kind, Merge

Columns = tuple[Column, ...]

_KEY, _SUM, _MOST, _SAME = Merge.KEY, Merge.SUM, Merge.MOST, Merge.SAME


def _text(name: str, doc: str, merge: Merge = _KEY) -> Column:
    return Column(name, Kind.TEXT, doc, merge)


def _int4(name: str, doc: str, merge: Merge = _SUM) -> Column:
    return Column(name, Kind.INT4, doc, merge)


def _int8(name: str, doc: str, merge: Merge = _SUM) -> Column:
    return Column(name, Kind.INT8, doc, merge)


def _number(name: str, doc: str) -> Column:
    return Column(name, Kind.NUMERIC, doc, _SUM)


def _float(name: str, doc: str, merge: Merge = _SUM) -> Column:
    return Column(name, Kind.FLOAT8, doc, merge)


_NONE_HERE = "Nothing here; PgBouncer has it."
_WORKER = _int4("worker", "The worker's number; 1 where there is one process.", _KEY)
_DATABASE = _text("database", "The database that clients ask for.")
_USER = _text("user", "The user.")

POOLS: Columns = (
    _DATABASE,
    _USER,
    _int4("cl_active", "Clients that have a server, or have nothing to ask one."),
    _int4("cl_waiting", "Clients that wait for a server."),
    _int4("cl_active_cancel_req", "0: cancel requests are counted with their servers."),
    _int4("cl_waiting_cancel_req", "0, likewise."),
    _int4("sv_active", "Servers linked to a client."),
    _int4("sv_active_cancel", "0, likewise."),
    _int4("sv_being_canceled", "Servers to which a cancel request is on its way."),
    _int4("sv_idle", "Servers that nobody has."),
    _int4("sv_used", "0: servers that were idle for long are idle."),
    _int4("sv_tested", "Servers that are being cleaned, or asked whether they are still there."),
    _int4("sv_login", "Servers that are being opened."),
    _int4("maxwait", "For how long the client has waited that has done so longest: whole seconds …", _MOST),
    _int4("maxwait_us", "… and the microseconds beyond.", _MOST),
    _text("pool_mode", "transaction or session.", _SAME),
    _text("load_balance_hosts", _NONE_HERE, _SAME),
    _text("target", "The target that has the servers.", _SAME),
    _int4("pool_size", "The most servers that there may be.", _SAME),
    _int4("sv_pinned", "Of the linked servers: those that a client keeps for what it has left in them."),
    _int4(
        "sv_in_transaction", "Of the linked servers: those whose client is in a transaction and does nothing."
    ),
    _int4("sv_closing", "Servers that were told to go and have not ended yet."),
    _int4("paused", "1 after PAUSE or KILL.", _MOST),
)

_ENDPOINT: Columns = (
    _text("type", "C for a client, S for a server."),
    _text("user", "The user."),
    _text("database", "The database that clients ask for."),
    _text("replication", "physical or logical for a walsender, else none."),
    _text("state", "What it is doing."),
    _text("addr", "The other end's address."),
    _int4("port", "The other end's port.", _KEY),
    _text("local_addr", "Our end's address."),
    _int4("local_port", "Our end's port.", _KEY),
    _text("connect_time", "When it was connected."),
    _text("request_time", "Of a client that waits for a server: since when; else NULL, as nobody keeps it."),
    _int4("wait", "For how long a client has waited for a server: whole seconds …", _KEY),
    _int4("wait_us", "… and the microseconds beyond.", _KEY),
    _int4("close_needed", "1 if a server serves nobody else any more.", _KEY),
    _text("ptr", "The id, as PgBouncer's address of it."),
    _text("link", "The id of what it is linked to; empty if it isn't."),
    _int4("remote_pid", "A server's process id; NULL for a client.", _KEY),
    _text("tls", "The version of TLS and the cipher; empty without TLS."),
    _text("application_name", "What it started with as application_name."),
    _int4(
        "prepared_statements", "Named statements: those a client has prepared, those a server keeps.", _KEY
    ),
    _int8(
        "id",
        "The id, for KILL_CLIENT; where there are workers 1,000,000,000 times the worker's number, plus "
        "the number in that worker's log.",
        _KEY,
    ),
)

CLIENTS: Columns = (*_ENDPOINT, _WORKER, _text("pinned", "The reasons to keep its server, if any."))
SERVERS: Columns = (
    *_ENDPOINT,
    _WORKER,
    _text("target", "Its target."),
    _text("retiring", "Why it serves nobody else any more, if so."),
)

TOTALS = (
    ("server_assignment_count", "How often a client was linked to a server."),
    ("xact_count", "Transactions."),
    ("query_count", "Queries, and batches of the extended protocol up to a Sync."),
    ("received", "Bytes from clients, by the kernel's count: logins and TLS included."),
    ("sent", "Bytes to clients, likewise."),
    ("xact_time", "Microseconds in transactions, estimated from those that are looked at."),
    ("query_time", "Microseconds in queries, likewise."),
    ("wait_time", "Microseconds that clients have waited for servers."),
    ("client_parse_count", "NULL: not counted."),
    ("server_parse_count", "NULL: not counted."),
    ("bind_count", "NULL: not counted."),
    ("client_login_count", "Clients that have logged in."),
)
"""What is counted for each database, by PgBouncer's names without `total_`."""
_AVERAGE = {"received": "recv"}
_IN_TOTALS = {"received": "bytes_received", "sent": "bytes_sent"}


def _average(name: str, doc: str) -> str:
    if name.endswith("_time") and name != "wait_time":
        return f"The same for one, in the last whole {PERIOD} s."
    if name == "wait_time":
        return f"Microseconds waited for each link, in the last whole {PERIOD} s."
    return f"A second, in the last whole {PERIOD} s." if not doc.startswith("NULL") else doc


PERIOD = 60
"""Seconds over which averages are."""

STATS: Columns = (
    _DATABASE,
    *(_number(f"total_{name}", doc) for name, doc in TOTALS),
    *(_number(f"avg_{_AVERAGE.get(name, name)}", _average(name, doc)) for name, doc in TOTALS),
)
STATS_TOTALS: Columns = (
    _DATABASE,
    *(_number(_IN_TOTALS.get(name, name), doc) for name, doc in TOTALS),
)
_PLAIN = (
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
)
STATS_AVERAGES: Columns = (
    _DATABASE,
    *(
        _number(_IN_TOTALS.get(name, name) if name in _PLAIN else f"avg_{name}", _average(name, doc))
        for name, doc in TOTALS
    ),
)

DATABASES: Columns = (
    _text("name", "The name that clients ask for; * is every other."),
    _text("host", "The target's host.", _SAME),
    _int4("port", "The target's port.", _SAME),
    _text("database", "The database's name there.", _SAME),
    _text("force_user", _NONE_HERE, _SAME),
    _int4("pool_size", "The most servers of one of its pools.", _SAME),
    _int4("min_pool_size", "How many of a pool's servers are kept open.", _SAME),
    _int4("reserve_pool_size", "0: there is no reserve by pool, see admin_connections.", _SAME),
    _int4("server_lifetime", "Seconds that a server is used.", _SAME),
    _text("pool_mode", "transaction or session.", _SAME),
    _text("load_balance_hosts", _NONE_HERE, _SAME),
    _int4("max_connections", "The most servers of all its pools; 0: no limit of its own.", _SAME),
    _int4("current_connections", "Servers there are."),
    _int4("max_client_connections", "0: no limit of its own.", _SAME),
    _int4("current_client_connections", "Clients there are."),
    _int4("paused", "1 after PAUSE or KILL.", _MOST),
    _int4("disabled", "1 after DISABLE.", _MOST),
    _int4("reserve_pool", "reserve_pool_size, as PgBouncer calls it up to 1.23.", _SAME),
    _text("target", "The target's name.", _SAME),
)

USERS: Columns = (
    _text("name", "The user."),
    _text("pool_size", "The most servers of one of its pools, where that is its own.", _SAME),
    _text("reserve_pool_size", _NONE_HERE, _SAME),
    _text("pool_mode", "Its pool_mode, where that is its own.", _SAME),
    _int4("max_user_connections", "The most servers of all its pools; 0: no limit.", _SAME),
    _int4("current_connections", "Servers there are."),
    _int4("max_user_client_connections", "0: no limit.", _SAME),
    _int4("current_client_connections", "Clients there are."),
)

LISTS: Columns = (_text("list", "What is counted."), _int4("items", "How many there are."))
CONFIG: Columns = (
    _text("key", "The option, by its path; PgBouncer's name where that is what its tools look for."),
    _text("value", "Its value. No password is among the options."),
    _text("default", "Its value where nothing is said."),
    _text("changeable", "yes if SET can change it; no if it takes a RELOAD, or a restart."),
)
MEM: Columns = (
    _text("name", "What is kept."),
    _int4("size", "Bytes of one, about; 0 where they differ.", _SAME),
    _int4("used", "How many there are."),
    _int4("free", "0: nothing is kept for later."),
    _int4("memtotal", "Bytes of all, at most 2 GiB; NULL where nobody knows."),
    _WORKER,
)
VERSION: Columns = (_text("version", "pgproxy and its version."),)
STATE: Columns = (
    _text(
        "key",
        "active, paused, suspended (never) or shutting_down (also when another process has taken over).",
    ),
    _text("value", "yes or no."),
)
HELP: Columns = (
    _text("command", "The command."),
    _text("meaning", "What it does."),
    _text("who", "Who may say it."),
)

PINS: Columns = (
    _int8("client", "The client's id.", _KEY),
    _DATABASE,
    _USER,
    _text("reason", "Why it keeps its server."),
    _text("digest", "The statement that did it, without its values."),
    _text("since", "Since when."),
    _float("seconds", "For how long.", _KEY),
    _int4("server_pid", "The server's process id.", _KEY),
    _WORKER,
)
TARGETS: Columns = (
    _text("target", "The target's name."),
    _text("host", "A host of it."),
    _int4("port", "Its port.", _KEY),
    _text("role", "writer, reader or none; unknown where the target is not watched.", _SAME),
    _text(
        "state", "up, or what is wrong with it; of a target that is not watched: up, down or unknown.", _SAME
    ),
    _float("lag", "Seconds behind the writer; NULL where nobody has asked.", _MOST),
    _text("since", "When something changed about it last.", _SAME),
    _int4("servers", "Servers there are."),
    _int4("max_servers", "The most there may be, as far as known.", _MOST),
    _int4("waiting", "Clients that wait for one."),
    _text("trouble", "What went wrong the last time, if something has.", _SAME),
)
HISTORY: Columns = (
    _text("target", "The target's name."),
    _text("time", "When."),
    _text("event", "What has happened."),
    _text("host", "The host concerned."),
    _text("detail", "More about it."),
)
QUEUE: Columns = (
    _int8("client", "The id of a client that waits.", _KEY),
    _DATABASE,
    _USER,
    _text("waits_for", "What it waits for."),
    _text("since", "Since when."),
    _float("seconds", "For how long.", _KEY),
    _text("who_holds", "Who has the servers."),
    _text("hint", "What can be done about it."),
    _WORKER,
)
SECRETS: Columns = (
    _text("name", "The secret's ARN."),
    _text("source", "Where it comes from."),
    _text("since", "When its current password was made."),
    _text("state", "known, or unread: it could not be read yet."),
)
WORKERS: Columns = (
    _WORKER,
    _int4("pid", "Its process id.", _KEY),
    _text("state", "serving, or starting."),
    _text("since", "When it was started."),
    _int4("clients", "Clients that it has."),
    _int4("servers", "Servers that it has."),
    _int4("waiting", "Clients that wait there."),
    _float("cpu_seconds", "Processor time that it has used."),
    _int8("memory", "Bytes of memory that it has now (resident)."),
)
STATEMENTS: Columns = (
    _DATABASE,
    _text("digest", "The statement without its values."),
    _int8("calls", "How often it was said; an estimate where traffic is too much to look at all of it."),
    _int8("looked_at", "How many of these calls were looked at."),
    _float("seconds", "In the database, of all calls together."),
    _float("mean_ms", "Milliseconds of one call."),
    _float("max_ms", "Of the longest that was looked at.", _MOST),
    _float("queue_seconds", "In the queue for a server."),
    _int8("rows", "Rows returned or changed."),
    _int8("errors", "How often it has failed."),
)

SHOWN: dict[str, Columns] = {
    "pools": POOLS,
    "clients": CLIENTS,
    "servers": SERVERS,
    "stats": STATS,
    "stats_totals": STATS_TOTALS,
    "stats_averages": STATS_AVERAGES,
    "databases": DATABASES,
    "users": USERS,
    "lists": LISTS,
    "config": CONFIG,
    "mem": MEM,
    "version": VERSION,
    "state": STATE,
    "help": HELP,
    "pins": PINS,
    "targets": TARGETS,
    "history": HISTORY,
    "queue": QUEUE,
    "secrets": SECRETS,
    "workers": WORKERS,
    "statements": STATEMENTS,
}
"""By what is said behind SHOW."""
