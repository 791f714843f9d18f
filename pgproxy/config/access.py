"""How clients come in: TLS on their leg, and where their secrets are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from pgproxy.config.kinds import Choice, File, Name, Query, option

ClientTlsMode = Literal["off", "allow", "require"]

_AUTH_QUERY = """\
SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
WHERE rolname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND rolcanlogin \
AND (rolvaliduntil IS NULL OR rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now())"""
"""
Every name is qualified, as nobody's search_path may change what it means. A password past VALID UNTIL is
none. The parameter is text: as a `name` it would be cut to 63 bytes, and so could mean another user.
"""


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
