"""What Aurora, the RDS API and Patroni say about their hosts, and what they should not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.watch.discovery.aurora import instances
from pgproxy.watch.discovery.found import MOST_HOSTS, DiscoveryFailed, FoundHost, found, moved
from pgproxy.watch.discovery.members import LARGEST, members
from pgproxy.watch.discovery.rds import of_cluster, of_instance

PATTERN = ("?.abc.rds.example", 5432)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["members", "name", "host", "port", "role", "state", "tags", "nofailover"]), inner
        )
    ),
    max_leaves=12,
)


def patroni(**changes: Any) -> dict[str, Any]:
    member = {"name": "one", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432}
    return {**member, **changes}


def listed(*listing: Any) -> bytes:
    return json.dumps({"members": listing, "scope": "main"}).encode()


# All.


def test_a_host_is_there_once_and_there_is_one_at_least() -> None:
    host = FoundHost("a", "10.0.0.1", 5432)
    assert found("x", [host, FoundHost("b", "10.0.0.1", 5432)], 3).hosts == (host,)
    with pytest.raises(DiscoveryFailed, match="x has no host; look"):
        found("x", [], 3)


def test_there_are_not_too_many_hosts() -> None:
    hosts = [FoundHost("a", f"10.0.0.{number}", 5432) for number in range(MOST_HOSTS + 1)]
    assert len(found("x", hosts[:-1], 3).hosts) == MOST_HOSTS
    with pytest.raises(DiscoveryFailed, match="more than 64 hosts"):
        found("x", hosts, 3)


def test_addresses_of_the_configuration_go_before_those_found() -> None:
    one = FoundHost("one", "one.example", 5432, "writer", tls_name="one.example")
    two = FoundHost("two", "two.example", 5432, tls_name="two.example")
    three = FoundHost("three", "three.example", 5432)
    assert moved([one, two, three], {"one": ("::1", 1), "two.example": ("127.0.0.1", 2)}) == [
        FoundHost("one", "::1", 1, "writer", tls_name="one.example"),
        FoundHost("two", "127.0.0.1", 2, tls_name="two.example"),
        three,
    ]


# Aurora.


@pytest.mark.parametrize("yes", [True, "t"])
@pytest.mark.parametrize("lag", [17.5, "17.5"])
def test_aurora(yes: object, lag: object) -> None:
    assert instances([["db-1", yes, None], ["db-2", "f", lag], ["db-3", False, "NaN"]], PATTERN) == [
        FoundHost("db-1", "db-1.abc.rds.example", 5432, "writer", None, "db-1.abc.rds.example"),
        FoundHost("db-2", "db-2.abc.rds.example", 5432, "reader", 0.0175, "db-2.abc.rds.example"),
        FoundHost("db-3", "db-3.abc.rds.example", 5432, "reader", None, "db-3.abc.rds.example"),
    ]


def test_two_writers_are_none() -> None:
    roles = [host.role for host in instances([["a", "t", None], ["b", "t", None], ["c", "f", "1"]], PATTERN)]
    assert roles == [None, None, "reader"]


@pytest.mark.parametrize("name", ["evil.example/?", "a.b", "", "x" * 64, "a\n", 5, None])
def test_what_is_no_instance(name: object) -> None:
    with pytest.raises(DiscoveryFailed, match="aurora_replica_status"):
        instances([[name, "t", None]], PATTERN)


@given(st.lists(st.lists(ANYTHING, max_size=4), max_size=4))
def test_any_rows(rows: list[list[object]]) -> None:
    try:
        instances(rows, PATTERN)
    except DiscoveryFailed as error:
        assert str(error).isprintable()


# The RDS API.


def described(name: str, **more: Any) -> dict[str, Any]:
    endpoint = {"Address": f"{name}.rds.example", "Port": 5432}
    return {"DBInstanceIdentifier": name, "Endpoint": endpoint, **more}


def test_a_cluster() -> None:
    cluster = {
        "DBClusterMembers": [
            {"DBInstanceIdentifier": "one", "IsClusterWriter": False},
            {"DBInstanceIdentifier": "two", "IsClusterWriter": True},
        ]
    }
    being_made = {"DBInstanceIdentifier": "four"}
    hosts = of_cluster([cluster], [described("one"), described("two"), described("three"), being_made])
    assert hosts == [
        FoundHost("one", "one.rds.example", 5432, "reader", tls_name="one.rds.example"),
        FoundHost("two", "two.rds.example", 5432, "writer", tls_name="two.rds.example"),
        FoundHost("three", "three.rds.example", 5432, None, tls_name="three.rds.example"),
    ]


def test_an_instance_and_its_replica() -> None:
    hosts = of_instance([described("one"), described("two", ReadReplicaSourceDBInstanceIdentifier="one")])
    assert [(host.name, host.role) for host in hosts] == [("one", "writer"), ("two", "reader")]


@pytest.mark.parametrize(
    "endpoint", [{"Address": "a b", "Port": 5432}, {"Address": "a", "Port": "x"}, {"Port": 1}]
)
def test_what_is_no_endpoint(endpoint: object) -> None:
    with pytest.raises(DiscoveryFailed, match="the RDS API gave an instance 'one' at"):
        of_instance([described("one", Endpoint=endpoint)])


# Patroni.


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("leader", "writer"),
        ("master", "writer"),
        ("standby_leader", "reader"),
        ("replica", "reader"),
        ("sync_standby", "reader"),
        ("quorum_standby", "reader"),
        ("uninitialized", None),
        (7, None),
    ],
)
def test_roles_of_members(role: object, expected: object) -> None:
    [host] = members(listed(patroni(role=role)))
    assert host == FoundHost("one", "10.0.0.1", 5432, expected, tls_name="10.0.0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["stopped", "crashed", "starting", "start failed", None, []])
def test_a_member_that_does_not_run_has_no_role(state: object) -> None:
    [host] = members(listed(patroni(state=state)))
    assert host.role is None


@pytest.mark.parametrize(
    ("tags", "may_lead", "may_read"),
    [
        ({"nofailover": True}, False, True),
        ({"nofailover": "true"}, False, True),
        ({"failover_priority": 0}, False, True),
        ({"failover_priority": 2}, True, True),
        ({"noloadbalance": True}, True, False),
        ({"nofailover": False, "noloadbalance": "false"}, True, True),
        ("nofailover", True, True),
    ],
)
def test_tags(tags: object, may_lead: bool, may_read: bool) -> None:
    [host] = members(listed(patroni(tags=tags)))
    assert (host.may_lead, host.may_read) == (may_lead, may_read)


def test_a_member_without_a_postgresql_is_left_out() -> None:
    member = patroni()
    del member["host"]
    assert members(listed(member)) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no members"),
        (b'{"members": {}}', "has no members"),
        (b'{"members": [1]}', "gave 1 for a member"),
        (listed(patroni(name="a\nb")), r"gave a member 'a\\nb' at '10.0.0.1', port 5432"),
        (listed(patroni(host="a/b")), "gave a member 'one' at 'a/b'"),
        (listed(patroni(port=0)), "port 0"),
        (listed(patroni(port=True)), "port True"),
        (listed(*[patroni()] * 65), "more than 64"),
        (b" " * (LARGEST + 1), "is longer than"),
    ],
)
def test_what_is_no_cluster(body: bytes, why: str) -> None:
    with pytest.raises(DiscoveryFailed, match=why):
        members(body)


@given(ANYTHING)
def test_any_document(document: object) -> None:
    for value in (document, {"members": [document]}, {"members": [patroni(host=document, role=document)]}):
        try:
            hosts = members(json.dumps(value).encode())
        except DiscoveryFailed as error:
            assert str(error).isprintable()
        else:
            assert all(1 <= host.port <= 65535 and host.name.isprintable() for host in hosts)
