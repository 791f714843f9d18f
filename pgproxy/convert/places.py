"""Where clients connect, and where the servers are: [databases] and [users]."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from pgproxy.config import Database, Proxy, Target, User
from pgproxy.config.kinds import Name, OneAddress, Unfit
from pgproxy.convert.draft import Draft, Table, number, seconds
from pgproxy.convert.ini import Entry

_PORT = "5432"
_LISTEN = "6432"
_NO_DIRECTORY = Path("/")
"""For kinds of option that name no file."""
_pair = re.compile(r"\s*([A-Za-z0-9_]+)\s*=\s*(?:'((?:[^']|'')*)'(?=\s|$)|([^\s']\S*|(?=\s|$)))")
_FORCED = {"client_encoding": "client_encoding", "datestyle": "DateStyle", "timezone": "TimeZone"}
_NOT_OF_A_DATABASE = {
    "user": "clients log in to the server as themselves: each needs a role there, and its secret here",
    "password": "there is no forced user; its password was not taken over",
    "auth_user": "there is one auth_query, in [proxy.auth_query], for all databases",
    "auth_query": "there is one auth_query, in [proxy.auth_query], for all databases",
    "auth_dbname": "there is one auth_query, in [proxy.auth_query], for all databases",
    "reserve_pool": "there is no reserve pool",
    "reserve_pool_size": "there is no reserve pool",
    "max_db_client_connections": "clients are not limited by database",
    "load_balance_hosts": "servers are the writer's; proxy.listen_read_only is for those who only read",
    "server_lifetime": "it is one for all, proxy.server_lifetime",
    "application_name": "it is the client's own",
    "query_wait_timeout": "it is one for all, proxy.connection_borrow_timeout",
}
_NOT_OF_A_USER = {
    "reserve_pool_size": "there is no reserve pool",
    "max_user_client_connections": "clients are not limited by user",
    "query_wait_timeout": "it is one for all, proxy.connection_borrow_timeout",
}
_OF_A_DATABASE: dict[str, tuple[str, Callable[[str], float | int | None]]] = {
    "pool_size": ("pool_size", number),
    "min_pool_size": ("min_pool_size", number),
    "max_db_connections": ("max_server_connections", number),
}
_OF_A_USER: dict[str, tuple[str, Callable[[str], float | int | None]]] = {
    "pool_size": ("pool_size", number),
    "max_user_connections": ("max_server_connections", number),
    "query_timeout": ("query_timeout", seconds),
    "idle_transaction_timeout": ("idle_transaction_timeout", seconds),
    "transaction_timeout": ("transaction_timeout", seconds),
    "client_idle_timeout": ("idle_client_timeout", seconds),
}


class _Broken(Exception):
    """Not a list of key=value; what stands there may be a password, so it isn't repeated."""


def convert_listen(keys: dict[str, Entry], draft: Draft) -> None:
    """Write where clients connect."""
    port = keys["listen_port"].value if "listen_port" in keys else _LISTEN
    entry = keys.get("listen_addr")
    if entry is None or not entry.value:
        draft.note(
            entry, f"listen_addr is empty: PgBouncer has a Unix socket only. pgproxy is on 127.0.0.1:{port}"
        )
    hosts = [host.strip() for host in (entry.value if entry is not None else "").split(",") if host.strip()]
    addresses: list[str] = []
    for host in hosts or ["127.0.0.1"]:
        if host == "*":
            host = "0.0.0.0"
            draft.note(entry, 'all IPv4 addresses are listened on; add "[::]" instead for IPv6')
        written = _address(host, port)
        if written is None:
            draft.note(entry or keys.get("listen_port"), "is no address that pgproxy takes; left out")
        elif written not in addresses:
            addresses.append(written)
    draft.put(draft.proxy, Proxy, "listen", addresses or [f"127.0.0.1:{_LISTEN}"], entry)


def convert_mode(keys: dict[str, Entry], draft: Draft) -> None:
    """Write the pool mode, which by default is another here than there."""
    entry = keys.get("pool_mode")
    draft.proxy["pool_mode"] = _mode(entry.value, entry, draft) if entry is not None else "session"


def _mode(text: str, entry: Entry | None, draft: Draft) -> str:
    mode = text.lower()
    if mode == "statement":
        draft.note(entry, "there is no statement mode; in transaction mode transactions of several work, too")
        return "transaction"
    if mode not in ("session", "transaction"):
        draft.note(entry, "is none of PgBouncer's pool modes; session was taken")
        return "session"
    return mode


def _read(entries: Iterable[Entry], what: str, draft: Draft) -> Iterator[tuple[Entry, dict[str, str]]]:
    """Give the entries that can be read, with what each of them sets; note the others."""
    for entry in entries:
        try:
            pairs = _pairs(entry.value)
        except _Broken:
            draft.note(entry, f"this is not key=value with spaces between them; the {what} was left out")
            continue
        if _is_name(entry.key):
            yield entry, pairs
        else:
            draft.note(entry, f"is too long for a name; the {what} was left out")


def convert_databases(entries: Iterable[Entry], keys: dict[str, Entry], draft: Draft) -> None:
    """Write a target for each server, and a table for each database."""
    by_server: dict[tuple[str, ...], str] = {}
    tls = _server_tls(keys, draft)
    for entry, pairs in _read(entries, "database", draft):
        server = _server(entry, pairs, draft)
        if server is None:
            continue
        if server not in by_server:
            by_server[server] = _target_name(server[0], draft)
            draft.targets[by_server[server]] = {"server": list(server), **tls}
        draft.databases[entry.key] = _database(entry, pairs, by_server[server], keys, draft)
    if len(draft.targets) == 1:
        for table in draft.databases.values():
            table.pop("target", None)


def _database(
    entry: Entry, pairs: dict[str, str], target: str, keys: dict[str, Entry], draft: Draft
) -> Table:
    table: Table = {"target": target}
    name = pairs.get("dbname", "")
    if name and name != entry.key:
        draft.put(table, Database, "name", name, entry)
    if "pool_mode" in pairs:
        table["pool_mode"] = _mode(pairs["pool_mode"], entry, draft)
    common = keys.get("max_db_connections")
    if common is not None and "max_db_connections" not in pairs:
        _numbers(table, Database, {"max_db_connections": common.value}, _OF_A_DATABASE, common, draft)
    _numbers(table, Database, pairs, _OF_A_DATABASE, entry, draft)
    query = _init_query(pairs)
    if query:
        draft.put(table, Database, "init_query", query, entry)
    if "connect_query" in pairs:
        draft.note(entry, "connect_query is init_query now: what it sets is also what RESET goes back to")
    for key in pairs:
        if key in _NOT_OF_A_DATABASE:
            draft.note(entry, f"{key}: {_NOT_OF_A_DATABASE[key]}")
        elif key not in {*_OF_A_DATABASE, *_FORCED, "dbname", "host", "port", "pool_mode", "connect_query"}:
            draft.note(entry, f"{key[:40]}: PgBouncer has no such key that is known here; left out")
    return table


def _init_query(pairs: dict[str, str]) -> str:
    said = [
        f"SET {setting} = '{value}'"
        for key, setting in _FORCED.items()
        if (value := pairs.get(key, "").replace("'", "''"))
    ]
    own = pairs.get("connect_query", "").strip().rstrip(";")
    return "; ".join([*said, *([own] if own else [])])


def convert_users(entries: Iterable[Entry], keys: dict[str, Entry], draft: Draft) -> None:
    """Write a table for each user."""
    common = keys.get("max_user_connections")
    for entry, pairs in _read(entries, "user", draft):
        table: Table = {}
        if "pool_mode" in pairs:
            table["pool_mode"] = _mode(pairs["pool_mode"], entry, draft)
        _numbers(table, User, pairs, _OF_A_USER, entry, draft)
        if common is not None and "max_user_connections" not in pairs:
            _numbers(table, User, {"max_user_connections": common.value}, _OF_A_USER, common, draft)
        for key in pairs:
            if key in _NOT_OF_A_USER:
                draft.note(entry, f"{key}: {_NOT_OF_A_USER[key]}")
            elif key not in {*_OF_A_USER, "pool_mode"}:
                draft.note(entry, f"{key[:40]}: PgBouncer has no such key that is known here; left out")
        if table:
            draft.users[entry.key] = table
    if common is not None and common.value.strip() != "0":
        draft.note(common, "holds for users with a table of their own; there is no such limit for the others")


def _numbers(
    table: Table,
    cls: type[Database] | type[User],
    pairs: dict[str, str],
    known: dict[str, tuple[str, Callable[[str], float | int | None]]],
    entry: Entry,
    draft: Draft,
) -> None:
    for key, (option, read) in known.items():
        if key not in pairs:
            continue
        value = read(pairs[key])
        if value is None:
            draft.note(entry, f"{key} is not a number; left out")
        elif value == 0 and option == "pool_size":
            draft.put(table, cls, option, 10**9, entry)
        else:
            draft.put(table, cls, option, value, entry)


def _pairs(text: str) -> dict[str, str]:
    """Read a connection string."""
    pairs: dict[str, str] = {}
    place = 0
    while text[place:].strip():
        found = _pair.match(text, place)
        if found is None:
            raise _Broken
        value = found[2].replace("''", "'") if found[2] is not None else found[3]
        pairs[found[1].lower()] = value
        place = found.end()
    return pairs


def _server(entry: Entry, pairs: dict[str, str], draft: Draft) -> tuple[str, ...] | None:
    """Give where a database's hosts are."""
    hosts = [host.strip() for host in pairs.get("host", "").split(",") if host.strip()]
    ports = [port.strip() for port in pairs.get("port", _PORT).split(",")]
    if len(hosts) > 1:
        draft.note(entry, "pgproxy finds out which of the hosts is the writer, and takes that")
    if not hosts or any(host[0] in "/@" for host in hosts):
        draft.note(entry, "servers are reached over TCP only: 127.0.0.1 stands for the Unix socket")
    hosts = ["127.0.0.1" if host[0] in "/@" else host for host in hosts] or ["127.0.0.1"]
    if len(ports) not in (1, len(hosts)):
        draft.note(entry, "there are not as many ports as hosts; the database was left out")
        return None
    addresses = [_address(host, ports[place % len(ports)]) for place, host in enumerate(hosts)]
    if None in addresses:
        draft.note(entry, "host and port are no address that pgproxy takes; the database was left out")
        return None
    return tuple(dict.fromkeys(filter(None, addresses)))


def _address(host: str, port: str) -> str | None:
    whole = number(port)
    if whole is None or not 1 <= whole <= 65535:
        return None
    bare = host.removeprefix("[").removesuffix("]")
    try:
        address = OneAddress().read(f"[{bare}]:{whole}" if ":" in bare else f"{bare}:{whole}", _NO_DIRECTORY)
    except Unfit:
        return None
    return str(address)


def _target_name(server: str, draft: Draft) -> str:
    if not draft.targets:
        return "main"
    host, _colon, port = server.rpartition(":")
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", host).strip("-")[:60] or "server"
    names = [base, f"{base}-{port}", *(f"{base}-{port}-{n}" for n in range(2, len(draft.targets) + 3))]
    return next(name for name in names if name not in draft.targets)


def _server_tls(keys: dict[str, Entry], draft: Draft) -> Table:
    table: Table = {}
    mode = keys.get("server_tls_sslmode")
    if mode is not None:
        word = mode.value.lower()
        if word == "allow":
            word = "prefer"
            draft.note(mode, "allow is prefer here: TLS where the server has it")
        if word not in attrs.fields_dict(Target)["tls"].metadata["kind"].choices:
            draft.note(mode, "is none of the modes; left out")
        else:
            table["tls"] = word
    for key, option in (("ca", "ca"), ("cert", "certificate"), ("key", "key")):
        entry = keys.get(f"server_tls_{key}_file")
        if entry is not None and entry.value:
            table[option] = draft.file(entry)
    return table


def _is_name(text: str) -> bool:
    try:
        Name().read(text, _NO_DIRECTORY)
    except Unfit:
        return False
    return True
