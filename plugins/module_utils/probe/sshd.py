# Copyright the cisdriver authors. Apache-2.0.
"""sshd: the value ``sshd -T`` arrives at, and lines anywhere in its files that say otherwise.

sshd takes the first value of a keyword, reads ``Include`` where it stands, and lets a ``Match`` block override
for some connections (``man 5 sshd_config``). Options on the command line of sshd.service beat every file, so
``sshd -T`` is asked with them. A value that no line states does not count, as CIS's own kit has it.

Two names in a spec are no keywords: ``access_lists`` counts those of ACCESS_LISTS that are not empty, and
``crypto_policy: inherited`` means that ``/etc/sysconfig/sshd`` does not opt out of the system's policy.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import shutil
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

MAIN = "/etc/ssh/sshd_config"
ENVIRONMENT = "/etc/sysconfig/sshd"
ACCESS_LISTS = ("allowusers", "allowgroups", "denyusers", "denygroups")
_MAX_DEPTH = 16
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIMES = ("logingracetime", "clientaliveinterval")


class Line(NamedTuple):
    """One keyword of one file, keyword in lower case; ``match`` is the Match line it stands under."""

    keyword: str
    value: str
    source: str
    match: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a keyword, in any case, to a predicate."""
    items: List[core.Evidence] = []
    lines = list(_lines(node, MAIN))
    for name, predicate in spec.items():
        if name == "crypto_policy":
            items += _crypto_policy(node)
        elif name == "access_lists":
            items.append(_access_lists(effective(node)))
        else:
            items += _keyword(name, predicate, effective(node), lines)
    return core.verdict(items)


def _keyword(
    name: str, predicate: Any, effective: Mapping[str, List[str]], lines: List[Line]
) -> Iterator[core.Evidence]:
    keyword = name.lower()
    wanted = _folded(predicate)
    value = " ".join(effective.get(keyword, ())) or None
    source = next((line.source for line in lines if line.keyword == keyword and _seconds(*line[:2]) == value), None)
    yield core.evidence(f"{name} (sshd -T)", predicate, value, core.holds(wanted, value), source)
    if core.holds(wanted, value) and not any(line.keyword == keyword and not line.match for line in lines):
        expected = f"{name} {value}, stated: a default is the package's to change"
        yield core.evidence(f"{name} (line)", expected, None, False, MAIN)
    for line in lines:
        if line.keyword == keyword and not core.holds(wanted, _seconds(keyword, line.value)):
            under = f"{name} (under {line.match})" if line.match else f"{name} (line)"
            yield core.evidence(under, predicate, line.value, False, line.source)


def _access_lists(effective: Mapping[str, List[str]]) -> core.Evidence:
    found = [f"{name} {' '.join(effective[name])}" for name in ACCESS_LISTS if effective.get(name)]
    expected = (
        "AllowUsers, AllowGroups, DenyUsers or DenyGroups, which is the site's decision:"
        " set cis_values: {sshd_access_limited: {AllowGroups: [...]}}"
    )
    return core.evidence("who may log in (sshd -T)", expected, "; ".join(found) or None, bool(found))


def _crypto_policy(node: core.Node) -> Iterator[core.Evidence]:
    expected = "no CRYPTO_POLICY line"
    found = [(number, line) for number, line in node.lines(ENVIRONMENT) if re.match(r"(?i)CRYPTO_POLICY\s*=", line)]
    for number, line in found:
        yield core.evidence(ENVIRONMENT, expected, line, False, f"{ENVIRONMENT}:{number}")
    if not found:
        yield core.evidence(ENVIRONMENT, expected, "none", True)


def _folded(predicate: Any) -> Mapping[str, Any]:
    """sshd compares words without regard to case."""
    if isinstance(predicate, Mapping):
        return {**predicate, "ignore_case": True}
    return {"in": [predicate], "ignore_case": True}


def _seconds(keyword: str, value: str) -> str:
    """``1m30s`` as 90, the way ``sshd -T`` prints it."""
    parts = re.findall(r"(\d+)([smhdw]?)", value.lower())
    if keyword not in _TIMES or not parts or "".join(number + unit for number, unit in parts) != value.lower():
        return value
    return str(sum(int(number) * _SECONDS[unit or "s"] for number, unit in parts))


def effective(node: core.Node, user: str = "root") -> Dict[str, List[str]]:
    """Keyword to values, as sshd would use them for a user from this machine. Raises ProbeError."""
    asked = ["sshd", "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1", *_service_options(node)]
    done = node.run(*asked)
    if done.rc != 0 and "no hostkeys available" in done.err:
        done = _with_spare_key(node, asked)
    if done.rc != 0:
        raise core.ProbeError(f"{' '.join(asked)}: exit {done.rc}: {done.err.strip() or done.out.strip()}")
    found: Dict[str, List[str]] = {}
    for line in done.out.splitlines():
        keyword, _blank, value = line.partition(" ")
        if value and value != "none":
            found.setdefault(keyword.lower(), []).append(value)
    return found


def _with_spare_key(node: core.Node, asked: List[str]) -> core.Output:
    """An image that has not booted has no host keys; sshd answers all the same when it is lent one."""
    directory = tempfile.mkdtemp(prefix="cisdriver-")
    try:
        key = os.path.join(directory, "key")
        node.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        return node.run(*asked, "-h", key)
    finally:
        shutil.rmtree(directory)


def _service_options(node: core.Node) -> List[str]:
    """``-o`` options that sshd.service runs sshd with, EC2 Instance Connect's for one."""
    done = node.run("systemctl", "show", "sshd.service", "--property=ExecStart", "--value")
    command = re.search(r"argv\[\]=(.*?) ;", done.out)
    words = command.group(1).split() if done.rc == 0 and command else []
    for _number, line in node.lines(ENVIRONMENT):
        if line.startswith("OPTIONS="):
            words += [word for value in _words(line.partition("=")[2]) for word in _words(value)]
    return _given(words)


def _given(words: List[str]) -> List[str]:
    """The ``-o`` options among words. systemctl shows no quotes: a value goes on until the next option begins."""
    options: List[List[str]] = []
    within = False
    for word in words:
        if word.startswith("-o"):
            options.append([word[2:]] if len(word) > 2 else [])
            within = True
        elif word.startswith(("-", "$")):
            within = False
        elif within:
            options[-1].append(word)
    return [part for value in options if value for part in ("-o", " ".join(value))]


def _words(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _lines(node: core.Node, path: str, match: str = "", depth: int = 0) -> Iterator[Line]:
    """Lines in the order in which sshd reads them; a Match ends with its file, or with ``Match all``."""
    inherited = match
    if depth > _MAX_DEPTH:
        raise core.ProbeError(f"{path}: included more than {_MAX_DEPTH} files deep")
    for number, text in node.lines(path):
        keyword, value = _split(text)
        if keyword == "match":
            match = inherited if value.lower() == "all" else f"Match {value}"
        elif keyword == "include":
            for pattern in value.split():
                whole = posixpath.join("/etc/ssh", pattern.strip('"'))
                for included in node.glob(whole):
                    yield from _lines(node, included, match, depth + 1)
        else:
            yield Line(keyword, value, f"{path}:{number}", match)


def _split(text: str) -> Tuple[str, str]:
    """Keyword and value of a line: blanks or one ``=`` between them, quotes around the value."""
    found: Optional[Any] = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+)?(.*)", text)
    if not found:
        return text, ""
    value = re.sub(r"\s+#.*$", "", found.group(2)).strip()
    return found.group(1).lower(), value.strip('"')
