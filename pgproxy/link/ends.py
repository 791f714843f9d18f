"""What the end of a connection says about its cause."""

from __future__ import annotations

import ssl

from twisted.python.failure import Failure

from pgproxy.pool.trouble import Cause

_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""OpenSSL's errors for a peer that has ended the connection in the middle of the handshake."""


def cause_of_end(reason: Failure) -> Cause:
    """Give the cause that a connection's end is put down to."""
    error = reason.value
    if isinstance(error, ssl.SSLError) and not isinstance(error, _HUNG_UP):
        return Cause.TLS_REFUSED
    return Cause.LOST


def end_in_words(reason: Failure) -> str:
    """Say how a connection has ended, as a clause."""
    return str(reason.getErrorMessage()).rstrip(".")
