"""
What `make run` runs: a PostgreSQL and pgproxy in front of it, until Ctrl-C.

`python -m pgproxy.demo --port 6432 --dir .demo`. It exits 0 after Ctrl-C or SIGTERM, 1 where something is in
the way or has died, having said what and how to go on.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import attrs
import psycopg

from pgproxy.demo.binaries import find_binaries
from pgproxy.demo.cloud import Cloud
from pgproxy.demo.ports import free_port, is_free, is_listening
from pgproxy.demo.postgres import Postgres, url
from pgproxy.demo.process import DemoError, end, server_account, spawn, tail, wait_until
from pgproxy.demo.stage import (
    DATABASE,
    PASSWORD,
    USER,
    Stage,
    add_user,
    check_data,
    open_stage,
    write_config,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_HURRY_SECONDS = 3.0

Command = Callable[[Path], Sequence[str | Path]]
Say = Callable[[str], None]


@attrs.define
class Interrupts:
    """Ctrl-C, SIGTERM or the end of the terminal: noted at once, acted on between steps."""

    came: bool = False
    again: bool = False
    """Whether another one came: whoever waits doesn't want to any more."""

    def listen(self) -> None:
        """Take these signals from now on; one that the shell ignores for us (nohup) stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.again = self.came
        self.came = True


def twistd(config: Path) -> Sequence[str | Path]:
    """Build pgproxy's own command line, with the Twisted of the Python that runs this."""
    script = Path(sys.executable).with_name("twistd")
    return [script, "--nodaemon", "--pidfile=", "pgproxy", "--config", config]


def demonstrate(
    port: int,
    directory: Path,
    proxy_command: Command,
    interrupts: Interrupts,
    say: Say,
    with_aws: bool = False,
) -> None:
    """
    Start PostgreSQL and the proxy, say how to connect, wait for an interrupt, and stop both.

    `with_aws` adds a stand-in for AWS, and an application whose password is rotated (`cloud`).

    Raises DemoError where one of them doesn't start or dies.
    """
    if not is_free(port):
        raise DemoError(f"port {port} of 127.0.0.1 is taken. Choose another: make run PORT={_other(port)}")
    account = server_account()
    stage = open_stage(directory, account)
    binaries = find_binaries(account, prefer="wheel")
    server = Postgres(binaries, account, directory=stage.server_directory)
    exits = ExitStack()
    try:
        check_data(stage, server, binaries, account)
        as_user = f", as the user {account.name}" if account else ""
        first = "" if server.data.exists() else ", for the first time"
        say(f"PostgreSQL {binaries.version} starts{as_user}{first}; its data: {server.data}")
        server.start()
        add_user(server)
        if interrupts.came:
            return
        cloud = None
        if with_aws:
            say("moto starts, a stand-in for AWS, with a secret for the user app")
            cloud = exits.enter_context(Cloud(stage.directory, server, DATABASE))
        page = _port_of_page(port)
        write_config(stage, port, server.port, page, cloud.config if cloud is not None else "")
        say(f"pgproxy starts; its configuration: {stage.config}, its log: {stage.proxy_log}")
        proxy = spawn(
            proxy_command(stage.config),
            log=stage.proxy_log,
            cwd=stage.directory,
            env=cloud.environment if cloud is not None else None,
        )
        try:
            _await_proxy(proxy, port, stage, interrupts)
            if not interrupts.came:
                _log_in(port, stage)
                say("Ready. Connect with:")
                say(f"\n    psql {url(port, USER, PASSWORD, DATABASE)}\n")
                if page is not None:
                    say(f"What the proxy is doing: http://127.0.0.1:{page}/\n")
                if cloud is not None:
                    say("An application runs as the user app; its password is rotated every few seconds.\n")
                    cloud.begin(port, say)
                say("Ctrl-C stops both; another one does so at once.")
                _watch(proxy, server, stage, interrupts)
            if cloud is not None:
                say(f"\nIn the end, {cloud.figures()}.")
            exits.close()
            say("\nStopping pgproxy, then PostgreSQL.")
        finally:
            _end(proxy, interrupts)
    finally:
        exits.close()
        server.close()


def _await_proxy(proxy: subprocess.Popen[bytes], port: int, stage: Stage, interrupts: Interrupts) -> None:
    limit = time.monotonic() + _START_SECONDS
    while not is_listening(port) and not interrupts.came:
        if proxy.poll() is not None:
            raise DemoError(_ended("pgproxy", proxy.returncode, stage.proxy_log))
        if time.monotonic() > limit:
            raise DemoError(
                f"pgproxy does not listen on port {port} after {_START_SECONDS:.0f} s; "
                f"the end of {stage.proxy_log}:\n{tail(stage.proxy_log)}"
            )
        time.sleep(0.05)


def _log_in(port: int, stage: Stage) -> None:
    """Take the way that the user will take, before saying that it is open."""
    try:
        with psycopg.connect(url(port, USER, PASSWORD, DATABASE, connect_timeout="10")) as connection:
            connection.execute("select 1")
    except psycopg.Error as error:
        raise DemoError(
            f"a login through pgproxy fails: {error}\nthe end of {stage.proxy_log}:\n{tail(stage.proxy_log)}"
        ) from error


def _watch(proxy: subprocess.Popen[bytes], server: Postgres, stage: Stage, interrupts: Interrupts) -> None:
    """Wait until one of the two dies, which raises DemoError, or an interrupt comes."""
    while not interrupts.came:
        status = proxy.poll()
        if status is not None:
            raise DemoError(_ended("pgproxy", status, stage.proxy_log))
        status = server.exit_status()
        if status is not None:
            raise DemoError(_ended("PostgreSQL", status, server.log))
        time.sleep(0.1)


def _end(proxy: subprocess.Popen[bytes], interrupts: Interrupts) -> None:
    """Stop the proxy in order; with another interrupt, at once: pgproxy takes a second signal for that."""
    if proxy.poll() is None:
        interrupts.again = False
        proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: proxy.poll() is not None or interrupts.again, _STOP_SECONDS)
    end(proxy, signal.SIGTERM, _HURRY_SECONDS)


def _ended(name: str, status: int, log: Path) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{name} {how}; the end of {log}:\n{tail(log)}"


def _port_of_page(port: int) -> int | None:
    """Choose where the status page is served: the next port, where it is free. None without its package."""
    if find_spec("prometheus_client") is None:
        return None
    return port + 1 if port < 65535 and is_free(port + 1) else free_port()


def _other(port: int) -> int:
    """Find a port to propose."""
    return next((other for other in range(7000, 7100) if other != port and is_free(other)), 0)


def say(text: str) -> None:
    """Tell the user a step, at once also where the output is a file or a pipe."""
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pgproxy.demo", description="PostgreSQL and pgproxy in front of it, to try it out."
    )
    parser.add_argument(
        "--port", type=int, default=6432, help="where pgproxy listens on 127.0.0.1 (%(default)s)"
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(".demo"), help="where data and logs are kept (%(default)s)"
    )
    parser.add_argument(
        "--aws",
        action="store_true",
        help="with a stand-in for AWS: a secret that is rotated, and an application that uses it",
    )
    options = parser.parse_args(argv)
    if not 1024 <= options.port <= 65535:
        parser.error(f"--port {options.port}: a port from 1024 to 65535 is needed")
    interrupts = Interrupts()
    interrupts.listen()
    try:
        demonstrate(options.port, options.dir, twistd, interrupts, say, options.aws)
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
