"""
Reads what a name server has answered: addresses and their time to live, or why there are none.

The chain of CNAMEs is followed within the answer; where it leads out of it, the caller asks on. The time to
live is the least of all records on the way (RFC 1035, RFC 2181 §8: one above 2^31 - 1 is 0).
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import Literal

from attrs import frozen
from twisted.names import dns

RecordType = Literal["A", "AAAA"]

TYPES: dict[RecordType, int] = {"A": dns.A, "AAAA": dns.AAAA}
LARGEST = 8 * 1024
"""Bytes of an answer that is looked at; 64 hosts behind a chain of names take less than 5 KiB."""
LONGEST_CHAIN = 8
"""CNAMEs; the endpoints of RDS take 1 or 2."""
_MOST_RECORDS = 128
_HIGHEST_TTL = 2**31 - 1
_HEADER = 12
_COUNTS = slice(8, _HEADER)
"""How many records the sections have that we don't need: the authority's and the additional ones."""


class Trouble(Enum):
    """Why a question has no answer: the same word in logs and messages."""

    NO_SUCH_NAME = "no_such_name"
    """NXDOMAIN: there is no such name."""
    NO_ADDRESS = "no_address"
    """The name is there, but has no address of this type."""
    SERVER_FAILED = "server_failed"
    """SERVFAIL: the name server can't find out."""
    REFUSED = "refused"
    """REFUSED, or another code that says that it is the wrong server to ask."""
    UNREADABLE = "unreadable"
    SILENCE = "silence"
    UNREACHABLE = "unreachable"
    """Nobody listens there, or there is no way."""
    LONG_CHAIN = "long_chain"
    """More CNAMEs than anybody needs, or a ring of them."""


_CODES = {dns.ENAME: Trouble.NO_SUCH_NAME, dns.ESERVER: Trouble.SERVER_FAILED}


class Unanswered(Exception):
    """A question has no answer; `who` was asked."""

    def __init__(self, trouble: Trouble, who: str = "") -> None:
        super().__init__(trouble.value, who)
        self.trouble = trouble
        self.who = who


class Truncated(Exception):
    """The answer did not fit: it has to be asked for over TCP."""


class NotOurs(Exception):
    """Not an answer to what was asked: to be passed over."""


@frozen
class Addresses:
    """What a name's records say."""

    addresses: tuple[str, ...]
    """Each once, sorted; none where the chain goes on outside of the answer."""
    ttl: float
    """Seconds."""
    onward: str = ""
    """Where the chain of CNAMEs goes on."""


def question(name: str, kind: RecordType, number: int) -> bytes:
    """Build a question for a name, to be recursed for."""
    message = dns.Message(number, recDes=1)
    message.addQuery(name, TYPES[kind], dns.IN)
    encoded: bytes = message.toStr()
    return encoded


def can_be_asked(name: str) -> bool:
    """Tell whether a name is one that DNS can have."""
    labels = name.split(".")
    return name.isascii() and len(name) <= 253 and all(0 < len(label) <= 63 for label in labels)


def read(data: bytes, name: str, kind: RecordType, number: int) -> Addresses:
    """Read the answer to `question`. Raises `NotOurs`, `Truncated` or `Unanswered`."""
    if len(data) < _HEADER or data[:2] != number.to_bytes(2, "big") or not data[2] & 0x80:
        raise NotOurs
    count = int.from_bytes(data[6:8], "big")
    if len(data) > LARGEST or count > _MOST_RECORDS:
        raise Unanswered(Trouble.UNREADABLE)
    message = dns.Message()
    needed = bytearray(data)
    needed[_COUNTS] = bytes(4)
    try:
        message.fromStr(bytes(needed))
        asked = [(str(query.name).lower(), query.type, query.cls) for query in message.queries]
    except Exception as error:  # The reader of the library raises whatever it stumbles over.
        raise Unanswered(Trouble.UNREADABLE) from error
    if asked and asked != [(name.lower(), TYPES[kind], dns.IN)]:
        raise NotOurs
    if message.trunc:
        raise Truncated
    if message.rCode != dns.OK:
        raise Unanswered(_CODES.get(message.rCode, Trouble.REFUSED))
    if not asked or len(message.answers) != count:
        raise Unanswered(Trouble.UNREADABLE)
    return _follow(message.answers, name, kind)


def _follow(answers: list[dns.RRHeader], name: str, kind: RecordType) -> Addresses:
    aliases: dict[str, tuple[str, float]] = {}
    addresses: dict[str, list[tuple[str, float]]] = {}
    for answer in answers:
        if answer.cls != dns.IN:
            continue
        ttl = float(answer.ttl) if answer.ttl <= _HIGHEST_TTL else 0.0
        owner = _text(answer.name).lower()
        match answer.payload:
            case dns.Record_CNAME() as alias:
                aliases[owner] = _text(alias.name), ttl
            case dns.Record_A() | dns.Record_AAAA() as record if answer.type == TYPES[kind]:
                addresses.setdefault(owner, []).append((_ip(record.address), ttl))
    at, least = name, float(_HIGHEST_TTL)
    for _ in range(LONGEST_CHAIN + 1):
        here = addresses.get(at.lower())
        if here:
            return Addresses(
                tuple(sorted({address for address, _ in here})), min(least, *(ttl for _, ttl in here))
            )
        if at.lower() not in aliases:
            break
        at, ttl = aliases[at.lower()]
        least = min(least, ttl)
    else:
        raise Unanswered(Trouble.LONG_CHAIN)
    if at == name:
        raise Unanswered(Trouble.NO_ADDRESS)
    if not can_be_asked(at):
        raise Unanswered(Trouble.UNREADABLE)
    return Addresses((), least, at)


def _text(name: dns.Name) -> str:
    return name.name.decode("ascii", "backslashreplace")


def _ip(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
