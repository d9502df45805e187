# Copyright the cisdriver authors. Apache-2.0.
"""AIDE: what its configuration watches, whether it is run regularly, and whether it has something to compare with.

Of several lines that select one path AIDE takes the first, and a line with ``!`` beats them all (aide.conf(5)). It
follows no links: where /sbin is one, a line for /sbin/auditctl watches nothing. Units of /etc beat those of /usr/lib.
"""

from __future__ import annotations

import posixpath
import re
import stat
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, service

CONF = "/etc/aide.conf"
_UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_CRON = ("/etc/crontab", "/etc/cron.d/*", "/etc/cron.hourly/*", "/etc/cron.daily/*", "/etc/cron.weekly/*")
_CHECKS = re.compile(r"\baide\b.*(\s--check\b|\s-C\b)")
#: Less often than every week is not regular.
_SELDOM = re.compile(r"(monthly|quarterly|semiannually|yearly|annually)", re.IGNORECASE)
#: Groups that AIDE knows without a definition.
_GROUPS = {
    "L": "p+ftype+i+l+n+u+g+X",
    "R": "p+ftype+i+l+n+u+g+s+m+c+md5+X",
    "X": "acl+selinux+xattrs+e2fsattrs+caps",
    "H": "md5+sha1+sha256+sha512+rmd160+tiger+crc32+haval+whirlpool+gost+stribog256+stribog512",
    "E": "",
}


class Line(NamedTuple):
    """A rule line: ``mark`` is ! or =, or nothing."""

    mark: str
    regex: str
    attributes: str
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    if "select" in spec:
        items += _selections(node, spec["select"])
    if spec.get("scheduled"):
        items += _schedule(node)
    return core.verdict(items)


def check_database(node: core.Node, _spec: Mapping[str, Any]) -> core.Finding:
    """The database that the configuration names is there."""
    if node.read(CONF) is None:
        return core.verdict([core.evidence(CONF, "present", None, False)])
    defined: Dict[str, str] = {}
    url, source = None, CONF
    for where, line in _lines(node, CONF):
        words = line.split(None, 2)
        if words[0] == "@@define" and len(words) == 3:
            defined[words[1]] = words[2]
        match = re.match(r"database(?:_in)?\s*=\s*(\S+)", line)
        if match:
            url, source = re.sub(r"@@\{(\w+)\}", lambda name: defined.get(name[1], ""), match[1]), where
    if url is None or not url.startswith("file:"):
        return core.verdict([core.evidence("database_in", "a file", url, False, source)])
    path = "/" + url[len("file:") :].lstrip("/")
    about = node.lstat(path)
    ok = about is not None and stat.S_ISREG(about.st_mode) and about.st_size > 0
    return core.verdict([core.evidence(path, "a database", "present" if ok else "absent or empty", ok, source)])


def _lines(node: core.Node, path: str, depth: int = 0) -> Iterator[Tuple[str, str]]:
    """``(file:line, text)`` of the configuration, with what it includes in its place."""
    for number, line in node.lines(path):
        words = line.split()
        if words[0] == "@@include" and len(words) > 1 and depth < 4:
            inner = [words[1]]
            if len(words) > 2:  # a directory, and which of its files
                inner = [name for name in node.glob(f"{words[1]}/*") if re.search(words[2], posixpath.basename(name))]
            for each in inner:
                yield from _lines(node, each, depth + 1)
        else:
            yield f"{path}:{number}", line


def _selections(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    groups = dict(_GROUPS)
    rules: List[Line] = []
    for source, line in _lines(node, CONF):
        match = re.match(r"([!=]?)(/\S*)\s*(\S*)", line)
        if match:
            rules.append(Line(match[1], match[2], match[3], source))
        elif "=" in line:
            name, _equals, value = line.partition("=")
            groups[name.strip()] = value.replace(" ", "")
    for path in want["paths"]:
        yield _selection(path, want["attributes"], rules, groups)


def _selection(path: str, attributes: List[str], rules: List[Line], groups: Mapping[str, str]) -> core.Evidence:
    expected = "watched for " + ", ".join(attributes)
    left_out = next((line for line in rules if line.mark == "!" and _matches(line.regex, path)), None)
    if left_out:
        return core.evidence(path, expected, "left out", False, left_out.source)
    line = next((line for line in rules if line.mark != "!" and line.regex.rstrip("$") == path), None)
    if line is None:
        return core.evidence(path, expected, "no line of its own", False, CONF)
    missing = [name for name in attributes if name not in _expanded(line.attributes, groups)]
    found = f"{line.attributes}, which lacks {', '.join(missing)}" if missing else line.attributes
    return core.evidence(path, expected, found, not missing, line.source)


def _matches(regex: str, path: str) -> bool:
    try:
        return re.match(regex, path) is not None
    except re.error:  # AIDE's expressions are PCRE's; what Python cannot read names no plain path
        return False


def _expanded(text: str, groups: Mapping[str, str], depth: int = 0) -> Set[str]:
    """Single attributes of ``p+i+GROUP-sha1``."""
    found: Set[str] = set()
    for sign, name in re.findall(r"([+-]?)([^+-]+)", text):
        inner = _expanded(groups[name], groups, depth + 1) if name in groups and depth < 10 else {name}
        found = found - inner if sign == "-" else found | inner
    return found


def _schedule(node: core.Node) -> List[core.Evidence]:
    """A timer or a crontab that has AIDE check; where there is neither, the timer that is missing."""
    timers = [item for timer in node.merged(_UNITS, ".timer") for item in _timer(node, posixpath.basename(timer))]
    crontabs = list(_crontabs(node))
    for items in (timers, crontabs):
        if items and all(item["ok"] for item in items):
            return items
    return timers or crontabs or [core.evidence("aidecheck.timer", "enabled, runs aide --check", "not-found", False)]


def _timer(node: core.Node, timer: str) -> Iterator[core.Evidence]:
    """Evidence of a timer whose service checks files; none of others."""
    unit = _value(node, timer, "Timer", "Unit") or posixpath.splitext(timer)[0] + ".service"
    command = _value(node, unit, "Service", "ExecStart")
    if not command or not _CHECKS.search(command):
        return
    state = service.enabled_state(node, timer)
    yield core.evidence(f"{timer} (at boot)", "enabled", state, state == "enabled", _file(node, timer))
    if node.exists("/run/systemd/system"):
        running = node.run("systemctl", "is-active", timer).out.strip()
        yield core.evidence(f"{timer} (running)", "active", running, running == "active")
    when = _value(node, timer, "Timer", "OnCalendar") or _value(node, timer, "Timer", "OnUnitActiveSec")
    regular = bool(when) and not _SELDOM.fullmatch(when or "")
    yield core.evidence(f"{timer} (when)", "at least weekly", when, regular, _file(node, timer))
    state = service.enabled_state(node, unit)
    yield core.evidence(f"{unit} (at boot)", "not masked", state, not state.startswith("masked"), _file(node, unit))


def _file(node: core.Node, unit: str) -> Optional[str]:
    return next((f"{place}/{unit}" for place in _UNITS if node.exists(f"{place}/{unit}")), None)


def _value(node: core.Node, unit: str, section: str, key: str) -> Optional[str]:
    """The last value of a key in a unit and its drop-ins; an empty one takes back what stood before."""
    found, current = None, ""
    main = _file(node, unit)
    dropins = node.merged([f"{place}/{unit}.d" for place in _UNITS], ".conf")
    for path in [*([main] if main else []), *dropins]:
        for _number, line in node.lines(path):
            if line.startswith("["):
                current = line.strip("[]")
            name, equals, value = line.partition("=")
            if current == section and equals and name.strip() == key:
                found = value.strip() or None
    return found


def _crontabs(node: core.Node) -> Iterator[core.Evidence]:
    """Lines of cron that run it. Without a daemon none ever does."""
    for path in [name for pattern in (*_CRON, "/var/spool/cron/root") for name in node.glob(pattern)]:
        about = node.lstat(path)
        if about is None or not stat.S_ISREG(about.st_mode):
            continue
        for number, line in node.lines(path):
            if _CHECKS.search(line):
                state = service.enabled_state(node, "crond.service")
                yield core.evidence(line, "crond enabled", state, state == "enabled", f"{path}:{number}")
