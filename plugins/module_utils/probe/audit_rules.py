# Copyright the cisdriver authors. Apache-2.0.
"""What the audit system records: rules on disk, as augenrules would merge them, and in the kernel.

A spec holds some of:

``rules``              items with ``watch`` or ``sudo_log`` and ``perm``; with ``path`` and ``fields``; with ``arch``,
                       ``syscalls``, ``fields``, ``compare``. Any key will do. A wider rule will do, too.
``privileged``         ``fields`` of a rule for every setuid and setgid program of the host
``links``              ``from``, programs that have to be links ``to`` another, where they are there
``immutable``          the kernel takes no change until it boots again
``running_as_on_disk`` the kernel's rules are those on disk

A rule that is there and hidden, because one before it or ``never,task`` or an exclusion takes its events away, does
not count. Where the kernel's audit is not this machine's the files alone are judged, and the evidence says so.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import audit_lines, core, scan, sudo

_TABLES = {"x86_64": {"b64": "x86_64", "b32": "i386"}, "aarch64": {"b64": "aarch64", "b32": "arm"}}
#: What people do, for whom nearly all rules are there: a rule that takes all of this away hides them.
_PEOPLE = (audit_lines.Field("auid", ">=", "1000"), audit_lines.Field("auid", "!=", "-1"))
#: Record types without which an event tells nothing (linux/audit.h).
_RECORDS = {"SYSCALL": 1300, "PATH": 1302}


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` as above."""
    disk = audit_lines.load(node, audit_lines.merged(node))
    live = running(node)
    items: List[core.Evidence] = []
    wanted = _wanted(node, spec)
    if wanted:
        items += _switched_on(disk, live)
        for place, state in (("on disk", disk), ("in the kernel", live)):
            if isinstance(state, audit_lines.State):
                items += [_recorded(rule, state, place) for rule in wanted]
    items += _links(node, spec["links"]) if "links" in spec else []
    items += _immutable(disk, live) if spec.get("immutable") else []
    items += _same(node, disk, live) if spec.get("running_as_on_disk") else []
    if isinstance(live, str):
        items.append(core.evidence("rules in the kernel", "looked at where they are this machine's", live, True))
    if "privileged" in spec and not wanted:
        items.append(
            core.evidence("setuid and setgid programs", "each audited", "none on the host's file systems", True)
        )
    return core.verdict(items)


def running(node: core.Node) -> Union[audit_lines.State, str]:
    """The kernel's rules, or why they are not to be looked at. Raises ProbeError when they should be and cannot."""
    if not node.exists("/run/systemd/system"):
        return "not looked at: no service manager runs here, so this kernel is somebody else's"
    status = node.run("auditctl", "-s")
    enabled = re.search(r"(?m)^enabled (\d)", status.out)
    if not enabled:
        if node.in_container():
            return "not looked at: in a container the kernel's audit is the host's"
        raise core.ProbeError(f"auditctl -s: no state: {status.err.strip() or status.out.strip() or status.rc}")
    lines = [(line, "auditctl -l") for line in node.must("auditctl", "-l").splitlines() if line.startswith("-")]
    rules = [rule for rule in (audit_lines.parse(node, *line) for line in lines) if rule]
    return audit_lines.State(rules, enabled.group(1), "auditctl -s", "")


def _wanted(node: core.Node, spec: Mapping[str, Any]) -> List[audit_lines.Rule]:
    """A rule per line, arch and path that the spec asks for."""
    texts: List[str] = []
    for item in spec.get("rules", ()):
        texts += _texts(node, item)
    if "privileged" in spec:
        fields = " ".join(f"-F {field}" for field in spec["privileged"]["fields"])
        model = audit_lines.parse(node, f"-a always,exit -F path=? {fields}", "")
        return [_of_path(model, path) for path in scan.privileged(node)] if model else []
    return [rule for rule in (audit_lines.parse(node, text, "") for text in texts) if rule]


def _of_path(rule: audit_lines.Rule, path: str) -> audit_lines.Rule:
    """The rule with a path in it that a line could not hold, a name with a blank."""
    place = audit_lines.Field("path", "=", audit_lines.canonical(path))
    fields = (place, *(field for field in rule.fields if field.name != "path"))
    return rule._replace(fields=fields, text=rule.text.replace("path=?", f"path={path}", 1))


def _texts(node: core.Node, item: Mapping[str, Any]) -> Iterator[str]:
    if "watch" in item or "sudo_log" in item:
        yield f"-w {item['watch'] if 'watch' in item else _sudo_log(node) or item['sudo_log']} -p {item['perm']}"
        return
    fields = "".join(f" -F {field}" for field in item.get("fields", ()))
    if "path" in item:
        yield f"-a always,exit -F path={item['path']}{fields}"
        return
    compare = f" -C {item['compare']}" if "compare" in item else ""
    for arch in item["arch"]:
        names = _known(node, arch, item["syscalls"])
        if names:
            yield f"-a always,exit -F arch={arch} -S {','.join(names)}{compare}{fields}"


def _known(node: core.Node, arch: str, names: Sequence[str]) -> List[str]:
    """System calls that a kernel of this kind has; all of them where nothing can say."""
    table = _TABLES.get(node.run("uname", "-m").out.strip(), {}).get(arch)
    listed = node.run("ausyscall", table, "--dump") if table else core.Output(1, "", "")
    known = {line.split()[-1] for line in listed.out.splitlines()[1:] if line.strip()} if listed.rc == 0 else set(names)
    return [name for name in names if name in known]


def _sudo_log(node: core.Node) -> str:
    last = [item for item in sudo.every_default(node) if item.name == "logfile" and not item.scope and item.value]
    return str(last[-1].value) if last else ""


def _recorded(wanted: audit_lines.Rule, state: audit_lines.State, place: str) -> core.Evidence:
    """Whether every system call of a rule is recorded, by one rule or by several."""
    name = f"{wanted.text} {place}"
    source = None
    for call in sorted(wanted.calls) if wanted.calls else [None]:
        atom = wanted._replace(calls=frozenset([call])) if call else wanted
        found, hidden_by = _first(atom, state.rules)
        of = f" for {call}" if call and len(wanted.calls or ()) > 1 else ""
        if hidden_by:
            return core.evidence(name, "recorded", f"hidden{of} by {hidden_by.text}", False, hidden_by.source)
        if found is None:
            stopped = f"; a load stops before it: {state.stopped}" if state.stopped else ""
            return core.evidence(name, "present", f"absent{of}{stopped}", False, _where(place))
        if not found.key:
            return core.evidence(name, "a key", f"none{of}", False, found.source)
        source = found.source
    return core.evidence(name, "present", "present", True, source)


def _where(place: str) -> str:
    return f"{audit_lines.RULES}/*.rules" if place == "on disk" else "auditctl -l"


def _first(
    atom: audit_lines.Rule, rules: Sequence[audit_lines.Rule]
) -> Tuple[Optional[audit_lines.Rule], Optional[audit_lines.Rule]]:
    """The rule that records an event, or the one before it that takes it away."""
    of_people = atom._replace(fields=(*atom.fields, *_PEOPLE))
    away: Optional[audit_lines.Rule] = None
    for rule in rules:
        if rule.filter != "exit":
            continue
        if rule.action == "always" and audit_lines.covers(rule, atom):
            return rule, away
        if rule.action == "never" and audit_lines.covers(rule, of_people):
            away = away or rule
    return None, None


def _switched_on(disk: audit_lines.State, live: Union[audit_lines.State, str]) -> Iterator[core.Evidence]:
    """What would take the events of every rule away."""
    for place, state in (("on disk", disk), ("in the kernel", live)):
        if not isinstance(state, audit_lines.State):
            continue
        if state.enabled == "0":
            yield core.evidence(f"auditing {place}", "on", "off: enabled 0", False, state.enabled_source)
        for rule in state.rules:
            if _takes_all(rule):
                yield core.evidence(f"{rule.text} {place}", "absent", "present: hides all events", False, rule.source)


def _takes_all(rule: audit_lines.Rule) -> bool:
    others = [field for field in rule.fields if field.name != "msgtype"]
    if not audit_lines.implied(others, _PEOPLE):
        return False
    if rule.filter == "task":
        return rule.action == "never"
    if rule.filter != "exclude":
        return False
    types = [field for field in rule.fields if field.name == "msgtype"]
    return any(all(_is_type(field, number) for field in types) for number in _RECORDS.values())


def _is_type(field: audit_lines.Field, number: int) -> bool:
    value = _RECORDS.get(field.value, int(field.value) if field.value.isdigit() else -1)
    answers = {"=": number == value, "!=": number != value, ">=": number >= value, ">": number > value}
    return {**answers, "<=": number <= value, "<": number < value}.get(field.operator, False)


def _links(node: core.Node, links: Mapping[str, Any]) -> Iterator[core.Evidence]:
    for path in links["from"]:
        about = node.lstat(path)
        if about is None:
            yield core.evidence(path, f"a link to {links['to']}", "absent", True)
            continue
        target = os.readlink(node.real(path)) if stat.S_ISLNK(about.st_mode) else None
        place = audit_lines.canonical(posixpath.normpath(posixpath.join(posixpath.dirname(path), target or "")))
        ok = target is not None and place == audit_lines.canonical(links["to"])
        yield core.evidence(path, f"a link to {links['to']}", f"a link to {target}" if target else "a file", ok, path)


def _immutable(disk: audit_lines.State, live: Union[audit_lines.State, str]) -> Iterator[core.Evidence]:
    found = f"-e {disk.enabled}" if disk.enabled else None
    where = disk.enabled_source or f"{audit_lines.RULES}/*.rules"
    yield core.evidence("last -e on disk", "-e 2", found, disk.enabled == "2", where)
    if disk.stopped:
        yield core.evidence("a load", "reaches -e 2", f"stops: {disk.stopped}", False)
    if isinstance(live, audit_lines.State):
        yield core.evidence("enabled in the kernel", "2", live.enabled, live.enabled == "2", live.enabled_source)


def _same(node: core.Node, disk: audit_lines.State, live: Union[audit_lines.State, str]) -> Iterator[core.Evidence]:
    checked = node.run("augenrules", "--check")
    answer = (checked.out.strip() or checked.err.strip()).rpartition(": ")[2]
    if checked.rc and not checked.out.strip():
        raise core.ProbeError(f"augenrules --check: exit {checked.rc}: {checked.err.strip()}")
    yield core.evidence("augenrules --check", "No change", answer, answer == "No change", audit_lines.MERGED)
    if disk.stopped:
        yield core.evidence("a load", "reaches the last line", f"stops: {disk.stopped}", False)
    if not isinstance(live, audit_lines.State):
        return
    loaded, written = ({rule.identity for rule in state.rules} for state in (live, disk))
    for rule in disk.rules:
        if rule.identity not in loaded:
            yield core.evidence(rule.text, "in the kernel", "on disk alone", False, rule.source)
    for rule in live.rules:
        if rule.identity not in written:
            yield core.evidence(rule.text, "on disk", "in the kernel alone", False, rule.source)
    yield core.evidence("rules in the kernel", f"{len(disk.rules)}, as on disk", f"{len(live.rules)}", True)
