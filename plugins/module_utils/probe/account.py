# Copyright the cisdriver authors. Apache-2.0.
"""Accounts: what /etc/passwd, /etc/shadow and /etc/group say of them, root's PATH, and people's homes.

A spec maps the name of a check to what it asks; ``schemas/rule.json`` lists them.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import accounts, core, homes, root_path


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    for name, want in spec.items():
        items += list(_CHECKS[name](node, want))
    return core.verdict(items)


def _today() -> int:
    """Days since 1970 in UTC, as shadow counts them."""
    return int(time.time() // 86400)


def _change_dates(node: core.Node, _want: str) -> Iterator[core.Evidence]:
    with_password = [item for item in accounts.secrets(node) if item.password and not accounts.is_locked(item.password)]
    for item in with_password:
        day = item.changed
        ok = not day.isdigit() or int(day) <= _today()
        found = f"day {day}" if day else "no date"
        yield core.evidence(f"last password change of {item.name}", f"at most day {_today()}", found, ok, item.source)
    if not with_password:
        yield core.evidence("accounts with a password", "changed in the past", "none", True, accounts.SHADOW)


def _system_accounts(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    least = accounts.uid_min(node)
    passwords = accounts.passwords(node)
    of_system = [
        user
        for user in accounts.users(node)
        if user.name != "root" and (user.uid < least or user.uid == accounts.NOBODY)
    ]
    expected = " or ".join(want["shells"])
    for user in of_system:
        if user.name not in want.get("except", ()) and user.shell not in want["shells"]:
            yield core.evidence(f"shell of {user.name} (uid {user.uid})", expected, user.shell, False, user.source)
        if not accounts.is_locked(passwords[user.name]):
            found = "a password" if passwords[user.name] else "no password at all"
            yield core.evidence(f"password of {user.name} (uid {user.uid})", "locked", found, False, user.source)
    yield core.evidence("system accounts", f"looked at, below uid {least}", len(of_system), True, accounts.PASSWD)


def _root_gid(node: core.Node, want: int) -> Iterator[core.Evidence]:
    root = [user for user in accounts.users(node) if user.name == "root"]
    if not root:
        yield core.evidence("root", "an account", None, False, accounts.PASSWD)
    for user in root:
        yield core.evidence("group of root", want, user.gid, user.gid == want, user.source)


def _root_password(node: core.Node, want: str) -> Iterator[core.Evidence]:
    password = accounts.passwords(node).get("root", "")
    state = "locked" if accounts.is_locked(password) else "set" if password else "empty"
    yield core.evidence("password of root", want, state, state == want, accounts.SHADOW)


def _shadowed(node: core.Node, _want: bool) -> Iterator[core.Evidence]:
    yield from accounts.odd_users(node)
    for user in accounts.users(node):
        if user.password != "x":
            found = "a password" if user.password else "empty"
            yield core.evidence(f"password field of {user.name}", "x", found, False, user.source)
    yield core.evidence("password fields", "x", "looked at", True, accounts.PASSWD)


def _password_not_empty(node: core.Node, _want: bool) -> Iterator[core.Evidence]:
    yield from accounts.odd_secrets(node)
    for item in accounts.secrets(node):
        if not item.password:
            yield core.evidence(f"password of {item.name}", "not empty", "empty", False, item.source)
    yield core.evidence("passwords", "not empty", "looked at", True, accounts.SHADOW)


def _groups_exist(node: core.Node, _want: bool) -> Iterator[core.Evidence]:
    known = {group.gid for group in accounts.groups(node)}
    for user in accounts.users(node):
        if user.gid not in known:
            yield core.evidence(f"group {user.gid} of {user.name}", "a line in /etc/group", None, False, user.source)
    yield core.evidence("groups of users", "known", "looked at", True, accounts.PASSWD)


def _unique(node: core.Node, want: str) -> Iterator[core.Evidence]:
    of_users = want in ("uid", "user")
    # no number to compare: such a line could hide a second one
    yield from accounts.odd_groups(node) if not of_users else ()
    if of_users:
        pairs = [
            (str(user.uid) if want == "uid" else user.name, user.name, user.source) for user in accounts.users(node)
        ]
    else:
        pairs = [
            (str(each.gid) if want == "gid" else each.name, each.name, each.source) for each in accounts.groups(node)
        ]
    yield from _duplicates(want, pairs)
    yield core.evidence(f"every {want}", "once", "looked at", True, accounts.PASSWD if of_users else accounts.GROUP)


def _duplicates(what: str, pairs: Iterable[Tuple[str, str, str]]) -> Iterator[core.Evidence]:
    holders: Dict[str, List[Tuple[str, str]]] = {}
    for key, name, source in pairs:
        holders.setdefault(key, []).append((name, source))
    for key, found in holders.items():
        if len(found) > 1:
            places = ", ".join(f"{name} ({source})" for name, source in found)
            yield core.evidence(f"{what} {key}", "once", places, False, found[1][1])


def _uid_zero(node: core.Node, want: Sequence[str]) -> Iterator[core.Evidence]:
    for user in accounts.users(node):
        if user.uid == 0:
            yield core.evidence("account with uid 0", " or ".join(want), user.name, user.name in want, user.source)


_CHECKS: Dict[str, Callable[[core.Node, Any], Iterable[core.Evidence]]] = {
    "change_dates": _change_dates,
    "dot_files": homes.dot_files,
    "groups_exist": _groups_exist,
    "homes": homes.directories,
    "password_not_empty": _password_not_empty,
    "root_gid": _root_gid,
    "root_password": _root_password,
    "root_path": root_path.check,
    "shadowed": _shadowed,
    "system_accounts": _system_accounts,
    "uid_zero": _uid_zero,
    "unique": _unique,
}
