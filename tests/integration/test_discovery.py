"""Hosts found by those who know them: a name server, Patroni, the RDS API; each changes its mind."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor  # noqa: TID251 - pytest-twisted runs it
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from pgproxy.config import Address, Discovery
from pgproxy.demo.ports import free_port
from pgproxy.link.threads import Threads
from pgproxy.watch.discovery import DiscoveryFailed, Found, Source, source_for
from tests.fix_tls import Certificate, Tls
from tests.patroni import Patroni
from tests.rds import Rds
from tests.zone import Zone

Make = Callable[..., Source]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes sources, from `server` and the options of a discovery."""
    threads = Threads(reactor)
    threads.start()
    with ExitStack() as sources:

        def make(server: str = "127.0.0.1:5432", ask: Any = None, **options: Any) -> Source:
            host, _, port = server.rpartition(":")
            discovery = Discovery(**options) if options else None
            source = source_for([Address(host, int(port))], discovery, reactor, threads, ask)
            sources.callback(source.stop)
            return source

        yield make
    threads.stop()


async def look(source: Source) -> Found:
    return await Deferred.fromCoroutine(source.look(fresh=True))


async def hosts(source: Source) -> list[tuple[str, str | None]]:
    return [(host.name, host.role) for host in (await look(source)).hosts]


async def failure(source: Source) -> str:
    with pytest.raises(DiscoveryFailed) as caught:
        await look(source)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_addresses_are_what_they_are(make: Make) -> None:
    [host] = (await make("127.0.0.1:1").look()).hosts
    assert (host.address, host.port, host.role, host.tls_name) == ("127.0.0.1", 1, None, "127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_localhost_is_found_in_the_systems_files(make: Make) -> None:
    found = await look(make("localhost:1"))
    assert [host.address for host in found.hosts] == ["127.0.0.1"] and found.hosts[0].tls_name == "localhost"


# DNS.


@pytest_twisted.ensureDeferred
async def test_a_name_that_moves(make: Make, zone: Zone) -> None:
    zone.alias("db.example", "one.example", ttl=5)
    zone.set("one.example", "127.0.0.1", ttl=60)
    source = make("db.example:5432", kind="dns", dns_server=Address("127.0.0.1", zone.port))
    first = await source.look()
    assert [host.address for host in first.hosts] == ["127.0.0.1"] and first.expires == 5
    zone.set("two.example", "127.0.0.2", "127.0.0.3", ttl=0)
    zone.alias("db.example", "two.example", ttl=5)
    assert (await source.look()).hosts == first.hosts
    assert zone.queries("db.example") == 1
    second = await look(source)
    assert [host.address for host in second.hosts] == ["127.0.0.2", "127.0.0.3"] and second.expires == 0
    await source.look()
    assert zone.queries("db.example") == 3


@pytest_twisted.ensureDeferred
async def test_a_name_that_goes_and_comes_back(make: Make, zone: Zone) -> None:
    source = make("db.example:1", kind="dns", dns_server=Address("127.0.0.1", zone.port), timeout=0.5)
    assert "there is no such name" in await failure(source)
    zone.set("db.example")
    assert "the name has no address" in await failure(source)
    zone.fail("db.example")
    assert "SERVFAIL" in await failure(source)
    zone.silence("db.example")
    assert f"there was no answer (asked: 127.0.0.1:{zone.port})" in await failure(source)
    zone.set("db.example", "127.0.0.1")
    assert await hosts(source) == [("127.0.0.1:1", None)]


# Patroni.


MEMBERS = {
    "members": [
        {"name": "a", "role": "leader", "state": "running", "host": "127.0.0.1", "port": 1, "timeline": 1},
        {"name": "b", "role": "replica", "state": "streaming", "host": "127.0.0.2", "port": 2, "lag": 0},
    ],
    "scope": "main",
}


@pytest_twisted.ensureDeferred
async def test_patroni(make: Make, patroni: Patroni) -> None:
    patroni.set(MEMBERS)
    nobody = f"http://127.0.0.1:{free_port()}"
    source = make(
        kind="patroni", urls=(nobody, patroni.url), addresses={"b": Address("127.0.0.3", 3)}, interval=7.0
    )
    found = await look(source)
    assert found.expires == 7
    assert [(host.name, host.address, host.port, host.role, host.tls_name) for host in found.hosts] == [
        ("a", "127.0.0.1", 1, "writer", "127.0.0.1"),
        ("b", "127.0.0.3", 3, "reader", "127.0.0.2"),
    ]
    patroni.set({"members": [{**MEMBERS["members"][1], "role": "leader"}]})  # type: ignore[dict-item]
    assert await hosts(source) == [("b", "writer")]


@pytest_twisted.ensureDeferred
async def test_a_patroni_that_does_not_say(make: Make, patroni: Patroni) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    source = make(kind="patroni", urls=(nobody, patroni.url), timeout=1.0)
    patroni.fail(503)
    said = await failure(source)
    assert "Connection refused" in said and "it answered 503" in said
    patroni.silence()
    assert f"Patroni at 127.0.0.1:{patroni.port} does not answer" in await failure(source)
    patroni.set({"members": []})
    assert "has no host" in await failure(source)
    patroni.set({"members": "x" * 300_000})
    assert "is longer than 262144 bytes" in await failure(source)


@pytest_twisted.ensureDeferred
async def test_a_silent_member_is_not_waited_for(make: Make, patroni: Patroni) -> None:
    patroni.set(MEMBERS)
    with Patroni() as silent:
        silent.silence()
        source = make(kind="patroni", urls=(silent.url, patroni.url), timeout=30.0)
        assert await hosts(source) == [("a", "writer"), ("b", "reader")]
        assert await hosts(source) == [("a", "writer"), ("b", "reader")]
        # The one that has answered is asked first from then on.
        assert silent.requests() == 1


class Https:
    """Patroni's document by HTTPS, from a thread."""

    def __init__(self, shown: Certificate) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(MEMBERS).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.certificate, shown.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The handshake is made by the thread of a connection, when it first reads.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("shown", "why"),
    [("server", ""), ("impostor", "certificate verify failed"), ("wrong_name", "certificate verify failed")],
)
async def test_patroni_over_tls(make: Make, tls: Tls, shown: str, why: str) -> None:
    patroni = Https(getattr(tls, shown))
    try:
        source = make(kind="patroni", urls=(f"https://127.0.0.1:{patroni.port}",), ca=tls.ca)
        if why:
            assert why in await failure(source)
        else:
            assert await hosts(source) == [("a", "writer"), ("b", "reader")]
    finally:
        patroni.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X-Much: %s\r\n" % (b"x" * 1000) * 400,
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    ],
    ids=["nothing", "no HTTP", "half a body", "a bad length", "endless headers", "elsewhere"],
)
async def test_whatever_is_said_by_http(make: Make, said: bytes) -> None:
    class Says(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(said)
            self.transport.loseConnection()

    loop: Any = reactor
    port = loop.listenTCP(0, Factory.forProtocol(Says), interface="127.0.0.1")
    try:
        source = make(kind="patroni", urls=(f"http://127.0.0.1:{port.getHost().port}",))
        assert str(await failure(source)).startswith(f"Patroni at 127.0.0.1:{port.getHost().port}: ")
    finally:
        await port.stopListening()


# Aurora.


@pytest_twisted.ensureDeferred
async def test_aurora(make: Make) -> None:
    rows: list[list[Any]] = [["one", "t", None], ["two", "f", "20"]]

    async def ask(query: str) -> list[list[Any]]:
        assert "aurora_replica_status()" in query
        if not rows:
            raise RuntimeError("no host answers")
        return rows

    source = make(ask=ask, kind="aurora", host_pattern=Address("?.x.example", 5433), interval=9.0)
    found = await look(source)
    assert [(host.address, host.port, host.role, host.lag) for host in found.hosts] == [
        ("one.x.example", 5433, "writer", None),
        ("two.x.example", 5433, "reader", 0.02),
    ]
    rows.clear()
    assert "aurora_replica_status() failed: 'no host answers'" in await failure(source)


# The RDS API.


@pytest.fixture
def rds_here(rds: Rds, monkeypatch: pytest.MonkeyPatch) -> Rds:
    """The RDS API, as boto3 finds it: by the environment."""
    for name, value in rds.environment.items():
        monkeypatch.setenv(name, value)
    return rds


@pytest_twisted.ensureDeferred
async def test_a_cluster_by_the_rds_api(make: Make, rds_here: Rds) -> None:
    rds_here.make_aurora("disc", ["disc-1", "disc-2"])
    name, _port = rds_here.endpoint("disc-2")
    source = make(
        kind="rds",
        cluster="disc",
        endpoint_url=rds_here.url,
        addresses={name: Address("127.0.0.1", 7)},
        timeout=60,
    )
    found = await look(source)
    assert {(host.name, host.role) for host in found.hosts} == {("disc-1", "writer"), ("disc-2", "reader")}
    [moved] = [host for host in found.hosts if host.name == "disc-2"]
    assert (moved.address, moved.port, moved.tls_name) == ("127.0.0.1", 7, name)
    rds_here.fail_over("disc", "disc-2")
    assert set(await hosts(source)) == {("disc-1", "reader"), ("disc-2", "writer")}


@pytest_twisted.ensureDeferred
async def test_an_instance_and_its_replica_by_the_rds_api(make: Make, rds_here: Rds) -> None:
    rds_here.make_instance("single")
    source = make(kind="rds", instance="single", timeout=60)
    assert await hosts(source) == [("single", "writer")]
    rds_here.client.create_db_instance_read_replica(
        DBInstanceIdentifier="single-too", SourceDBInstanceIdentifier="single"
    )
    assert await hosts(source) == [("single", "writer"), ("single-too", "reader")]


@pytest_twisted.ensureDeferred
async def test_what_the_rds_api_does_not_say(
    make: Make, rds_here: Rds, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = await failure(make(kind="rds", cluster="nowhere", timeout=60))
    assert "DBClusterNotFoundFault" in unknown and "look at the cluster's identifier" in unknown
    nobody = make(kind="rds", cluster="c", endpoint_url=f"http://127.0.0.1:{free_port()}", timeout=60)
    assert "Could not connect to the endpoint" in await failure(nobody)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    without = await failure(make(kind="rds", cluster="c", timeout=60))
    assert "give credentials" in without


@pytest_twisted.ensureDeferred
async def test_an_rds_api_that_hangs_is_not_asked_twice_at_a_time(make: Make, rds_here: Rds) -> None:
    connections: list[Any] = []

    class Silent(Protocol):
        def connectionMade(self) -> None:
            connections.append(self)

    loop: Any = reactor
    port = loop.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
    try:
        url = f"http://127.0.0.1:{port.getHost().port}"
        source = make(kind="rds", cluster="c", endpoint_url=url, timeout=2.5)
        assert "did not answer within 2.5 s" in await failure(source)
        assert len(connections) <= 1
    finally:
        await port.stopListening()
        for connection in connections:
            connection.transport.abortConnection()
