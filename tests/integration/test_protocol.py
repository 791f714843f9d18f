"""Protocol 3.0 whole, as a raw client sees it, in both modes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest

from pgproxy.demo.postgres import Postgres
from pgproxy.wire.messages import read_error_fields
from tests.fix_pgproxy import Pgproxy, PgproxyFactory
from tests.raw import FLUSH, SYNC, Raw, bind, client, describe, execute, extended, message, parse, startup


@pytest.fixture(scope="module", params=["transaction", "session"])
def proxy(pgproxy_of_module: PgproxyFactory, postgres: Postgres, request: pytest.FixtureRequest) -> Pgproxy:
    return pgproxy_of_module(server=postgres, pool_mode=request.param, pool_size=1, auth="trust")


@pytest.fixture
def raw(proxy: Pgproxy) -> Iterator[Raw]:
    with client(proxy.port, user="boss", database="app") as connected:
        yield connected


def test_simple_queries(raw: Raw) -> None:
    raw.send(message("Q", b"select 1; select 2; select 3\0"))
    assert raw.tags() == "TDCTDCTDCZ"
    raw.send(message("Q", b"\0"))
    assert raw.tags() == "IZ"


def test_many_queries_at_once(raw: Raw) -> None:
    raw.send(message("Q", b"select 1\0") * 300)
    assert [raw.tags() for _ in range(300)] == ["TDCZ"] * 300


def test_pipelines_with_several_syncs_under_way(raw: Raw) -> None:
    raw.send((extended("select 1") + SYNC + extended("select 1/0") + extended("select 2") + SYNC + SYNC) * 20)
    assert [raw.tags() for _ in range(60)] == ["12TDCZ", "1EZ", "Z"] * 20


def test_flush(raw: Raw) -> None:
    raw.send(parse("select 1"), FLUSH)
    assert raw.message()[0] == "1"
    raw.send(bind(), describe(), execute(), FLUSH)
    assert raw.tags("C") == "2TDC"
    raw.send(SYNC)
    assert raw.tags() == "Z"


def test_a_portal_in_parts(raw: Raw) -> None:
    two = message("E", b"\0\0\0\0\2")
    raw.send(parse("select generate_series(1, 3)"), bind(), two, two, SYNC)
    assert raw.tags() == "12DDsDCZ"


def test_copy_in_and_out(raw: Raw) -> None:
    raw.query("create temporary table c (a int); begin")
    raw.query("create temporary table if not exists c (a int)")
    raw.send(message("Q", b"copy c from stdin\0"))
    assert raw.message()[0] == "G"
    raw.send(message("d", b"1\n2\n"), message("d", b"3\n"), message("c"))
    assert raw.tags() == "CZ"
    raw.send(message("Q", b"copy c to stdout\0"))
    assert raw.tags() == "HdddcCZ"
    raw.query("rollback")


def test_a_copy_that_fails_and_one_that_is_given_up(raw: Raw) -> None:
    for data, sqlstate in ((message("d", b"x\n") + message("c"), "22P02"), (message("f", b"no\0"), "57014")):
        raw.query("begin")
        raw.query("create temporary table c (a int)")
        raw.send(message("Q", b"copy c from stdin\0"))
        raw.until("G")
        raw.send(data)
        assert raw.error()["C"] == sqlstate
        raw.until("Z")
        raw.query("rollback")


def test_copy_as_libpq_does_it_in_an_extended_query(raw: Raw) -> None:
    raw.query("drop table if exists ce; create table ce (a int)")
    for _ in range(2):
        raw.send(extended("copy ce from stdin"), SYNC)
        raw.until("G")
        raw.send(message("d", b"1\n"), message("c"), SYNC)
        assert raw.tags() == "CZ"
    assert raw.value("select count(*) from ce") == "2"


def test_copy_all_sent_ahead(raw: Raw) -> None:
    raw.query("drop table if exists ca; create table ca (a int)")
    raw.send(
        message("Q", b"copy ca from stdin\0"), message("d", b"1\n"), message("c"), message("Q", b"select 1\0")
    )
    assert raw.tags() == "GCZ"
    assert raw.tags() == "TDCZ"


def test_a_failed_extended_copy(raw: Raw) -> None:
    raw.query("drop table if exists cf; create table cf (a int)")
    raw.send(extended("copy cf from stdin"), SYNC)
    raw.until("G")
    raw.send(message("d", b"no number\n"))
    assert raw.error()["C"] == "22P02"
    raw.send(message("c"), SYNC)
    assert raw.tags() == "Z"
    assert raw.value("select count(*) from cf") == "0"


def test_function_call(raw: Raw) -> None:
    oid = int(raw.value("select 'pg_catalog.int4pl(int,int)'::regprocedure::oid") or 0)
    arguments = pack(">IHHHIiIi", oid, 1, 1, 2, 4, 20, 4, 22)
    raw.send(message("F", arguments + pack(">H", 1)))
    (tag, payload), ready = raw.until("Z")
    assert (tag, payload) == ("V", pack(">II", 4, 42)) and ready == ("Z", b"I")


def test_notices_and_errors_are_the_servers_own(raw: Raw) -> None:
    notice, *_ = raw.query("do $$ begin raise notice 'look' using detail = 'here'; end $$")
    assert notice[0] == "N" and read_error_fields(notice[1])["M"] == "look"
    error, ready = raw.query("select 1 from nowhere")
    assert read_error_fields(error[1])["C"] == "42P01" and ready == ("Z", b"I")


def test_parameter_status_is_passed_on(raw: Raw) -> None:
    seen = raw.query("set timezone = 'Europe/Zurich'")
    assert ("S", b"TimeZone\0Europe/Zurich\0") in seen


def test_large_objects(raw: Raw) -> None:
    number = raw.value("select lo_from_bytea(0, convert_to(repeat('x', 300000), 'utf8'))")
    assert raw.value(f"select length(lo_get({number}))") == "300000"
    assert raw.value(f"select lo_unlink({number})") == "1"


@pytest.mark.parametrize(("version", "option"), [(3 << 16 | 2, {}), (3 << 16, {"_pq_.wish": "1"})])
def test_what_we_do_not_know_is_negotiated_away(proxy: Pgproxy, version: int, option: dict[str, str]) -> None:
    with Raw(proxy.port) as raw:
        raw.send(startup(protocol=version, user="boss", database="app", **option))
        seen = raw.until("Z")
        answers = [payload for tag, payload in seen if tag == "v"]
        names = b"".join(name.encode() + b"\0" for name in option)
        assert answers == [pack(">II", 3 << 16, len(option)) + names]
        assert raw.value("select 1") == "1"


def test_startup_parameters_hold_and_reset_goes_back_to_them(proxy: Pgproxy) -> None:
    settings = {
        "TimeZone": "Asia/Tokyo",
        "client_encoding": "latin1",
        "options": "-c statement_timeout=12345 -c search_path=pg_catalog",
        "extra_float_digits": "2",
    }
    with Raw(proxy.port) as raw:
        reported = raw.log_in(user="boss", database="app", application_name="me", **settings)
        assert reported["TimeZone"] == "Asia/Tokyo"
        assert reported["client_encoding"] == "LATIN1"
        assert reported["application_name"] == "me"
        assert raw.value("show statement_timeout") == "12345ms"
        raw.query("begin; set timezone = 'UTC'; set statement_timeout = 0")
        raw.query("reset all")
        assert raw.value("show timezone") == "Asia/Tokyo"
        assert raw.value("show statement_timeout") == "12345ms"
        assert raw.value("show search_path") == "pg_catalog"
        assert raw.value("show extra_float_digits") == "2"
        raw.query("rollback")
    with client(proxy.port, user="boss", database="app") as other:
        assert other.value("show statement_timeout") == "0"
        assert other.value("show application_name") == ""


def test_a_startup_parameter_that_is_wrong(proxy: Pgproxy) -> None:
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss", database="app", options="-c nonsense=1"))
        fields = raw.error()
        assert fields["C"] == "42704" and "nonsense" in fields["M"]
        assert raw.ended()


def test_a_database_that_is_not_there(proxy: Pgproxy) -> None:
    with Raw(proxy.port) as raw:
        raw.send(startup(user="boss", database="nowhere"))
        fields = raw.error()
        assert (fields["C"], fields["M"]) == ("3D000", 'database "nowhere" does not exist')


def test_a_server_that_an_administrator_ends(
    proxy: Pgproxy, postgres: Postgres, request: pytest.FixtureRequest
) -> None:
    session = request.node.callspec.params["proxy"] == "session"
    with client(proxy.port, user="boss", database="app") as raw:
        raw.query("begin")
        pid = raw.value("select pg_backend_pid()")
        with postgres.admin() as direct:
            direct.execute("select pg_terminate_backend(%s)", (int(pid or 0),))
        if not session:
            # The client stays, in a failed transaction; it is told when it next says something.
            raw.send(message("Q", b"select 1\0"))
        fields = raw.error()
        assert (fields["S"], fields["C"]) == ("FATAL" if session else "ERROR", "57P01")
        assert raw.ended() if session else raw.until("Z")[-1] == ("Z", b"E")
    with client(proxy.port, user="boss", database="app") as after:
        assert after.value("select 1") == "1"


SIZE = 1_000_000_000


def memory(pid: int) -> int:
    """Bytes resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.long
@pytest.mark.timeout(280)
def test_a_value_of_1_gb_in_bounded_memory(pgproxy: PgproxyFactory, postgres: Postgres) -> None:
    proxy = pgproxy(server=postgres, pool_mode="transaction", pool_size=1, auth="trust")
    with client(proxy.port, user="boss", database="app") as raw:
        raw.socket.settimeout(120)
        assert raw.value("select 1") == "1"
        before = memory(proxy.pid)
        most = 0
        # Up: one parameter of 1 GB, of which the server tells the length.
        size = SIZE + 2 + 2 + 2 + 2 + 4 + 2
        raw.send(parse("select length($1::bytea)"))
        raw.send(b"B" + pack(">I", size + 4), b"\0\0", pack(">HHHI", 1, 1, 1, SIZE))
        piece = b"x" * 1_000_000
        for number in range(SIZE // len(piece)):
            raw.send(piece)
            if not number % 50:
                most = max(most, memory(proxy.pid))
        raw.send(pack(">H", 0), execute(), SYNC)
        answer = dict(raw.until("Z"))
        assert answer["D"][6:] == b"%d" % SIZE
        # Down: one row of 1 GB.
        raw.send(message("Q", b"select repeat('x', %d)\0" % SIZE))
        while raw.message()[0] != "T":
            pass
        assert raw.exactly(11)[:1] == b"D"
        left = SIZE
        while left:
            left -= len(raw.exactly(min(left, 50_000)))
            if not left % 20_000_000:
                most = max(most, memory(proxy.pid))
        assert raw.tags() == "CZ"
    assert most - before < 32 * 1024 * 1024


def test_a_slow_reader_does_not_fill_the_proxy(proxy: Pgproxy) -> None:
    with client(proxy.port, user="boss", database="app") as raw:
        before = memory(proxy.pid)
        raw.send(message("Q", b"select repeat('x', 1000) from generate_series(1, 200000)\0"))
        time.sleep(1)
        assert memory(proxy.pid) - before < 32 * 1024 * 1024
        assert raw.tags().count("D") == 200_000


def test_a_pipeline_of_more_than_the_ledger_has_place_for(raw: Raw) -> None:
    raw.send(message("Q", b"select pg_sleep(0.5)\0"), SYNC * 35_000, message("Q", b"select 1\0"))
    assert raw.tags() == "TDCZ"
    for _ in range(35_000):
        assert raw.message()[0] == "Z"
    assert raw.tags() == "TDCZ"
