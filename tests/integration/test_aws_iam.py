"""IAM on both legs: clients that log in by tokens, pgproxy that logs in to servers with its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pgproxy.aws import caller_identity
from pgproxy.aws.threads import AT_ONCE
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import wait_until
from tests.fix_aws import ENVIRONMENT, KEYS, REGION
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.fix_postgres import HBA, PostgresFactory
from tests.fix_tls import Tls
from tests.signatures import ACCOUNT, IamServer, Principal, Rds, presign
from tests.tls_front import server_context

SERVER_ID = "proxy.tests"
APP = Principal(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/i-0123", "AKIDAPP")
OTHER = Principal(f"arn:aws:sts::{ACCOUNT}:assumed-role/other/i-0123", "AKIDOTHER")
STRANGER = Principal("arn:aws:sts::999999999999:assumed-role/app/i-0123", "AKIDSTRANGER")
US = Principal(
    f"arn:aws:sts::{ACCOUNT}:assumed-role/pgproxy/i-9",
    KEYS["AWS_ACCESS_KEY_ID"],
    KEYS["AWS_SECRET_ACCESS_KEY"],
)
STS = f"sts.{REGION}.amazonaws.com"
USERS = ("iam_app", "iam_other")


@pytest.fixture(scope="module")
def database(module_postgres_factory: PostgresFactory) -> Postgres:
    """A PostgreSQL that lets the users of IAM in as they are: whoever stands before it asks for the token."""
    server = module_postgres_factory(hba=[*(f"host all {user} 127.0.0.1/32 trust" for user in USERS), *HBA])
    server.execute(*(f"create role {user} login" for user in USERS))
    return server


@pytest.fixture
def rds(database: Postgres, tls: Tls) -> Iterator[Rds]:
    with Rds(database.port, server_context(tls.server.certificate, tls.server.key), APP, US) as rds:
        yield rds


@pytest.fixture
def iam() -> Iterator[IamServer]:
    with IamServer(APP, OTHER, STRANGER) as server:
        yield server


class Start:
    """Starts pgproxy with TLS on both legs, and IAM as a test wants it."""

    def __init__(self, pgproxy: PgproxyFactory, rds: Rds, iam: IamServer, tls: Tls) -> None:
        self._pgproxy = pgproxy
        self._rds = rds
        self._iam = iam
        self._tls = tls

    def __call__(
        self, *verifiers: str, users: dict[str, str] | None = None, workers: int = 1, **iam: Any
    ) -> Pgproxy:
        options: dict[str, Any] = {"verifiers": verifiers, "client_users": ["iam_app"], "server_users": USERS}
        if "sts-caller-identity" in verifiers or "web-identity" in verifiers:
            options["server_id"] = SERVER_ID
            options["issuers"] = [self._iam.url]
        options |= iam
        identities = options.pop("identities", {f"arn:aws:iam::{ACCOUNT}:role/app*": "iam_app"})
        if verifiers == ("rds-db",) or not verifiers:
            identities = {}
        lines = ["[aws]", "[aws.iam]", *(f"{name} = {json.dumps(value)}" for name, value in options.items())]
        lines += [
            "[aws.iam.identities]",
            *(f'"{arn}" = {json.dumps(who)}' for arn, who in identities.items()),
        ]
        return self._pgproxy(
            server=self._rds,
            users=users or {},
            proxy={
                "workers": workers,
                "tls.mode": "allow",
                "tls.certificate": str(self._tls.server.certificate),
                "tls.key": str(self._tls.server.key),
            },
            target={"tls": "verify-full", "ca": str(self._tls.ca)},
            extra="\n".join(lines) + "\n",
            env={**ENVIRONMENT, "AWS_ENDPOINT_URL_STS": self._iam.url},
        )


@pytest.fixture
def start(pgproxy: PgproxyFactory, rds: Rds, iam: IamServer, tls: Tls) -> Start:
    return Start(pgproxy, rds, iam, tls)


def log_in(proxy: Pgproxy, token: str, user: str = "iam_app", **more: Any) -> str:
    options: dict[str, Any] = {"sslmode": "require", "dbname": "postgres", **more}
    with proxy.connect(user=user, password=token, **options) as connection:
        return str(connection.execute("select current_user").fetchone()[0])  # type: ignore[index]


def refused(proxy: Pgproxy, token: str, why: str, **more: Any) -> str:
    """See that a token is refused, for this reason, in words that tell the client nothing of it."""
    before = len(proxy.log())
    with pytest.raises(psycopg.OperationalError, match="IAM authentication failed for user") as error:
        log_in(proxy, token, **more)
    (event,) = [one for one in proxy.log()[before:] if one["event"] == "client_refused"]
    assert why in event["detail"], event
    assert token[-40:] not in proxy.text()
    return str(error.value)


# Towards the server.


def test_tokens_for_the_server(start: Start, rds: Rds) -> None:
    proxy = start(
        client_users=[], users={"iam_app": "known to the client"}, verifiers=[], server_users=["iam_app"]
    )
    assert log_in(proxy, "known to the client", sslmode="disable") == "iam_app"
    assert rds.logins == ["iam_app"] and rds.refused == []
    assert "X-Amz-Signature" not in proxy.text()


def test_a_token_that_the_server_refuses(start: Start, rds: Rds) -> None:
    """AWS may say no: that is the client's to know, in the server's words."""
    rds._principals.clear()
    proxy = start(
        client_users=[], users={"iam_app": "known to the client"}, verifiers=[], server_users=["iam_app"]
    )
    with pytest.raises(psycopg.OperationalError, match="PAM authentication failed"):
        log_in(proxy, "known to the client")
    assert rds.refused == ["InvalidClientTokenId"]


# Clients: tokens for RDS.


def rds_token(
    rds: Rds, who: Principal = APP, user: str = "iam_app", host: str | None = None, **more: Any
) -> str:
    url = f"https://{host or f'127.0.0.1:{rds.port}'}/?Action=connect&DBUser={user}"
    return presign(who, url, REGION, "rds-db", **more).removeprefix("https://")


@pytest.mark.parametrize("own", [True, False])
def test_tokens_for_rds(start: Start, rds: Rds, own: bool) -> None:
    """RDS verifies them, before anybody is let in; pooled servers are opened with it, or with our own."""
    proxy = start("rds-db", server_users=["iam_app"] if own else [])
    token = rds_token(rds)
    for _ in range(3):
        assert log_in(proxy, token) == "iam_app"
    # Once to verify it, once for the pool.
    assert rds.logins == ["iam_app"] * 2
    assert "X-Amz-Signature" not in proxy.text()


def test_tokens_for_rds_that_are_wrong(start: Start, rds: Rds) -> None:
    proxy = start("rds-db")
    token = rds_token(rds)
    now = time.time()
    refused(proxy, token[:-1] + ("0" if token[-1] != "0" else "1"), "PAM authentication failed")
    refused(proxy, rds_token(rds, STRANGER), "PAM authentication failed")
    before = len(rds.refused)
    refused(proxy, rds_token(rds, made=now - 1000), "expired")
    refused(proxy, rds_token(rds, expires=3600), "at most 900")
    refused(proxy, rds_token(rds, user="iam_other"), "another database user")
    refused(proxy, token + "&DBUser=iam_app", "twice")
    refused(proxy, token + "&Extra=1", "parameter Extra")
    refused(proxy, token + "x" * 9000, "malformed")
    refused(proxy, "x" * 60_000, "a login message of")
    refused(proxy, "no token at all", "no token of AWS's")
    said = refused(proxy, rds_token(rds, host=f"127.0.0.1:{proxy.port}"), "nobody here can verify it")
    assert "sign the token for the host and port of the database itself" in said
    # None of these was shown to RDS.
    assert len(rds.refused) == before
    assert log_in(proxy, token)


def test_a_server_that_asks_for_nothing(start: Start, rds: Rds) -> None:
    """It would let everybody in, so it vouches for nobody."""
    rds.asks = False
    proxy = start("rds-db")
    refused(proxy, rds_token(rds), "does not ask for a token")


def test_no_token_in_clear(start: Start, rds: Rds) -> None:
    proxy = start("rds-db")
    with pytest.raises(psycopg.OperationalError, match="allowed only with SSL connections"):
        log_in(proxy, rds_token(rds), sslmode="disable")


# Clients: signed requests to STS.


def sts_token(who: Principal = APP, host: str = STS, server_id: str = SERVER_ID, **more: Any) -> str:
    url = f"https://{host}/?Action=GetCallerIdentity&Version=2011-06-15"
    headers = {} if server_id == "" else {caller_identity.HEADER: server_id}
    region = more.pop("region", REGION)
    return caller_identity.wrap(presign(who, url, region, "sts", headers=headers, **more))


def test_signed_requests(start: Start, iam: IamServer, rds: Rds) -> None:
    proxy = start("sts-caller-identity")
    token = sts_token()
    for _ in range(3):
        assert log_in(proxy, token) == "iam_app"
    assert len(iam.asked) == 1
    assert rds.logins == ["iam_app"]
    assert proxy.await_event("token_verified")["arn"] == APP.arn


def test_signed_requests_that_are_wrong(start: Start, iam: IamServer) -> None:
    proxy = start("sts-caller-identity")
    now = time.time()
    # What STS has to find out.
    url = presign(
        APP,
        f"https://{STS}/?Action=GetCallerIdentity&Version=2011-06-15",
        REGION,
        "sts",
        headers={caller_identity.HEADER: SERVER_ID},
    )
    forged = url[:-1] + ("0" if url[-1] != "0" else "1")
    refused(proxy, caller_identity.wrap(forged), "SignatureDoesNotMatch")
    refused(proxy, sts_token(server_id="another.proxy"), "SignatureDoesNotMatch")
    refused(proxy, sts_token(Principal(APP.arn, "AKIDNOBODY")), "InvalidClientTokenId")
    # What is somebody else's.
    refused(proxy, sts_token(OTHER), "may not be this user")
    refused(proxy, sts_token(STRANGER), "may not be this user")
    asked = len(iam.asked)
    # What is not worth asking STS about.
    refused(proxy, sts_token(server_id=""), "does not sign host and")
    refused(proxy, sts_token(made=now - 901), "expired")
    refused(proxy, sts_token(made=now - 61, expires=60), "expired")
    refused(proxy, sts_token(made=now + 600), "from the future")
    refused(proxy, sts_token(expires=3600), "at most 900")
    refused(proxy, sts_token(host="sts.evil.example"), "not for an STS")
    refused(proxy, sts_token(host="sts.us-east-2.amazonaws.com", region="us-east-2"), "not for an STS")
    refused(proxy, sts_token(host=f"{STS}:443"), "not for an STS")
    refused(proxy, caller_identity.wrap(url.replace("https", "http", 1)), "not https")
    refused(proxy, caller_identity.wrap(url.replace("/?", "/other?", 1)), "not https")
    refused(proxy, caller_identity.wrap(url + "&Action=GetCallerIdentity"), "twice")
    refused(proxy, caller_identity.wrap(url + "&X-Other=1"), "parameter X-Other")
    refused(
        proxy,
        caller_identity.wrap(url.replace("GetCallerIdentity", "GetSessionToken")),
        "no GetCallerIdentity",
    )
    refused(proxy, caller_identity.wrap(url + "&Version=" + "x" * 4000), "more than 4096")
    refused(proxy, caller_identity.PREFIX + "!!!", "malformed")
    assert len(iam.asked) == asked


def test_several_workers(start: Start, iam: IamServer, rds: Rds) -> None:
    """Each asks for itself, and makes its own tokens."""
    proxy = start("sts-caller-identity", "rds-db", workers=2)
    for token in (sts_token(), rds_token(rds)):
        # The same token again and again: none is used up, as docs/aws.md says.
        for _ in range(6):
            assert log_in(proxy, token) == "iam_app"
    refused(proxy, sts_token(OTHER), "may not be this user")
    assert 1 <= len(iam.asked) <= 2 + 2


def test_a_reload_changes_who_may_in(start: Start) -> None:
    proxy = start("sts-caller-identity")
    token = sts_token()
    assert log_in(proxy, token)
    config = (proxy.directory / "pgproxy.toml").read_text()
    proxy.write_config(config.replace("role/app*", "role/another"))
    proxy.reload()
    proxy.await_event("reloaded")
    refused(proxy, token, "may not be this user")


def test_without_sts(start: Start, iam: IamServer) -> None:
    proxy = start("sts-caller-identity")
    assert log_in(proxy, sts_token())
    iam.status = 503
    with pytest.raises(psycopg.OperationalError, match="is not possible now"):
        log_in(proxy, sts_token(made=time.time() - 5))
    iam.status = 0
    assert log_in(proxy, sts_token(made=time.time() - 5))


def test_many_tokens_while_sts_hangs(start: Start, iam: IamServer, rds: Rds) -> None:
    """Whoever they are, they keep nobody else from a server, and each is told in the end."""
    proxy = start("sts-caller-identity", users={"iam_other": "a password"})
    assert log_in(proxy, sts_token())
    asked = len(iam.asked)
    iam.answers.clear()
    now = time.time()
    with ThreadPoolExecutor(24) as threads:
        late = [
            threads.submit(log_in, proxy, sts_token(made=now - number), connect_timeout=60)
            for number in range(60, 84)
        ]
        assert wait_until(lambda: len(iam.asked) >= asked + AT_ONCE, 20)
        # Its server is opened with a token that is made only now.
        assert log_in(proxy, "a password", user="iam_other") == "iam_other"
        assert not all(one.done() for one in late)
        for one in late:
            with pytest.raises(psycopg.OperationalError, match="is not possible now"):
                one.result(60)
    iam.answers.set()
    assert log_in(proxy, sts_token(made=now - 100))


# Clients: JWTs.


@pytest.mark.parametrize("key", ["RSA_0", "EC_0"])
def test_jwts(start: Start, iam: IamServer, key: str) -> None:
    proxy = start("web-identity")
    for _ in range(3):
        assert log_in(proxy, iam.issue(key)) == "iam_app"
    assert iam.asked == ["/.well-known/jwks.json"]
    # A key that is new is found.
    iam.keys["RSA_1"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert log_in(proxy, iam.issue("RSA_1")) == "iam_app"


def test_jwts_that_are_wrong(start: Start, iam: IamServer) -> None:
    proxy = start("web-identity")
    now = int(time.time())
    assert log_in(proxy, iam.issue())
    another = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(proxy, iam.issue(signer=another), "signature is wrong")
    refused(
        proxy, iam.issue(key="RSA_0", signer=ec.generate_private_key(ec.SECP384R1())), "another algorithm"
    )
    head, claims, signature = iam.issue().split(".")
    refused(proxy, f"{head}.{claims[:-4]}AAAA.{signature}", "")
    refused(proxy, iam.issue(aud="another.proxy"), "another audience")
    refused(proxy, iam.issue(aud=[SERVER_ID, "another.proxy"]), "another audience")
    refused(proxy, iam.issue(iss="https://evil.example"), "issuer that is not in")
    refused(proxy, iam.issue(exp=now - 1), "expired")
    refused(proxy, iam.issue(iat=now - 1000, exp=now + 1000), "expired")
    refused(proxy, iam.issue(iat=now + 600, exp=now + 900), "from the future")
    refused(proxy, iam.issue(exp=None), "exp is missing")
    refused(proxy, iam.issue(sub=f"arn:aws:iam::{ACCOUNT}:role/other"), "may not be this user")
    refused(proxy, iam.issue(sub=f"arn:aws:iam::{ACCOUNT}:role/app/evil"), "may not be this user")
    refused(proxy, iam.issue(sub="arn:aws:iam::999999999999:role/app"), "another account")
    refused(
        proxy,
        iam.issue(sub="arn:aws:iam::999999999999:role/app", aws=None),
        "may not be",
    )
    refused(proxy, iam.issue(sub="app"), "neither a role nor a user")
    refused(proxy, iam.issue(extra="x" * 6000), "more than 8192")
    none = "eyJhbGciOiJub25lIiwia2lkIjoiUlNBXzAifQ"
    refused(proxy, f"{none}.{iam.issue().split('.')[1]}.AA", "not signed with")


def test_an_issuer_that_publishes_nothing_now(start: Start, iam: IamServer) -> None:
    """The keys that are known go on being good; of another one nobody can say anything."""
    proxy = start("web-identity")
    assert log_in(proxy, iam.issue())
    for status in (503, 302, 404):
        iam.status = status
        assert log_in(proxy, iam.issue(jti=f"known {status}"))
        with pytest.raises(psycopg.OperationalError, match="is not possible now"):
            log_in(proxy, iam.issue("RSA_0", jti=f"unknown {status}", kid=f"RSA_{status}"))
    iam.status = 0
    refused(proxy, iam.issue(kid="RSA_9"), "doesn't publish")


def test_claims_of_jwts(start: Start, iam: IamServer) -> None:
    who = f"arn:aws:iam::{ACCOUNT}:role/* principal_tags/team=payments"
    proxy = start("web-identity", identities={who: "iam_app"})

    def token(**own: Any) -> str:
        claims: dict[str, Any] = {"https://sts.amazonaws.com/": {"aws_account": ACCOUNT, **own}}
        return iam.issue(**claims)

    assert log_in(proxy, token(principal_tags={"team": "payments"})) == "iam_app"
    refused(proxy, token(principal_tags={"team": "payments2"}), "may not be this user")
    refused(proxy, token(request_tags={"team": "payments"}), "may not be this user")
    refused(proxy, token(principal_tags={"team": "payments"}, aws_account="999999999999"), "another account")
    refused(proxy, iam.issue(principal_tags={"team": "payments"}), "may not be this user")


def test_a_kind_that_is_not_taken(start: Start, iam: IamServer, rds: Rds) -> None:
    proxy = start("web-identity")
    said = refused(proxy, rds_token(rds, host=f"127.0.0.1:{proxy.port}"), "not taken here")
    assert "sts:GetWebIdentityToken" in said and "Nobody can verify" in said
    refused(proxy, sts_token(), "not taken here")


def test_others_log_in_as_ever(start: Start, database: Postgres, tmp_path: Path) -> None:
    proxy = start("web-identity", users={"iam_other": "a password"})
    assert log_in(proxy, "a password", user="iam_other", sslmode="disable") == "iam_other"
