# Copyright the cisdriver authors. Apache-2.0.
"""The umask of services: as the service manager has it loaded, and as their files give it to the next boot.

A unit that is not there needs none. systemd's own default is 0022 (``man 5 systemd.exec``).
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

PLACES = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
DEFAULT = "0022"


def check(node: core.Node, want: Mapping[str, Any]) -> List[core.Evidence]:
    """``want`` holds ``names`` of services and their ``umask``."""
    items: List[core.Evidence] = []
    for unit in want["names"]:
        fragment = next((f"{place}/{unit}" for place in PLACES if node.exists(f"{place}/{unit}")), None)
        if fragment is None:
            items.append(core.evidence(f"UMask of {unit}", want["umask"], "no such unit", True))
            continue
        value, source = _written(node, unit, fragment)
        items.append(_evidence(f"UMask of {unit} at the next start", want["umask"], value, source))
        loaded = _loaded(node, unit)
        if loaded is not None:
            items.append(_evidence(f"UMask of {unit} as loaded", want["umask"], loaded, "systemctl show"))
    return items


def _evidence(what: str, wanted: str, found: str, source: str) -> core.Evidence:
    ok = bool(re.fullmatch(r"[0-7]+", found)) and int(found, 8) == int(wanted, 8)
    return core.evidence(what, wanted, found, ok, source)


def _written(node: core.Node, unit: str, fragment: str) -> Tuple[str, str]:
    value, source = DEFAULT, "systemd's default"
    for path in [fragment, *_dropins(node, unit)]:
        section = ""
        for number, line in node.lines(path):
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "Service" and re.match(r"UMask\s*=", line):
                # an empty value means the default again
                value, source = line.partition("=")[2].strip() or DEFAULT, f"{path}:{number}"
    return value, source


def _dropins(node: core.Node, unit: str) -> List[str]:
    """Drop-ins by base name, those of the unit before those of its prefixes and of all services."""
    stem = unit.rpartition(".")[0]
    dashes = [at for at, letter in enumerate(stem) if letter == "-"]
    names = [unit, *(f"{stem[: at + 1]}.service" for at in reversed(dashes)), "service"]
    winners: Dict[str, str] = {}
    for path in (found for name in names for place in PLACES for found in node.glob(f"{place}/{name}.d/*.conf")):
        winners.setdefault(posixpath.basename(path), path)
    return [winners[name] for name in sorted(winners)]


def _loaded(node: core.Node, unit: str) -> Optional[str]:
    """None where no service manager answers, or where it has not loaded the unit."""
    done = node.run("systemctl", "show", "--property=LoadState,UMask", unit)
    told = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    return told.get("UMask") if done.rc == 0 and told.get("LoadState") == "loaded" else None
