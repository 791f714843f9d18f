"""
The console's commands: what a statement's text asks for, and who may say it.

Keywords are read without regard to case; names as they stand, or in double quotes or quotes.
"""

from __future__ import annotations

import difflib
from enum import Enum
from itertools import pairwise

from attrs import frozen

from pgproxy.console import columns
from pgproxy.console.chatter import Chat, chat, is_session_setting
from pgproxy.session.lexer import OPERATOR, QUOTED, SEMICOLON, STRING, WORD, Token, inside, tokens
from pgproxy.wire.errors import Complaint, Refusal, complaint


class Right(Enum):
    """What a user of the console may do."""

    READ = "readers and administrators"
    ADMINISTER = "administrators"


@frozen
class Show:
    """A table of `columns.SHOWN`."""

    what: str


@frozen
class Act:
    """One of `ACTIONS`, on a name, which may be empty."""

    verb: str
    name: str = ""


@frozen
class Set:
    """Another value for an option."""

    path: str
    value: str


Command = Show | Act | Set | Chat


@frozen
class Action:
    """What can be done: how it is said, what it means."""

    syntax: str
    meaning: str
    takes_name: bool = False
    needs_name: bool = False


ACTIONS: dict[str, Action] = {
    "pause": Action(
        "PAUSE [database]",
        "Lends no server any more; done when all have been given back and closed.",
        takes_name=True,
    ),
    "resume": Action("RESUME [database]", "Ends PAUSE and KILL.", takes_name=True),
    "reconnect": Action(
        "RECONNECT [database]",
        "Closes each server as soon as nobody has it; new ones take over.",
        takes_name=True,
    ),
    "kill": Action(
        "KILL [database]",
        "Ends all clients and servers at once, and lends none until RESUME.",
        takes_name=True,
    ),
    "kill_client": Action("KILL_CLIENT id", "Ends one client.", takes_name=True, needs_name=True),
    "disable": Action("DISABLE database", "Refuses new clients.", takes_name=True, needs_name=True),
    "enable": Action("ENABLE database", "Lets them in again.", takes_name=True, needs_name=True),
    "reload": Action("RELOAD", "Reads the configuration and what it names anew, as SIGHUP does."),
    "shutdown": Action("SHUTDOWN", "Ends pgproxy at once; what is under way is cancelled."),
    "shutdown_wait_for_servers": Action(
        "SHUTDOWN WAIT_FOR_SERVERS", "Ends pgproxy as SIGTERM does: transactions have drain_timeout to end."
    ),
    "shutdown_wait_for_clients": Action(
        "SHUTDOWN WAIT_FOR_CLIENTS", "Takes in no new clients, and ends pgproxy when the last has gone."
    ),
    "switchover": Action(
        "SWITCHOVER target",
        "Drains the writer of a target, so that another can be promoted without cutting anybody off.",
        takes_name=True,
        needs_name=True,
    ),
}
"""By verb."""
SET_HELP = ("SET option = value", "Changes an option until the next RELOAD, checked as in the file.")

_SYNTAX = Refusal(
    "42601", 'invalid command "{text}"', "SHOW HELP lists the commands of this console.", severity="ERROR"
)
_UNKNOWN_TABLE = Refusal("42704", 'there is nothing called "{name}" to show', "{hint}", severity="ERROR")
_NEEDS_NAME = Refusal("42601", "{verb} takes a name", "It is said {syntax}.", severity="ERROR")
_NEEDS_NONE = Refusal("42601", "{verb} takes no name", "It is said {syntax}.", severity="ERROR")
_DENIED = Refusal(
    "42501",
    "permission denied for {what}",
    "Only administrators may say it: users in pgproxy's admin_users.",
    severity="ERROR",
)
_NOT_A_DATABASE = Refusal(
    "0A000",
    'this is pgproxy\'s console, which does not understand "{text}"',
    "SHOW HELP lists its commands; connect to another database for SQL.",
    severity="ERROR",
)
_SQL = frozenset(
    b"select insert update delete with values table create alter drop copy grant explain do call merge "
    b"prepare execute listen notify lock vacuum analyze truncate fetch declare move".split()
)


def split(text: bytes) -> list[bytes]:
    """Cut a text into its statements; empty ones are left out."""
    found, begin, some = [], 0, False
    for kind, _value, start, end in tokens(text):
        if kind == SEMICOLON:
            if some:
                found.append(text[begin:start].strip())
            begin, some = end, False
        else:
            some = True
    return [*found, text[begin:].strip()] if some else found


def parse(text: bytes, user: str = "", database: str = "") -> Command | Complaint:
    """Read one statement of a user in this database; what is wrong with it comes back as an error."""
    words = list(tokens(text))
    if not words or words[0][0] != WORD:
        return complaint(_SYNTAX, text=_shown(text))
    verb = words[0][1].decode("utf-8", "replace")
    if verb == "show":
        return _show(text, words[1:])
    if verb == "shutdown":
        verb = "_".join(["shutdown", *(_plain(text, [one]).lower() for one in words[1:])])
        return Act(verb) if verb in ACTIONS else complaint(_SYNTAX, text=_shown(text))
    if verb in ACTIONS:
        return _act(verb, text, words[1:])
    if verb == "set" and not _is_session_set(words):
        return _set(text, words[1:])
    said = chat(verb, text, user, database)
    if said is not None:
        return said
    return complaint(_NOT_A_DATABASE if verb.encode() in _SQL else _SYNTAX, text=_shown(text))


def needed(command: Command) -> Right:
    """Say what right a command takes."""
    return Right.ADMINISTER if isinstance(command, (Act, Set)) else Right.READ


def denied(command: Command) -> Complaint:
    """Say that a user hasn't got it."""
    if isinstance(command, Act):
        what = command.verb.upper().replace("SHUTDOWN_", "SHUTDOWN ")
    else:
        what = "SET" if isinstance(command, Set) else "this console"
    return complaint(_DENIED, what=what)


def help_rows() -> list[tuple[str, str, str]]:
    """Give all commands, their meanings and who may say them."""
    shows = [(f"SHOW {what.upper()}", _ABOUT[what], Right.READ.value) for what in columns.SHOWN]
    acts = [(action.syntax, action.meaning, Right.ADMINISTER.value) for action in ACTIONS.values()]
    return [*shows, *acts, (*SET_HELP, Right.ADMINISTER.value)]


_ABOUT = {
    "pools": "The pools: one for each database and user.",
    "clients": "All clients.",
    "servers": "All servers.",
    "stats": "What was done for each database: totals, and averages.",
    "stats_totals": "The totals alone.",
    "stats_averages": "The averages alone.",
    "databases": "The databases of the configuration, and those that clients have asked for.",
    "users": "The users of the configuration, and those that are here.",
    "lists": "How many there are of what.",
    "config": "The options in force.",
    "mem": "What memory goes to, about.",
    "version": "The version.",
    "state": "Whether pgproxy is active, paused or shutting down.",
    "help": "This.",
    "pins": "Which clients keep their servers between transactions, and why.",
    "targets": "The targets and their hosts.",
    "history": "What has happened to targets: failovers, switchovers.",
    "queue": "Who waits for what, since when, and who holds it.",
    "secrets": "The secrets that come from elsewhere: names and ages, no values.",
    "workers": "The processes that carry clients.",
    "statements": "The statements that took the longest in the database.",
}


def _show(text: bytes, words: list[Token]) -> Command | Complaint:
    name = _plain(text, words).lower()
    if name in columns.SHOWN:
        return Show(name)
    if name in ("stats totals", "stats averages"):
        return Show(name.replace(" ", "_"))
    if name in ("", "all"):
        return Show("help")
    said = chat("show", text, "", "")
    if said is not None:
        return said
    near = difflib.get_close_matches(name, columns.SHOWN, n=1)
    hint = f"Did you mean SHOW {near[0].upper()}?" if near else "SHOW HELP lists what there is."
    return complaint(_UNKNOWN_TABLE, name=name, hint=hint)


def _act(verb: str, text: bytes, words: list[Token]) -> Command | Complaint:
    action = ACTIONS[verb]
    if words and not action.takes_name:
        return complaint(_NEEDS_NONE, verb=verb.upper(), syntax=action.syntax)
    if not words and action.needs_name:
        return complaint(_NEEDS_NAME, verb=verb.upper(), syntax=action.syntax)
    if len(words) > 1 and any(after[2] > before[3] for before, after in pairwise(words)):
        return complaint(_SYNTAX, text=_shown(text))
    return Act(verb, _plain(text, words))


def _is_session_set(words: list[Token]) -> bool:
    """Say whether a SET is what drivers say to a PostgreSQL."""
    rest = [value.decode("utf-8", "replace") for _kind, value, _start, _end in words[1:3]]
    if rest[:1] in (["session"], ["local"]):
        return True
    return bool(rest) and is_session_setting(rest[0])


def _set(text: bytes, words: list[Token]) -> Command | Complaint:
    for place, (kind, value, _start, _end) in enumerate(words):
        # An option's path has dots in it; PgBouncer's form has no blanks around the sign.
        if (kind == OPERATOR and value == b"=") or (kind == WORD and value == b"to"):
            path, said = words[:place], words[place + 1 :]
            if path and said:
                return Set(_raw(text, path), _plain(text, said))
    return complaint(_SYNTAX, text=_shown(text))


def _raw(text: bytes, words: list[Token]) -> str:
    return text[words[0][2] : words[-1][3]].decode("utf-8", "replace") if words else ""


def _plain(text: bytes, words: list[Token]) -> str:
    """Give what stands there, without quotes around it where it is one name or string."""
    if len(words) == 1:
        kind, value, _start, _end = words[0]
        if kind in (QUOTED, STRING):
            return (value if kind == QUOTED else inside(words[0])).decode("utf-8", "replace")
    return _raw(text, words)


def _shown(text: bytes) -> str:
    return " ".join(text[:200].decode("utf-8", "replace").split())
