# Copyright the cisdriver authors. Apache-2.0.
"""Drop-ins that give services a umask of their own, whatever a shell or the whole system gets."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Set

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, overrides, runtime

SYSTEMD = "/etc/systemd/system"
PLACES = (SYSTEMD, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_UMASK = re.compile(r"\s*UMask\s*=\s*(\S*)")


def apply(batch: core.Batch, name: str) -> None:
    """A drop-in of this name for every unit that rules name and that is there; those of no rule are taken away."""
    wanted: Dict[str, List[Mapping[str, Any]]] = {}
    for rule in batch.present:
        for unit in rule["want"].get("units", {}).get("names", ()):
            if any(os.path.exists(f"{place}/{unit}") for place in PLACES):
                wanted.setdefault(unit, []).append(rule)
    stale = _stale(batch, sorted(wanted))
    ours = {os.path.dirname(path) for path in glob.glob(f"{SYSTEMD}/*.d/{name}")}
    directories = ours | {f"{SYSTEMD}/{unit}.d" for unit in wanted}
    changed = [
        _directory(batch, each, name, wanted.get(os.path.basename(each)[:-2], [])) for each in sorted(directories)
    ]
    if (any(changed) or stale) and runtime.manager_runs() and not batch.module.check_mode:
        rc, _out, err = runtime.run(batch.module, ["systemctl", "daemon-reload"])
        if rc:
            batch.fail(f"systemctl daemon-reload: exit {rc}: {err.strip()}; the new {name} count from the next boot on")


def _directory(batch: core.Batch, directory: str, name: str, rules: List[Mapping[str, Any]]) -> bool:
    """Our drop-in, and what is read after it in the same directory. Whether anything differed."""
    path = f"{directory}/{name}"
    before = core.read(path)
    after = core.dropin(
        before, rules, batch.keep, lambda rule: [f"UMask={rule['want']['units']['umask']}"], "[Service]"
    )
    for rule in rules:
        found = _UMASK.findall(before)
        batch.record(rule["rule"], {path: found}, {path: [rule["want"]["units"]["umask"]]})
    values = set(re.findall(r"(?m)^UMask=(\S+)", after))
    differed = [batch.write(path, after)]
    for other in sorted(glob.glob(f"{directory}/*.conf")):
        if os.path.basename(other) > name:
            text = core.read(other)
            differed.append(batch.write(other, overrides.set_aside(text, path, _differs(values), _restored(values))))
    if not after and not batch.module.check_mode and os.path.isdir(directory) and not os.listdir(directory):
        os.rmdir(directory)
    return any(differed)


def _differs(values: Set[str]) -> Callable[[str], bool]:
    def offends(line: str) -> bool:
        found = _UMASK.match(line)
        return bool(values and found and found.group(1) not in values)

    return offends


def _restored(values: Set[str]) -> Callable[[str], bool]:
    return lambda _line: not values


def _stale(batch: core.Batch, units: List[str]) -> bool:
    """Whether the service manager has yet to read what already stands in the files."""
    if not units or not runtime.manager_runs():
        return False
    _rc, out, _err = runtime.run(batch.module, ["systemctl", "show", "--property=NeedDaemonReload", *units])
    stale = "NeedDaemonReload=yes" in out
    if stale:
        batch.changed_file("service manager", "has old files loaded\n", "has read its files\n")
    return stale
