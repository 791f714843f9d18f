"""
TLS without a socket: records come and go as bytes.

OpenSSL works on memory that is filled with what one read has brought. So nothing that a peer sends keeps it
busy for longer than that lasts: on a socket it would read on while there is anything but data (KeyUpdate in
TLS 1.3, RFC 8446, 4.6.3), and Python's ssl can't tell it not to (SSL_MODE_AUTO_RETRY).
"""

from __future__ import annotations

import ssl
from typing import Any

from pgproxy.twin import quicken

FULL_RECORD = 16 * 1024
"""Bytes of data in a record, at most (RFC 8446, 5.1)."""
_MOST_SILENT = 64 * 1024
"""Bytes of records without any data: a record has 16 KB, and what else may come in peace is less."""


@quicken
class Records:
    """One side of a TLS connection."""

    __slots__ = ("_silent", "incoming", "lost", "outgoing", "over", "said", "secrets", "session", "since")

    def __init__(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None) -> None:
        """Raises ValueError for a name that can't be one, where the context checks names."""
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        """What is to be sent as it is: answers of TLS itself, and what was sealed."""
        self.session = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )
        """What is known of the peer."""
        # Without the functions in Python that SSLObject puts around each of these, where that is possible.
        self.secrets: Any = getattr(self.session, "_sslobj", None) or self.session
        self.over = False
        """Whether no more data comes: the peer has said so, or `lost`."""
        self.lost = False
        """Whether what came was no TLS, or nothing else than TLS's own words."""
        self.said = 0
        """How many bytes of data were sealed last."""
        self.since = 0
        """How many bytes are to be sent for them, and for all that came behind."""
        self._silent = 0

    def shake_hands(self, data: bytes) -> bool:
        """
        Go on with what has come, if anything; say whether both sides agree.

        Raises ssl.SSLError; the end of `incoming` is one. Then as well there may be something to be sent.
        """
        if data:
            self.incoming.write(data)
        try:
            self.secrets.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def open(self, data: bytes) -> bytes:
        """Take what has come, and give the data of the records that are whole."""
        pieces: list[bytes] = []
        view = memoryview(data)
        # A buffer of OpenSSL's never shrinks, so no more than a record is put into it at a time.
        while view and not self.over:
            self.incoming.write(view[:FULL_RECORD])
            view = view[FULL_RECORD:]
            self._read(pieces)
        return self._data(pieces, len(data))

    def read_on(self, first: bytes, size: int) -> bytes:
        """
        Give the data of the records that are whole, behind what was read of them already.

        `size` bytes of records, a record's at most, were put into `incoming` before.
        """
        pieces = [first] if first else []
        self._read(pieces)
        return self._data(pieces, size)

    def _read(self, pieces: list[bytes]) -> None:
        try:
            while data := self.secrets.read(FULL_RECORD):
                pieces.append(data)
                if not self.incoming.pending:
                    return
        except OSError as error:
            self._ends_with(error)
        else:
            self.over = True

    def stopped(self, error: OSError, size: int) -> bytes:
        """
        Take the error that reading has ended with, and give the data of no record.

        Who read again instead might be told another: OpenSSL says of a fatal alert once what it was.
        """
        self._ends_with(error)
        return self._data([], size)

    def _ends_with(self, error: OSError) -> None:
        if not isinstance(error, ssl.SSLWantReadError):
            self.over = True
            self.lost = not isinstance(error, ssl.SSLZeroReturnError)

    def _data(self, pieces: list[bytes], size: int) -> bytes:
        if pieces:
            self._silent = 0
        else:
            self._silent += size
            if self._silent > _MOST_SILENT:
                self.over = self.lost = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seal(self, data: bytes) -> bytes:
        """Give what is to be sent, and the records that hold `data` behind it. Raises ssl.SSLError."""
        if len(data) <= FULL_RECORD:
            if data:
                self.secrets.write(data)
            sealed = self.outgoing.read()
        else:
            pieces = []
            view = memoryview(data)
            while view:
                view = view[self.secrets.write(view[:FULL_RECORD]) :]
                pieces.append(self.outgoing.read())
            sealed = b"".join(pieces)
        self.said = len(data)
        self.since = len(sealed)
        return sealed

    def own(self) -> bytes:
        """Give what TLS itself has to say."""
        data = self.outgoing.read()
        self.since += len(data)
        return data

    def missing(self, unacknowledged: int) -> int:
        """
        Say how many of the last bytes of data are certainly not among what has arrived.

        All but `unacknowledged` bytes have. A part of what was sealed at once says nothing: how much data is
        in it is not known.
        """
        return self.said if self.since and unacknowledged >= self.since else 0

    def say_end(self) -> bool:
        """Have the end of the data to be sent; say whether the peer has said the same."""
        try:
            self.session.unwrap()
        except OSError:
            return False
        return True
