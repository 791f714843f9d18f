"""
Thousands of light clients in one thread: each is a generator that says what it waits for.

A script gets what it needs with `yield from` (`Peer.log_in`, `Peer.query`), and pauses with `yield seconds`.
They speak the protocol just well enough, and don't prove who they are: the listener has `auth = "trust"`.
"""

from __future__ import annotations

import contextlib
import heapq
import resource
import selectors
import socket
import time
from collections.abc import Generator, Mapping
from struct import pack
from typing import Any, TypeVar

from pgproxy.wire import messages
from pgproxy.wire.startup import startup_message

Value = TypeVar("Value")
Message = tuple[str, bytes]
"""The tag, as a letter, and the payload."""

_TERMINATE = messages.message(ord("X"))
_CANCEL_REQUEST = 80877102
_FATAL = ("FATAL", "PANIC")
_RESET = pack("ii", 1, 0)
"""struct linger: the end comes as a RST."""


class Fatal(Exception):
    """The peer has refused or ended the session, and said why."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(f"{fields.get('C')} {fields.get('M')} {fields.get('D', '')}")
        self.fields = fields


class Gone(Exception):
    """The peer has ended the connection without a word."""


class Stuck(Exception):
    """Nothing has come for longer than the crowd's patience."""


class Peer:
    """
    One connection, to 127.0.0.1 where no address is given; one that is refused is `Gone`.

    Whoever waits for it gives way to the others of its crowd.
    """

    def __init__(self, crowd: Crowd, address: tuple[str, int] | None = None) -> None:
        self.crowd = crowd
        self.patience = crowd.patience
        """How many seconds whoever waits for it waits for a word."""
        self.key = b""
        """What a cancel request has to show: eight bytes."""
        self.reported: dict[str, str] = {}
        """The settings that the server has reported at the login."""
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._ended = False
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wanted = selectors.EVENT_READ
        try:
            self._socket.connect(address or ("127.0.0.1", crowd.port))
        except BlockingIOError:
            pass
        except OSError:
            self._ended = True
            self._socket.close()
            return
        crowd.selector.register(self._socket, self._wanted, self)

    # For scripts.

    def send(self, *data: bytes) -> None:
        """Send messages, now or as soon as the connection takes them."""
        waits = bool(self._unsent)
        self._unsent += b"".join(data)
        if not waits and not self._ended:
            self._flush()

    def until(self, tag: str) -> Script[list[Message]]:
        """Give the messages up to and with the first of this tag. Raises `Fatal` and `Gone`."""
        seen: list[Message] = []
        while True:
            while (message := self._next()) is not None:
                seen.append(message)
                if message[0] == "E":
                    fields = messages.read_error_fields(message[1])
                    if fields.get("V", fields.get("S")) in _FATAL:
                        self.leave(politely=False)
                        raise Fatal(fields)
                if message[0] == tag:
                    return seen
            if self._ended:
                self.leave(politely=False)
                raise Gone
            yield self

    def log_in(self, user: str, database: str, **parameters: str) -> Script[None]:
        """Start up, where nothing is asked."""
        self.send(startup_message(user, database, tuple(parameters.items())))
        for tag, payload in (yield from self.until("Z")):
            if tag == "K":
                self.key = payload
            elif tag == "S":
                name, value, _ = payload.decode().split("\0")
                self.reported[name] = value

    def query(self, text: str) -> Script[str | None]:
        """Give the first column of the last row, or `!` and the SQLSTATE of an error."""
        self.send(messages.query(text))
        return (yield from self.answer())

    def answer(self) -> Script[str | None]:
        """Give what comes for a query that was sent."""
        value = None
        for tag, payload in (yield from self.until("Z")):
            if tag == "D":
                size = int.from_bytes(payload[2:6], "big", signed=True)
                value = None if size < 0 else payload[6 : 6 + size].decode()
            elif tag == "E":
                value = "!" + messages.read_error_fields(payload)["C"]
        return value

    def cancel(self) -> Script[None]:
        """Ask, over a connection of its own, that what is under way be cancelled."""
        other = Peer(self.crowd)
        other.send(pack(">II", 16, _CANCEL_REQUEST) + self.key)
        with contextlib.suppress(Gone):
            yield from other.until("")

    def leave(self, *, politely: bool = True, reset: bool = False) -> None:
        """Go: with a Terminate, without a word, or with a reset."""
        if politely:
            self.send(_TERMINATE)
        if reset and not self._ended:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._end()

    # For the crowd.

    def ready(self, events: int) -> None:
        """Do what the socket is ready for."""
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._buffer += data
            if not data:
                self._end()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            # What came before is still to be read.
            self._unsent.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if wanted != self._wanted:
            self._wanted = wanted
            self.crowd.selector.modify(self._socket, wanted, self)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.crowd.selector.unregister(self._socket)
            self._socket.close()

    def _next(self) -> Message | None:
        if len(self._buffer) < 5:
            return None
        size = int.from_bytes(self._buffer[1:5], "big") + 1
        if len(self._buffer) < size:
            return None
        tag, payload = chr(self._buffer[0]), bytes(self._buffer[5:size])
        del self._buffer[:size]
        return tag, payload


Wait = float | Peer
"""Seconds, or who is to say something."""
Script = Generator[Wait, None, Value]


class _Task:
    def __init__(self, script: Script[Any]) -> None:
        self.script = script
        self.turn = 0
        """Counts its waits."""
        self.peer: Peer | None = None
        """For whom it waits, if so."""


class Crowd:
    """Clients of one listener. Nobody waits longer than `patience` seconds for a word: that is a `Stuck`."""

    def __init__(self, port: int, patience: float = 30.0) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.patience = patience
        self._number = 0
        self._tasks: set[_Task] = set()
        self._waiting: dict[Peer, _Task] = {}
        self._timers: list[tuple[float, int, _Task, int]] = []

    def add(self, script: Script[Any], after: float = 0.0) -> None:
        """Have a script run, so many seconds from now."""
        task = _Task(script)
        self._tasks.add(task)
        self._later(after, task)

    def run(self, seconds: float) -> None:
        """Go on until all scripts have ended. Raises what they raise, and TimeoutError after so long."""
        limit = time.monotonic() + seconds
        while self._tasks:
            now = time.monotonic()
            if now > limit:
                raise TimeoutError(f"{len(self._tasks)} clients are still here after {seconds} s")
            while self._timers and self._timers[0][0] <= now:
                _at, _number, task, turn = heapq.heappop(self._timers)
                if task in self._tasks and task.turn == turn:
                    self._due(task)
            due = min(limit, self._timers[0][0]) if self._tasks and self._timers else now
            for key, events in self.selector.select(max(0.0, due - time.monotonic())):
                peer: Peer = key.data
                peer.ready(events)
                waiting = self._waiting.pop(peer, None)
                if waiting is not None:
                    self._step(waiting)

    def close(self) -> None:
        """Have everybody go who is still here."""
        for key in list(self.selector.get_map().values()):
            key.data.leave(politely=False)
        for task in self._tasks:
            task.script.close()
        self._tasks.clear()
        self.selector.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _due(self, task: _Task) -> None:
        if task.peer is None:
            self._step(task)
        else:
            del self._waiting[task.peer]
            self._step(task, Stuck(f"nothing has come for {task.peer.patience} s"))

    def _step(self, task: _Task, error: Exception | None = None) -> None:
        task.turn += 1
        try:
            wait = task.script.throw(error) if error is not None else next(task.script)
        except StopIteration:
            self._tasks.remove(task)
            return
        except BaseException:
            self._tasks.remove(task)
            raise
        task.peer = wait if isinstance(wait, Peer) else None
        if isinstance(wait, Peer):
            self._waiting[wait] = task
            self._later(wait.patience, task)
        else:
            self._later(wait, task)

    def _later(self, seconds: float, task: _Task) -> None:
        self._number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._number, task, task.turn))


def allow_open_files(wanted: int) -> None:
    """Raise the limit of open files, for us and our children. Raises OSError where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{wanted} open files are needed, and the limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
