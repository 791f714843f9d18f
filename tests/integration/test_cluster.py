"""What failovers are tested with: the cluster, its faults, the clients at work, and who tells of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest
from twisted.names import dns

from pgproxy.demo.process import wait_until
from pgproxy.wire.messages import query
from tests.cable import can_drop
from tests.cluster import Cluster, Host
from tests.fix_cluster import ClusterFactory
from tests.fix_postgres import PASSWORDS
from tests.patroni import Patroni
from tests.raw import Raw
from tests.rds import Rds
from tests.toil import Plan, Toil, lay_table
from tests.zone import Zone

_ROOT = Path(__file__).parent.parent.parent
_SHORTLY = 0.3
"""Seconds in which nothing comes where nothing can come: too short a wait fails no test."""


def few(*hosts: Host) -> Plan:
    addresses = [host.at for host in hosts]
    return Plan(
        addresses, inserting=8, selecting=4, preparing=4, transacting=8, idle=4, think=0.02, patience=60
    )


def write(host: Host, text: str) -> None:
    host.execute("create table if not exists notes (t text)", f"insert into notes values ('{text}')")


def notes(host: Host) -> list[str]:
    return [text for (text,) in host.execute("select t from notes order by t")]


def log_in(host: Host) -> Raw:
    client = Raw(host.at[1], host.at[0])
    client.log_in("toil", "toil")
    return client


def timeline(writer: Host) -> int:
    [[name]] = writer.execute("select pg_walfile_name(pg_current_wal_lsn())")
    return int(name[:8], 16)


@pytest.fixture(autouse=True)
def no_notes(request: pytest.FixtureRequest) -> None:
    if "cluster" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.writer.execute("drop table if exists notes")


class TestCluster:
    def test_what_the_writer_does_is_seen_in_both_standbys(self, cluster: Cluster) -> None:
        write(cluster.writer, "one")
        for standby in cluster.standbys:
            cluster.wait_until_equal(standby)
            assert standby.in_recovery
            assert notes(standby) == ["one"]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                write(standby, "two")
        states = cluster.writer.execute("select application_name, sync_state from pg_stat_replication")
        assert dict(states) == {cluster.standbys[0].name: "sync", cluster.standbys[1].name: "async"}

    def test_hosts_have_addresses_of_their_own_and_one_port(self, cluster: Cluster) -> None:
        assert {port for _, port in (host.at for host in cluster.hosts)} == {cluster.port}
        for host in cluster.hosts:
            with host.connect(user="app", password=PASSWORDS["app"], dbname="app") as connection:
                found = connection.execute("select host(inet_server_addr()), inet_server_port()").fetchone()
            assert found == host.at

    def test_a_commit_waits_for_the_synchronous_standby(self, cluster: Cluster) -> None:
        with log_in(cluster.writer) as client:
            cluster.standbys[0].freeze()
            client.send(query("create table waits (a int)"))
            waiting = "select 1 from pg_stat_activity where usename = 'toil' and wait_event = 'SyncRep'"
            assert wait_until(lambda: cluster.writer.execute(waiting) == [(1,)], 20)
            cluster.standbys[0].thaw()
            assert client.tags() == "CZ"
            assert client.query("drop table waits")[0] == ("C", b"DROP TABLE\0")

    def test_a_killed_writer_is_followed_by_another_and_comes_back_as_a_standby(
        self, cluster: Cluster
    ) -> None:
        old, new = cluster.writer, cluster.standbys[0]
        before = timeline(old)
        write(old, "before")
        change = cluster.promote(new, cluster.kill())
        assert change.cut <= change.gone <= change.ordered <= change.writable
        with pytest.raises(psycopg.OperationalError, match="refused"):
            old.connect(user="toil", dbname="toil")
        assert timeline(new) == before + 1
        write(new, "after")
        cluster.settle()
        assert cluster.writer is new
        assert cluster.synchronous is old or cluster.synchronous is cluster.hosts[0]
        for standby in cluster.standbys:
            cluster.wait_until_equal(standby)
            assert notes(standby) == ["after", "before"]

    def test_another_standby_follows_without_a_restart(self, cluster: Cluster) -> None:
        new, other = cluster.standbys
        write(cluster.writer, "before")
        cluster.wait_until_equal(other)
        pid = other.pid
        cluster.stop()
        cluster.promote(new)
        cluster.follow(other)
        write(new, "after")
        cluster.wait_until_equal(other)
        assert notes(other) == ["after", "before"]
        assert other.pid == pid

    def test_what_a_former_writer_has_done_alone_is_undone(self, cluster: Cluster) -> None:
        old, new = cluster.writer, cluster.standbys[0]
        write(old, "before")
        cluster.promote(new, cluster.freeze())
        old.thaw()
        assert not old.in_recovery, "both say that they are the writer"
        old.execute("set synchronous_commit = local", "insert into notes values ('alone')")
        write(new, "after")
        cluster.rejoin(old)
        cluster.wait_until_equal(old)
        assert old.in_recovery
        assert notes(old) == ["after", "before"]

    def test_a_standby_that_was_ahead_two_failovers_ago_is_rewound(self, cluster: Cluster) -> None:
        old, (new, ahead) = cluster.writer, cluster.standbys
        write(old, "before")
        cluster.wait_until_equal(new)
        cluster.make_synchronous(None)
        new.stop()
        write(old, "ahead")
        cluster.wait_until_equal(ahead)
        cluster.kill()
        new.start()
        cluster.promote(new)
        for number in range(1000):
            new.execute(f"insert into notes values ('{number}')")
        cluster.rejoin(old)
        cluster.make_synchronous(old)
        cluster.kill()
        cluster.promote(old)
        cluster.settle()
        cluster.wait_until_equal(ahead)
        assert len(notes(ahead)) == 1001 and "ahead" not in notes(ahead)

    def test_a_frozen_host_keeps_its_connections_and_says_nothing(self, cluster: Cluster) -> None:
        with log_in(cluster.writer) as client:
            cluster.freeze()
            assert not cluster.writer.is_up
            client.send(query("select 1"))
            client.socket.settimeout(_SHORTLY)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
            cluster.writer.thaw()
            client.socket.settimeout(20)
            assert client.tags() == "TDCZ"

    @pytest.mark.parametrize("immediately", [False, True])
    def test_a_writer_is_stopped_and_restarted_in_place(self, cluster: Cluster, immediately: bool) -> None:
        write(cluster.writer, "before")
        before = timeline(cluster.writer)
        cluster.stop(immediately=immediately)
        cluster.restart_in_place()
        assert timeline(cluster.writer) == before
        write(cluster.writer, "after")
        assert notes(cluster.writer) == ["after", "before"]

    def test_a_switchover_loses_nothing_though_the_new_writer_was_not_synchronous(
        self, cluster: Cluster
    ) -> None:
        old, new = cluster.writer, cluster.standbys[1]
        write(old, "before")
        cluster.switch_over(new)
        assert cluster.writer is new
        assert cluster.synchronous is old
        assert old.in_recovery
        write(new, "after")
        assert notes(new) == ["after", "before"]

    def test_a_standby_lags_as_long_as_it_is_told_to(self, cluster: Cluster) -> None:
        write(cluster.writer, "one")
        standby = cluster.standbys[1]
        cluster.wait_until_equal(standby)
        cluster.pause_replay(standby)
        write(cluster.writer, "two")
        cluster.wait_until_equal(cluster.standbys[0])
        assert notes(standby) == ["one"]
        cluster.resume_replay(standby)
        cluster.wait_until_equal(standby)
        assert notes(standby) == ["one", "two"]
        cluster.delay(standby, 3_600_000)
        write(cluster.writer, "three")
        cluster.wait_until_equal(cluster.standbys[0])
        assert notes(standby) == ["one", "two"]
        cluster.delay(standby, 0)
        cluster.wait_until_equal(standby)

    def test_a_frozen_host_does_not_outlive_who_has_frozen_it(self) -> None:
        program = textwrap.dedent("""\
            import os, signal
            from pgproxy.demo.binaries import find_binaries
            from pgproxy.demo.ports import free_port
            from pgproxy.demo.process import server_account
            from tests.cluster import Host
            account = server_account()
            at = "127.0.0.2", free_port("127.0.0.2")
            host = Host(find_binaries(account), account, "alone", at, {}, with_cable=False)
            host.start()
            host.freeze()
            print(host.pid, host.socket_directory.parent, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """)
        answer = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=_ROOT, timeout=60
        )
        pid, directory = answer.stdout.split()
        try:
            assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20)
        finally:
            subprocess.run(["rm", "-rf", directory], check=True)


def test_a_cluster_may_have_settings_of_its_own(cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(work_mem="5MB")
    assert {host.execute("show work_mem")[0] for host in cluster.hosts} == {("5MB",)}


class TestCable:
    @pytest.mark.skipif(not can_drop(), reason="this kernel lets only root attach socket filters")
    def test_lost_packets_are_lost_until_the_cable_is_mended(self, cabled_cluster: Cluster) -> None:
        cluster = cabled_cluster
        old = cluster.writer
        with psycopg.connect(
            host=old.at[0],
            port=cluster.port,
            user="toil",
            dbname="toil",
            autocommit=True,
            tcp_user_timeout=300,
        ) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            cluster.promote(cluster.standbys[0], cluster.cut_off())
            # Nobody acknowledges this: TCP gives up.
            with pytest.raises(psycopg.OperationalError, match="timed out"):
                connection.execute("select 1")
        with socket.socket() as one:
            one.settimeout(_SHORTLY)
            with pytest.raises(TimeoutError):
                one.connect(old.at)
        assert not old.in_recovery, "it does not know"
        cluster.settle()
        assert old.in_recovery
        with psycopg.connect(host=old.at[0], port=cluster.port, user="toil", dbname="toil") as connection:
            assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)

    def test_bytes_that_are_held_come_later(self, cabled_cluster: Cluster) -> None:
        cluster = cabled_cluster
        cable = cluster.writer.cable
        assert cable is not None
        cable.hold()
        with socket.create_connection(cluster.writer.at, 10) as one:
            one.sendall(bytes.fromhex("0000000804d2162f"))  # SSLRequest
            one.settimeout(_SHORTLY)
            with pytest.raises(TimeoutError):
                one.recv(1)
            cable.mend()
            one.settimeout(10)
            assert one.recv(1) == b"N"


class TestToil:
    def test_where_nothing_happens_nothing_is_found(self, cluster: Cluster, tmp_path: Path) -> None:
        lay_table(cluster.writer)
        with Toil(few(cluster.writer), tmp_path) as toil:
            toil.await_work()
            outcomes = toil.finish()
        verdict = outcomes.judge(cluster.writer)
        assert outcomes.unfinished == 0
        assert verdict.faults == {}
        assert verdict.clients == 28
        assert verdict.unknown == 0
        assert not verdict.under_way and not verdict.in_transaction and not verdict.refused

    def test_clients_that_log_in_again_lose_their_connections_and_no_commit(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        lay_table(cluster.writer)
        with Toil(few(*cluster.hosts), tmp_path) as toil:
            toil.await_work()
            change = cluster.promote(cluster.standbys[0], cluster.kill())
            outcomes = toil.finish(change.writable)
        verdict = outcomes.judge(cluster.writer, change)
        print(verdict)
        assert outcomes.unfinished == 0
        assert set(verdict.faults) == {"disconnects", "settings lost"}
        assert verdict.disconnected == verdict.clients == 28
        assert len(verdict.pauses) == 24, "all but those who had nothing to ask for any more"
        assert len(verdict.settings_lost) == 4

    def test_a_commit_that_is_lost_is_found(self, cluster: Cluster, tmp_path: Path) -> None:
        lay_table(cluster.writer)
        with Toil(few(cluster.writer), tmp_path) as toil:
            toil.await_work()
            outcomes = toil.finish()
        [[client, seq]] = cluster.writer.execute(
            "delete from toil where ctid = (select min(ctid) from toil where client = 0)"
            " returning client, seq",
            dbname="toil",
        )
        cluster.writer.execute("insert into toil select * from toil where client = 1", dbname="toil")
        verdict = outcomes.judge(cluster.writer)
        assert verdict.lost == [(client, seq)]
        assert {client for client, _, _ in verdict.doubled} == {1}


class TestZone:
    def test_answers_change(self, zone: Zone) -> None:
        assert look_up(zone, "db.test").rCode == dns.ENAME
        zone.set("db.test", "127.0.0.2", "127.0.0.3", ttl=7)
        answer = look_up(zone, "DB.test")
        assert addresses(answer) == ["127.0.0.2", "127.0.0.3"]
        assert {record.ttl for record in answer.answers} == {7}
        zone.set("db.test", "127.0.0.4")
        assert addresses(look_up(zone, "db.test")) == ["127.0.0.4"]
        zone.forget("db.test")
        assert look_up(zone, "db.test").rCode == dns.ENAME
        zone.fail("db.test")
        assert look_up(zone, "db.test").rCode == dns.ESERVER
        zone.silence("db.test")
        with pytest.raises(TimeoutError):
            look_up(zone, "db.test", _SHORTLY)
        assert zone.queries("db.test") == 6
        assert zone.queries("other.test") == 0

    def test_a_name_may_be_another_s(self, zone: Zone) -> None:
        zone.set("one.test", "127.0.0.2")
        zone.set("two.test", "127.0.0.3")
        zone.alias("writer.test", "one.test", ttl=1)
        assert addresses(look_up(zone, "writer.test")) == ["127.0.0.2"]
        zone.alias("writer.test", "two.test", ttl=1)
        answer = look_up(zone, "writer.test")
        assert [record.type for record in answer.answers] == [dns.CNAME, dns.A]
        assert addresses(answer) == ["127.0.0.3"]

    def test_a_name_without_ipv6_is_no_name_that_does_not_exist(self, zone: Zone) -> None:
        zone.set("one.test", "127.0.0.2")
        answer = look_up(zone, "one.test", kind=dns.AAAA)
        assert (answer.rCode, answer.answers) == (dns.OK, [])


def look_up(zone: Zone, name: str, seconds: float = 10.0, kind: int = dns.A) -> Any:
    question = dns.Message(id=7, recDes=1)
    question.addQuery(name.encode(), kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(seconds)
        one.sendto(question.toStr(), ("127.0.0.1", zone.port))
        answer = dns.Message()
        answer.fromStr(one.recv(4096))
    return answer


def addresses(answer: Any) -> list[str]:
    return [record.payload.dottedQuad() for record in answer.answers if record.type == dns.A]


class TestPatroni:
    def test_it_tells_of_a_cluster_as_it_changes(self, cluster: Cluster, patroni: Patroni) -> None:
        cluster.observers.append(patroni.show)
        try:
            patroni.show(cluster)
            assert [(m["name"], m["role"], m["state"]) for m in members(patroni)] == sorted(
                (host.name, *role_and_state(cluster, host)) for host in cluster.hosts
            )
            old, new = cluster.writer, cluster.standbys[0]
            before = {member["name"]: member for member in members(patroni)}
            cluster.promote(new, cluster.kill())
            after = {member["name"]: member for member in members(patroni)}
            assert (after[old.name]["role"], after[old.name]["state"]) == ("replica", "stopped")
            assert after[old.name]["lag"] == "unknown"
            assert (after[new.name]["role"], after[new.name]["state"]) == ("leader", "running")
            assert after[new.name]["timeline"] == before[old.name]["timeline"] + 1
            assert (after[new.name]["host"], after[new.name]["port"]) == new.at
            assert "lag" not in after[new.name]
        finally:
            cluster.observers.clear()

    def test_its_answers_can_be_made(self, patroni: Patroni) -> None:
        patroni.set({"members": [{"name": "alpha"}], "scope": "main"})
        assert members(patroni) == [{"name": "alpha"}]
        patroni.fail()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            members(patroni)
        patroni.silence()
        with pytest.raises(TimeoutError):
            members(patroni, _SHORTLY)
        assert patroni.requests() == 3


def members(patroni: Patroni, seconds: float = 10.0) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{patroni.url}/cluster", timeout=seconds) as answer:
        found: list[dict[str, Any]] = json.load(answer)["members"]
    return found


def role_and_state(cluster: Cluster, host: Host) -> tuple[str, str]:
    if host is cluster.writer:
        return "leader", "running"
    return ("sync_standby" if host is cluster.synchronous else "replica"), "streaming"


class TestRds:
    def test_a_cluster_changes_its_writer(self, rds: Rds) -> None:
        rds.make_aurora("changing", ["changing-1", "changing-2", "changing-3"])
        assert rds.writer("changing") == "changing-1"
        rds.fail_over("changing", "changing-3")
        assert rds.writer("changing") == "changing-3"
        assert len({rds.endpoint(f"changing-{number}") for number in (1, 2, 3)}) == 3

    def test_an_instance_may_be_alone(self, rds: Rds) -> None:
        rds.make_instance("alone")
        name, port = rds.endpoint("alone")
        assert name.startswith("alone.")
        assert port == 5432
