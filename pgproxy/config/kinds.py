"""The kinds of value that options take: each reads a TOML value and says in words what it takes."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from attrs import frozen

from pgproxy.config.problems import shown
from pgproxy.session.pins import PinReason
from pgproxy.session.suspicion import LOOK

_T = TypeVar("_T")
_SIZE = re.compile(r"(\d{1,12}) ?(KiB|MiB)")
_FACTORS = {"KiB": 1024, "MiB": 1024 * 1024}
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]{0,127}")
_NEVER_FILTERED = frozenset({PinReason.UNKNOWN, PinReason.STATEMENT_MEMORY})
"""Reasons that are not of the client's making: what is lost then is not known."""
_LONGEST_NAME = 128
"""Bytes; PostgreSQL cuts its names at 63, PgBouncer allows 128."""


class Unfit(ValueError):
    """A value that an option does not take; the text says what is wrong with it, `right` what it takes."""

    right = ""


class Kind(Protocol):
    """What an option takes."""

    @property
    def words(self) -> str:
        """What would be right, to go on from "it takes"."""

    def read(self, value: object, directory: Path) -> object:
        """Give the value meant; files are found from `directory`. Raises `Unfit`."""


@frozen
class Address:
    """An address to listen on or to connect to."""

    host: str
    """A name, or an IPv4 or IPv6 address without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; of names that is known of `localhost` alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@frozen
class Switch:
    """True or false."""

    words: str = "true or false"

    def read(self, value: object, directory: Path) -> bool:
        """Give the truth value. Raises `Unfit`."""
        if not isinstance(value, bool):
            raise Unfit(f"{shown(value)} is neither true nor false")
        return value


@frozen
class Choice:
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def words(self) -> str:
        """The words to choose from."""
        return "one of " + ", ".join(map(shown, self.choices))

    def read(self, value: object, directory: Path) -> str:
        """Give the word. Raises `Unfit`."""
        if not isinstance(value, str) or value not in self.choices:
            raise Unfit(f"{shown(value)} is none of the choices")
        return value


@frozen
class Whole:
    """A whole number in a range, both ends included."""

    low: int
    high: int

    @property
    def words(self) -> str:
        """The range."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: object, directory: Path) -> int:
        """Give the number. Raises `Unfit`."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(f"{shown(value)} is not a whole number")
        _check_range(value, self.low, self.high, shown(value))
        return value


@frozen
class Workers:
    """How many processes: a number, or the word for one a processor."""

    high: int

    @property
    def words(self) -> str:
        """The range."""
        return f'a whole number from 1 to {self.high}, or "auto"'

    def read(self, value: object, directory: Path) -> int:
        """Give the number; 0 for auto. Raises `Unfit`."""
        if value == "auto":
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(f"{shown(value)} is not a whole number")
        _check_range(value, 1, self.high, shown(value))
        return value


@frozen
class Seconds:
    """A time in seconds, fractions allowed; `positive` leaves 0 out."""

    high: int
    positive: bool = False

    @property
    def words(self) -> str:
        """The range."""
        return (
            f"seconds, more than 0, at most {self.high}"
            if self.positive
            else f"seconds from 0 to {self.high}"
        )

    def read(self, value: object, directory: Path) -> float:
        """Give the seconds. Raises `Unfit`."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise Unfit(f"{shown(value)} is not a number of seconds")
        _check_range(value, 0, self.high, shown(value))
        if self.positive and value == 0:
            raise Unfit(f"{shown(value)} is too small")
        return float(value)


@frozen
class Share:
    """A share, from none to all."""

    words: str = "a number from 0 to 1"

    def read(self, value: object, directory: Path) -> float:
        """Give the share. Raises `Unfit`."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise Unfit(f"{shown(value)} is not a number")
        _check_range(value, 0, 1, shown(value))
        return float(value)


@frozen
class Size:
    """A number of bytes in a range, as a number or with KiB or MiB."""

    low: int
    high: int

    @property
    def words(self) -> str:
        """The range."""
        return f'bytes from {size(self.low)} to {size(self.high)}, as a number or like "64KiB"'

    def read(self, value: object, directory: Path) -> int:
        """Give the bytes. Raises `Unfit`."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Unfit(f"{shown(value)} is not a size")
        if isinstance(value, str):
            parts = _SIZE.fullmatch(value)
            if parts is None:
                raise Unfit(f"{shown(value)} is not a size")
            count = int(parts[1]) * _FACTORS[parts[2]]
        else:
            count = value
        _check_range(count, self.low, self.high, shown(value))
        return count


@frozen
class Name:
    """A name of a user, a database or a target."""

    optional: bool = False

    @property
    def words(self) -> str:
        """The bounds."""
        return f"a name of {'up to' if self.optional else '1 to'} {_LONGEST_NAME} bytes"

    def read(self, value: object, directory: Path) -> str:
        """Give the name. Raises `Unfit`."""
        if not isinstance(value, str):
            raise Unfit(f"{shown(value)} is not a name")
        if not value and not self.optional:
            raise Unfit('"" is empty')
        if "\0" in value:
            raise Unfit(f"{shown(value)} has a NUL in it")
        if len(value.encode()) > _LONGEST_NAME:
            raise Unfit(f"{shown(value)} is too long")
        return value


@frozen
class Query:
    """An SQL query with one parameter."""

    words: str = "an SQL query with $1 for the user's name"

    def read(self, value: object, directory: Path) -> str:
        """Give the query. Raises `Unfit`."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise Unfit(f"{shown(value)} is not a query")
        if "$1" not in value:
            raise Unfit("the query has no $1")
        return value


@frozen
class Statements:
    """SQL statements that are sent as they are, whatever encoding a session has; "" is none."""

    words: str = "SQL statements in ASCII with ; between them, up to 16384 bytes"

    def read(self, value: object, directory: Path) -> str:
        """Give the statements. Raises `Unfit`."""
        if not isinstance(value, str):
            raise Unfit(f"{shown(value)} is not a text")
        if not value.isascii() or "\0" in value:
            raise Unfit("there are other characters than ASCII's in it; SQL has E'\\u00e9' for them")
        if len(value) > LOOK:
            raise Unfit("it is too long")
        return value.strip()


@frozen
class File:
    """A path, from the configuration file's directory; "" is none."""

    words: str = "a path, taken from the directory of this file"

    def read(self, value: object, directory: Path) -> Path | None:
        """Give the absolute path. Raises `Unfit`."""
        if not isinstance(value, str) or "\0" in value:
            raise Unfit(f"{shown(value)} is not a path")
        return directory / value if value else None


@frozen
class OneAddress:
    """One address."""

    words: str = "HOST:PORT or [IPv6]:PORT, like 127.0.0.1:5432"

    def read(self, value: object, directory: Path) -> Address:
        """Give the address. Raises `Unfit`."""
        return _address(value)


@frozen
class Addresses:
    """One address or an array of them."""

    words: str = "HOST:PORT or [IPv6]:PORT, like 127.0.0.1:6432, or an array of such"
    may_be_none: bool = False
    """Whether the array may be empty."""

    def read(self, value: object, directory: Path) -> tuple[Address, ...]:
        """Give the addresses. Raises `Unfit`."""
        if self.may_be_none and value == []:
            return ()
        return each_once(map(_address, value if isinstance(value, list) else [value]))


@frozen
class HostPattern:
    """The address of any instance of a cluster."""

    words: str = "HOST:PORT with one ? for the instance's identifier"

    def read(self, value: object, directory: Path) -> Address:
        """Give the address, with its ?. Raises `Unfit`."""
        if not isinstance(value, str) or value.count("?") != 1:
            raise Unfit(f"{shown(value)} has not exactly one ?")
        address = _address(value.replace("?", "x"))
        if ":" in address.host or "?" not in value.rpartition(":")[0]:
            raise Unfit(f"{shown(value)} is not a host's name with a ? in it")
        return Address(value.rpartition(":")[0], address.port)


@frozen
class ServerIp:
    """An IP address and a port: what is asked before names can be looked up."""

    words: str = "IP:PORT or [IPv6]:PORT, like 127.0.0.1:53"

    def read(self, value: object, directory: Path) -> Address:
        """Give the address. Raises `Unfit`."""
        address = _address(value)
        try:
            ipaddress.ip_address(address.host)
        except ValueError:
            raise Unfit(f"{shown(address.host)} is not an IP address") from None
        return address


@frozen
class Url:
    """The URL of a service."""

    words: str = "a URL like http://10.0.0.1:8008, http or https, without a user and a query"

    def read(self, value: object, directory: Path) -> str:
        """Give the URL without a / at its end. Raises `Unfit`."""
        if isinstance(value, str) and "@" in value:
            raise Unfit("there is an @ in it: it is not to have a user and a password")
        if not isinstance(value, str) or len(value) > 2048 or not _URL.fullmatch(value):
            raise Unfit(f"{shown(value)} is not such a URL")
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise Unfit(f"{shown(value)} is not such a URL") from None
        bracketed = parts.netloc.startswith("[")
        if not host or port == 0 or not (_is_ipv6(host) if bracketed else _HOST_NAME.fullmatch(host)):
            raise Unfit(f"{shown(value)} has no host")
        return value.rstrip("/")


@frozen
class Urls:
    """One URL or an array of them."""

    words: str = "a URL like http://10.0.0.1:8008, http or https, or an array of up to 16 such"

    def read(self, value: object, directory: Path) -> tuple[str, ...]:
        """Give the URLs. Raises `Unfit`."""
        url = Url()
        values = value if isinstance(value, list) else [value]
        if len(values) > 16:
            raise Unfit("there are more than 16")
        return each_once(url.read(one, directory) for one in values)


@frozen
class Identifier:
    """What AWS calls a cluster, an instance or a region."""

    words: str = "letters, digits and hyphens, up to 63"

    def read(self, value: object, directory: Path) -> str:
        """Give the identifier. Raises `Unfit`."""
        if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
            raise Unfit(f"{shown(value)} is not an identifier")
        return value


@frozen
class UserNames:
    """One user's name or an array of them."""

    words: str = "a user's name, or an array of such"
    may_be_none: bool = False
    """Whether the array may be empty."""

    def read(self, value: object, directory: Path) -> frozenset[str]:
        """Give the names. Raises `Unfit`."""
        name = Name()
        values = value if isinstance(value, list) else [value]
        if self.may_be_none and not values:
            return frozenset()
        return frozenset(each_once(name.read(one, directory) for one in values))


@frozen
class PinningFilters:
    """Reasons to pin and names of settings."""

    words: str = (
        "an array of reasons to pin ("
        + ", ".join(reason.value for reason in PinReason if reason not in _NEVER_FILTERED)
        + ") and of names of settings"
    )

    def read(self, value: object, directory: Path) -> frozenset[str]:
        """Give the words. Raises `Unfit`."""
        found = set()
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str) or not _SETTING_NAME.fullmatch(one):
                raise Unfit(f"{shown(one)} is neither a reason nor a setting")
            if one in {reason.value for reason in _NEVER_FILTERED}:
                raise Unfit(f"{shown(one)} cannot be excluded")
            found.add(one.lower())
        return frozenset(found)


def option(kind: Kind, doc: str, entries: str = "") -> dict[str, Any]:
    """Describe an option for its field; with `entries`, a table of such, every value is of that kind."""
    return {"kind": kind, "doc": doc, "entries": entries}


def size(count: int) -> str:
    """Write a number of bytes in the largest unit that fits."""
    for unit, factor in reversed(_FACTORS.items()):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def _address(value: object) -> Address:
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is not an address")
    host, colon, port = value.rpartition(":")
    if not colon:
        raise Unfit(f"{shown(value)} has no port")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise Unfit(f"{shown(port)} is not a port from 1 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host:
        raise Unfit(f"{shown(value)} has no host")
    if not (_is_ipv6(host[1:-1]) if bracketed else _HOST_NAME.fullmatch(host)):
        raise Unfit(f"{shown(host)} is not a host")
    return Address(host[1:-1] if bracketed else host, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def each_once(values: Iterable[_T]) -> tuple[_T, ...]:
    """Give what is there, in order. Raises `Unfit` where something is there twice, or nothing is there."""
    found: list[_T] = []
    for value in values:
        if value in found:
            raise Unfit(f"{value} is there twice")
        found.append(value)
    if not found:
        raise Unfit("the array is empty")
    return tuple(found)


def _check_range(number: float, low: int, high: int, as_written: str) -> None:
    if number < low:
        raise Unfit(f"{as_written} is too small")
    if number > high:
        raise Unfit(f"{as_written} is too large")
