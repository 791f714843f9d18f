"""Every command in README.md and docs/ is run, and every file that they link to is there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.ports import free_port, is_listening
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import end, spawn, wait_until
from tests.fix_pgproxy import PgproxyFactory
from tests.fix_postgres import PASSWORDS
from tests.fix_tls import Tls

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent
MAKE = re.compile(r"make (\w+)( PORT=7000| ARGS=\S.*)?$")
WHOLE = ("operations.md", "migrating.md")
"""Pages of which each line of a block has to be known, whatever it begins with."""
# Run by the tests named here.
RUN_ELSEWHERE = {
    "python3 -m venv venv": "tests/unit/test_plugin.py",
    "venv/bin/pip install .": "tests/unit/test_plugin.py",
    "sudo systemctl kill -s USR2 --kill-whom=main pgproxy": "tests/integration/test_systemd.py",
    "sudo systemctl enable --now pgproxy": "tests/integration/test_systemd.py",
    "sudo -e /etc/pgproxy/pgproxy.toml": "by hand",
    "git pull": "by hand",
    "/opt/pgproxy/bin/pip install 'rich>=13.7,<16'": "test_the_extras_range_is_said",
}
PASSWD = (
    "psql -h 127.0.0.1 -U postgres -Atc \"select rolpassword from pg_authid where rolname = 'app'\""
    " | venv/bin/pgproxy passwd etc/users.txt app"
)
TWISTD = "venv/bin/twistd -n pgproxy --config etc/pgproxy.toml"
OPTIONS = (
    "venv/bin/twistd -n pgproxy --listen 127.0.0.1:6432 --server 127.0.0.1:5432 --auth trust"
    " --pool-mode transaction --pool-size 20"
)
INSTALL = "sudo etc/install.sh ."
CHECK = "/opt/pgproxy/bin/pgproxy check /etc/pgproxy/pgproxy.toml"
CONVERT = "pgproxy convert /etc/pgbouncer/pgbouncer.ini > pgproxy.toml"
CHECK_CONVERTED = "pgproxy check pgproxy.toml"
CONSOLE = "psql -h 127.0.0.1 -p 6432 -U demo pgproxy "
CONSOLE_SAYS = {f'{CONSOLE}-c "SHOW POOLS"', f'{CONSOLE}-c "SHOW QUEUE" -c "SHOW PINS"'}
TOP = "/opt/pgproxy/bin/pgproxy top -U ops"
RUN_HERE = {TOP, PASSWD, TWISTD, OPTIONS, INSTALL, CHECK, CONVERT, CHECK_CONVERTED, *CONSOLE_SAYS}


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    if page.name in WHOLE:
        return [line for kind, block in blocks if kind == "sh" for line in block.splitlines()]
    said = [line for kind, block in blocks if kind in ("", "sh") for line in block.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in said]
    programs = r"(make|python3|venv/bin|/opt/pgproxy|twistd|pgproxy|psql) ?"
    return [line for line in lines if re.match(programs, line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_known(page: Path) -> None:
    for command in commands(page):
        if MAKE.match(command):
            done = subprocess.run(
                ["bash", "-c", command.replace("make ", "make -n ", 1)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert done.returncode == 0, done.stderr
        else:
            assert command in RUN_HERE or command in RUN_ELSEWHERE, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_readmes_way_to_run_it(postgres: Postgres, binaries: Binaries, tmp_path: Path) -> None:
    """The README's commands as they stand, but for where things are and which ports are free."""
    psql = shutil.which("psql", path=str(binaries.bindir)) or shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")
    shutil.copytree(ROOT / "etc", tmp_path / "etc")
    example = tmp_path / "etc" / "pgproxy.toml"
    port = free_port()
    text = example.read_text()
    assert "127.0.0.1:6432" in text and "127.0.0.1:5432" in text
    example.write_text(
        text.replace("127.0.0.1:6432", f"127.0.0.1:{port}").replace(
            "127.0.0.1:5432", f"127.0.0.1:{postgres.port}"
        )
    )
    admin = f"-h {postgres.socket_directory} -p {postgres.port} -U postgres"
    command = PASSWD.replace("psql -h 127.0.0.1 -U postgres", f"{psql} {admin}").replace("venv/bin", str(BIN))
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    run(TWISTD, tmp_path, port, PASSWORDS["app"])
    options = OPTIONS.replace("127.0.0.1:6432", f"127.0.0.1:{port}")
    options = options.replace("127.0.0.1:5432", f"127.0.0.1:{postgres.port}")
    users = tmp_path / "etc" / "users.txt"
    users.write_text(f'"app" "{PASSWORDS["app"]}"\n')
    run(f"{options} --users {users}", tmp_path, port)


@pytest.mark.parametrize("command", sorted(CONSOLE_SAYS))
def test_the_consoles_commands(command: str, pgproxy: PgproxyFactory, binaries: Binaries) -> None:
    psql = shutil.which("psql", path=str(binaries.bindir)) or shutil.which("psql")
    if psql is None:
        pytest.skip("no psql here")
    proxy = pgproxy(auth="trust", proxy={"admin_users": ["demo"]})
    command = command.replace("psql ", f"{psql} -X ", 1).replace("6432", str(proxy.port))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "database" in done.stdout, done.stderr


def test_the_terminals_view(pgproxy: PgproxyFactory) -> None:
    proxy = pgproxy(auth="trust", proxy={"stats_users": ["ops"]})
    command = f"{TOP} -p {proxy.port} --once --interval 0.1".replace("/opt/pgproxy/bin", str(BIN))
    assert f"127.0.0.1:{proxy.port}  active" in bash(command, ROOT)


def test_the_extras_range_is_said() -> None:
    said = re.search(r"pip install 'rich(.*)'$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert said is not None
    assert f"rich {said[1].replace(',', ', ')}" in (ROOT / "setup.cfg").read_text()


def run(command: str, directory: Path, port: int, password: str = "") -> None:
    words = [word.replace("venv/bin", str(BIN)) for word in command.split()]
    process = spawn([*words[:1], "--pidfile=", *words[1:]], log=directory / "log", cwd=directory)
    try:
        wait_until(lambda: is_listening(port), 20)
        with psycopg.connect(url(port, "app", password, "app", sslmode="disable")) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        end(process, signal.SIGTERM, 10.0)


def bash(command: str, directory: Path, seconds: float = 60, **environ: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_way_to_install_it(tmp_path: Path) -> None:
    """As operations.md has it, below a directory; a second time is an upgrade."""
    install = INSTALL.replace("sudo etc/install.sh", f"etc/install.sh --root {tmp_path}")
    # Only how fast the result is depends on these, and half of the time that this takes.
    quickly = {"CFLAGS": "-O0", "PIP_NO_COMPILE": "1"}
    bash(install, ROOT, 300, **quickly)
    check = CHECK.replace("/opt/", f"{tmp_path}/opt/").replace("/etc/", f"{tmp_path}/etc/")
    assert bash(check, ROOT) == "ok\n"
    config = tmp_path / "etc" / "pgproxy" / "pgproxy.toml"
    config.write_text(config.read_text() + "# ours\n")
    first = (tmp_path / "opt" / "pgproxy").resolve()
    bash(install, ROOT, 300, **quickly)
    assert config.read_text().endswith("# ours\n")
    assert (tmp_path / "opt" / "pgproxy").resolve() != first
    assert bash(check, ROOT) == "ok\n"
    assert (tmp_path / "etc" / "systemd" / "system" / "pgproxy.service").is_file()


@pytest.mark.parametrize("name", ["install.sh", "ec2-user-data.sh"])
def test_scripts_are_bash(name: str) -> None:
    bash(f"bash -n etc/{name}", ROOT)


def test_the_user_datas_configuration(tmp_path: Path, tls: Tls) -> None:
    """But for what is the owner's: the address and the secrets."""
    text = (ROOT / "etc" / "ec2-user-data.sh").read_text()
    found = re.search(r"cat >/etc/pgproxy/pgproxy.toml <<'TOML'\n(.*?)^TOML$", text, re.MULTILINE | re.DOTALL)
    assert found is not None and "-o /etc/pgproxy/rds.pem" in text
    (tmp_path / "pgproxy.toml").write_text(found[1])
    shutil.copy(tls.ca, tmp_path / "rds.pem")
    assert bash(f"{BIN}/pgproxy check pgproxy.toml", tmp_path) == "ok\n"


def test_the_way_from_pgbouncer(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "convert", tmp_path / "bouncer")
    directory = tmp_path / "bouncer"
    convert = CONVERT.replace("/etc/pgbouncer/pgbouncer.ini", "much.ini").replace(
        "pgproxy ", f"{BIN}/pgproxy "
    )
    bash(convert, directory)
    assert bash(f"{BIN}/{CHECK_CONVERTED}", directory) == "ok\n"
