"""Server-sent events, read as a browser reads them."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any, Self


class Refused(Exception):
    """The answer was no stream: its status, and what it says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status


class Events:
    """A stream of the status page. Raises `Refused`."""

    def __init__(self, port: int, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.request("GET", "/events", headers=headers)
        self._answer = self._connection.getresponse()
        if self._answer.status != 200:
            text = self._answer.read().decode()
            self._connection.close()
            raise Refused(self._answer.status, text)
        self.headers = self._answer.headers

    def next(self, name: str) -> Any:
        """Give what the next event of a name says. Raises EOFError when the stream has ended."""
        event = ""
        while line := self._answer.readline():
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                event = value
            elif key == "data" and event == name:
                return json.loads(value)
        raise EOFError

    def until(self, name: str, good: Any) -> Any:
        """Give what the first event of a name says of which `good` is true."""
        while not good(found := self.next(name)):
            pass
        return found

    def close(self) -> None:
        """Look no more."""
        self._answer.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
