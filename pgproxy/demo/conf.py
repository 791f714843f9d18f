"""Writes the configuration of a PostgreSQL of ours: postgresql.conf, pg_hba.conf and the TLS files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from pgproxy.demo.process import Account

Setting = str | int | bool

# The superuser needs no password, but comes only through a socket in a directory that nobody else may enter.
LOCAL_HBA = (
    "local all,replication postgres trust",
    "local all,replication all scram-sha-256",
    "host all,replication all 127.0.0.1/32 scram-sha-256",
)
# A power cut may take this data: nobody misses it.
FAST_AND_LOOSE: Mapping[str, Setting] = {
    "fsync": False,
    "synchronous_commit": False,
    "full_page_writes": False,
}


@attrs.frozen
class ServerTls:
    """The files (PEM) that make a server speak TLS; they are copied to where the server may read them."""

    certificate: Path
    key: Path


def write_conf(
    directory: Path,
    account: Account | None,
    settings: Mapping[str, Setting],
    hba: Sequence[str],
    tls: ServerTls | None,
) -> Path:
    """
    Write all of it into `directory` and return the path of postgresql.conf.

    That directory is ours and not the data directory: there the server's user could put a link in root's way.
    """
    conf, hba_file = directory / "postgresql.conf", directory / "pg_hba.conf"
    everything = {"hba_file": str(hba_file), **_tls_settings(directory, account, tls), **settings}
    _write(hba_file, hba)
    _write(conf, [f"{name} = {_quoted(value)}" for name, value in everything.items()])
    return conf


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o644)


def _tls_settings(directory: Path, account: Account | None, tls: ServerTls | None) -> dict[str, Setting]:
    """Copy the TLS files; a key must be readable for its owner alone (PostgreSQL manual, 18.9)."""
    if tls is None:
        return {}
    settings: dict[str, Setting] = {"ssl": True}
    for name, source in {"ssl_cert_file": tls.certificate, "ssl_key_file": tls.key}.items():
        target = directory / f"{name}.pem"
        target.unlink(missing_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes())
        if account is not None:
            os.chown(target, account.uid, account.gid)
        settings[name] = str(target)
    return settings


def _quoted(value: Setting) -> str:
    """Write a value as postgresql.conf takes it (PostgreSQL manual, 19.1.2)."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"
