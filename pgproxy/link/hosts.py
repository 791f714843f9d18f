"""Where the hosts of all targets are, and which of them is the writer or a reader, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import evolve

from pgproxy.config import Config
from pgproxy.link.server import Host
from pgproxy.targets.facts import Address
from pgproxy.targets.judge import Roles

NOWHERE = Address("", 0)
"""Where clients wait while there is nobody whom they could be sent to: no reader, or no writer."""


class Hosts:
    """The hosts. `first` has, for each target, the first that the configuration names."""

    def __init__(self, config: Config, first: Mapping[str, Host]) -> None:
        self._config = config
        self._first = first
        self._roles: dict[str, Roles] = {}
        """By target, who does what, where that is watched."""
        self._writers: dict[str, Address] = {}
        """By target, the host that was the writer last."""
        self._tls_names: dict[str, Mapping[Address, str]] = {}
        self._generations: dict[str, int] = {}
        """By target, another number whenever its readers have changed."""

    def configure(self, config: Config, first: Mapping[str, Host]) -> None:
        """Take another configuration."""
        self._config = config
        self._first = first

    def name(self, target: str, tls_names: Mapping[Address, str]) -> None:
        """Take the names that the certificates of a target's hosts have to have."""
        self._tls_names[target] = tls_names

    def at(self, target: str, address: Address) -> Host:
        """Give a host of a target; all of them are reached in the same way."""
        tls_name = self._tls_names.get(target, {}).get(address, "")
        return evolve(self._first[target], name=address.name, port=address.port, tls_name=tls_name)

    def writer(self, target: str) -> Host:
        """
        Give the host of a target that is the writer, or was last and is silent.

        Where there are several, and none of them is known to be the writer, it is none. Only where not one of
        them says anything it is the first that the configuration names: what is wrong with it is told then.
        """
        address = self._writers.get(target)
        if address is not None:
            return self.at(target, address)
        roles = self._roles.get(target)
        is_told = roles is not None and roles.blind and roles.lost is None
        if self._config.targets[target].has_several_hosts and not is_told:
            return self.at(target, NOWHERE)
        return self._first[target]

    def of(self, target: str, where: Address | None) -> Host:
        """Give the host of a target that is there; its writer for None."""
        return self.writer(target) if where is None else self.at(target, where)

    # Roles.

    @property
    def watched(self) -> list[str]:
        """The targets of which it is known who does what."""
        return list(self._roles)

    def roles(self, target: str) -> Roles | None:
        """Give who does what; None where that is not known."""
        return self._roles.get(target)

    def take(self, target: str, roles: Roles) -> None:
        """Enter who does what."""
        self._roles[target] = roles
        if roles.writer is not None:
            self._writers[target] = roles.writer
        elif self._config.targets[target].has_several_hosts:
            self._writers.pop(target, None)

    def forget(self, before: Config) -> Iterator[tuple[str, Roles]]:
        """Forget who was the writer of a target that has other hosts now; give what each did, one by one."""
        for name in {*self._writers, *self._roles}:
            was, target = before.targets.get(name), self._config.targets.get(name)
            listed = [] if target is None else [Address(host.host, host.port) for host in target.server]
            same = was is not None and target is not None and was.reached == target.reached
            gone = target is None or not target.watched or self._writers.get(name) not in listed
            if not same and gone:
                self._writers.pop(name, None)
                roles = self._roles.pop(name, None)
                if roles is not None:
                    yield name, roles

    def generation(self, target: str) -> int:
        """Give another number whenever the readers of a target have changed."""
        return self._generations.get(target, 0)

    def readers_changed(self, target: str) -> None:
        """Enter that the readers of a target have changed."""
        # A database that moves to another target has another number there.
        self._generations[target] = max(self._generations.values(), default=0) + 1
