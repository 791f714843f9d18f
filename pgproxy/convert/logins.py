"""How clients prove who they are, where the secrets come from, and TLS on the clients' leg."""

from __future__ import annotations

import re
from pathlib import Path

from pgproxy.auth.secrets import PlainPassword, Secret
from pgproxy.auth.users import UsersFileError, parse_users
from pgproxy.config import AuthQuery, Proxy
from pgproxy.config.kinds import Query, Unfit
from pgproxy.convert.draft import Draft
from pgproxy.convert.ini import Entry

_METHODS = {
    "trust": ("trust", ""),
    "any": ("trust", "clients are let in under the name they give; there is no forced user"),
    "plain": ("scram-sha-256", "no passwords in clear: SCRAM was taken"),
    "md5": ("md5", ""),
    "scram-sha-256": ("scram-sha-256", ""),
    "cert": ("cert", ""),
    "pam": (
        "scram-sha-256",
        "there is no PAM: SCRAM was taken, with the secrets of users_file or auth_query",
    ),
    "ldap": (
        "scram-sha-256",
        "there is no LDAP: SCRAM was taken, with the secrets of users_file or auth_query",
    ),
    "peer": ("scram-sha-256", "there is no peer: SCRAM was taken"),
    "password": ("scram-sha-256", "no passwords in clear: SCRAM was taken"),
}
_TLS = {
    "disable": "off",
    "allow": "allow",
    "prefer": "allow",
    "require": "require",
    "verify-ca": "require",
    "verify-full": "require",
}
_MOST_BYTES = 16 * 1024 * 1024
_word = re.compile(r'"(?:[^"]|"")*"|[^\s"]+')


def convert_logins(keys: dict[str, Entry], draft: Draft) -> None:
    """Write the method, the users file, the query, the administrators and TLS."""
    _tls(keys, draft)
    users = _users_file(keys, draft)
    _auth_query(keys, users, draft)
    _method(keys, draft)
    for key in ("admin_users", "stats_users"):
        entry = keys.get(key)
        if entry is not None and entry.value:
            names = list(dict.fromkeys(name.strip() for name in entry.value.split(",") if name.strip()))
            draft.put(draft.proxy, Proxy, key, names, entry)
            if key == "admin_users":
                draft.note(entry, "admin_connections of each target's servers are kept free for them, too")


def _method(keys: dict[str, Entry], draft: Draft) -> None:
    entry = keys.get("auth_type")
    word = entry.value.lower() if entry is not None else "md5"
    if word == "hba":
        word = _hba(keys.get("auth_hba_file"), entry, draft)
    elif "auth_hba_file" in keys and keys["auth_hba_file"].value:
        draft.note(keys["auth_hba_file"], "is only used with auth_type = hba")
    method, note = _METHODS.get(word, ("scram-sha-256", "is none of PgBouncer's methods: SCRAM was taken"))
    if note:
        draft.note(entry, note)
    if method in ("md5", "scram-sha-256") and not {"users_file"} & set(draft.proxy) and not draft.auth_query:
        draft.note(
            entry, "neither a users file nor an auth_query says the secrets; pgproxy needs one of them"
        )
    if method == "cert" and draft.tls.get("mode") != "require":
        draft.note(entry, "cert needs proxy.tls.mode require and client_ca")
    if method == "trust" and not _only_loopback(draft.proxy.get("listen", [])):
        draft.proxy["allow_remote_trust"] = True
        draft.note(entry, "everybody who reaches the address gets in without a password: is that meant?")
    draft.proxy["auth"] = method


def _only_loopback(addresses: list[str]) -> bool:
    return all(one.startswith(("127.", "localhost:", "[::1]")) for one in addresses)


def _hba(file: Entry | None, entry: Entry | None, draft: Draft) -> str:
    """Find one method for the rules of an HBA file, of which pgproxy has no counterpart."""
    draft.note(
        entry,
        "there are no HBA rules: one method holds for all, see proxy.auth; let the firewall, or the "
        "target's own pg_hba.conf, say who may come from where",
    )
    if file is None or not file.value:
        return "scram-sha-256"
    rules = _lines(file, draft)
    methods = set()
    for number, line in rules:
        words = [word.strip('"') for word in _word.findall(line.partition("#")[0])]
        if not words:
            continue
        method = _hba_method(words)
        shown = " ".join(words[:3])[:80]
        if method is None:
            draft.note(file, f"line {number} ({shown} …) is no rule that is known here")
        elif method == "reject":
            draft.note(file, f"line {number} ({shown} …) refuses somebody: nobody is refused here")
        else:
            methods.add(method)
    if methods and methods <= {"trust"}:
        return "trust"
    if "trust" in methods:
        draft.note(file, "some rules say trust: a password is asked for in any case")
    methods -= {"trust"}
    if len(methods) > 1:
        draft.note(file, f"several methods ({', '.join(sorted(methods))}): SCRAM was taken for all")
    return methods.pop() if len(methods) == 1 else "scram-sha-256"


def _hba_method(words: list[str]) -> str | None:
    """Give the method of a rule: behind database, user and, but for local ones, address (and mask)."""
    kind = words[0].lower()
    if kind not in ("local", "host", "hostssl", "hostnossl"):
        return None
    for word in words[3 if kind == "local" else 4 :][:2]:
        if word.lower() in _METHODS or word.lower() == "reject":
            return word.lower()
    return None


def _lines(entry: Entry, draft: Draft) -> list[tuple[int, str]]:
    text = _text(entry, draft)
    return list(enumerate(text.split("\n"), start=1)) if text is not None else []


def _text(entry: Entry, draft: Draft) -> str | None:
    path = Path(entry.value)
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        draft.note(entry, f"{path} cannot be read: {error.strerror or error}")
    except UnicodeDecodeError:
        draft.note(entry, f"{path} is not UTF-8")
    return None


def _users_file(keys: dict[str, Entry], draft: Draft) -> dict[str, Secret] | None:
    """Write where the users file is; give what is in it, None where that is not known."""
    entry = keys.get("auth_file")
    if entry is None or not entry.value:
        return {}
    text = _text(entry, draft)
    draft.proxy["users_file"] = str(Path(entry.value).absolute())
    if text is None:
        return None
    try:
        return parse_users(text, entry.value)
    except UsersFileError as error:
        draft.note(entry, f"pgproxy reads the file more strictly: {error}")
        return None


def _auth_query(keys: dict[str, Entry], users: dict[str, Secret] | None, draft: Draft) -> None:
    user, query = keys.get("auth_user"), keys.get("auth_query")
    if user is None or not user.value:
        if query is not None:
            draft.note(query, "PgBouncer asks nothing without auth_user, and so it was left out")
        return
    if users is not None and not isinstance(users.get(user.value), PlainPassword):
        draft.note(
            user,
            "pgproxy logs in as this user and needs its password in the users file, in plain: pgproxy passwd "
            "--method plain. Without that [proxy.auth_query] would be refused, so it was left out",
        )
        return
    draft.put(draft.auth_query, AuthQuery, "user", user.value, user)
    if query is not None:
        try:
            Query().read(query.value, Path("/"))
        except Unfit as error:
            draft.note(query, f"{error}; the default was taken")
        else:
            draft.auth_query["query"] = query.value
            draft.note(query, "it is prepared with $1 as text: qualify every name in it")
    where = keys.get("auth_dbname")
    if where is not None and where.value:
        draft.put(draft.auth_query, AuthQuery, "database", where.value, where)


def _tls(keys: dict[str, Entry], draft: Draft) -> None:
    entry = keys.get("client_tls_sslmode")
    word = entry.value.lower() if entry is not None else "disable"
    if word not in _TLS:
        draft.note(entry, "is none of the modes; TLS is off")
        word = "disable"
    mode = _TLS[word]
    if mode == "off":
        return
    draft.tls["mode"] = mode
    for key, option in (("cert", "certificate"), ("key", "key"), ("ca", "client_ca")):
        file = keys.get(f"client_tls_{key}_file")
        if file is not None and file.value:
            draft.tls[option] = draft.file(file)
    if word in ("verify-ca", "verify-full"):
        draft.tls["client_certificate"] = "require"
        if word == "verify-full":
            draft.note(entry, "the certificate's name is compared with the user's by auth = \"cert\" only")
