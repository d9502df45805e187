# Copyright the cisdriver authors. Apache-2.0.
"""Room on disks, what is mounted at boot, and whether the audit system can stop the node."""

from __future__ import annotations

import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import audit_lines, audit_rules, core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import facts, volumes
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

#: Hard thresholds of kubelet (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/).
EVICTION = {
    "nodefs.available": "10%",
    "imagefs.available": "15%",
    "nodefs.inodesFree": "5%",
    "imagefs.inodesFree": "5%",
}
#: What lies where: kubelet's own files, images and containers. The node itself is held to kubelet's thresholds, too.
PLACES = {
    "/": "nodefs",
    "/var": "nodefs",
    "/var/log": "nodefs",
    "/var/lib/kubelet": "nodefs",
    "/var/lib/containerd": "imagefs",
}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
FSTAB = "/etc/fstab"
AUDITD = "/etc/audit/auditd.conf"
#: Where each of them is, a full audit log stops pods.
_NODE_VOLUMES = ("/", "/var", "/var/lib/kubelet", "/var/lib/containerd")


class Room(NamedTuple):
    """Of bytes or inodes, for those who are not root."""

    total: int
    free: int


@check(
    "Volumes have more room than the kubelet evicts pods at",
    why="Below its hard eviction thresholds the kubelet evicts pods and the cluster sends no more",
)
def disk_room(node: core.Node) -> core.Finding:
    return core.verdict(list(_rooms(node, "available")))


@check(
    "Volumes have more inodes than the kubelet evicts pods at",
    why="A volume without inodes is full, whatever room it has; images are many small files",
)
def inodes(node: core.Node) -> core.Finding:
    return core.verdict(list(_rooms(node, "inodesFree")))


def _rooms(node: core.Node, what: str) -> Iterator[core.Evidence]:
    """One item per file system."""
    thresholds = eviction(node)
    seen = set()
    for place, kind in sorted(PLACES.items()):
        mount = volumes.holding(node, place) if node.exists(place) else None
        if mount is None or (mount.device, kind) in seen:
            continue
        seen.add((mount.device, kind))
        threshold, source = thresholds[f"{kind}.{what}"]
        room = measure(node, place, what)
        needed = _needed(threshold, room, source)
        percent = f"{100 * room.free / room.total:.1f} %" if room.total else "no fixed number"
        unit = "bytes" if what == "available" else "inodes"
        found = f"{percent} ({room.free} of {room.total} {unit})"
        ok = not room.total or room.free > needed
        yield core.evidence(
            f"{what} of the volume of {place}, {mount.point}", f"more than {threshold}", found, ok, source
        )


def measure(node: core.Node, path: str, what: str) -> Room:
    try:
        about = os.statvfs(node.real(path))
    except OSError as error:
        raise core.ProbeError(f"cannot measure {path}: {error.strerror}") from error
    if what == "available":
        return Room(about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize)
    return Room(about.f_files, about.f_favail)  # none at all where the file system makes them as it goes


def eviction(node: core.Node) -> Dict[str, Tuple[str, str]]:
    """``{signal: (threshold, where it is said)}``. A configuration that names any signal, as nodeadm's does, leaves the
    others without a threshold unless it asks for the defaults: then they only must not be used up."""
    configuration = facts.kubelet_configuration(node)
    said = configuration.get("evictionHard") or {}
    if said and not configuration.get("mergeDefaultEvictionSettings"):
        return {signal: (str(said.get(signal, "0%")), facts.KUBELET) for signal in EVICTION}
    found = {signal: (value, "the kubelet's default") for signal, value in EVICTION.items()}
    found.update({signal: (str(value), facts.KUBELET) for signal, value in said.items() if signal in EVICTION})
    return found


def _needed(threshold: str, room: Room, source: str) -> float:
    """A share of the whole, or a quantity of Kubernetes. Raises ProbeError."""
    quantity = re.fullmatch(r"([\d.]+)(%|k|Ki|[MGT]i?)?", threshold)
    if not quantity:
        raise core.ProbeError(f"{source}: what quantity is {threshold!r}?")
    number, unit = float(quantity.group(1)), quantity.group(2) or ""
    return room.total * number / 100 if unit == "%" else number * _UNITS[unit]


@check(
    "What /etc/fstab names is there, or may be missing",
    why="A boot waits for a device that is not there and ends in emergency mode, where nobody can log in",
)
def fstab(node: core.Node) -> core.Finding:
    if node.read(FSTAB) is None:
        return core.not_applicable(f"{FSTAB} does not exist")
    items = [_entry(node, number, line) for number, line in node.lines(FSTAB)]
    done = node.run("findmnt", "--verify", "--tab-file", node.real(FSTAB))
    target = ""
    for line in (done.out + done.err).splitlines():
        target = line.strip() if line.startswith("/") else target
        # whether a device is there was judged above, with what a container and a mount unit make of it
        if "[E]" in line and "unreachable" not in line:
            items.append(core.evidence(f"findmnt --verify {target}", "no error", line.strip(), False, FSTAB))
    return core.verdict(items or [core.evidence(FSTAB, "every entry mountable", "no entries", True)])


def _entry(node: core.Node, number: int, line: str) -> core.Evidence:
    source, fields = f"{FSTAB}:{number}", line.split()
    if len(fields) < 3:
        return core.evidence(line, "device, mount point and type", f"{len(fields)} fields", False, source)
    device, point, options = fields[0], fields[1], (fields[3] if len(fields) > 3 else "").split(",")
    name, expected = f"{device} on {point}", "there, or with nofail"
    optional = [word for word in options if word in ("nofail", "noauto", "x-systemd.automount")]
    if optional:
        return core.evidence(name, expected, f"with {optional[0]}", True, source)
    found = _presence(node, device)
    return core.evidence(name, expected, found or "not there", found is not None, source)


def _presence(node: core.Node, device: str) -> Optional[str]:
    """Why the device is taken for present; None when it is not."""
    if re.match(r"(UUID|LABEL|PARTUUID|PARTLABEL)=", device):
        done = node.run("findfs", device.replace('"', ""))
        if done.rc == 0:
            return done.out.strip() or "there"
        return "not looked at: in a container the devices are the host's" if node.in_container() else None
    if device.startswith("/") and not device.startswith("//"):  # two name a share of another machine
        return "there" if node.exists(device) else None
    return f"no device: {device}" if "=" not in device else None


@check(
    "The audit system cannot halt the node",
    why="Any pod can fill the audit log or overrun it, and would then take the node and its pods down",
)
def auditd_cannot_halt(node: core.Node) -> core.Finding:
    items: List[core.Evidence] = []
    if node.read(AUDITD) is not None:
        items += _actions(node, AUDITD)
        items.append(_bounded(node))
    if _sends(node):
        items += _actions(node, "/etc/audit/audisp-remote.conf")
    items += _failure_flags(node)
    return core.verdict(items) if items else core.not_applicable("there is no audit system on this machine")


def _settings(node: core.Node, path: str) -> Dict[str, Tuple[str, str]]:
    """Key in lower case to ``(value, file:line)``; the last line of a key counts."""
    found: Dict[str, Tuple[str, str]] = {}
    for number, line in node.lines(path):
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip().lower()] = (value.strip(), f"{path}:{number}")
    return found


def _actions(node: core.Node, path: str) -> Iterator[core.Evidence]:
    for key, (value, source) in _settings(node, path).items():
        if key.endswith("_action"):
            word, _blank, script = value.partition(" ")
            found, ok = value, word.lower() not in ("halt", "single")
            if word.lower() == "exec":
                stops = _stops(node, script.strip())
                found, ok = f"{value}{stops and f', which says {stops}'}", not stops
            yield core.evidence(key, "no halt, no single", found, ok, source)


def _stops(node: core.Node, script: str) -> str:
    """The word of a script that stops the machine; empty when there is none."""
    stopper = r"halt|poweroff|shutdown|reboot|(?:tel)?init\s+[016sS]|(?:isolate|start)\s+(?:rescue|emergency)|sysrq"
    for _number, line in node.lines(script.split()[0] if script else "/nowhere"):
        word = re.search(rf"\b(?:{stopper})\b", line)
        if word:
            return word.group()
    return ""


def _bounded(node: core.Node) -> core.Evidence:
    """A log that grows without end is stopped by nothing before it has filled the volume of the pods."""
    said = _settings(node, AUDITD)
    action, source = said.get("max_log_file_action", ("rotate", AUDITD))
    number = said.get("num_logs", ("0", ""))[0]
    log = said.get("log_file", ("/var/log/audit/audit.log", ""))[0]
    writes = said.get("write_logs", ("yes", ""))[0].lower() != "no"
    rotates = action.lower() == "rotate" and number.isdigit() and int(number) > 1
    found = f"{action}, num_logs {number}" if action.lower() == "rotate" else action
    directory = os.path.dirname(log)
    mount = volumes.holding(node, directory)
    shared = mount is not None and mount.point in {
        other.point for other in (volumes.holding(node, place) for place in _NODE_VOLUMES) if other
    }
    ok = not writes or rotates or action.lower() == "suspend" or not shared
    where = f"{directory} on {'the volume of pods' if shared else 'a volume of its own'}"
    expected = "rotate with num_logs of 2 or more, or a volume of its own"
    return core.evidence("max_log_file_action", expected, f"{found}; {where}", ok, source)


def _sends(node: core.Node) -> bool:
    """Whether the plugin that sends events to another machine is on; its actions are settings of their own."""
    plugin = _settings(node, "/etc/audit/plugins.d/au-remote.conf")
    return plugin.get("active", ("no", ""))[0].lower() == "yes"


def _failure_flags(node: core.Node) -> Iterator[core.Evidence]:
    """``-f 2``: the kernel panics when it cannot record."""
    told = [(line, source) for line, source in audit_lines.merged(node) if re.match(r"-f\s*\d", line)]
    for line, source in told[-1:]:  # the last one counts
        yield core.evidence("failure flag on disk", "-f 0 or -f 1", line, not re.match(r"-f\s*2", line), source)
    if isinstance(audit_rules.running(node), str):
        return
    flag = re.search(r"(?m)^failure (\d)", node.run("auditctl", "-s").out)
    if flag:
        yield core.evidence("failure flag in the kernel", "0 or 1", flag.group(1), flag.group(1) != "2", "auditctl -s")
