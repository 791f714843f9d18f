"""Has the pools of a target follow its roles: who is the writer, who a reader, who may be the writer next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve
from structlog.typing import FilteringBoundLogger
from twisted.python.failure import Failure

from pgproxy.config import Config
from pgproxy.link.hosts import NOWHERE, Hosts
from pgproxy.link.lender import ServerLender
from pgproxy.link.limits import limits_of
from pgproxy.pool.states import CloseReason
from pgproxy.targets.judge import Roles

if TYPE_CHECKING:
    from pgproxy.link.targets import Targets

_SPARE_HOSTS = 2
"""At how many hosts servers are kept open for the case that one becomes the writer: the first of the list."""


class Failover:
    """For all targets."""

    def __init__(self, targets: Targets, hosts: Hosts, log: FilteringBoundLogger) -> None:
        self._targets = targets
        self._hosts = hosts
        self._log = log

    def take_roles(self, name: str, roles: Roles) -> None:
        """Have the pools of a target follow its roles."""
        was, before = self._hosts.writer(name), self._hosts.roles(name)
        self._hosts.take(name, roles)
        host = self._hosts.writer(name)
        lenders = [lender for lender in self._targets.of_target(name, None) if not lender.dismissed]
        if host.address != was.address:
            # What is taken for the writer at first may be the same host by another name.
            new = was.address == NOWHERE or (before is not None and (before.writer or before.lost))
            self._change_writer(name, lenders, is_another=bool(new))
        elif roles.writer is None and roles.lost is not None and before is not None and before.writer:
            for lender in lenders:
                lender.cut(CloseReason.WRITER_CHANGED)
        elif roles.given_up and not (before is not None and before.given_up):
            for lender in lenders:
                lender.cut(CloseReason.HOST_SILENT)
        if roles.up and not (before is not None and before.up):
            self._targets.pools_of(name, None).forgive()
        if roles.writer is not None and host.address != was.address:
            self._targets.undrain(name)
        if roles.readers != (before.readers if before is not None else ()):
            self._change_readers(name, before, roles)
        self._keep_spare(name)

    def forget(self, before: Config) -> None:
        """Forget what is known of a target that has other hosts than in the configuration before."""
        for name, roles in self._hosts.forget(before):
            # Nobody goes on to read there, or to wait.
            self._change_readers(name, roles, Roles(None, ()))

    def look(self) -> None:
        """Have spare servers open wherever they are to be."""
        for name in self._hosts.watched:
            self._keep_spare(name)

    def _change_writer(self, name: str, lenders: list[ServerLender], is_another: bool) -> None:
        """Have the pools of a target be where its writer is now, or where one is waited for."""
        targets = self._targets
        target = targets.pools_of(name, None)
        if self._hosts.writer(name).address != NOWHERE:
            # What went wrong while it was a reader is no reason to send those away who come.
            target.forgive()
        for lender in lenders:
            database, user = lender.names
            entry = targets.config.database(database)
            assert entry is not None
            targets.set_limits(target, database, user)
            place = targets.place(database, entry, None)
            try:
                if is_another:
                    lender.fail_over(place, target, CloseReason.WRITER_CHANGED)
                else:
                    lender.configure(place, limits_of(targets.config, database, user), target, moved=True)
            except Exception:
                # The other pools go on.
                self._log.error("defect", failure=Failure().getTraceback())

    def _change_readers(self, name: str, before: Roles | None, after: Roles) -> None:
        """Have the clients of a target's readers find others, or new ones."""
        self._hosts.readers_changed(name)
        for address in before.readers if before is not None else ():
            if address not in after.readers:
                for lender in self._targets.of_target(name, address):
                    if address in after.dead:
                        lender.cut(CloseReason.HOST_SILENT)
                    else:
                        # Who works there goes on to the end of the transaction.
                        lender.retire(CloseReason.READER_OUT)
                    lender.send_away()
        for address in after.readers:
            if before is None or address not in before.readers:
                self._targets.pools_of(name, address).forgive()
        for lender in self._targets.of_target(name, NOWHERE):
            lender.send_away()

    def _keep_spare(self, name: str) -> None:
        """Have a few servers open at the hosts that may be the writer next."""
        roles = self._hosts.roles(name)
        if roles is None or roles.writer is None or not roles.up:
            # Which of them it will be is about to be seen.
            return
        targets = self._targets
        most = targets.config.targets[name].standby_connections
        for lender in targets.of_target(name, None):
            if not lender.dismissed:
                database, user = lender.names
                entry = targets.config.database(database)
                spares = {}
                for address in roles.readers[:_SPARE_HOSTS] if most and entry is not None else ():
                    place = evolve(lender.place, host=self._hosts.at(name, address), writer_only=False)
                    target = targets.pools_of(name, address)
                    spares[target] = place
                    targets.set_limits(target, database, user)
                lender.keep_spare(spares, most)
