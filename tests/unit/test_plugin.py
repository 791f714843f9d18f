"""Whether twistd finds pgproxy, in the source tree and in what is installed, and pays little for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = "twisted/plugins/pgproxy_plugin.py"

TWISTD = "from twisted.scripts.twistd import run; import sys; sys.argv = ['twistd', *sys.argv[1:]]; run()"


def python(*arguments: str, cwd: Path) -> str:
    """Run this Python in a directory; gives what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twisteds_own_packages_are_left_alone() -> None:
    assert not (ROOT / "twisted/__init__.py").exists()
    assert not (ROOT / "twisted/plugins/__init__.py").exists()


def test_the_plugin_imports_neither_pgproxy_nor_the_reactor(tmp_path: Path) -> None:
    loaded = python(
        "-c",
        "import sys, twisted.plugins.pgproxy_plugin as plugin\n"
        "print(plugin.__file__, *(name for name in sys.modules if name.split('.')[0] == 'pgproxy'))\n"
        "print('twisted.internet.reactor' in sys.modules)",
        cwd=tmp_path,
    )
    assert loaded.splitlines() == [str(ROOT / PLUGIN), "False"]


def test_tap_does_not_import_the_reactor(tmp_path: Path) -> None:
    loaded = python(
        "-c",
        "import sys\nfrom pgproxy.tap import Options\nOptions().parseOptions(['--auth', 'trust'])\n"
        "print('pgproxy.gather' in sys.modules, 'twisted.internet.reactor' in sys.modules)",
        cwd=tmp_path,
    )
    assert loaded == "True False\n"


def test_twistd_lists_pgproxy_in_the_editable_install(tmp_path: Path) -> None:
    assert "A pooling proxy in front of PostgreSQL" in python("-c", TWISTD, "--help", cwd=tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the tree; gives the directory of what a wheel would install."""
    pytest.importorskip("setuptools", reason="new virtual environments have no setuptools of their own")
    copy = tmp_path_factory.mktemp("tree")
    nothing_made = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in ("pgproxy", "twisted"):
        shutil.copytree(ROOT / name, copy / name, ignore=nothing_made)
    for name in ("setup.py", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    built = copy / "built"
    python("setup.py", "--quiet", "build_py", "--build-lib", str(built), cwd=copy)
    return built


def test_what_is_installed(built: Path) -> None:
    files = {str(file.relative_to(built)) for file in built.rglob("*") if file.is_file()}
    assert {file for file in files if not file.startswith("pgproxy/")} == {PLUGIN}
    sources = (ROOT / "pgproxy").rglob("*.py")
    assert {file for file in files if file.endswith(".py")} == {
        PLUGIN,
        *(str(file.relative_to(ROOT)) for file in sources),
    }
    assert "pgproxy/py.typed" in files
    static = [file for file in (ROOT / "pgproxy/page/static").rglob("*") if file.is_file()]
    assert len(static) == 7 and {str(file.relative_to(ROOT)) for file in static} <= files


def test_without_a_compiler_there_is_no_twin(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "pgproxy", tmp_path / "pgproxy", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tmp_path,
        env={**os.environ, "CC": "/bin/false"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert not list(tmp_path.rglob("*.so"))
    said = python("-c", "import pgproxy.twin as t; print(t.__file__, t.twin)", cwd=tmp_path)
    assert said == f"{tmp_path}/pgproxy/twin.py None\n"


def test_twistd_lists_pgproxy_where_it_is_installed(built: Path, tmp_path: Path) -> None:
    # -S leaves out .pth files, and with them the editable install.
    paths = [str(built), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"import sys; sys.path[1:1] = {paths}; import pgproxy; print(pgproxy.__file__); {TWISTD}"
    listed = python("-S", "-c", program, "--help", cwd=tmp_path)
    assert listed.startswith(str(built))
    assert "A pooling proxy in front of PostgreSQL" in listed
    assert "--pool-mode" in python("-S", "-c", program, "pgproxy", "--help", cwd=tmp_path)
