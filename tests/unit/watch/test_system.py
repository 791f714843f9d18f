"""resolv.conf and /etc/hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgproxy.watch.discovery.system import Resolv, addresses_in_hosts, parse_resolv

RESOLV = """\
# comment
; another
search a.internal b.internal.
nameserver 10.0.0.53
nameserver  2001:db8::53
nameserver not-an-address
nameserver
options ndots:2 timeout:1 use-vc
nameserver 10.0.0.54
nameserver 10.0.0.55
"""


def test_resolv_conf() -> None:
    assert parse_resolv(RESOLV) == Resolv(
        (("10.0.0.53", 53), ("2001:db8::53", 53), ("10.0.0.54", 53)), ("a.internal", "b.internal"), 2, True
    )


def test_an_empty_one_means_this_machine() -> None:
    assert parse_resolv("") == Resolv((("127.0.0.1", 53),), (), 1, False)


def test_the_last_of_search_and_domain_holds() -> None:
    assert parse_resolv("search a b\ndomain c\n").search == ("c",)
    assert parse_resolv("domain c\nsearch a b\n").search == ("a", "b")


def test_candidates() -> None:
    resolv = Resolv(search=("a", "b"), ndots=2)
    assert resolv.candidates("db") == ["db.a", "db.b", "db"]
    assert resolv.candidates("db.x.y") == ["db.x.y", "db.x.y.a", "db.x.y.b"]
    assert resolv.candidates("db.x.") == ["db.x"]


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    parsed = parse_resolv(text)
    assert 1 <= len(parsed.servers) <= 3
    assert addresses_in_hosts(text, "\0") == []


def test_hosts() -> None:
    text = (
        "127.0.0.1 localhost db # other\n::1 LocalHost\n127.0.0.1 localhost\nno-address localhost\n10.0.0.1\n"
    )
    assert addresses_in_hosts(text, "LOCALHOST.") == ["127.0.0.1", "::1"]
    assert addresses_in_hosts(text, "db") == ["127.0.0.1"]
    assert addresses_in_hosts(text, "other") == []
