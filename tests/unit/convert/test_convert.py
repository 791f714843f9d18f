"""PgBouncer's configurations in ours: as it stands in tests/convert, and as hypothesis thinks it up."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgproxy.check import find_problems
from pgproxy.config import Config, load
from pgproxy.config.reading import build
from pgproxy.convert import command
from pgproxy.convert.draft import Draft
from pgproxy.convert.ini import Ini, IniError
from pgproxy.convert.keys import ELSEWHERE, NONE, SAME, SILENT
from pgproxy.convert.writing import as_toml
from tests.examples import examples

EXAMPLES = Path(__file__).parents[2] / "convert"
NAMES = ["plain", "much", "hba", "trust"]


def converted(path: Path, tmp_path: Path) -> tuple[Config, list[str]]:
    """Convert a file; what comes out has to be what pgproxy takes."""
    draft = command.convert(path)
    out = tmp_path / "pgproxy.toml"
    out.write_text(as_toml(draft, str(path)))
    assert find_problems(out) == []
    return load(out), draft.notes


def wrote(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "pgbouncer.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def run(path: Path) -> int:
    parser = argparse.ArgumentParser()
    command.define(parser)
    return command.run(parser.parse_args([str(path)]))


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    status = run(Path(f"{name}.ini"))
    out, noted = capsys.readouterr()
    assert status == 0
    assert out.replace(str(EXAMPLES), "/DIR") == (EXAMPLES / f"{name}.expected").read_text()
    assert len(noted.splitlines()) == out.count("\n# - ")


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    converted(Path(f"{name}.ini"), tmp_path)


def test_no_password_is_repeated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    run(Path("much.ini"))
    assert "hunter2" not in "".join(capsys.readouterr())


def test_pgbouncers_defaults_are_kept_where_ours_are_others(tmp_path: Path) -> None:
    config, _notes = converted(wrote(tmp_path, "[databases]\na=\n[pgbouncer]\nauth_type=trust\n"), tmp_path)
    proxy = config.proxy
    assert (proxy.pool_mode, proxy.max_client_connections, proxy.idle_client_timeout) == ("session", 100, 0)
    assert (proxy.login_timeout, proxy.connect_timeout) == (60, 15)


def test_meanings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    config, _notes = converted(Path("much.ini"), tmp_path)
    assert set(str(one) for target in config.targets.values() for one in target.server) >= {
        "db1.internal:5432",
        "db2.internal:5432",
        "db2.internal:5433",
        "127.0.0.1:5432",
    }
    app = config.database("app")
    assert app is not None and (app.name, app.pool_size, app.max_server_connections) == (
        "app_production",
        50,
        60,
    )
    assert config.init_query("reports") == "set work_mem to '64MB'"
    assert (
        config.init_query('weird "name" / x')
        == "SET client_encoding = 'UTF8'; SET TimeZone = 'Europe/Vienna'"
    )
    anything = config.database("anything")
    assert anything is not None and anything.name == "anything"
    assert config.pool_mode("app", "web") == "transaction"
    assert config.pool_mode("app", "batch") == "session"
    assert config.timeout("query_timeout", "app", "batch") == 600
    assert config.proxy.tcp_user_timeout == 15
    assert config.proxy.auth_query is not None and config.proxy.auth_query.user == "pgbouncer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[databases\na = host=x", r"pgbouncer\.ini:1: this is no"),
        ("[databases] a = host=x", r":1: there is something behind"),
        ("a = b", r":1: this stands before"),
        ("[pgbouncer]\nno equals sign", r":2: this is no"),
        ("[databases]\nsp ace = host=x", r":2: this is no"),
        ('[databases]\n"a = host=x', r":2: this is no"),
        ("[pgbouncer]\n%include nowhere.ini", r"nowhere\.ini: cannot be read"),
        ("%include /dev/zero", r"/dev/zero: is not a file"),
        ("%include .", r"is not a file"),
        (b"[pgbouncer]\nuser = \xff", r":2: this line is not UTF-8"),
        (b"[pgbouncer]\nuser = a\0b", r":2: there is a NUL"),
        (b"[pgbouncer]\n%include a\0b", r":2: there is a NUL"),
    ],
)
def test_what_pgbouncer_could_not_read(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(IniError, match=message):
        Ini(wrote(tmp_path, text))
    assert run(tmp_path / "pgbouncer.ini") == 1


def test_circles_and_bombs_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wrote(tmp_path, "%include pgbouncer.ini\n")
    with pytest.raises(IniError, match="circle"):
        Ini(path)
    monkeypatch.setattr("pgproxy.convert.ini.MOST_LINES", 1000)
    for level in range(8):
        (tmp_path / f"{level}.ini").write_text(f"%include {level + 1}.ini\n" * 10)
    (tmp_path / "8.ini").write_text("")
    with pytest.raises(IniError, match="all files together"):
        Ini(tmp_path / "0.ini")


def test_nothing_in_a_comment_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = wrote(
        tmp_path, '[databases]\na=\n"x\r[proxy]\r\x1b[2J\u2028\x7f" = host=!\n[pgbouncer]\nauth_type=trust\n'
    )
    assert run(path) == 0
    out, noted = capsys.readouterr()
    assert "\x1b" not in out + noted
    assert set(tomllib.loads(out)["databases"]) == {"a"}


def test_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(wrote(tmp_path, "[pgbouncer]\n")) == 1
    assert "no database" in capsys.readouterr().err


def test_no_key_is_seen_to_twice() -> None:
    kinds = [set(SAME), set(ELSEWHERE), set(NONE)]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


def test_every_key_of_pgbouncers_own_example_is_known(tmp_path: Path) -> None:
    """Debian's PgBouncer comes with a file that names its keys, most in comments."""
    example = Path("/etc/pgbouncer/pgbouncer.ini")
    if not example.exists():
        pytest.skip("no PgBouncer is installed here")
    keys = set(re.findall(r"^;*([a-z0-9_]+) = ", example.read_text(), re.MULTILINE))
    keys -= {"foodb", "bardb", "forcedb", "nondefaultdb", "user1"}
    text = "[databases]\na=\n[pgbouncer]\n" + "".join(f"{key} = 1\n" for key in keys if key.islower())
    notes = command.convert(wrote(tmp_path, text)).notes
    assert [note for note in notes if "no such key" in note] == []


KEYS_OF_1_25 = {
    "pgbouncer": """
        logfile=/x pidfile=/x listen_addr=127.0.0.2 listen_port=7777 unix_socket_dir=/tmp
        unix_socket_mode=0700 unix_socket_group=x user=x pool_mode=transaction max_client_conn=7
        default_pool_size=7 min_pool_size=7
        reserve_pool_size=7 reserve_pool_timeout=7 max_db_connections=7 max_db_client_connections=7
        max_user_connections=7 max_user_client_connections=7 server_round_robin=1 track_extra_parameters=x
        ignore_startup_parameters=x peer_id=7 disable_pqexec=1 application_name_add_host=1 conffile=/x
        service_name=x job_name=x stats_period=7 max_prepared_statements=7 scram_iterations=8192
        auth_type=scram-sha-256 auth_hba_file=/x auth_ident_file=/x auth_file=/x auth_user=x auth_query=select
        auth_dbname=x auth_ldap_options=x
        syslog=1 syslog_ident=x syslog_facility=x log_connections=0 log_disconnections=0 log_pooler_errors=0
        log_stats=0 verbose=2 admin_users=x stats_users=x
        server_reset_query=x server_reset_query_always=1 server_check_delay=7 server_check_query=x
        server_fast_close=1 server_lifetime=7 server_idle_timeout=7 server_connect_timeout=7
        server_login_retry=7 client_login_timeout=7 autodb_idle_timeout=7 dns_max_ttl=7 dns_nxdomain_ttl=7
        dns_zone_check_period=7 resolv_conf=/x
        client_tls_sslmode=require client_tls_key_file=/x client_tls_cert_file=/x client_tls_ca_file=/x
        client_tls_protocols=tlsv1.3 client_tls_ciphers=x client_tls13_ciphers=x client_tls_ecdhcurve=x
        client_tls_dheparams=x
        server_tls_sslmode=verify-full server_tls_ca_file=/x server_tls_key_file=/x server_tls_cert_file=/x
        server_tls_protocols=tlsv1.3 server_tls_ciphers=x server_tls13_ciphers=x
        query_timeout=7 query_wait_timeout=7 query_wait_notify=7 cancel_wait_timeout=7 client_idle_timeout=7
        idle_transaction_timeout=7 transaction_timeout=7 suspend_timeout=7
        pkt_buf=7 max_packet_size=7 listen_backlog=7 sbuf_loopcnt=7 so_reuseport=1 tcp_defer_accept=7
        tcp_socket_buffer=7 tcp_keepalive=0 tcp_keepcnt=7 tcp_keepidle=7 tcp_keepintvl=7 tcp_user_timeout=7
        pool_idle_timeout=7 login_notify_message=x reserve_pool=7
    """,
    "databases": """
        dbname=x host=x port=7777 user=x password=x auth_user=x auth_query=x auth_dbname=x pool_size=7
        min_pool_size=7 reserve_pool_size=7 reserve_pool=7 connect_query=x pool_mode=transaction
        load_balance_hosts=disable max_db_connections=7 max_db_client_connections=7 server_lifetime=7
        client_encoding=UTF8 datestyle=ISO timezone=UTC application_name=x query_wait_timeout=7
    """,
    "users": """
        pool_size=7 reserve_pool_size=7 pool_mode=transaction max_user_connections=7 query_timeout=7
        idle_transaction_timeout=7 transaction_timeout=7 client_idle_timeout=7 max_user_client_connections=7
        query_wait_timeout=7
    """,
}
"""All keys of doc/config.md, 1.25 and a little later, each with a value that is not its default."""
WITH_ANOTHER = {
    "auth_hba_file": "auth_type = hba",
    "auth_query": "auth_user = pgbouncer\nauth_file = userlist.txt",
    "auth_dbname": "auth_user = pgbouncer\nauth_file = userlist.txt",
    "log_connections": "log_disconnections = 0",
    "log_disconnections": "log_connections = 0",
    "max_user_connections": "",
    **{f"client_tls_{one}_file": "client_tls_sslmode = require" for one in ("key", "cert", "ca")},
}
"""Keys that mean something only beside others."""


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, *pair.split("=")) for section, text in KEYS_OF_1_25.items() for pair in text.split()],
)
def test_every_key_comes_to_something(
    section: str, key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes what is written, or there is a note that names it; "no such key" is no such note."""
    monkeypatch.chdir(EXAMPLES)
    beside = WITH_ANOTHER.get(key, "") if section == "pgbouncer" else ""

    def drafted(entry: str) -> Draft:
        entries = {"databases": "a = ", "users": "u = ", "pgbouncer": f"{beside}\n"}
        entries[section] += entry
        text = "".join(f"[{name}]\n{lines}\n" for name, lines in entries.items())
        return command.convert(wrote(tmp_path, text))

    draft, without = drafted(f"{key} = {value}" if section == "pgbouncer" else f"{key}={value}"), drafted("")
    assert not [note for note in draft.notes if "no such key" in note]
    named = [note for note in draft.notes if f": {key}: " in note or f" {key}: " in note]
    assert named or as_toml(evolve(draft, notes=[]), "x") != as_toml(evolve(without, notes=[]), "x")


@pytest.mark.parametrize("key", sorted(SILENT))
def test_what_is_so_in_any_case_needs_no_note(key: str, tmp_path: Path) -> None:
    for value in SILENT[key]:
        text = f"[databases]\na=\n[pgbouncer]\n{key} = {value}\n"
        assert not [note for note in command.convert(wrote(tmp_path, text)).notes if key in note]


def test_who_administers_and_who_reads(tmp_path: Path) -> None:
    text = (
        "[databases]\na=\n[pgbouncer]\nauth_type=trust\nadmin_users=postgres, ops\nstats_users = exporter\n"
    )
    config, notes = converted(wrote(tmp_path, text), tmp_path)
    assert config.proxy.admin_users == frozenset({"postgres", "ops"})
    assert config.proxy.stats_users == frozenset({"exporter"})
    assert any("admin_connections" in note for note in notes)


VALUES = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "20", "1e9", "nan", "inf", "-inf", "99999999999999999999", "0.5"]),
    st.sampled_from(
        ["session", "statement", "md5", "trust", "cert", "require", "verify-full", "hba", "*", "::"]
    ),
    st.sampled_from(["userlist.txt", "nowhere", "host=h", "host='a b' port=x", "dbname=''''", "a='b"]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\0"), max_size=40),
)
CONNECTIONS = st.dictionaries(
    st.sampled_from(
        ["host", "port", "dbname", "user", "pool_size", "pool_mode", "connect_query", "timezone", "x"]
    ),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\0"), max_size=20)
    | st.sampled_from(["5432", "session", "10"]),
    max_size=4,
).map(
    lambda pairs: " ".join(f"{key}='{value.replace(chr(39), chr(39) * 2)}'" for key, value in pairs.items())
)
KEYS = st.sampled_from(sorted({*SAME, *ELSEWHERE, *NONE}))
QUOTED = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\0"), max_size=150)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(KEYS, VALUES, max_size=12),
    st.dictionaries(QUOTED, CONNECTIONS | VALUES, max_size=4),
    st.dictionaries(QUOTED, CONNECTIONS | VALUES, max_size=3),
)
def test_whatever_comes_the_result_is_toml_that_is_wrong_in_files_at_most(
    tmp_path: Path, keys: dict[str, str], databases: dict[str, str], users: dict[str, str]
) -> None:
    def lines(entries: dict[str, str]) -> str:
        return "".join('"{}" = {}\n'.format(key.replace('"', '""'), value) for key, value in entries.items())

    text = "[pgbouncer]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    text += "[databases]\nalways = host=127.0.0.1\n" + lines(databases) + "[users]\n" + lines(users)
    draft = command.convert(wrote(tmp_path, text))
    values = tomllib.loads(as_toml(draft, "x"))
    # What files hold is not the matter here, nor what can't be known without them.
    for table, options in (("proxy", ["users_file", "tls", "auth"]), ("targets", [])):
        for option in options:
            values[table].pop(option, None)
    values["proxy"] |= {"auth": "trust", "allow_remote_trust": True}
    for target in values["targets"].values():
        for option in ("ca", "certificate", "key", "tls"):
            target.pop(option, None)
    build(values, tmp_path, "", lambda path: path)
