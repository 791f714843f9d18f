"""The twistd face: `twistd -n pgproxy`, its options, and the service that comes of them."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from attrs import evolve
from twisted.application.service import IService
from twisted.python import usage

from pgproxy import __version__
from pgproxy.config import Config, ConfigError, from_options, load
from pgproxy.config.checks import check
from pgproxy.config.problems import Report
from pgproxy.succession.inherited import Inherited, UnusableSocket, inherit

if TYPE_CHECKING:
    from pgproxy.succession.succession import Succession


class Options(usage.Options):
    """What `twistd pgproxy` takes: a file, or the few options that are enough without one."""

    # twistd puts its own part of the line before the first.
    synopsis = """\
--config FILE [--check]
       twistd [options] pgproxy [--listen ADDRESS] [--server ADDRESS] [--users FILE] ...
"""
    longdesc = """\
pgproxy stands in front of a PostgreSQL server and lets many clients share few of its connections. A file
(--config) can say all that there is to say; docs/configuration.md describes it. For one server the options
here are enough. The log goes to standard output or to twistd's --logfile. SIGHUP has the configuration and
what it names read anew, and the log file opened anew."""

    # What was given has to be told from what was not, so the defaults of pgproxy.config are named in words.
    optParameters: ClassVar[list[list[str | None]]] = [
        ["config", "c", None, "The configuration file, TOML; goes with --check only."],
        ["listen", "l", None, "HOST:PORT where clients connect. [127.0.0.1:6432]"],
        [
            "server",
            "s",
            None,
            "HOST:PORT of the PostgreSQL server, or of several, with commas. [127.0.0.1:5432]",
        ],
        ["pool-mode", None, None, "How long a client keeps a server: transaction or session. [transaction]"],
        ["pool-size", None, None, "The most servers for each pair of user and database. [20]"],
        [
            "auth",
            None,
            None,
            "What clients prove themselves by: trust, md5 or scram-sha-256. [scram-sha-256]",
        ],
        ["users", "u", None, 'File of the users: lines of "user" "secret", as PgBouncer\'s userlist.txt.'],
    ]
    optFlags: ClassVar[list[list[str | None]]] = [
        ["allow-remote-trust", None, "Allow --auth trust where other machines reach --listen."],
        ["check", None, "Only say what is wrong; the exit status is 0 if nothing is, else 1."],
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles(), "users": usage.CompleteFiles()})

    config: Config
    """What was read; there once the options have been parsed."""
    directory: Path
    """Where the command line was given: twistd may go elsewhere."""
    inherited: Inherited
    """What there is to listen on already."""

    def opt_version(self) -> NoReturn:
        """Display pgproxy's version and exit."""
        print(f"pgproxy {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        """Read the configuration. Raises twisted.python.usage.UsageError where anything is wrong with it."""
        for option in ("config", "users"):
            if self[option] is not None:
                # twistd goes to another directory before a SIGHUP can come.
                self[option] = str(Path(self[option]).absolute())
        self.directory = Path.cwd()
        self._check_usage()
        self._check_twistd()
        try:
            self.inherited = inherit(os.environ, os.getpid())
        except UnusableSocket as error:
            raise usage.UsageError(f"pgproxy cannot listen on what it was given: {error}") from error
        try:
            self.config = self.load()
            _read_files(self.config)
        except (ConfigError, _Unusable) as error:
            if not self["check"]:
                raise usage.UsageError(str(error)) from error
            print(error, file=sys.stderr)
            sys.exit(1)
        if self["check"]:
            print("ok")
            sys.exit(0)

    def load(self) -> Config:
        """Read the configuration anew. Raises `ConfigError`."""
        config = self._load()
        if not self.inherited.instead:
            return config
        listen, listen_read_only = (self.inherited.addresses(read_only) for read_only in (False, True))
        proxy = evolve(config.proxy, listen=listen, listen_read_only=listen_read_only)
        config = evolve(config, proxy=proxy)
        report = Report(self["config"] or "", lambda path: path)
        check(config, report)
        if report.problems:
            raise ConfigError(report.problems)
        return config

    def _load(self) -> Config:
        if self["config"] is not None:
            return load(self["config"])
        return from_options(
            listen=self["listen"],
            server=self["server"],
            pool_mode=self["pool-mode"],
            pool_size=self["pool-size"],
            auth=self["auth"],
            users_file=self["users"],
            allow_remote_trust=bool(self["allow-remote-trust"]),
        )

    def _check_usage(self) -> None:
        if self["config"] is None:
            return
        given = [name for name, value in self.items() if value and name not in ("config", "check")]
        if given:
            options = ", ".join(f"--{name}" for name in given)
            raise usage.UsageError(f"{options}: cannot go with --config; write it into {self['config']}")

    def _check_twistd(self) -> None:
        """Refuse what twistd offers and we don't do."""
        twistd: dict[str, Any] = self.parent or {}
        for name in ("syslog", "logger"):
            if twistd.get(name):
                raise usage.UsageError(
                    f"--{name}: pgproxy writes its log itself, to standard output or to twistd's --logfile"
                )

    @property
    def log_file(self) -> Path | None:
        """The file that twistd was told to log to, its own where it daemonizes; None: standard output."""
        twistd: dict[str, Any] = self.parent or {"nodaemon": True}
        name = twistd.get("logfile")
        if name == "-":
            name = None
        if name is None and twistd.get("nodaemon"):
            return None
        return Path(twistd.get("rundir") or ".", name or "twistd.log").absolute()


class _Unusable(Exception):
    """A file that the configuration names cannot be used; the text says which and why."""


def _read_files(config: Config) -> None:
    """Read what the service will read, while a mistake can still be told on the terminal."""
    from pgproxy.auth.users import UsersFileError
    from pgproxy.gather import gather

    try:
        gather(config)
    except (UsersFileError, ConfigError, OSError, ssl.SSLError) as error:
        raise _Unusable(str(error)) from error


def makeService(options: Options, reactor: Any = None) -> IService:
    """Give the whole proxy as a service, for twistd's own reactor unless another is given."""
    from pgproxy.observe.sink import Sink
    from pgproxy.service import Pgproxy
    from pgproxy.workers.share import number_of_workers

    if reactor is None:
        if "twisted.internet.reactor" not in sys.modules:
            # Nobody has asked twistd for another (--reactor).
            from pgproxy.link.reactor import install

            install()
        from twisted.internet import reactor  # noqa: TID251
    file = options.log_file
    try:
        sink = Sink.file(file) if file is not None else None
    except OSError as error:
        raise SystemExit(f"pgproxy cannot write its log: {error}") from error
    twistd: dict[str, Any] = options.parent or {}
    succession = _succession(options, twistd)
    if number_of_workers(options.config) > 1:
        from pgproxy.workers.supervisor import Supervisor

        return Supervisor(
            options.config, options.load, reactor, sink, twistd.get("reactor"), succession=succession
        )
    return Pgproxy(options.config, options.load, reactor, sink, succession=succession)


def _command() -> list[str]:
    """Give the command that starts another process like this."""
    said = sys.orig_argv[1:]
    if said and os.access(said[0], os.X_OK):
        # The script names its interpreter itself, another than ours where an upgrade has put it in place.
        return said
    return [sys.executable, *said]


def _succession(options: Options, twistd: Mapping[str, Any]) -> Succession:
    """Give our place between two processes."""
    from pgproxy.succession.manager import Manager
    from pgproxy.succession.succession import Start, Succession

    why_not = ""
    if twistd.get("pidfile") or not twistd.get("nodaemon"):
        why_not = "another twistd can be started beside this one only with: twistd --nodaemon --pidfile="
    start = Start(_command(), options.directory, why_not)
    return Succession(options.inherited, Manager(os.environ, os.getpid()), start)
