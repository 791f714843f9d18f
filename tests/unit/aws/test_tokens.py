"""What is said of tokens before anybody else is asked: each check, and what comes of any text."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.aws import caller_identity, rds_token, web_identity
from pgproxy.aws.presigned import TokenUnfit, read_query
from tests.signatures import Principal, presign

NOW = 1_800_000_000.0
WHO = Principal("arn:aws:sts::123456789012:assumed-role/app/i-0", "AKIDAPP")
HOST = ("db.abc.eu-central-1.rds.amazonaws.com", 5432)
STS = "sts.eu-central-1.amazonaws.com"
ALLOWED = caller_identity.hosts(["eu-central-1"])


def of_rds(user: str = "app", **more: Any) -> str:
    url = f"https://{HOST[0]}:{HOST[1]}/?Action=connect&DBUser={user}"
    return presign(WHO, url, "eu-central-1", "rds-db", **{"made": NOW, **more}).removeprefix("https://")


def of_sts(**more: Any) -> str:
    url = f"https://{STS}/?Action=GetCallerIdentity&Version=2011-06-15"
    headers = {caller_identity.HEADER: "proxy.tests"}
    return presign(WHO, url, "eu-central-1", "sts", **{"headers": headers, "made": NOW, **more})


def check_rds(token: str, now: float = NOW, user: str = "app", age: float = 900.0) -> float:
    return rds_token.check(rds_token.parse(token), user, [("10.0.0.1", 5432), HOST], now, age)


def check_sts(url: str, now: float = NOW, age: float = 900.0) -> caller_identity.Request:
    return caller_identity.parse(caller_identity.wrap(url), ALLOWED, now, age)


# RDS.


def test_a_token_for_rds() -> None:
    token = of_rds()
    assert rds_token.is_rds_token(token)
    assert check_rds(token) == NOW + 900
    assert check_rds(token, age=60.0) == NOW + 60
    assert check_rds(of_rds("m%C3%BCller"), user="müller")
    with pytest.raises(TokenUnfit, match="expired"):
        check_rds(token, NOW + 900)
    assert "Signature" not in repr(rds_token.parse(token))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Action=connect", "Action=delete", "Action"),
        ("DBUser=app&", "", "lacks DBUser"),
        ("rds-db", "s3", "signed for s3"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%3Bx", "sign the host"),
        ("AWS4-HMAC-SHA256", "none", "not signed with"),
        ("X-Amz-Expires=900", "X-Amz-Expires=901", "at most"),
        ("X-Amz-Expires=900", "X-Amz-Expires=-1", "malformed"),
        ("X-Amz-Date=20", "X-Amz-Date=99", "malformed"),
        (":5432/", ":5433/", "where this database is not"),
        ("/?", "/x?", "malformed"),
        ("DBUser=app", "DBUser=%ff", "UTF-8"),
        ("DBUser=app", "DBUser=ap p", "malformed"),
        ("DBUser=app", "DBUser=app&dbuser=other", "parameter dbuser"),
        ("DBUser=app", "DBUser=app&x-amz-date=20270101T000000Z", "parameter x-amz-date"),
    ],
)
def test_what_is_no_token_for_rds(old: str, new: str, why: str) -> None:
    token = of_rds()
    assert old in token
    with pytest.raises(TokenUnfit, match=why):
        check_rds(token.replace(old, new, 1))


def test_a_token_that_is_signed_for_another_region_than_its_host_is_in() -> None:
    url = f"https://{HOST[0]}:{HOST[1]}/?Action=connect&DBUser=app"
    token = presign(WHO, url, "eu-west-1", "rds-db", made=NOW).removeprefix("https://")
    with pytest.raises(TokenUnfit, match="another region"):
        check_rds(token)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("db.abc.eu-central-1.rds.amazonaws.com", "eu-central-1"),
        ("c.cluster-abc.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
        ("db.abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        ("DB.ABC.EU-CENTRAL-1.RDS.AMAZONAWS.COM", "eu-central-1"),
        ("db.example.com", ""),
        ("eu-central-1.rds.amazonaws.com", ""),
        ("db.abc.eu-central-1.rds.amazonaws.com.evil.example", ""),
    ],
)
def test_the_region_of_a_host(host: str, region: str) -> None:
    assert rds_token.region_of(host) == region


# STS.


def test_a_signed_request() -> None:
    request = check_sts(of_sts())
    assert request.host == STS and request.expires == NOW + 900
    # What is sent on is what was signed: the same parameters in the same form.
    assert sorted(request.query.split("&")) == sorted(of_sts().partition("?")[2].split("&"))
    assert "Signature" not in repr(request)


def test_hosts_of_sts() -> None:
    assert {
        "sts.amazonaws.com",
        STS,
        "sts-fips.eu-central-1.amazonaws.com",
        "sts.eu-central-1.api.aws",
    } < set(ALLOWED)
    china = caller_identity.hosts(["cn-north-1"])
    assert "sts.cn-north-1.amazonaws.com.cn" in china and "sts.amazonaws.com" not in china


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://", "http://"),
        ("https://", "HTTPS://"),
        ("https://", "https://user@"),
        ("https://sts", "https://evil.example/sts"),
        (STS, STS + ":443"),
        (STS, STS.upper()),
        (STS, STS + "."),
        (STS, "sts.us-east-2.amazonaws.com"),
        (STS, "sts.amazonaws.com"),
        ("/?", "//?"),
        ("/?", "?"),
        ("/?", "/;x?"),
        ("/?", "/?x=1&"),
        ("/?", "/?Action=GetCallerIdentity&"),
        ("/?", "/?action=GetSessionToken&"),
        ("/?", "/?x-amz-expires=900&"),
        ("/?", "/?%41ction=GetSessionToken&"),
        ("host%3Bx-pgproxy-server-id", "host%3BX-PgProxy-Server-ID"),
        ("host%3Bx-pgproxy-server-id", "Host%3Bx-pgproxy-server-id"),
        ("Version=2011-06-15", "Version=2012-06-15"),
        ("host%3Bx-pgproxy-server-id", "host"),
        ("host%3Bx-pgproxy-server-id", "host%3Bx-other%3Bx-pgproxy-server-id"),
        ("host%3Bx-pgproxy-server-id", "x-pgproxy-server-id"),
        ("%2Fsts%2F", "%2Frds-db%2F"),
        ("&X-Amz-Signature=", "&X-Amz-Signature=0"),
    ],
)
def test_what_is_no_signed_request(old: str, new: str) -> None:
    url = of_sts()
    assert old in url
    with pytest.raises(TokenUnfit):
        check_sts(url.replace(old, new, 1))
    with pytest.raises(TokenUnfit):
        check_sts(url + "#fragment")


def test_the_wrapping_is_canonical() -> None:
    token = caller_identity.wrap(of_sts())
    for other in (token + "=", token + "\n", token[:20] + "\n" + token[20:], token.replace("_", "/")):
        if other != token:
            with pytest.raises(TokenUnfit):
                caller_identity.parse(other, ALLOWED, NOW, 900.0)


@pytest.mark.parametrize(
    ("made", "expires", "good"), [(-899, 900, True), (-900, 900, False), (-61, 60, False)]
)
@pytest.mark.parametrize("check", [check_rds, check_sts])
def test_times(check: Any, made: int, expires: int, good: bool) -> None:
    make = of_rds if check is check_rds else of_sts
    token = make(made=NOW + made, expires=expires)
    if good:
        assert check(token)
        return
    with pytest.raises(TokenUnfit, match="expired"):
        check(token)


def answer(arn: object = WHO.arn, account: object = "123456789012") -> bytes:
    result = {"Arn": arn, "Account": account, "UserId": "x"}
    return json.dumps({"GetCallerIdentityResponse": {"GetCallerIdentityResult": result}}).encode()


def test_the_word_of_sts() -> None:
    assert str(caller_identity.read_answer(200, answer())) == WHO.arn
    with pytest.raises(TokenUnfit, match="ExpiredToken"):
        caller_identity.read_answer(403, b'{"Error": {"Code": "ExpiredToken"}}')
    for body in (b"<xml>", b"{}", b"[" * 50_000, b"\xff"):
        with pytest.raises(TokenUnfit, match="does not say why"):
            caller_identity.read_answer(400, body)
    with pytest.raises(TokenUnfit, match="neither a role nor a user"):
        caller_identity.read_answer(200, answer("arn:aws:iam::123456789012:root"))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, answer()),
        (429, answer()),
        (301, answer()),
        (200, b""),
        (200, b"[]"),
        (200, answer(5)),
        (200, answer(account="999999999999")),
        (200, answer(account=123456789012)),
    ],
)
def test_what_is_no_word_of_sts(status: int, body: bytes) -> None:
    with pytest.raises(ValueError, match="STS"):
        caller_identity.read_answer(status, body)


# JWTs: claims. That signatures are looked at is seen where there is an issuer, in tests/integration.

ISSUER = "https://abc.tokens.sts.global.api.aws"
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "proxy.tests",
    "sub": "arn:aws:iam::123456789012:role/app",
    "iat": NOW,
    "exp": NOW + 300,
    "https://sts.amazonaws.com/": {"aws_account": "123456789012"},
}


def check_claims(now: float = NOW, age: float = 900.0, **changed: Any) -> float:
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
    proven = web_identity.check(claims, ISSUER, "proxy.tests", now, age)
    arn, end = proven.arn, proven.expires
    assert str(arn) == CLAIMS["sub"]
    return end


def test_claims() -> None:
    assert check_claims() == NOW + 300
    assert check_claims(age=60.0) == NOW + 60
    assert check_claims(aud=["proxy.tests"]) and check_claims(nbf=NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": None},
        {"aud": "proxy"},
        {"aud": ["proxy.tests", "another"]},
        {"aud": []},
        {"aud": {"proxy.tests": 1}},
        {"exp": None},
        {"exp": NOW},
        {"exp": "later"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"iat": None},
        {"iat": NOW + 61},
        {"iat": NOW - 900},
        {"nbf": NOW + 61},
        {"nbf": "x"},
        {"sub": None},
        {"sub": "app"},
        {"sub": ["arn:aws:iam::123456789012:role/app"]},
        {"https://sts.amazonaws.com/": {"aws_account": "999999999999"}},
    ],
)
def test_claims_that_are_wrong(changed: dict[str, Any]) -> None:
    with pytest.raises(TokenUnfit):
        check_claims(**changed)


def jwt(header: object, claims: object = CLAIMS) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)] + [b"signature"]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def test_whose_key() -> None:
    found = web_identity.whose(jwt({"alg": "ES384", "kid": "EC_0", "typ": "JWT"}), [ISSUER])
    assert (found.issuer, found.key, found.algorithm) == (ISSUER, "EC_0", "ES384")


@pytest.mark.parametrize(
    "token",
    [
        jwt({"alg": "none", "kid": "x"}),
        jwt({"alg": "HS256", "kid": "x"}),
        jwt({"alg": ["RS256"], "kid": "x"}),
        jwt({"alg": "RS256"}),
        jwt({"alg": "RS256", "kid": ""}),
        jwt({"alg": "RS256", "kid": "x" * 300}),
        jwt({"alg": "RS256", "kid": "x", "crit": ["b64"]}),
        jwt({"alg": "RS256", "kid": "x"}, {"iss": ["x"]}),
        jwt({"alg": "RS256", "kid": "x"}, []),
        jwt("RS256"),
        "eyJ.e.s",
        "eyJhbGciOiJSUzI1NiJ9.e30",
        "eyJ" + "x" * 9000 + ".e.s",
    ],
)
def test_what_is_no_jwt(token: str) -> None:
    with pytest.raises(TokenUnfit):
        web_identity.whose(token, [ISSUER])


# Anything.


@given(st.text(), st.integers(0, 200))
def test_any_text_is_a_token_or_unfit(text: str, at: int) -> None:
    for token in (
        text,
        of_rds()[:at] + text,
        caller_identity.wrap(of_sts())[:at] + text,
        "eyJ" + text + "..",
    ):
        for read in (
            lambda token: check_rds(token),
            lambda token: caller_identity.parse(token, ALLOWED, NOW, 900.0),
            lambda token: web_identity.whose(token, [ISSUER]),
        ):
            try:
                read(token)
            except TokenUnfit as error:
                assert str(error)


@given(
    st.dictionaries(
        st.sampled_from(sorted(CLAIMS)), st.recursive(st.none() | st.text() | st.floats(), st.lists)
    )
)
def test_any_claims_are_right_or_unfit(changed: dict[str, Any]) -> None:
    try:
        web_identity.check({**CLAIMS, **changed}, ISSUER, "proxy.tests", NOW, 900.0)
    except TokenUnfit as error:
        assert str(error)


@given(st.lists(st.tuples(st.text("ABXYZ-", min_size=1, max_size=5), st.text(max_size=5))))
def test_no_parameter_counts_twice(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    with pytest.raises(TokenUnfit):
        read_query(query, frozenset())
