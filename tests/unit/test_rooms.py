"""The walls between the rooms: what decides knows no socket, no clock, no log, no Twisted, no AWS."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pgproxy

ROOT = Path(pgproxy.__file__).parent
STDLIB = set(sys.stdlib_module_names)
PURE = ("wire", "auth", "session", "pool", "targets", "figures")
DOES_THINGS = {
    "socket",
    "select",
    "ssl",
    "time",
    "datetime",
    "logging",
    "asyncio",
    "threading",
    "subprocess",
    "os",
}
MAY_IMPORT = {
    "wire": {"wire", "twin"},
    "auth": {"auth"},
    "session": {"session", "wire", "twin"},
    "pool": {"pool", "session", "wire", "twin"},
    "figures": {"figures", "session", "wire", "twin"},
    "targets": {"targets"},
}


@cache
def imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names.add(node.module or "")
    return frozenset(names)


@pytest.mark.parametrize("room", PURE)
def test_rooms_that_decide_do_nothing(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for name in imports(path):
            top, _, rest = name.partition(".")
            if top == "pgproxy":
                assert rest.partition(".")[0] in MAY_IMPORT[room], f"{path.name} imports {name}"
            else:
                assert top in STDLIB - DOES_THINGS | {"attrs"}, f"{path.name} imports {name}"


def test_nobody_reaches_into_what_is_above() -> None:
    for path in (ROOT / "link").rglob("*.py"):
        assert not imports(path) & {"pgproxy.service", "pgproxy.tap"}, path
        assert not any(name.startswith("pgproxy.workers") for name in imports(path)), path
    for path in ROOT.rglob("*.py"):
        if "demo" not in path.parts:
            assert not any(name.startswith("pgproxy.demo") for name in imports(path)), path


def test_who_decides_over_workers_does_nothing() -> None:
    for name in ("arbiter", "figures"):
        for imported in imports(ROOT / "workers" / f"{name}.py"):
            top, _, rest = imported.partition(".")
            ours = top == "pgproxy" and rest.partition(".")[0] in MAY_IMPORT["pool"]
            assert ours or top in STDLIB - DOES_THINGS | {"attrs"}, f"{name} imports {imported}"


def test_what_the_console_decides_does_nothing() -> None:
    may = {"", "console", "session", "wire", "workers"}
    for name in ("chatter", "columns", "commands", "reference", "stats", "tables", "talk"):
        for imported in imports(ROOT / "console" / f"{name}.py"):
            top, _, rest = imported.partition(".")
            ours = top == "pgproxy" and rest.partition(".")[0] in may
            assert ours or top in STDLIB - DOES_THINGS | {"attrs"}, f"{name} imports {imported}"
            assert not rest.startswith("workers") or rest == "workers.figures"


def test_what_the_page_decides_does_nothing() -> None:
    may = {"pgproxy.figures.histogram", "pgproxy.workers.figures", "pgproxy.console.tables"}
    for name in ("history", "shown"):
        for imported in imports(ROOT / "page" / f"{name}.py"):
            assert imported in may or imported.partition(".")[0] in STDLIB - DOES_THINGS | {"attrs"}, imported


AWS_THAT_DECIDES = (
    "rotation",
    "shelf",
    "arn",
    "identity",
    "presigned",
    "rds_token",
    "caller_identity",
    "web_identity",
    "metrics",
)


def test_what_decides_about_aws_does_nothing() -> None:
    # `time` is there for strptime, which reads no clock.
    allowed = STDLIB - (DOES_THINGS - {"time"}) | {"attrs"}
    for name in AWS_THAT_DECIDES:
        for imported in imports(ROOT / "aws" / f"{name}.py"):
            top, _, rest = imported.partition(".")
            ours = imported.startswith("pgproxy.aws.") and rest.split(".")[1] in AWS_THAT_DECIDES
            assert ours or top in allowed, f"{name} imports {imported}"


def test_only_the_room_of_aws_speaks_to_aws() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parts[-2] not in ("aws", "demo"):
            found = {name.partition(".")[0] for name in imports(path)}
            assert not found & {"boto3", "botocore", "jwt", "moto"}, path


def test_without_its_table_nothing_of_aws_is_imported() -> None:
    script = (
        "import sys, pgproxy.service, pgproxy.workers.worker, pgproxy.tap, pgproxy.config as c\n"
        "from twisted.internet import reactor\n"
        "service = pgproxy.service.Pgproxy(c.from_options(auth='trust'), lambda: None, reactor)\n"
        "assert service.front.vault is None\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'boto3', 'botocore', 'jwt', 'urllib3'}, loaded\n"
        "ours = {name for name in sys.modules if name.startswith('pgproxy.aws.')}\n"
        "assert ours == {'pgproxy.aws.arn', 'pgproxy.aws.identity'}, ours\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_what_decides_what_is_on_the_terminal_does_nothing() -> None:
    for name in ("picture", "layout"):
        for imported in imports(ROOT / "top" / f"{name}.py"):
            assert imported.partition(".")[0] in STDLIB - DOES_THINGS | {"attrs"}, (
                f"{name} imports {imported}"
            )


def test_only_who_draws_has_rich() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parts[-2:] != ("top", "drawing.py"):
            assert not any(name.partition(".")[0] == "rich" for name in imports(path)), path
    script = (
        "import sys, pgproxy.command\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'rich', 'psycopg', 'twisted'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_only_the_tap_takes_the_reactor() -> None:
    for path in ROOT.rglob("*.py"):
        # A worker is a process of its own.
        if path.name != "tap.py" and path.parts[-2:] != ("workers", "__main__.py"):
            assert "from twisted.internet import reactor" not in path.read_text(), path


def test_every_file_says_what_it_is() -> None:
    for path in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
