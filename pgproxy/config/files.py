"""Checks that a file which the configuration names can be read and holds what it is meant to hold."""

from __future__ import annotations

import ssl
from pathlib import Path

from pgproxy.config.problems import Report


def check_readable(path: str, file: Path, report: Report) -> bool:
    """Report a file that cannot be read; tells whether it can."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        report.add(path, f"{file} cannot be read: {error.strerror or error}")
        return False
    return True


def check_text(path: str, file: Path, report: Report) -> None:
    """Report a file that is not text in UTF-8."""
    try:
        file.read_text(encoding="utf-8")
    except OSError as error:
        report.add(path, f"{file} cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        report.add(path, f"{file} is not UTF-8 at byte {error.start}")


def check_authorities(path: str, file: Path, report: Report) -> None:
    """Report a file that is not the certificates of authorities."""
    if not check_readable(path, file, report):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        report.add(path, f"{file} holds no certificate that can be read ({_reason(error)})", "it takes PEM")


def check_pair(table: str, certificate: Path, key: Path, report: Report) -> None:
    """Report a certificate and a private key that are not what they should be, or not each other's."""
    certificate_path, key_path = f"{table}.certificate", f"{table}.key"
    readable = [
        check_readable(certificate_path, certificate, report),
        check_readable(key_path, key, report),
    ]
    if not all(readable):
        return
    # It takes long, and most configurations name no certificate.
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError:
        report.add(certificate_path, f"{certificate} holds no certificate that can be read", "it takes PEM")
        return
    asked: list[bool] = []

    def no_passphrase() -> str:
        asked.append(True)
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if asked:
            report.add(key_path, f"{key} has a passphrase", "it takes a key without one: openssl pkey -in …")
        elif error.reason == "KEY_VALUES_MISMATCH":
            report.add(
                key_path, f"{key} is not the key of {certificate}", "give the one that it was made with"
            )
        else:
            report.add(
                key_path,
                f"{key} holds no private key that can be used with {certificate} ({_reason(error)})",
                "it takes PEM",
            )


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
