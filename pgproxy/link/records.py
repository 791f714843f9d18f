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

    __slots__ = ("_silent", "incoming", "lost", "outgoing", "over", "secrets", "session")

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

    def read_on(self, data: bytes, size: int) -> bytes:
        """
        Give the data of the records that are whole, behind what was read of them already.

        `size` bytes of records have come since the last time.
        """
        pieces = [data] if data else []
        try:
            while data := self.secrets.read(FULL_RECORD):
                pieces.append(data)
                if not self.incoming.pending:
                    break
            else:
                self.over = True
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            self.over = True
            self.lost = not isinstance(error, ssl.SSLZeroReturnError)
        if pieces:
            self._silent = 0
        else:
            self._silent += size
            if self._silent > _MOST_SILENT:
                self.over = self.lost = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seal(self, data: bytes) -> bytes:
        """Give what is to be sent, and the records that hold `data` behind it. Raises ssl.SSLError."""
        taken = 0
        while taken < len(data):
            taken += self.secrets.write(memoryview(data)[taken:] if taken else data)
        return self.outgoing.read()

    def say_end(self) -> bool:
        """Have the end of the data to be sent; say whether the peer has said the same."""
        try:
            self.session.unwrap()
        except OSError:
            return False
        return True
