"""KeyUpdate messages without end (RFC 8446, 4.6.3), which no TLS library can be made to send."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from struct import pack

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HASH = hashes.SHA384()
_CIPHER = "TLS_AES_256_GCM_SHA384"
_KEY_UPDATE = b"\x18\0\0\x01"
_HANDSHAKE = b"\x16"


def logging_keys(context: ssl.SSLContext, place: Path) -> ssl.SSLContext:
    """Have a context note its keys in a file, and agree on TLS 1.3."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(place)
    return context


def key_updates(
    session: ssl.SSLSocket | ssl.SSLObject, place: Path, answered: bool = False
) -> Iterator[bytes]:
    """
    Give one record after the other, for a client that has agreed and said nothing yet.

    `answered` asks the other side for its own each time.
    """
    cipher = session.cipher()
    assert cipher is not None and cipher[0] == _CIPHER
    lines = place.read_text().splitlines()
    secrets = [line.split()[-1] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
    secret = bytes.fromhex(secrets[-1])
    said = _KEY_UPDATE + bytes([answered]) + _HANDSHAKE
    head = b"\x17\x03\x03" + pack(">H", len(said) + 16)
    while True:
        # The first record under a key: its number is 0, so the nonce is the IV as it is.
        yield head + AESGCM(_expand(secret, "key", 32)).encrypt(_expand(secret, "iv", 12), said, head)
        secret = _expand(secret, "traffic upd", _HASH.digest_size)


def _expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1), without a context."""
    name = b"tls13 " + label.encode()
    info = pack(">HB", size, len(name)) + name + b"\0"
    return HKDFExpand(_HASH, size, info).derive(secret)
