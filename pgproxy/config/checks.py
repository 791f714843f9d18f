"""Checks what no option can by itself: options against each other, and the files that they name."""

from __future__ import annotations

from importlib.util import find_spec

from pgproxy.config.aws import check_aws
from pgproxy.config.discovery import Discovery
from pgproxy.config.files import check_authorities, check_pair, check_text
from pgproxy.config.http import Http
from pgproxy.config.kinds import HostPattern, Urls
from pgproxy.config.model import Config
from pgproxy.config.narrower import Database, User
from pgproxy.config.problems import Report, dotted
from pgproxy.config.proxy import Proxy
from pgproxy.config.target import Target

_TABLES = ("targets", "databases", "users")


def check(config: Config, report: Report) -> None:
    """Report all that is wrong with a configuration as a whole."""
    _check_auth(config, report)
    _check_client_tls(config.proxy, report)
    for name, target in config.targets.items():
        _check_target(dotted("targets", name), target, report)
        _check_budget(dotted("targets", name), target, report)
        if target.discovery is not None:
            _check_discovery(dotted("targets", name, "discovery"), target.discovery, report)
    _check_databases(config, report)
    _check_minimums(config, report)
    _check_http(config.http, report)
    check_aws(config, report)


def _check_auth(config: Config, report: Report) -> None:
    proxy, aws = config.proxy, config.aws
    if proxy.auth == "trust" and not proxy.allow_remote_trust:
        open_to_others = [
            address for address in (*proxy.listen, *proxy.listen_read_only) if not address.is_loopback
        ]
        if open_to_others:
            report.add(
                "proxy.auth",
                f'"trust" lets everybody in who reaches {", ".join(map(str, open_to_others))}, '
                "as any user and without a password",
                "listen on a loopback address such as 127.0.0.1, take another method, "
                f"or set {report.name('proxy.allow_remote_trust')} if that is what you want",
            )
    if proxy.users_file is not None:
        check_text("proxy.users_file", proxy.users_file, report)
    elif proxy.auth in ("md5", "scram-sha-256") and proxy.auth_query is None:
        if aws is not None and (aws.secrets or aws.iam.client_users):
            return
        report.add(
            "proxy.users_file",
            f'is missing, and {report.name("proxy.auth")} "{proxy.auth}" needs the secrets of the users',
            f"give a users file (`pgproxy passwd FILE USER` makes one){_or_else(report)}",
        )


def _check_http(http: Http, report: Report) -> None:
    if http.token_file is not None:
        check_text("http.token_file", http.token_file, report)
        return
    open_to_others = [address for address in http.listen if not address.is_loopback]
    if open_to_others:
        report.add(
            "http.token_file",
            f"is missing, and everybody may read what is served on {', '.join(map(str, open_to_others))}",
            "listen on a loopback address such as 127.0.0.1, or give a file with a token",
        )


def _or_else(report: Report) -> str:
    """Name the other way to have secrets, where this source knows it."""
    return ", or [proxy.auth_query], or secrets in [aws]" if report.source else ""


def _check_client_tls(proxy: Proxy, report: Report) -> None:
    tls = proxy.tls
    wants_certificates = proxy.auth == "cert" or tls.client_certificate == "require"
    if wants_certificates and tls.mode != "require":
        why = 'proxy.auth "cert"' if proxy.auth == "cert" else 'proxy.tls.client_certificate "require"'
        report.add(
            "proxy.tls.mode",
            f'is "{tls.mode}", but without TLS a client has no certificate to show, and {why} asks for one',
            'set it to "require"',
        )
    if tls.mode == "off":
        return
    if tls.certificate is None or tls.key is None:
        for name in ("certificate", "key"):
            if getattr(tls, name) is None:
                report.add(f"proxy.tls.{name}", "is missing", f'proxy.tls.mode "{tls.mode}" needs it')
    else:
        check_pair("proxy.tls", tls.certificate, tls.key, report)
    if tls.client_ca is not None:
        check_authorities("proxy.tls.client_ca", tls.client_ca, report)
    elif wants_certificates:
        report.add("proxy.tls.client_ca", "is missing", "clients' certificates are checked against it")


def _check_target(path: str, target: Target, report: Report) -> None:
    if target.tls == "disable":
        return
    if target.ca is not None:
        check_authorities(f"{path}.ca", target.ca, report)
    elif target.tls in ("verify-ca", "verify-full"):
        report.add(f"{path}.ca", "is missing", f'{path}.tls "{target.tls}" checks certificates against it')
    match target.certificate, target.key:
        case None, None:
            pass
        case certificate, None:
            report.add(f"{path}.key", "is missing", f"{path}.certificate needs its private key")
        case None, key:
            report.add(f"{path}.certificate", "is missing", f"{path}.key is of no use alone")
        case certificate, key:
            check_pair(path, certificate, key, report)


def _check_discovery(path: str, discovery: Discovery, report: Report) -> None:
    kind = discovery.kind
    for name in discovery.foreign:
        report.add(
            f"{path}.{name}",
            f'does not belong to kind "{kind}"',
            f"that has kind, timeout, {', '.join(Discovery.OWN[kind])}",
        )
    if kind == "aurora" and discovery.host_pattern is None:
        report.add(f"{path}.host_pattern", "is missing", f"it takes {HostPattern().words}")
    if kind == "patroni":
        if not discovery.urls:
            report.add(f"{path}.urls", "is missing", f"it takes {Urls().words}")
        if discovery.ca is not None:
            check_authorities(f"{path}.ca", discovery.ca, report)
    if kind == "rds":
        if discovery.cluster and discovery.instance:
            report.add(
                f"{path}.instance", "is set, and cluster, too", "take the one or the other; a cluster has all"
            )
        elif not (discovery.cluster or discovery.instance):
            report.add(f"{path}.cluster", "is missing, and instance, too", "give one of them")
        if find_spec("boto3") is None:
            report.add(f"{path}.kind", '"rds" needs boto3', "pip install 'pgproxy[aws]'")


def _check_databases(config: Config, report: Report) -> None:
    targets = config.targets
    if not targets:
        report.add(
            "targets",
            "there is none",
            'add a table [targets.main] with, for example, server = "127.0.0.1:5432"',
        )
        return
    names = ", ".join(targets)
    if len(targets) > 1 and not config.databases:
        report.add(
            "databases",
            f"is missing, and there is more than one target ({names})",
            "add tables [databases.NAME] that name their target",
        )
    for name, database in config.databases.items():
        path = dotted("databases", name, "target")
        if not database.target and len(targets) > 1:
            report.add(path, "is missing, and there is more than one target", f"take one of {names}")
        elif database.target and database.target not in targets:
            report.add(path, f'there is no target "{database.target}"', f"take one of {names}")


def _check_budget(path: str, target: Target, report: Report) -> None:
    idle, most = target.max_idle_connections_percent, target.max_connections_percent
    if idle is not None and idle > most:
        report.add(
            f"{path}.max_idle_connections_percent",
            f"is {idle}, more than max_connections_percent, which is {most}",
            f"set it to {most} at most",
        )


def _check_minimums(config: Config, report: Report) -> None:
    tables: list[tuple[str, Database | User]] = [
        *((dotted("databases", name), database) for name, database in config.databases.items()),
        *((dotted("users", name), user) for name, user in config.users.items()),
    ]
    for path, table in tables:
        most, least = table.max_server_connections, table.min_server_connections
        if 0 < most < least:
            report.add(
                f"{path}.min_server_connections",
                f"is {least}, more than max_server_connections, which is {most}",
                f"set it to {most} at most",
            )
