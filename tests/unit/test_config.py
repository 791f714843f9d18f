"""The configuration: what is read, what is refused and in what words, and whether the documents are true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.config import (
    Address,
    AuthQuery,
    Config,
    ConfigError,
    Database,
    Discovery,
    Http,
    Proxy,
    ProxyTls,
    Target,
    User,
    from_options,
    load,
)
from pgproxy.config.aws import Aws, AwsCloudWatch, AwsIam
from pgproxy.config.kinds import (
    Addresses,
    Choice,
    HostPattern,
    Identifier,
    Name,
    OneAddress,
    Query,
    Seconds,
    ServerIp,
    Size,
    Unfit,
    Url,
    Urls,
    Whole,
    size,
)
from pgproxy.config.ranges import Timeout
from pgproxy.config.reading import build
from pgproxy.config.reference import markdown

ROOT = Path(__file__).parents[2]
VALID = ROOT / "tests/config/valid"
INVALID = ROOT / "tests/config/invalid"
HERE = Path("/nowhere")

KEYS = (
    "proxy targets databases users listen tls auth_query query certificate_names pool_size auth server ca"
).split()

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "pgproxy.toml"
        file.write_text(text)
        return file

    return write


def problems(file: Path) -> list[str]:
    """What is wrong with a file, without the directory that it is in."""
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


# Files that are right.


@pytest.mark.parametrize("file", sorted(VALID.glob("*.toml")), ids=lambda file: file.stem)
def test_valid(file: Path) -> None:
    load(file)


def test_minimal() -> None:
    config = load(VALID / "minimal.toml")
    assert config == Config(
        proxy=Proxy(users_file=VALID / "users.txt"),
        targets={"main": Target(server=(Address("127.0.0.1", 5432),))},
    )
    assert config.proxy.listen == (Address("127.0.0.1", 6432),)


def test_addresses() -> None:
    config = load(VALID / "addresses.toml")
    assert [str(address) for address in config.proxy.listen] == [
        "127.0.0.1:6432",
        "[::1]:6432",
        "localhost:7000",
    ]
    assert config.targets["main"].server == (Address("2001:db8::1", 5432),)


def test_bounds() -> None:
    proxy = load(VALID / "bounds.toml").proxy
    assert proxy.client_buffer == 16 * 1024 * 1024
    assert (proxy.login_timeout, proxy.connection_borrow_timeout, proxy.drain_timeout) == (0.5, 0, 0)
    assert proxy.certificate_names == {
        "app.example": frozenset({"app"}),
        "ops.example": frozenset({"ops", "reporting"}),
    }
    assert proxy.auth_query == AuthQuery(user="pgproxy_auth")


def test_paths_are_taken_from_the_files_directory(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users.txt").write_text("")
    file = write('[proxy]\nusers_file = "users.txt"\n[targets.main]\nserver = "127.0.0.1:5432"\n')
    monkeypatch.chdir(tmp_path)
    for way in (file, str(file), "pgproxy.toml"):
        assert load(way).proxy.users_file == tmp_path / "users.txt"


def test_an_empty_path_is_none(write: Write) -> None:
    file = write('[proxy]\nauth = "trust"\nusers_file = ""\n[targets.main]\nserver = "h:1"\nca = ""\n')
    config = load(file)
    assert config.proxy.users_file is None
    assert config.targets["main"].ca is None


# Databases, modes, sizes.


def test_databases() -> None:
    config = load(VALID / "databases.toml")
    assert config.database("app") == Database(
        target="main",
        name="app_production",
        pool_mode="transaction",
        pool_size=5,
        idle_client_timeout=600.0,
        query_timeout=0.0,
    )
    assert config.database("my reports") == Database(
        target="reports", name="my reports", init_query="SELECT 1"
    )
    assert config.database("other") == Database(target="main", name="other", pool_size=3)


def test_without_databases_every_name_is_taken_to_the_target() -> None:
    assert from_options(auth="trust").database("any") == Database(target="main", name="any")


def test_an_unknown_database(write: Write) -> None:
    file = write('[proxy]\nauth = "trust"\n[targets.one]\nserver = "h:1"\n[databases.app]\n')
    config = load(file)
    assert config.database("app") == Database(target="one", name="app")
    assert config.database("other") is None
    assert config.init_query("other") == ""
    assert config.pool_mode("other", "u") == "transaction"
    assert config.pool_size("other", "u") == 20


@pytest.mark.parametrize(
    ("database", "user", "mode", "most"),
    [
        ("app", "app", "transaction", 5),
        ("app", "reporting", "session", 2),
        ("app", "batch", "transaction", 1),
        ("my reports", "app", "session", 20),
        ("other", "app", "session", 3),
    ],
)
def test_the_user_goes_before_the_database_and_that_before_the_proxy(
    database: str, user: str, mode: str, most: int
) -> None:
    config = load(VALID / "databases.toml")
    assert config.pool_mode(database, user) == mode
    assert config.pool_size(database, user) == most


@pytest.mark.parametrize(
    ("database", "init_query"),
    [
        ("app", "SET work_mem = '8MB';"),
        ("my reports", "SELECT 1"),
        ("plain", ""),
        ("other", "SET work_mem = '8MB';"),
    ],
)
def test_the_init_query_of_a_database_goes_before_its_target_s(database: str, init_query: str) -> None:
    assert load(VALID / "databases.toml").init_query(database) == init_query


@pytest.mark.parametrize(
    ("which", "database", "user", "seconds"),
    [
        ("query_timeout", "other", "app", 60),
        ("query_timeout", "app", "app", 0),
        ("query_timeout", "app", "reporting", 3600.5),
        ("idle_client_timeout", "other", "app", 1800),
        ("idle_client_timeout", "app", "app", 600),
        ("idle_client_timeout", "app", "reporting", 0),
        ("transaction_timeout", "app", "reporting", 0),
        ("idle_transaction_timeout", "nowhere", "nobody", 0),
    ],
)
def test_so_do_the_limits_of_a_clients_life(which: Timeout, database: str, user: str, seconds: float) -> None:
    assert load(VALID / "databases.toml").timeout(which, database, user) == seconds


def test_all_limits_of_clients_lives() -> None:
    assert sorted(filter(None, load(VALID / "databases.toml").timeouts)) == [60, 600, 1800, 3600.5]


# Files that are wrong.


@pytest.mark.parametrize("file", sorted(INVALID.glob("*.toml")), ids=lambda file: file.stem)
def test_invalid(file: Path) -> None:
    assert problems(file) == file.with_suffix(".expected").read_text().splitlines()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.toml") == ["no.toml: cannot be read: No such file or directory"]


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b'# caf\xe9\n[proxy]\nauth = "trust"\n')
    assert problems(file) == ["latin.toml: byte 5 is not UTF-8"]


def test_a_number_of_too_many_digits(write: Write) -> None:
    assert problems(write(f"[proxy]\npool_size = {'9' * 5000}\n"))[0].startswith(
        "pgproxy.toml: is not TOML: "
    )
    assert "a long number is too large" in problems(write(f"[proxy]\npool_size = {'9' * 100}\n"))[0]


def test_a_users_file_that_is_not_utf_8(tmp_path: Path, write: Write) -> None:
    (tmp_path / "users.txt").write_bytes(b'"caf\xe9" ""\n')
    assert problems(write('proxy.users_file = "users.txt"\ntargets.main.server = "h:1"\n')) == [
        "pgproxy.toml: proxy.users_file: users.txt is not UTF-8 at byte 4"
    ]


@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats() | st.text(max_size=200) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_nothing_but_a_config_error_comes_of_any_table(value: object) -> None:
    values = value if isinstance(value, dict) else {"proxy": value, "targets": value}
    try:
        build(values, HERE, "x.toml", str)
    except ConfigError as error:
        assert all(str(problem).startswith("x.toml: ") for problem in error.problems)


# TLS files.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of an authority, two certificates with their keys, and some that are not what they seem."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.crt"))
    for name in ("server", "client"):
        issued = authority.issue_cert(f"{name}.example")
        issued.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(directory / f"{name}.crt"), append=True)
    private = load_pem_private_key((directory / "server.key").read_bytes(), None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (directory / "locked.key").write_bytes(locked)
    (directory / "users.txt").write_text("")
    (directory / "empty.pem").write_text("")
    return directory


def with_tls(directory: Path, certificate: str, key: str, client_ca: str = "ca.crt") -> Path:
    file = directory / "pgproxy.toml"
    file.write_text(
        f"""
        [proxy]
        auth = "cert"
        [proxy.tls]
        mode = "require"
        certificate = "{certificate}"
        key = "{key}"
        client_ca = "{client_ca}"
        [targets.main]
        server = "db.example:5432"
        tls = "verify-full"
        ca = "{client_ca}"
        certificate = "{certificate}"
        key = "{key}"
        """
    )
    return file


def test_tls(tls: Path) -> None:
    config = load(with_tls(tls, "server.crt", "server.key"))
    assert config.proxy.tls == ProxyTls(
        mode="require",
        certificate=tls / "server.crt",
        key=tls / "server.key",
        client_ca=tls / "ca.crt",
    )


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "option", "wrong"),
    [
        ("server.crt", "client.key", "ca.crt", "key", "client.key is not the key of server.crt;"),
        ("server.crt", "locked.key", "ca.crt", "key", "locked.key has a passphrase;"),
        ("server.crt", "empty.pem", "ca.crt", "key", "empty.pem holds no private key that can be used"),
        ("server.crt", "server.crt", "ca.crt", "key", "server.crt holds no private key that can be used"),
        ("server.key", "server.key", "ca.crt", "certificate", "server.key holds no certificate"),
        ("empty.pem", "server.key", "ca.crt", "certificate", "empty.pem holds no certificate"),
        ("server.crt", "server.key", "empty.pem", "ca", "empty.pem holds no certificate"),
        ("server.crt", "server.key", "server.key", "ca", "server.key holds no certificate"),
    ],
)
def test_tls_files_that_are_not_what_they_seem(
    tls: Path, certificate: str, key: str, ca: str, option: str, wrong: str
) -> None:
    clients, server = problems(with_tls(tls, certificate, key, ca))
    clients_option = "client_ca" if option == "ca" else option
    assert clients.startswith(f"pgproxy.toml: proxy.tls.{clients_option}: {wrong}")
    assert server.startswith(f"pgproxy.toml: targets.main.{option}: {wrong}")


# Without a file.


def test_from_options(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("")
    assert from_options(
        listen="[::1]:7000",
        server="db.example:5433",
        pool_mode="transaction",
        pool_size="7",
        auth="md5",
        users_file=str(users),
    ) == Config(
        proxy=Proxy(
            listen=(Address("::1", 7000),),
            pool_mode="transaction",
            pool_size=7,
            auth="md5",
            users_file=users,
        ),
        targets={"main": Target(server=(Address("db.example", 5433),))},
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"auth": "trust", "pool_size": "0"},
            "--pool-size: 0 is too small; it takes a whole number from 1 to",
        ),
        ({"auth": "trust", "pool_size": "many"}, '--pool-size: "many" is not a whole number; it takes'),
        ({"auth": "trust", "pool_size": "9" * 5000}, "--pool-size: 999999999 is too large; it takes"),
        ({"auth": "none"}, '--auth: "none" is none of the choices; it takes one of "trust"'),
        ({"auth": "cert"}, 'proxy.tls.mode (in a file, --config): is "off", but'),
        ({"auth": "trust", "server": "db"}, '--server: "db" has no port; it takes HOST:PORT'),
        ({}, '--users: is missing, and --auth "scram-sha-256" needs the secrets of the users; give'),
        ({"users_file": "/nowhere/users"}, "--users: /nowhere/users cannot be read: No such file"),
        ({"auth": "trust", "listen": "[::]:6432"}, '--auth: "trust" lets everybody in who reaches [::]:6432'),
    ],
)
def test_from_options_that_are_wrong(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options(**options)
    assert str(caught.value).startswith(expected)


def test_remote_trust_takes_an_explicit_word() -> None:
    with pytest.raises(ConfigError, match="or set --allow-remote-trust"):
        from_options(auth="trust", listen="0.0.0.0:6432")
    assert from_options(auth="trust", listen="0.0.0.0:6432", allow_remote_trust=True).proxy.allow_remote_trust


# Kinds.


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_reads_back(ip: Any, port: int) -> None:
    address = Address(str(ip), port)
    assert OneAddress().read(str(address), HERE) == address
    assert address.is_loopback == ip_address(str(ip)).is_loopback


@given(st.text())
def test_any_text_is_an_address_or_unfit(text: str) -> None:
    try:
        address = OneAddress().read(text, HERE)
    except Unfit:
        return
    assert 1 <= address.port <= 65535
    assert str(address) == text or address.port == int(text.rpartition(":")[2])


@pytest.mark.parametrize("text", ["h:", "h:0", "h:-1", "h:+1", "h: 1", "h:\u0661", "[h]:1", "-h:1", "h\0:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(Unfit):
        OneAddress().read(text, HERE)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


@pytest.mark.parametrize("value", [[], {}, ["127.0.0.1:1", 5], "", [["127.0.0.1:1"]]])
def test_what_is_no_list_of_addresses(value: object) -> None:
    with pytest.raises(Unfit):
        Addresses().read(value, HERE)


@pytest.mark.parametrize(
    ("value", "count"), [(4096, 4096), ("4KiB", 4096), ("1 MiB", 1 << 20), ("0004KiB", 4096)]
)
def test_sizes(value: object, count: int) -> None:
    assert Size(4096, 1 << 24).read(value, HERE) == count


@pytest.mark.parametrize(
    "value", ["4096", "4kb", "KiB", "-4KiB", "4.5KiB", "1GiB", "17MiB", 4095, True, 5.0, []]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(Unfit):
        Size(4096, 1 << 24).read(value, HERE)


def test_sizes_are_written_in_the_largest_unit() -> None:
    assert [size(count) for count in (0, 1000, 4096, 1 << 24)] == ["0", "1000", "4KiB", "16MiB"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Whole(1, 5), True),
        (Whole(1, 5), 1.0),
        (Seconds(5), False),
        (Seconds(5), "1"),
        (Seconds(5, positive=True), 0.0),
        (Choice(("a",)), "A"),
        (Choice(("a",)), []),
        (Name(), ""),
        (Name(), "é" * 65),
        (Query(), " "),
        (Query(), "select 1"),
    ],
)
def test_what_is_unfit(kind: Any, value: object) -> None:
    with pytest.raises(Unfit):
        kind.read(value, HERE)


# The documents.


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == markdown(), "python -m pgproxy.config > docs/configuration.md"


@pytest.mark.parametrize("name", ["pgproxy.toml", "pgproxy-minimal.toml"])
def test_the_examples_are_valid_and_bear_the_defaults(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text((ROOT / "etc" / name).read_text())
    (tmp_path / "users.txt").write_text((ROOT / "etc/users.txt.example").read_text())
    assert load(file) == Config(
        proxy=Proxy(users_file=tmp_path / "users.txt"),
        targets={"main": Target(server=(Address("127.0.0.1", 5432),))},
    )


def test_the_example_shows_every_option_with_its_default(tls: Path) -> None:
    text = re.sub(
        r"^#(?=\S|  (?:WHERE|AND))", "", (ROOT / "etc/pgproxy.toml").read_text(), flags=re.MULTILINE
    )
    (tls / "http-token.txt").write_text("token")
    (tls / "root.crt").write_bytes((tls / "ca.crt").read_bytes())
    (tls / "example.toml").write_text(text)
    load(tls / "example.toml")
    tables = tomllib.loads(text)
    proxy = tables["proxy"]
    for table, cls in (
        (proxy, Proxy),
        (proxy["tls"], ProxyTls),
        (proxy["auth_query"], AuthQuery),
        (tables["targets"]["main"], Target),
        (tables["databases"]["app"], Database),
        (tables["users"]["reporting"], User),
        (tables["http"], Http),
        (tables["aws"], Aws),
        (tables["aws"]["iam"], AwsIam),
        (tables["aws"]["cloudwatch"], AwsCloudWatch),
    ):
        for field in attrs.fields(cls):
            assert field.name in table, f"{cls.__name__}.{field.name}"
            if isinstance(field.default, (str, int, float, tuple)) and field.default != "":
                read = field.metadata["kind"].read(table[field.name], HERE)
                assert read == field.default, f"{cls.__name__}.{field.name}"
    discoveries = [target["discovery"] for target in tables["targets"].values() if "discovery" in target]
    for field in attrs.fields(Discovery):
        shown = [table[field.name] for table in discoveries if field.name in table]
        assert shown, f"Discovery.{field.name}"
        if field.name in ("timeout", "interval", "dns_records"):
            assert shown == [field.default], f"Discovery.{field.name}"


# How hosts are found.


def test_discovery() -> None:
    targets = load(VALID / "discovery.toml").targets
    assert targets["moving"].discovery == Discovery(
        kind="dns", dns_server=Address("127.0.0.1", 5353), dns_records="AAAA", timeout=1.5
    )
    assert targets["aurora"].discovery == Discovery(
        kind="aurora", host_pattern=Address("?.abc.eu-west-1.rds.amazonaws.com", 5432), interval=10.0
    )
    rds, patroni = targets["api"].discovery, targets["patroni"].discovery
    assert rds is not None and patroni is not None
    assert rds.addresses["two"] == Address("2001:db8::2", 5433)
    assert patroni.urls == ("http://10.0.0.1:8008", "https://[2001:db8::1]:8008/prefix")


def test_every_option_of_a_discovery_belongs_to_a_kind() -> None:
    owned = {name for own in Discovery.OWN.values() for name in own} | {"kind", "timeout"}
    assert owned == {one.name for one in attrs.fields(Discovery)}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (HostPattern(), "a.example:5432"),
        (HostPattern(), "?.?.example:5432"),
        (HostPattern(), "a.example:54?2"),
        (HostPattern(), "?.example"),
        (HostPattern(), "[::?]:5432"),
        (ServerIp(), "localhost:53"),
        (ServerIp(), "127.0.0.1"),
        (Url(), "ftp://h/"),
        (Url(), "http://"),
        (Url(), "http://h:0/"),
        (Url(), "http://h:99999/"),
        (Url(), "http://h/?query"),
        (Url(), "http://user:password@h/"),
        (Url(), "http://[h]:8008"),
        (Url(), "http://h\n:8008"),
        (Url(), 5),
        (Urls(), []),
        (Urls(), ["http://a", "http://a/"]),
        (Urls(), [f"http://h{number}" for number in range(17)]),
        (Identifier(), "1st"),
        (Identifier(), "x" * 64),
        (Identifier(), ""),
    ],
)
def test_what_is_unfit_for_a_discovery(kind: Any, value: object) -> None:
    with pytest.raises(Unfit):
        kind.read(value, HERE)
