"""Writes docs/console.md from the commands and the columns themselves."""

from __future__ import annotations

from collections.abc import Iterator

from pgproxy.console import commands
from pgproxy.console.columns import PERIOD, SHOWN

_HEAD = """\
<!-- Written by `python -m pgproxy.console > docs/console.md`: change pgproxy/console/. -->

# The console

A client that asks for the database `pgproxy` (or `pgbouncer`, for the tools that exist) speaks to pgproxy
itself:

```sh
psql -h 127.0.0.1 -p 6432 -U demo pgproxy -c "SHOW POOLS"
psql -h 127.0.0.1 -p 6432 -U demo pgproxy -c "SHOW QUEUE" -c "SHOW PINS"
```

It logs in as to any database (`auth`, `users_file`, `auth_query`, certificates; a user that `auth_query`
looks up is looked up in the first target). Then it has to be one of `admin_users`, who may say everything,
or of `stats_users`, who may say SHOW; others are refused with 42501. `admin_users` are also those for whom
servers are kept free and who may come beyond `max_client_connections`: whoever is to help when everything
is in use needs both. A database that the configuration has a table for (`[databases.pgbouncer]`) is that
database; the other name is still the console.

Simple and extended queries work, with text and binary results, so drivers work as well as psql. What
drivers say of their own accord (BEGIN, COMMIT, SET of PostgreSQL's settings, RESET, DISCARD, `select
version()` and the like) is taken and means nothing; the console has no transactions to undo what was done.
Commands take no parameters ($1). With `workers` each console speaks for all of them: one that does not
answer within 5 s is left out.

`SHOW` has PgBouncer's columns, by name, type and order as in 1.25 and what has been added since
(`client_login_count`), but for `id`, an int4 there. Behind these is what earlier versions had and what
pgproxy has beside: exporters find theirs by name. A column that PgBouncer fills and pgproxy doesn't count
is NULL, and where there is no such thing here it is 0 or empty, as said below. There is no SUSPEND,
WAIT_CLOSE, or SHOW of SOCKETS, ACTIVE_SOCKETS, FDS, TOTALS, PEERS, PEER_POOLS, DNS_HOSTS and DNS_ZONES.

## Commands

| command | meaning | who |
|---|---|---|
"""

_BEHIND = f"""
Each command that changes something is in the log (`console_command`), with its user.

**PAUSE** closes servers as they are given back, and is done when none is left: then PostgreSQL can be
restarted. New statements wait in the queue. As in PgBouncer their wait counts: after
`connection_borrow_timeout` they fail with 08000, so RESUME before. For that reason PAUSE itself waits no
longer than that for servers that are in use (by a transaction, a pin, a client in session mode): it then
ends with 55006, and nothing is paused. Cancelling it (Ctrl-C in psql) or losing the connection takes it
back, too. Clients log in during a PAUSE where pgproxy knows how servers greet, else they wait. A worker
that is started anew is paused as well; a restart of pgproxy ends it.

**KILL** ends clients at once, and cancels what they have under way. Then the database is paused.

**DISABLE** refuses clients that log in, with 57P03; those that are there stay. A restart of pgproxy ends
it.

**SET** takes options by their path in the file (`SET databases.app.pool_size = 5`); those of `[proxy]` need
no path. The value is checked as in the file, and the files that the configuration names are read anew. It
holds until the next RELOAD or SIGHUP, which goes back to the file. What is opened at the start (addresses,
workers), what says who may come in (`auth`, users, TLS) and where targets are can't be changed so:
`changeable` in SHOW CONFIG says which can.

**RELOAD** answers when the configuration is in force, or with what is wrong with it.

**SHUTDOWN** answers, then ends pgproxy: at once; as SIGTERM does (WAIT_FOR_SERVERS: transactions have
`drain_timeout` to end); or when the last client has left (WAIT_FOR_CLIENTS: no new ones are taken in; for
this one there is no limit, SIGTERM ends it; of several workers one that is starting, or has not stopped
listening within 10 s, is ended).

**SWITCHOVER** drains the writer of a target: its servers are closed as they are given back, and new
statements wait. It is done when none is left; then promote another host with what manages the cluster
(`psql … -c "SWITCHOVER main" && patronictl switchover …`). As soon as that one is the writer, clients go on
there: none has seen anything but a pause. Where transactions do not end within `connection_borrow_timeout`
it ends with 55006, and where no other host becomes the writer within that time behind it, clients go on
with the old one (`switchover_given_up` in the log). A target with one host is refused (55000).

## What SHOW gives

Times that are averages are over the last whole period of {PERIOD} s. What takes time (`xact_time`,
`query_time`, SHOW STATEMENTS) is measured of a sample: of all transactions while there are fewer than about
50 a second in a process, else of one in so many, which stands for the others. Counts (`xact_count`,
`query_count` …) are exact, but for chains: all transactions of COMMIT AND CHAIN are one.
"""


def markdown() -> str:
    """Write the whole document."""
    return "".join([_HEAD, *_commands(), _BEHIND, *_tables()])


def _commands() -> Iterator[str]:
    for command, meaning, who in commands.help_rows():
        yield f"| `{command}` | {meaning} | {who} |\n"


def _tables() -> Iterator[str]:
    meanings = {command: meaning for command, meaning, _who in commands.help_rows()}
    for what, columns in SHOWN.items():
        title = f"SHOW {what.upper()}"
        yield f"\n### `{title}`\n\n{meanings[title]}\n\n| column | type | meaning |\n|---|---|---|\n"
        for column in columns:
            yield f"| `{column.name}` | {column.kind.name.lower()} | {column.doc} |\n"
