# Copyright the cisdriver authors. Apache-2.0.
"""rsyslog: the modes its files get, whether it sends to another host, and that it takes nothing in from one.

``$FileCreateMode`` holds for the legacy rules after it, in whatever file; a RainerScript action takes its own
``fileCreateMode`` or that of the module, 0644 by default (both tried with rsyslog 8.2302).
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, reread
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe.rsyslog_config import (
    MAIN,
    Statement,
    statements,
)

UNIT = "rsyslog.service"
DEFAULT_MODE = "0644"
#: Modules that take in messages from the network, and how their legacy directives begin.
INPUTS = ("imtcp", "imptcp", "imudp", "imrelp", "imgssapi", "imdtls", "im3195")
_LISTENING = re.compile(r"\$(InputTCPServer|InputPTCPServer|UDPServer|InputRELPServer|InputGSSServer|Input3195)", re.I)
_REMOTE = re.compile(r"@@?(\([^)]*\))?(\[[^\]]+\]|[A-Za-z0-9_.-]+)")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` holds some of ``file_mode`` (the most), ``remote: true``, ``remote_input: false``, ``rules: true``."""
    if node.read(MAIN) is None:
        missing = [core.evidence(MAIN, "a configuration of rsyslog", "no such file", False)]
        passed = [core.evidence(MAIN, "no input from the network", "no such file", True)]
        return core.verdict(passed if set(spec) == {"remote_input"} else missing)
    read = list(statements(node))
    items: List[core.Evidence] = []
    for name, look in LOOKS.items():
        if name in spec:
            items += look(read, spec[name])
    if "rules" not in spec:
        sources = {MAIN, *(one.source.rpartition(":")[0] for one in read)}
        items += reread.since_change(node, UNIT, sorted(sources))
    return core.verdict(items)


def _file_modes(read: Sequence[Statement], most: str) -> List[core.Evidence]:
    """Each setting of a mode, and each file that is written under none."""
    items: List[core.Evidence] = []
    legacy: Optional[str] = None
    module: Optional[str] = None
    for one in read:
        if one.name == "$filecreatemode":
            legacy = one.target
            items.append(_mode("$FileCreateMode", legacy, most, one.source))
        elif one.name == "$resetconfigvariables":
            legacy = None
        elif one.name == "module" and _loads(one, ("omfile",)):
            module = one.parameters.get("filecreatemode", module)
            items += [_mode("fileCreateMode of omfile", module, most, one.source)] if module else []
        elif one.name == "action" and one.parameters.get("type", "").endswith("omfile"):
            file = one.parameters.get("file") or one.parameters.get("dynafile") or "?"
            mode = one.parameters.get("filecreatemode") or module or f"{DEFAULT_MODE} by default"
            items.append(_mode(f"mode of {file}", mode, most, one.source))
        elif legacy is None and one.name == "" and _file(one):
            items.append(_mode(f"mode of {_file(one)}", f"{DEFAULT_MODE} by default", most, one.source))
    if not any(item["object"].lower().lstrip("$").startswith("filecreatemode") for item in items):
        items.insert(0, core.evidence("$FileCreateMode", f"{most} or stricter", None, False, MAIN))
    return items


def _mode(object_: str, mode: str, most: str, source: str) -> core.Evidence:
    bits = re.match(r"[0-7]+", mode)
    ok = bits is not None and not int(bits[0], 8) & ~int(most, 8)
    return core.evidence(object_, f"{most} or stricter", mode, ok, source)


def _file(one: Statement) -> str:
    """The file, or the template of file names, that a legacy rule writes to."""
    found = re.fullmatch(r"-?([/?][^;]+)(;.*)?", one.target)
    return found[1] if found else ""


def _loads(one: Statement, names: Sequence[str]) -> str:
    """The module of ``names`` that a statement loads or uses, if it does."""
    loaded = one.parameters.get("load") or one.parameters.get("type") or ""
    if one.name == "$modload":
        loaded = one.target
    loaded = re.sub(r"(.*[/:]|\.so$)", "", loaded).lower()
    return loaded if loaded in names else ""


def _remote(read: Sequence[Statement], _wanted: bool) -> List[core.Evidence]:
    hosts: List[Tuple[str, str]] = []
    for one in read:
        target = one.parameters.get("target", "")
        if one.name == "action" and one.parameters.get("type") in ("omfwd", "omrelp") and target:
            hosts.append((target, one.source))
        found = _REMOTE.match(one.target) if one.name == "" else None
        if found:
            hosts.append((one.target, one.source))
    expected = "a host that logs are sent to"
    if hosts:
        return [core.evidence("remote log host", expected, host, True, source) for host, source in hosts]
    way_out = "none; name one in cis_values, or send the logs by an agent and waive the rule"
    return [core.evidence("remote log host", expected, way_out, False, MAIN)]


def _remote_input(read: Sequence[Statement], _wanted: bool) -> List[core.Evidence]:
    listening = [
        one
        for one in read
        if _LISTENING.match(one.name) or (one.name in ("module", "input", "$modload") and _loads(one, INPUTS))
    ]
    items = [core.evidence("input from the network", "none", one.text, False, one.source) for one in listening]
    return items or [core.evidence("input from the network", "none", "none", True)]


def _rules(read: Sequence[Statement], _wanted: bool) -> List[core.Evidence]:
    """For a person to decide: what goes where. Nothing of it is wrong by itself."""
    rules = [one for one in read if one.name in ("", "action")]
    texts = [(f"{one.selector} {one.text}".strip(), one.source) for one in rules]
    return [core.evidence("rule", "as the site wants it", text, True, source) for text, source in texts]


LOOKS: Dict[str, Callable[[Sequence[Statement], Any], List[core.Evidence]]] = {
    "file_mode": _file_modes,
    "remote": _remote,
    "remote_input": _remote_input,
    "rules": _rules,
}
