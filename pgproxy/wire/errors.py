"""
Every error or notice that pgproxy itself says to a client: SQLSTATE, severity, words and hint, in one table.

Drivers key on the SQLSTATE, people on the words. Where PostgreSQL has an error for the case, it is said
in PostgreSQL's words; where RDS Proxy has, with its SQLSTATE.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from pgproxy.wire import messages, tags


@frozen
class Refusal:
    """One kind of error, or notice; its texts have {names} to fill in."""

    sqlstate: str
    text: str
    hint: str = ""
    severity: str = "FATAL"


@frozen
class Complaint:
    """An error as it is said to one client and told in the log: a refusal with its names filled in."""

    severity: str
    sqlstate: str
    text: str
    detail: str = ""
    hint: str = ""
    verbatim: bytes = field(default=b"", repr=False)
    """A server's own ErrorResponse, to be passed on as it is."""

    def message(self) -> bytes:
        """Build the ErrorResponse, or NoticeResponse."""
        fields = {
            "S": self.severity,
            "V": self.severity,
            "C": self.sqlstate,
            "M": self.text,
            "D": self.detail,
            "H": self.hint,
        }
        tag = tags.NOTICE_RESPONSE if self.severity == "NOTICE" else tags.ERROR_RESPONSE
        return self.verbatim or messages.error_response(fields, tag)


def complaint(refusal: Refusal, detail: str = "", hint: str = "", **names: object) -> Complaint:
    """
    Fill in a refusal's names; `hint` goes before its own.

    A name from a peer is bounded, and free of control characters.
    """
    clean = {name: _printable(str(value)) for name, value in names.items()}
    return Complaint(
        refusal.severity,
        refusal.sqlstate,
        refusal.text.format(**clean),
        detail and _printable(detail, 1000),
        (hint and _printable(hint, 1000)) or refusal.hint.format(**clean),
    )


def from_server(payload: bytes, message: bytes) -> Complaint:
    """Take over a server's ErrorResponse, which may lack any field, to pass it on as it is."""
    fields = messages.read_error_fields(payload)
    if "C" not in fields or "M" not in fields or "S" not in fields:
        return complaint(
            SERVER_SPOKE_NONSENSE, detail="The server sent an error without severity, SQLSTATE or text."
        )
    return Complaint(
        fields.get("V", fields["S"]),
        fields["C"],
        _printable(fields["M"], 1000),
        _printable(fields.get("D", ""), 1000),
        verbatim=message,
    )


def about_init_query(fields: Mapping[str, str]) -> Complaint:
    """Say a server's error about `init_query`, given by its fields, to who has never sent such a thing."""
    hint = f"The server says so about init_query in pgproxy's configuration. {fields.get('H', '')}"
    return Complaint(
        "FATAL",
        _printable(fields.get("C", ""), 5) or INIT_QUERY_FAILED.sqlstate,
        _printable(fields.get("M", ""), 1000) or "init_query has failed",
        _printable(fields.get("D", ""), 1000),
        _printable(hint.strip(), 1000),
    )


def _printable(text: str, most: int = 128) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:most])
    return shown if len(text) <= most else shown + "…"


IN_EACH_WORKER = " in each worker"
"""Said of limits that each of several workers keeps for itself: the configured one is divided among them."""

# Before login.
MALFORMED_STARTUP = Refusal("08P01", "{what}")
UNSUPPORTED_PROTOCOL = Refusal("0A000", "unsupported frontend protocol {version}: server supports 3.0 to 3.0")
TLS_REQUIRED = Refusal(
    "28000",
    "pgproxy requires TLS connections",
    "Connect with sslmode=require, or better with sslmode=verify-full.",
)
NO_USER = Refusal("28000", "no PostgreSQL user name specified in startup packet")
TOO_MANY_WAITING = Refusal(
    "53300",
    "too many clients wait for a database connection",
    "pgproxy lets at most {limit} clients wait for the servers of one pool{each} (max_waiting_clients). "
    "Try again later.",
)
TOO_MANY_CLIENTS = Refusal(
    "53300",
    "sorry, too many clients already",
    "pgproxy serves at most {limit} clients at a time (max_client_connections).",
)
TOO_FAST = Refusal(
    "53300",
    "Rate of connection to proxy exceeded {limit}.",
    "pgproxy takes in at most {limit} clients per second{each} (max_connection_rate). Try again later.",
)
TOO_MANY_LOGINS = Refusal(
    "53300",
    "too many clients are logging in",
    "pgproxy lets at most {limit} clients log in at a time{each} (max_logins). Try again later.",
)
LOGIN_TIMEOUT = Refusal(
    "57014", "canceling authentication due to timeout", "pgproxy's login_timeout is {seconds} s."
)
SHUTTING_DOWN = Refusal("57P03", "the database system is shutting down", "pgproxy is being stopped.")

# Login. Who is refused learns nothing about which users there are.
WRONG_PASSWORD = Refusal("28P01", 'password authentication failed for user "{user}"')
WRONG_CERTIFICATE = Refusal("28000", 'certificate authentication failed for user "{user}"')
LOGIN_OUT_OF_ORDER = Refusal("08P01", "expected password response, got message type {tag}")
LOGIN_MALFORMED = Refusal("08P01", "malformed login message")
USERS_UNAVAILABLE = Refusal(
    "08006",
    'the secret of user "{user}" cannot be looked up now',
    "pgproxy's auth_query failed; its log says why. Try again.",
)
VAULT_CLOSED = Refusal(
    "57P03",
    'the secret of user "{user}" cannot be read now',
    "pgproxy can't read secrets from AWS; its log says why. Try again.",
)
TOKEN_WITHOUT_TLS = Refusal(
    "28000",
    "IAM authentication is allowed only with SSL connections.",
    "Connect with sslmode=require, or better with sslmode=verify-full.",
)
TOKEN_WRONG = Refusal(
    "28P01",
    "IAM authentication failed for user {user}. Check the IAM token for this user and try again.",
)
TOO_MANY_TOKENS = Refusal(
    "53300", "The IAM authentication failed because of too many competing requests.", "Try again later."
)
TOKENS_UNVERIFIABLE = Refusal(
    "08006",
    "IAM authentication of user {user} is not possible now",
    "pgproxy can't reach who verifies the token; its log says why. Try again.",
)
DEFECT = Refusal("XX000", "a defect in pgproxy", "Its log says more.")
DISABLED = Refusal(
    "57P03",
    'database "{database}" takes no new clients',
    "An administrator has said DISABLE on pgproxy's console; ENABLE ends it.",
)
NO_CONSOLE = Refusal(
    "42501",
    'user "{user}" may not use the console of pgproxy',
    "Add it to admin_users, or to stats_users for SHOW only.",
)
UNKNOWN_DATABASE = Refusal("3D000", 'database "{database}" does not exist')

# While a client waits for a server.
CANCELED = Refusal(
    "57014",
    "canceling statement due to user request",
    "It was waiting for a server connection.",
    severity="ERROR",
)
WAITING = Refusal(
    "00000",
    "waiting for a server connection",
    "pgproxy's connection_borrow_timeout ends the wait.",
    severity="NOTICE",
)
BORROW_TIMEOUT = Refusal(
    "08000",
    "Timed-out waiting to acquire database connection.",
    "No server became free within {seconds} s (connection_borrow_timeout).",
)
CANNOT_LOOK_UP = Refusal(
    "08001",
    "cannot look up the database's server",
    "Check the host in pgproxy's configuration, and what the name servers of pgproxy's machine say of it.",
)
CANNOT_CONNECT = Refusal(
    "08001",
    "cannot connect to the database's server",
    "Check that PostgreSQL runs at that address, and that nothing on the way keeps pgproxy from it.",
)
CANNOT_AGREE_ON_TLS = Refusal(
    "08001",
    "cannot agree on TLS with the database's server",
    "Check the target's tls, ca, certificate and key in pgproxy's configuration, and the server's ssl.",
)
NOT_THE_WRITER = Refusal(
    "08001",
    "the database's server is not the writer",
    "Wait until one of the target's hosts is; pgproxy's log says which it has asked (role_changed).",
)
NO_HOST = Refusal(
    "08001",
    "the target has no host for this now",
    "Wait until one of its hosts is the writer, or a reader where that is asked for; pgproxy's log says what "
    "became of them (role_changed).",
)
CANNOT_LOG_IN = Refusal(
    "08001",
    'cannot log in to the server of database "{database}"',
    "Check that it is a PostgreSQL, and its log.",
)
CANNOT_ASK = Refusal(
    "08001",
    'cannot find out how sessions begin in database "{database}"',
    "The login has succeeded. Check the server's log.",
)
INIT_QUERY_FAILED = Refusal(
    "08001",
    'init_query has failed in database "{database}"',
    "Check init_query in pgproxy's configuration.",
)
SERVER_LOGIN_REFUSED = Refusal(
    "28000",
    'pgproxy cannot log in to the server as user "{user}"',
    "Give pgproxy this user's password, or the verifier that the server has, in its users file.",
)

# While a client is served.
IDLE_CLIENT = Refusal(
    "57P05",
    "terminating connection due to idle-session timeout",
    "pgproxy's idle_client_timeout is {seconds} s.",
)
IDLE_TRANSACTION = Refusal(
    "25P03",
    "terminating connection due to idle-in-transaction timeout",
    "pgproxy's idle_transaction_timeout is {seconds} s.",
)
TRANSACTION_TIMEOUT = Refusal(
    "25P04",
    "terminating connection due to transaction timeout",
    "pgproxy's transaction_timeout is {seconds} s.",
)
QUERY_TIMEOUT = Refusal(
    "57014",
    "canceling statement due to statement timeout",
    "pgproxy's query_timeout is {seconds} s.",
)
PROTOCOL_VIOLATION = Refusal("08P01", "{what}")
SERVER_LOST = Refusal(
    "08006",
    "server closed the connection unexpectedly",
    "What was under way may or may not have been done. Connect again.",
)
STATEMENT_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "pgproxy keeps this session. What was under way may be run again where it does no harm to do it twice.",
    severity="ERROR",
)
TRANSACTION_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "pgproxy keeps this session. End the transaction with ROLLBACK; then it may be run again as a whole.",
    severity="ERROR",
)
COMMIT_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "pgproxy keeps this session. Before the transaction is run again, see whether it was committed.",
    severity="ERROR",
)
STATE_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "pgproxy keeps this session, with its settings. What else it needs has to be made anew; then the "
    "statement may be run again: it was not run.",
    severity="ERROR",
)
LISTENER_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "This session was listening, and would not hear of anything any more. Connect again, LISTEN, and look "
    "for what has happened meanwhile.",
)
SETTINGS_LOST = Refusal(
    "08006",
    "the connection to the database server was lost",
    "What this session was set to cannot be told any more. Connect again.",
)
IN_FAILED_TRANSACTION = Refusal(
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
    "The connection to the database server was lost in this transaction. End it with ROLLBACK.",
    severity="ERROR",
)
NO_SUCH_SAVEPOINT = Refusal(
    "3B001",
    'savepoint "{name}" does not exist',
    "The connection to the database server was lost in this transaction. End it with ROLLBACK.",
    severity="ERROR",
)
SEQUENCES_OF_OTHERS = Refusal(
    "55000",
    "currval() and lastval() cannot be answered here: other clients have used sequences on this server "
    "connection",
    "pgproxy cannot have them forgotten in the middle of a pipeline or in a failed transaction. Connect "
    "again; what is asked then is kept apart from the beginning.",
)
SESSION_NOT_RESTORED = Refusal(
    "08006",
    "the settings of this session cannot be restored on another server connection",
    "What the session was set to (a role, a tablespace …) is not to be had any more. Connect again.",
)
SERVER_SPOKE_NONSENSE = Refusal(
    "08P01", "the server broke the protocol", "pgproxy closed the connection to it; its log says more."
)
KILLED = Refusal(
    "57P01", "terminating connection due to administrator command", "It was said on pgproxy's console."
)
TERMINATED = Refusal(
    "57P01", "terminating connection due to administrator command", "pgproxy is being stopped."
)
