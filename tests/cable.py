"""
The way to a host, which can fail as networks do: a relay that drops packets, or keeps what it is given.

A dropped packet is really not there: the kernel throws it away before TCP sees it (a socket filter, socket(7)
SO_ATTACH_FILTER), so that nothing is acknowledged, nobody connects, and TCP_USER_TIMEOUT and keepalives do
what they do on a dead network. That needs no privilege.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import selectors
import socket
import threading
from collections.abc import Callable
from struct import pack
from types import TracebackType
from typing import Self

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_TAKE_NOTHING = pack("HBBI", 0x06, 0, 0, 0)
"""BPF_RET | BPF_K, 0: of each packet, nothing is kept."""
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CHUNK, _MOST_UNSENT = 65536, 1 << 20
_SECONDS = 5.0


class Cable:
    """
    Relays what comes for an address and port to a host, in a thread of its own.

    Where nobody listens behind it, a connection is accepted and reset: only `drop` has connects fail.
    """

    def __init__(self, address: str, port: int, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._listener = socket.create_server((address, port), backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._held = self._dropping = self._closed = False
        self._legs: set[_Leg] = set()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._ringer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, _READ)
        self._selector.register(self._bell, _READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return self._held

    def drop(self) -> None:
        """Have every packet lost, from now on: on open connections, and of those who want to connect."""
        self._order(self._drop)

    def hold(self) -> None:
        """Keep all bytes: the kernel still accepts connections and acknowledges data, and nothing comes."""
        self._order(self._hold)

    def mend(self) -> None:
        """Let all go on as if nothing had been: TCP sends again what was lost."""
        self._order(self._mend)

    def close(self) -> None:
        """End all connections."""
        if not self._closed:
            self._order(self._close)
            self._thread.join(_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, order: Callable[[], None]) -> None:
        """Have the thread do something, and wait for that."""
        done = threading.Event()
        failures: list[OSError] = []

        def perform() -> None:
            try:
                order()
            except OSError as error:
                failures.append(error)
            done.set()

        self._orders.put(perform)
        self._ringer.send(b"!")
        if not done.wait(_SECONDS):
            raise TimeoutError("the cable's thread does not answer")
        if failures:
            raise failures[0]

    def _drop(self) -> None:
        _attach(self._listener)
        self._hold()
        self._dropping = True
        for leg in self._legs:
            if leg.is_client:
                _attach(leg.socket)

    def _hold(self) -> None:
        self._held = True
        self._selector.modify(self._listener, _WRITE)  # a listener never is writable: its queue fills
        for leg in self._legs:
            self._watch(leg)

    def _mend(self) -> None:
        if self._dropping:
            for one in (self._listener, *(leg.socket for leg in self._legs if leg.is_client)):
                one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        self._held = self._dropping = False
        self._selector.modify(self._listener, _READ)
        for leg in self._legs:
            self._watch(leg)

    def _close(self) -> None:
        self._closed = True

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select():
                if key.fileobj is self._bell:
                    self._bell.recv(1)
                    self._orders.get()()
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._legs:
                    self._move(key.data, events)
        for leg in list(self._legs):
            self._end(leg)
        for one in (self._listener, self._bell, self._ringer):
            one.close()
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                try:
                    host = socket.create_connection(self._target(), _SECONDS)
                except OSError:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
                    client.close()
                    continue
                legs = _Leg(client, True), _Leg(host, False)
                legs[0].other, legs[1].other = legs[1], legs[0]
                for leg in legs:
                    leg.socket.setblocking(False)
                    leg.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._legs.add(leg)
                    self._watch(leg)

    def _move(self, leg: _Leg, events: int) -> None:
        other = leg.other
        try:
            if events & _READ:
                data = leg.socket.recv(_CHUNK)
                other.unsent += data
                leg.ended = not data
                _flush(other)
            if events & _WRITE:
                _flush(leg)
        except BlockingIOError:
            pass
        except OSError:
            self._end(leg)
            return
        if (leg.ended and not other.unsent) or (other.ended and not leg.unsent):
            self._end(leg)
            return
        self._watch(leg)
        self._watch(other)

    def _watch(self, leg: _Leg) -> None:
        """Wait for what a leg can do now."""
        wanted = 0
        if not self._held:
            if not leg.ended and len(leg.other.unsent) < _MOST_UNSENT:
                wanted |= _READ
            if leg.unsent:
                wanted |= _WRITE
        if wanted == leg.watched:
            return
        if not leg.watched:
            self._selector.register(leg.socket, wanted, leg)
        elif not wanted:
            self._selector.unregister(leg.socket)
        else:
            self._selector.modify(leg.socket, wanted, leg)
        leg.watched = wanted

    def _end(self, leg: _Leg) -> None:
        for one in (leg, leg.other):
            self._legs.discard(one)
            if one.watched:
                self._selector.unregister(one.socket)
                one.watched = 0
            one.socket.close()


class _Leg:
    """One end of a connection: its socket, and what is still to be sent there."""

    other: _Leg

    def __init__(self, end: socket.socket, is_client: bool) -> None:
        self.socket = end
        self.is_client = is_client
        self.unsent = bytearray()
        self.ended = False
        self.watched = 0


def can_drop() -> bool:
    """Say whether this kernel lets us drop packets: some let only root attach a filter."""
    with socket.socket() as one:
        try:
            _attach(one)
        except PermissionError:
            return False
    return True


def _flush(leg: _Leg) -> None:
    with contextlib.suppress(BlockingIOError):
        while leg.unsent:
            del leg.unsent[: leg.socket.send(leg.unsent)]


def _attach(one: socket.socket) -> None:
    """Have the kernel throw away each packet that comes for a socket."""
    program = ctypes.create_string_buffer(_TAKE_NOTHING, len(_TAKE_NOTHING))
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pack("HxxxxxxQ", 1, ctypes.addressof(program)))
