"""Certificates, and a PostgreSQL that speaks TLS whatever the binaries can."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import trustme
from psycopg.rows import TupleRow

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import ServerTls
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import Account
from tests.fix_postgres import started
from tests.tls_front import TlsFront, server_context


@attrs.frozen
class Certificate:
    """A certificate with its chain, and its key, each a PEM file."""

    certificate: Path
    key: Path


@attrs.frozen
class Tls:
    """What a test of TLS needs; every path is a PEM file that the user who runs the tests can read."""

    ca: Path
    other_ca: Path  # has signed `impostor` and `stranger`
    server: Certificate  # for 127.0.0.1 and localhost
    wrong_name: Certificate  # of the right CA, for example.org
    impostor: Certificate  # for 127.0.0.1 and localhost, of the other CA
    client: Certificate  # CN=app
    stranger: Certificate  # CN=app, of the other CA


@attrs.frozen
class TlsPostgres:
    """A PostgreSQL on a TLS port: PostgreSQL's own TLS (`native`), or that of the tests in front of it."""

    server: Postgres
    port: int
    native: bool

    def dsn(self, user: str, password: str = "", dbname: str = "", **options: str) -> str:
        """Build the URL of the TLS port."""
        return url(self.port, user, password, dbname, **options)

    def connect(self, **parameters: Any) -> psycopg.Connection[TupleRow]:
        """Connect to the TLS port with psycopg."""
        return self.server.connect(**{"port": self.port, **parameters})


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """The certificates of this run."""
    directory = tmp_path_factory.mktemp("tls")
    ca, other_ca = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    other_ca.cert_pem.write_to_path(directory / "other-ca.pem")

    def issue(by: trustme.CA, name: str, *hosts: str, common_name: str | None = None) -> Certificate:
        issued = by.issue_cert(*hosts, common_name=common_name)
        files = Certificate(directory / f"{name}.pem", directory / f"{name}-key.pem")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(files.certificate, append=True)
        files.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(files.key)
        return files

    return Tls(
        directory / "ca.pem",
        directory / "other-ca.pem",
        issue(ca, "server", "127.0.0.1", "localhost"),
        issue(ca, "wrong-name", "example.org"),
        issue(other_ca, "impostor", "127.0.0.1", "localhost"),
        issue(ca, "client", common_name="app"),
        issue(other_ca, "stranger", common_name="app"),
    )


@pytest.fixture(scope="session")
def tls_postgres(binaries: Binaries, account: Account | None, tls: Tls) -> Iterator[TlsPostgres]:
    """A PostgreSQL with the `server` certificate, the same users and database as `postgres`."""
    certificate, key = tls.server.certificate, tls.server.key
    if binaries.has_openssl:
        with started(binaries, account, tls=ServerTls(certificate, key)) as server:
            yield TlsPostgres(server, server.port, native=True)
    else:
        context = server_context(certificate, key)
        with started(binaries, account) as server, TlsFront(server.port, context) as front:
            yield TlsPostgres(server, front.port, native=False)
