"""
TLS contexts for both legs, and what SCRAM's channel binding needs of a certificate.

TLS 1.2 is the least. What reads certificates is imported when there is one to be read: it takes long.
Documentation: PostgreSQL manual, "SSL Session Encryption" (ALPN `postgresql`);
RFC 5929, `tls-server-end-point`.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    from cryptography import x509

ALPN = "postgresql"

ServerTlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
ClientTlsMode = Literal["off", "allow", "require"]


@frozen
class ClientLegTls:
    """What the clients' leg needs: whether TLS is a must, the context, and our certificate's end point."""

    mode: ClientTlsMode
    context: ssl.SSLContext | None = None
    end_point: bytes | None = field(default=None, repr=False)


@frozen
class ServerLegTls:
    """What a server's leg needs."""

    mode: ServerTlsMode
    context: ssl.SSLContext | None = None


def _context(role: int) -> ssl.SSLContext:
    """Make what is the same on both legs."""
    context = ssl.SSLContext(role)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # PostgreSQL has begun none since 9.5. In the middle of one nothing could be written.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    return context


def client_leg(
    mode: ClientTlsMode,
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None = None,
    require_certificate: bool = False,
) -> ClientLegTls:
    """Read the files of the clients' leg. Raises OSError or ssl.SSLError where one is unfit."""
    if mode == "off" or certificate is None:
        return ClientLegTls("off")
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # As in PostgreSQL: libpq never resumes a session, and each ticket is work for both sides.
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if require_certificate else ssl.CERT_OPTIONAL
    from cryptography import x509

    return ClientLegTls(mode, context, end_point(x509.load_pem_x509_certificate(certificate.read_bytes())))


def server_leg(
    mode: ServerTlsMode, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ServerLegTls:
    """Read the files of a server's leg. Raises OSError or ssl.SSLError where one is unfit."""
    if mode == "disable":
        return ServerLegTls(mode)
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    if mode in ("verify-ca", "verify-full"):
        context.load_verify_locations(ca) if ca is not None else context.load_default_certs()
    else:
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return ServerLegTls(mode, context)


def end_point(certificate: x509.Certificate) -> bytes | None:
    """
    Give a certificate's `tls-server-end-point`: its hash, by the hash of its signature (RFC 5929, 4.1).

    None where the signature has no hash of its own (Ed25519): channel binding is not to be offered then.
    """
    from cryptography.hazmat.primitives import hashes

    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:
        return None
    if isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


def peer_end_point(tls: ssl.SSLObject) -> bytes | None:
    """Give the end point of the certificate that the other side has shown."""
    from cryptography import x509

    shown = tls.getpeercert(binary_form=True)
    return end_point(x509.load_der_x509_certificate(shown)) if shown else None


def peer_common_name(tls: ssl.SSLObject) -> str | None:
    """Give the CN of the verified certificate that the other side has shown; None without exactly one."""
    try:
        certificate = tls.getpeercert(binary_form=True)
    except ValueError:
        # What came behind the handshake was no TLS.
        return None
    if not certificate:
        return None
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(certificate).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else None
