"""
A PostgreSQL cluster of our own: a writer and streaming standbys, and all that happens to one.

Each host has an address of its own (127.0.0.2, .3, ...), and all have the same port, as behind one DNS name.
`fsync` is off: what happens here ends processes, not the machine, and what a killed process has written is in
the kernel's hands. `full_page_writes` is on: a kill may come in the middle of a page, and pg_rewind wants it.

What starts a process has to be called from a thread that lives as long as the cluster (see `process.spawn`).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from pgproxy.demo.binaries import Binaries
from pgproxy.demo.conf import Setting
from pgproxy.demo.ports import free_port
from pgproxy.demo.postgres import Postgres
from pgproxy.demo.process import Account, DemoError, children, make_directory, run, tail, wait_until
from tests.cable import Cable

HBA = (
    "local all,replication postgres trust",
    "host all,replication replica 127.0.0.0/8 trust",
    "host all toil 127.0.0.0/8 trust",
    "host all all 127.0.0.0/8 scram-sha-256",
)
"""`toil` works in the database of its name, and needs no password; whoever else there is has one."""
SETTINGS: Mapping[str, Setting] = {
    "fsync": False,
    "max_connections": 300,
    "shared_buffers": "32MB",
    "wal_log_hints": True,  # for pg_rewind
    "wal_keep_size": "512MB",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
    "checkpoint_timeout": "1h",
    "jit_above_cost": -1,
}
_NAMES = ("alpha", "beta", "gamma")
_SECONDS = 30.0
"""The longest that anything here is waited for."""


@attrs.frozen
class Change:
    """A change of writer: when was what, in seconds of `time.monotonic()`, which all processes share."""

    cut: float
    """The fault was about to be done: what is sent before is under way."""
    gone: float
    """It had been done: what is sent from here on reaches no old writer, unless that one only hangs."""
    ordered: float
    """The promotion was ordered."""
    writable: float
    """The new writer has said for the first time that it isn't in recovery."""

    @property
    def promotion(self) -> float:
        """The seconds from the fault to the new writer: what nobody in front of the hosts can shorten."""
        return self.writable - self.cut


class Host(Postgres):
    """One host of a cluster. `at` is where clients and the other hosts find it."""

    def __init__(
        self,
        binaries: Binaries,
        account: Account | None,
        name: str,
        at: tuple[str, int],
        settings: Mapping[str, Setting],
        *,
        with_cable: bool,
    ) -> None:
        super().__init__(
            binaries,
            account,
            settings={**SETTINGS, **settings},
            hba=HBA,
            address="127.0.0.1" if with_cable else at[0],
        )
        self.name = name
        self.at = at
        self.is_frozen = False
        self._guard: subprocess.Popen[bytes] | None = None
        self.cable: Cable | None = None
        if with_cable:
            self.cable = Cable(*at, target=lambda: (self.address, self.port))
        else:
            self.port = at[1]

    @property
    def is_up(self) -> bool:
        """Whether it runs, and not only hangs."""
        return self._process is not None and self._process.poll() is None and not self.is_frozen

    @property
    def in_recovery(self) -> bool:
        """Whether it is a standby, as it says itself."""
        [[answer]] = self.execute("select pg_is_in_recovery()")
        return bool(answer)

    @property
    def was_standby(self) -> bool:
        """Whether it was a standby when it ran last, as its data directory says."""
        return (self.data / "standby.signal").exists()

    def copy(self, template: Postgres) -> None:
        """Take the data directory of a server that is down."""
        self._fill(["cp", "-a", f"{template.data}/."])

    def back_up(self, writer: Host) -> None:
        """Take a base backup of a running host, in place of what there is."""
        self._fill(
            [
                writer.binaries.bindir / "pg_basebackup",
                *("-h", writer.socket_directory, "-p", str(writer.port), "-U", "postgres", "-w"),
                *("-X", "stream", "-c", "fast", "--no-sync", "--no-manifest", "-D"),
            ]
        )

    def stand_by(self, writer: Host) -> None:
        """From the next start, or reload where it is a standby already: follow a writer."""
        address, port = writer.at
        self.settings["primary_conninfo"] = (
            f"host={address} port={port} user=replica application_name={self.name} connect_timeout=2"
        )
        self.settings["synchronous_standby_names"] = ""
        if not self._called("touch", self.data / "standby.signal"):
            raise DemoError(f"no standby.signal in {self.data}")

    def rewind(self, writer: Host) -> None:
        """Undo what it has done since another became the writer. It has to be down, or crashed."""
        # What pg_rewind compares is in the control file, which has the new timeline from a checkpoint on.
        writer.execute("checkpoint")
        argv: list[str | Path] = [self.binaries.bindir / "pg_rewind", "--no-sync", "-D", self.data]
        if self.binaries.major >= 15:
            argv += ["--config-file", self._configure()]
        source = f"host={writer.socket_directory} port={writer.port} user=postgres dbname=postgres"
        answer = run([*argv, "--source-server", source], self._account)
        if answer.returncode != 0:
            raise DemoError(f"pg_rewind failed:\n{answer.stdout}")

    def end_of_wal(self) -> str:
        """Give where a host that was shut down had come to."""
        answer = run([self.binaries.bindir / "pg_controldata", "-D", self.data], self._account)
        lines = dict(line.split(":", 1) for line in answer.stdout.splitlines() if ":" in line)
        return lines["Latest checkpoint location"].strip()

    def freeze(self) -> None:
        """Have all of its processes stand still (SIGSTOP): connections stay open, nothing is answered."""
        self.pause()
        self.is_frozen = True
        pids = " ".join(map(str, (self.pid, *children(self.pid))))
        # Where we end without a word, it has to wake up to hear that.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -CONT {pids}"], stdin=subprocess.PIPE, start_new_session=True
        )

    def thaw(self) -> None:
        """Let it go on where it stood."""
        self.unpause()
        self._dismiss_guard()

    def stop(self, *, immediately: bool = False) -> None:
        super().stop(immediately=immediately)
        self._dismiss_guard()

    def kill(self) -> None:
        super().kill()
        self._dismiss_guard()

    def close(self) -> None:
        super().close()
        if self.cable is not None:
            self.cable.close()

    def _dismiss_guard(self) -> None:
        self.is_frozen = False
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def _fill(self, argv: Sequence[str | Path]) -> None:
        """Have a command make the data directory, in one step or not at all; its path comes last."""
        fresh = self._files / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        make_directory(fresh, self._account)
        answer = run([*argv, fresh], self._account)
        if answer.returncode != 0:
            raise DemoError(f"{argv[0]} failed:\n{answer.stdout}")
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.rename(self.data)

    def _called(self, *argv: str | Path) -> bool:
        return run(argv, self._account).returncode == 0


class Cluster:
    """
    A writer and its standbys, of which one is synchronous: `hosts[0]` and `hosts[1]` at first.

    The standbys' `synchronous_standby_names` are empty: one that is promoted commits alone until somebody
    follows it and `make_synchronous` says who counts; else each commit would wait for ever. `settle` brings
    everything back to one writer, all others following, one of them synchronous.
    """

    def __init__(
        self,
        template: Postgres,
        account: Account | None,
        *,
        settings: Mapping[str, Setting] | None = None,
        names: Sequence[str] = _NAMES,
        with_cables: bool = False,
    ) -> None:
        addresses = [f"127.0.0.{number}" for number in range(2, 2 + len(names))]
        self.port = free_port(*addresses)
        self.hosts = [
            Host(
                template.binaries, account, name, (address, self.port), settings or {}, with_cable=with_cables
            )
            for name, address in zip(names, addresses, strict=True)
        ]
        self.writer = self.hosts[0]
        self.synchronous: Host | None = None
        self.observers: list[Callable[[Cluster], None]] = []
        """Who is told of each change of roles."""
        self._template = template

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    @property
    def standbys(self) -> list[Host]:
        """All who are not the writer, whatever state they are in."""
        return [host for host in self.hosts if host is not self.writer]

    def start(self) -> None:
        """Make it: the writer from the template, base backups of it for the others."""
        self.writer.copy(self._template)
        self.writer.start()
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda host: host.back_up(self.writer), self.standbys))
        for standby in self.standbys:
            standby.stand_by(self.writer)
            standby.start()
        for standby in self.standbys:
            self.wait_until_streaming(standby)
        self.make_synchronous(self.standbys[0])
        self._tell()

    def close(self) -> None:
        """Stop all, the writer last: a standby's walreceiver has nothing to wait for then."""
        for host in (*self.standbys, self.writer):
            host.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What happens to a writer.

    def kill(self) -> tuple[float, float]:
        """Kill the writer, all of its processes; gives when that began and when it was done."""
        return _timed(self.writer.kill)

    def stop(self, *, immediately: bool = False) -> tuple[float, float]:
        """Shut the writer down."""
        return _timed(lambda: self.writer.stop(immediately=immediately))

    def freeze(self) -> tuple[float, float]:
        """Have the writer hang."""
        return _timed(self.writer.freeze)

    def cut_off(self) -> tuple[float, float]:
        """Have each packet to the writer lost, of clients and standbys. It has to have a cable."""
        cable = self.writer.cable
        if cable is None:
            raise DemoError("cut_off is for a cluster with_cables")
        return _timed(cable.drop)

    def promote(self, host: Host, fault: tuple[float, float] | None = None) -> Change:
        """Make a standby the writer; gives the times, with those of the fault that was the reason."""
        with host.admin() as connection:
            ordered = time.monotonic()
            connection.execute("select pg_promote(false)")
            while True:
                row = connection.execute("select pg_is_in_recovery()").fetchone()
                writable = time.monotonic()
                if row == (False,):
                    break
                if writable > ordered + _SECONDS:
                    raise DemoError(f"{host.name} was not promoted in {_SECONDS:.0f} s:\n{tail(host.log)}")
                time.sleep(0.001)
        self.writer, self.synchronous = host, None
        self._tell()
        return Change(*(fault or (ordered, ordered)), ordered, writable)

    def switch_over(self, to: Host) -> Change:
        """Make a standby the writer in order: nothing is lost, and the old one follows afterwards."""
        old = self.writer
        fault = self.stop()
        end = old.end_of_wal()
        self._await(
            lambda: to.execute(f"select pg_last_wal_receive_lsn() >= '{end}'") == [(True,)],
            f"{to.name} has not received all that {old.name} has written",
        )
        change = self.promote(to, fault)
        for standby in self.standbys:
            if standby is old:
                self.rejoin(old)
            else:
                self.follow(standby)
        self.make_synchronous(old)
        return change

    # What brings the others back.

    def follow(self, host: Host) -> None:
        """Have a standby follow the writer, without a restart."""
        host.stand_by(self.writer)
        host.reload()
        self.wait_until_streaming(host)

    def rejoin(self, host: Host) -> None:
        """
        Make any other host, whatever has become of it, a standby of the present writer.

        A former writer is rewound, and so is a standby that has received what the one that was promoted had
        not; pg_rewind is no use for a standby that has less, which only has to follow. One that is down gets
        a new base backup.
        """
        if host.cable is not None:
            host.cable.mend()
        if not host.was_standby:
            self._rewind(host)
        elif host.is_up or host.is_frozen:
            if host.is_frozen:
                host.thaw()
            host.stand_by(self.writer)
            host.reload()
            self.resume_replay(host)
            self._await(
                lambda: self.is_streaming(host) or self._is_ahead(host),
                f"{host.name} neither follows {self.writer.name} nor is it ahead of it",
                host,
            )
            if not self.is_streaming(host):
                self._rewind(host)
        else:
            host.stop()
            host.back_up(self.writer)
            host.stand_by(self.writer)
            host.start()
        self.wait_until_streaming(host)
        self._tell()

    def _rewind(self, host: Host) -> None:
        host.stop()
        host.rewind(self.writer)
        host.stand_by(self.writer)
        host.start()

    def _is_ahead(self, standby: Host) -> bool:
        """Say whether a standby has something of its timeline from behind its end, as the writer has it."""
        file = f"pg_wal/{self._timeline():08X}.history"
        [[history]] = self.writer.execute(f"select pg_read_file('{file}', 0, 100000, true)")
        if history is None:
            return False
        ends = dict(line.split("\t")[:2] for line in history.splitlines() if line)
        # There may have been several since, and the standby may be at the first of them still.
        found = standby.execute("select received_tli::text from pg_stat_wal_receiver")
        timeline = found[0][0] if found else list(ends)[-1]
        begin = ends.get(timeline)
        if begin is None:
            return False
        place = "greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
        return standby.execute(f"select {place} > '{begin}'") == [(True,)]

    def _timeline(self) -> int:
        [[name]] = self.writer.execute("select pg_walfile_name(pg_current_wal_lsn())")
        return int(name[:8], 16)

    def restart_in_place(self) -> None:
        """Start the writer that is down, as the writer that it was."""
        self.writer.start()
        for standby in self.standbys:
            self.wait_until_streaming(standby)

    def make_synchronous(self, standby: Host | None) -> None:
        """Have commits wait until this standby has them, or for nobody."""
        self.synchronous = standby
        self.writer.settings["synchronous_standby_names"] = f"FIRST 1 ({standby.name})" if standby else ""
        self.writer.reload()
        wanted = [(standby.name,)] if standby else []
        self._await(
            lambda: (
                self.writer.execute(
                    "select application_name from pg_stat_replication where sync_state = 'sync'"
                )
                == wanted
            ),
            f"{wanted} is not the synchronous standby of {self.writer.name}",
        )
        self._tell()

    def settle(self) -> None:
        """Have the writer up, all others follow it, the first be synchronous, whatever has happened."""
        if not self.writer.is_up:
            self.writer.stop()
            self.writer.start()
        for host in self.hosts:
            if host.cable is not None:
                host.cable.mend()
        for host in self.standbys:
            if self.is_streaming(host):
                self.resume_replay(host)
                if "recovery_min_apply_delay" in host.settings:
                    self.delay(host, 0)
            else:
                host.settings.pop("recovery_min_apply_delay", None)
                self.rejoin(host)
        self.make_synchronous(self.standbys[0])

    # How far the others are.

    def is_streaming(self, standby: Host) -> bool:
        """Say whether a standby has its WAL from the writer, as it comes, on the writer's own timeline."""
        if not standby.is_up or not standby.in_recovery:
            return False
        sends = (
            "select 1 from pg_stat_replication "
            f"where application_name = '{standby.name}' and state = 'streaming'"
        )
        # One that is ahead streams for a moment, on the timeline that was before.
        takes = (
            "select 1 from pg_stat_wal_receiver "
            f"where status = 'streaming' and received_tli = {self._timeline()}"
        )
        return self.writer.execute(sends) == [(1,)] and standby.execute(takes) == [(1,)]

    def wait_until_streaming(self, standby: Host) -> None:
        """Wait until a standby has its WAL from the writer, as it comes."""
        self._await(
            lambda: self.is_streaming(standby),
            f"{standby.name} does not follow {self.writer.name}",
            standby,
        )

    def wait_until_equal(self, standby: Host) -> None:
        """Wait until what the writer has done by now can be seen in a standby."""
        [[end]] = self.writer.execute("select pg_current_wal_lsn()")
        self._await(
            lambda: standby.execute(f"select pg_last_wal_replay_lsn() >= '{end}'") == [(True,)],
            f"{standby.name} lags behind {self.writer.name}",
            standby,
        )

    def pause_replay(self, standby: Host) -> None:
        """Have a standby show nothing new; it goes on to receive."""
        standby.execute("select pg_wal_replay_pause()")
        self._await(
            lambda: standby.execute("select pg_get_wal_replay_pause_state()") == [("paused",)],
            f"{standby.name} replays on",
            standby,
        )

    def resume_replay(self, standby: Host) -> None:
        """End `pause_replay`."""
        standby.execute("select pg_wal_replay_resume()")

    def delay(self, standby: Host, milliseconds: int) -> None:
        """Have a standby show each commit so much later; 0 ends that."""
        standby.settings["recovery_min_apply_delay"] = milliseconds
        standby.reload()
        self._await(
            lambda: (
                standby.execute("select setting from pg_settings where name = 'recovery_min_apply_delay'")
                == [(str(milliseconds),)]
            ),
            f"{standby.name} does not take recovery_min_apply_delay",
            standby,
        )

    def _await(self, true: Callable[[], bool], otherwise: str, host: Host | None = None) -> None:
        """Wait for something; raises DemoError with what a host has logged where it doesn't come true."""
        if not wait_until(true, _SECONDS):
            raise DemoError(f"{otherwise} after {_SECONDS:.0f} s:\n{tail((host or self.writer).log)}")

    def _tell(self) -> None:
        for observer in self.observers:
            observer(self)


@contextmanager
def template(
    binaries: Binaries, account: Account | None, roles: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    """
    Make the data directory that writers begin with, once; gives a server that is down.

    `roles` are more users and their passwords; the first owns a database of its name, `boss` is a superuser.
    """
    with Postgres(binaries, account, settings=SETTINGS, hba=HBA) as server:
        server.execute("create role replica login replication", "create role toil login")
        server.execute("create database toil owner toil")
        for number, (role, password) in enumerate((roles or {}).items()):
            kind = "superuser" if role == "boss" else ""
            server.execute(f"create role {role} login replication {kind} password '{password}'")
            if number == 0:
                server.execute(f"create database {role} owner {role}")
        server.execute("checkpoint")
        server.stop()
        yield server


def _timed(fault: Callable[[], None]) -> tuple[float, float]:
    began = time.monotonic()
    fault()
    return began, time.monotonic()
