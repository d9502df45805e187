# Copyright the cisdriver authors. Apache-2.0.
"""What shells start with: the time-out and the umask. And what a strict umask must not reach on a node.

Judged twice: as real shells report it (see shells.py), and line by line, for a line that is weaker would come into
force for some user, terminal or shell that was not asked.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, shells, umasks, unit_umask

#: What login shells, interactive ones and csh read, for everyone.
FILES = ("/etc/profile", "/etc/bashrc", "/etc/csh.login", "/etc/csh.cshrc")
DIRECTORY = "/etc/profile.d"
_ASSIGNS = re.compile(r"""(?:^|[\s;&|(])TMOUT=(["']?)([^\s;"'&|)]*)""")
#: Not within a subshell, which asks that way whether it is readonly.
_UNSETS = re.compile(r"(?:^|[\s;&|])unset\s+(?:-v\s+)?(?:\w+\s+)*TMOUT\b")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``tmout`` is a predicate, ``umask`` what counts at least; ``units`` and ``readable`` are what must stay open."""
    items: List[core.Evidence] = []
    if "tmout" in spec:
        items += [*_tmout_shells(node, spec["tmout"]), *_tmout_lines(node, spec["tmout"])]
    if "umask" in spec:
        items += [*_umask_shells(node, spec["umask"]), *_umask_lines(node, spec["umask"])]
    if "units" in spec:
        items += unit_umask.check(node, spec["units"])
    for path in spec.get("readable", ()):
        items.append(_readable(node, path))
    return core.verdict(items)


def _tmout_shells(node: core.Node, predicate: Any) -> Iterator[core.Evidence]:
    """Only an interactive shell ends by TMOUT, but a login shell must have it, too: it hands it on."""
    for user in shells.USERS:
        for shell in ("login shell", "interactive shell"):
            told = shells.ask(node, user, shell, "declare -p TMOUT 2>/dev/null; true")
            found = re.match(r'declare -(\S+) TMOUT="?([^"]*)"?$', told.strip())
            what = f"TMOUT in a {shell} of {user}"
            value = found.group(2) if found else None
            if found is None or not core.holds(predicate, value):
                yield core.evidence(what, predicate, value, False)
                continue
            missing = [word for flag, word in (("r", "readonly"), ("x", "exported")) if flag not in found.group(1)]
            state = f"{value}, not {' and '.join(missing)}" if missing else f"{value}, readonly, exported"
            yield core.evidence(what, f"{core.describe(predicate)}, readonly, exported", state, not missing)


def _tmout_lines(node: core.Node, predicate: Any) -> Iterator[core.Evidence]:
    for source, line in _lines(node):
        for _quote, value in _ASSIGNS.findall(line):
            if "$" not in value and not core.holds(predicate, value):
                yield core.evidence("TMOUT", predicate, value or "empty", False, source)
        if _UNSETS.search(line):
            yield core.evidence("TMOUT", predicate, "unset", False, source)


def _umask_shells(node: core.Node, least: str) -> Iterator[core.Evidence]:
    start = _given_by_pam(node) or "022"
    for user in shells.USERS:
        for shell in shells.SHELLS:
            told = shells.ask(node, user, shell, "umask", umask=start).strip()
            ok = bool(re.fullmatch(r"[0-7]+", told)) and umasks.covers(told, least)
            yield core.evidence(f"umask of a {shell} of {user}", f"{least} or stricter", told, ok)


def _umask_lines(node: core.Node, least: str) -> Iterator[core.Evidence]:
    for source, line in _lines(node):
        for value in umasks.statements(line):
            if not umasks.covers(value, least):
                yield core.evidence("umask", f"{least} or stricter", value, False, source)


def _given_by_pam(node: core.Node) -> Optional[str]:
    """UMASK of login.defs where pam_umask hands it to every session (and does not open it to groups)."""
    for name in ("system-auth", "password-auth"):
        lines = [line for _number, line in node.lines(f"/etc/pam.d/{name}")]
        given = [line for line in lines if re.match(r"-?session\s+\S+\s+pam_umask\.so\b", line)]
        if not given or "usergroups" in given[-1].split():
            return None
    value = None
    for _number, line in node.lines("/etc/login.defs"):
        words = line.split()
        if len(words) > 1 and words[0] == "UMASK" and re.fullmatch(r"[0-7]{1,4}", words[1]):
            value = words[1]
    return value


def _lines(node: core.Node) -> Iterator[Tuple[str, str]]:
    """``(file:line, text)`` of everything these files say, comments taken away."""
    found = [path for end in ("*.sh", "*.csh", "sh.local", "csh.local") for path in node.glob(f"{DIRECTORY}/{end}")]
    for path in [*FILES, *found]:
        for number, line in node.lines(path):
            yield f"{path}:{number}", re.sub(r"(^|\s)#.*", "", line)


def _readable(node: core.Node, top: str) -> core.Evidence:
    """Nothing below it that a umask has shut to others: what the group may do and others may not at all."""
    shut = [path for path, mode in _walk(node, top) if mode & stat.S_IRWXG and not mode & stat.S_IRWXO]
    more = f" and {len(shut) - 1} more" if len(shut) > 1 else ""
    found = f"shut to others: {shut[0]}{more}" if shut else "nothing shut to others"
    return core.evidence(f"files below {top}", "nothing shut to others by a umask", found, not shut)


def _walk(node: core.Node, top: str) -> Iterator[Tuple[str, int]]:
    """Files and directories that set no id, never through a link; what vanishes meanwhile is passed over."""
    pending = [top]
    while pending:
        path = pending.pop()
        about = node.lstat(path)
        if about is None or stat.S_ISLNK(about.st_mode):
            continue
        mode = stat.S_IMODE(about.st_mode)
        if not mode & (stat.S_ISUID | stat.S_ISGID):
            yield path, mode
        if stat.S_ISDIR(about.st_mode):
            try:
                pending += sorted((f"{path}/{name}" for name in os.listdir(node.real(path))), reverse=True)
            except FileNotFoundError:
                continue
