"""AWS for tests of IAM: STS and RDS, which verify signatures with the secret keys; an issuer of JWTs."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import struct
import threading
import time
from calendar import timegm
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

import jwt
from attrs import field, frozen
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pgproxy.wire.messages import error_response
from tests.faults import Listener, exactly
from tests.tls_front import relay

ACCOUNT = "123456789012"
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@frozen
class Principal:
    """Somebody in IAM."""

    arn: str
    access_key: str
    secret_key: str = field(default="a secret key", repr=False)

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.access_key, self.secret_key)


def presign(
    who: Principal,
    url: str,
    region: str,
    service: str,
    *,
    headers: Mapping[str, str] | None = None,
    expires: int = 900,
    made: float | None = None,
) -> str:
    """Sign a GET with botocore, as if at a time (seconds since 1970)."""
    request = AWSRequest("GET", url, headers=dict(headers or {}))

    class Auth(SigV4QueryAuth):  # type: ignore[misc]
        def _modify_request_before_signing(self, request: Any) -> None:
            if made is not None:
                request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made))
            super()._modify_request_before_signing(request)

    Auth(who.credentials, service, region, expires).add_auth(request)
    return str(request.url)


def wrong_with(
    method: str, query: str, headers: Mapping[str, str], principals: Mapping[str, Principal]
) -> str | Principal:
    """Verify a presigned request with the secret key; gives who has signed it, or what is wrong."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    signature = given.pop("X-Amz-Signature", "")
    try:
        key, date, region, service, _ = given["X-Amz-Credential"].split("/")
        signed, stamp = given["X-Amz-SignedHeaders"].split(";"), given["X-Amz-Date"]
    except (KeyError, ValueError):
        return "IncompleteSignature"
    who = principals.get(key)
    if who is None:
        return "InvalidClientTokenId"
    lower = {name.lower(): value for name, value in headers.items()}
    if "host" not in signed or any(name not in lower for name in signed):
        return "SignatureDoesNotMatch"
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in given.items())
    canonical = "\n".join(
        [
            method,
            "/",
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{lower[name].strip()}" for name in signed),
            "",
            ";".join(signed),
            hashlib.sha256(b"").hexdigest(),
        ]
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    chain = ("AWS4" + who.secret_key).encode()
    for part in (date, region, service, "aws4_request"):
        chain = hmac.digest(chain, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(chain, to_sign.encode(), "sha256").hex(), signature):
        return "SignatureDoesNotMatch"
    if abs(time.time() - timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))) > 900:
        return "ExpiredToken"
    return who


class IamServer:
    """STS's GetCallerIdentity, and an issuer that publishes its keys, over HTTP on a port of 127.0.0.1."""

    def __init__(self, *principals: Principal) -> None:
        self.principals = {one.access_key: one for one in principals}
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP384R1())
        self.keys = {"RSA_0": self.rsa, "EC_0": self.ec}
        self.status = 0
        """What is answered to everything, unless 0."""
        self.asked: list[str] = []
        self.answers = threading.Event()
        """While it is not set, everybody waits."""
        self.answers.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                server.answers.wait(60)
                status, body = server._answer(self.path, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answers.set()
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if self.status:
            return self.status, b"{}"
        if path == "/.well-known/jwks.json":
            return 200, json.dumps({"keys": [_jwk(name, key) for name, key in self.keys.items()]}).encode()
        found = wrong_with("GET", urlsplit(path).query, headers, self.principals)
        if isinstance(found, str):
            return 403, json.dumps({"Error": {"Code": found, "Message": "", "Type": "Sender"}}).encode()
        result = {"Account": found.arn.split(":")[4], "Arn": found.arn, "UserId": "AROA"}
        answer = {"GetCallerIdentityResponse": {"GetCallerIdentityResult": result}}
        return 200, json.dumps(answer).encode()

    def issue(
        self,
        key: str = "RSA_0",
        signer: Any = None,
        aws: str | None = ACCOUNT,
        kid: str | None = None,
        **claims: Any,
    ) -> str:
        """Give a JWT as sts:GetWebIdentityToken does; a claim that is None is left out."""
        now = int(time.time())
        everything = {
            "iss": self.url,
            "aud": "proxy.tests",
            "sub": f"arn:aws:iam::{ACCOUNT}:role/app",
            "iat": now,
            "exp": now + 300,
            "jti": "some-id",
            "https://sts.amazonaws.com/": {"aws_account": aws} if aws else None,
            **claims,
        }
        signer = signer or self.keys[key]
        algorithm = "RS256" if isinstance(signer, rsa.RSAPrivateKey) else "ES384"
        kept = {name: value for name, value in everything.items() if value is not None}
        return jwt.encode(kept, signer, algorithm, headers={"kid": kid or key})


def _jwk(name: str, key: Any) -> dict[str, Any]:
    kind: Any = (
        jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    )
    values: dict[str, Any] = kind.to_jwk(key.public_key(), as_dict=True)
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES384"
    return {**values, "kid": name, "use": "sig", "alg": algorithm}


class Rds(Listener):
    """
    A PostgreSQL with TLS that has users log in by a token, as RDS does with those that have rds_iam.

    Behind it is a real one, on port `target`, which lets them in without a password. `asks` is what is asked
    for: a token, or nothing.
    """

    def __init__(self, target: int, context: ssl.SSLContext, *principals: Principal) -> None:
        self._target = target
        self._context = context
        self._principals = {one.access_key: one for one in principals}
        self.asks = True
        self.logins: list[str] = []
        """The users who were let in."""
        self.refused: list[str] = []
        super().__init__()

    def serve(self, peer: socket.socket) -> None:
        if exactly(peer, 8) != _SSL_REQUEST:
            return
        peer.sendall(b"S")
        with self._context.wrap_socket(peer, server_side=True) as outside:
            startup = _packet(outside)
            user = dict(_pairs(startup[8:]))["user"]
            if self.asks:
                outside.sendall(struct.pack("!cii", b"R", 8, 3))
                assert exactly(outside, 1) == b"p"
                token = _packet(outside)[4:-1].decode()
                wrong = self._wrong(token, user)
                if wrong:
                    self.refused.append(wrong)
                    text = f'PAM authentication failed for user "{user}"'
                    outside.sendall(error_response({"S": "FATAL", "V": "FATAL", "C": "28000", "M": text}))
                    return
            self.logins.append(user)
            server = self.keep(socket.create_connection(("127.0.0.1", self._target)))
            server.sendall(startup)
            relay(outside, server)

    def _wrong(self, token: str, user: str) -> str:
        parts = urlsplit(f"https://{token}")
        found = wrong_with("GET", parts.query, {"host": parts.netloc}, self._principals)
        if isinstance(found, str):
            return found
        if dict(parse_qsl(parts.query)).get("DBUser") != user:
            return "another user"
        return "" if parts.netloc == f"127.0.0.1:{self.port}" else "another host"


def _packet(peer: socket.socket) -> bytes:
    head = exactly(peer, 4)
    return head + exactly(peer, int.from_bytes(head, "big") - 4)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    words = [word.decode() for word in body.rstrip(b"\0").split(b"\0")]
    return list(zip(words[::2], words[1::2], strict=False))
