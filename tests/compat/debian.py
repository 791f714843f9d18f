"""Fetches from Debian what PostgreSQL's regression tests need: the sources of the installed server."""

import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from pgproxy.demo.binaries import Binaries
from tests.compat.shell import CompatError, find, must

_ETC = Path("/etc/apt")


@frozen
class Server:
    """Debian's package of the installed server."""

    binaries: Binaries
    version: str
    """The package's, like 15.18-0+deb12u1."""

    @property
    def library(self) -> Path:
        """Where the package has its modules."""
        return self.binaries.bindir.parent / "lib"

    @property
    def pg_regress(self) -> Path:
        """The program that runs the tests."""
        return self.library / "pgxs/src/test/regress/pg_regress"


def installed(binaries: Binaries) -> Server:
    """Find the package of a server. Raises CompatError where it is none of Debian's."""
    package = f"postgresql-{binaries.major}"
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    server = Server(binaries, answer.stdout.strip())
    if answer.returncode != 0 or not server.pg_regress.exists():
        raise CompatError(
            f"{binaries.bindir} is not of Debian's package {package} (apt install postgresql-15)"
        )
    return server


def fetch(server: Server, directory: Path, log: Path) -> None:
    """
    Put the tests into `directory`/tests and what they load into `directory`/lib. Raises CompatError.

    The sources are those of the installed version, so the expected output is that of this server.
    """
    tools = {
        "apt-get": "apt",
        "dpkg-source": "dpkg-dev",
        "gcc": "gcc",
    }
    paths = {program: find(program, package) for program, package in tools.items()}
    major = server.binaries.major
    downloads = directory / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    env = {"APT_CONFIG": str(_private_apt(directory / "apt"))}
    apt: list[str | Path] = [paths["apt-get"], "--quiet"]
    must([*apt, "update"], log=log, cwd=downloads, env=env)
    source = f"postgresql-{major}={server.version}"
    must([*apt, "source", "--download-only", source], log=log, cwd=downloads, env=env)
    headers = f"postgresql-server-dev-{major}={server.version}"
    must([*apt, "download", headers], log=log, cwd=downloads, env=env)
    unpacked, include = directory / "source", directory / "headers"
    for old in (unpacked, include, directory / "tests", directory / "lib"):
        shutil.rmtree(old, ignore_errors=True)
    description = _newest(downloads, "*.dsc")
    must([paths["dpkg-source"], "--no-check", "-x", description, unpacked], log=log, cwd=downloads)
    must([find("dpkg", "dpkg"), "-x", _newest(downloads, "*.deb"), include], log=log, cwd=downloads)
    # The rest of the sources is not needed.
    (unpacked / "src/test/regress").rename(directory / "tests")
    shutil.rmtree(unpacked)
    _build(paths["gcc"], server, directory, log)
    for needless in (include, downloads, directory / "apt"):
        shutil.rmtree(needless)


def _build(gcc: Path, server: Server, directory: Path, log: Path) -> None:
    """Build the module of the tests; two more of them are in the server's package."""
    library = directory / "lib"
    library.mkdir()
    headers = directory / f"headers/usr/include/postgresql/{server.binaries.major}/server"
    must(
        [
            *(gcc, "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", "-fwrapv", "-D_GNU_SOURCE"),
            *("-I", headers, "-o", library / "regress.so", directory / "tests/regress.c"),
        ],
        log=log,
        cwd=directory,
    )
    for module in ("refint.so", "autoinc.so"):
        shutil.copy(server.library / module, library / module)


def _private_apt(directory: Path) -> Path:
    """
    Write a configuration for apt of our own; returns its path.

    It has the machine's sources, of this release only, with source packages: nothing in /etc is changed.
    """
    sources = directory / "sources"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    suite = release[1] if release else "stable"
    for file in (_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))):
        if file.suffix not in (".sources", ".list") or not file.is_file():
            continue
        text = file.read_text()
        if file.suffix == ".sources" and re.search(rf"^Suites:.*\b{suite}\b", text, re.MULTILINE):
            text = re.sub(r"^Types:\s*deb\s*$", "Types: deb deb-src", text, flags=re.MULTILINE)
        elif file.suffix == ".list" and re.search(rf"^deb\s.*\b{suite}\b", text, re.MULTILINE):
            text += "\n" + re.sub(r"^deb\s", "deb-src ", text, flags=re.MULTILINE)
        else:
            continue
        (sources / file.name).write_text(text)
    configuration = directory / "apt.conf"
    configuration.write_text(
        'Dir::Etc::sourcelist "/dev/null";\n'
        f'Dir::Etc::sourceparts "{sources}";\n'
        f'Dir::State::lists "{directory / "lists"}";\n'
        f'Dir::Cache "{directory / "cache"}";\n'
        'APT::Sandbox::User "root";\n'
    )
    return configuration


def _newest(directory: Path, pattern: str) -> Path:
    """Find what was downloaded last."""
    found = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CompatError(f"apt-get left no {pattern} in {directory}")
    return found[-1]
