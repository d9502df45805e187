# Copyright the cisdriver authors. Apache-2.0.
"""Kernel arguments: of every entry the boot loader offers, of kernels installed later, and of the kernel that runs.

A spec is ``{"present": {name: predicate}, "absent": [word, ...]}``. Of an argument given twice the last one counts,
which is how the kernel reads ``audit`` and ``audit_backlog_limit``. Words are compared whole.

On disk speak the entries of the Boot Loader Specification with GRUB's variables put in, the ``linux`` lines of a
grub.cfg without such entries, and for kernels to come ``/etc/default/grub`` and ``/etc/kernel/cmdline``.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

ENTRIES = ("/boot/loader/entries", "/boot/efi/loader/entries")
GRUB = ("/boot/grub2", "/boot/efi/EFI/amzn")
DEFAULTS = "/etc/default/grub"
CMDLINE = "/etc/kernel/cmdline"
RUNNING = "/proc/cmdline"
MANAGER = "/run/systemd/system"

_LINUX = re.compile(r"linux(?:16|efi)?\s+\S+\s*(.*)")
_SET = re.compile(r"set\s+(\w+)=(.*)")
_DEFAULT = re.compile(r"(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)(\+?=)(.*)")


class Words(NamedTuple):
    """The arguments of one kernel: who gets them (``on disk: ...``), the words, and the file they stand in."""

    of: str
    words: List[str]
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    entries = list(_entries(node))
    if not entries:
        return core.not_applicable(
            "no boot loader entry below /boot: who starts this machine gives the kernel arguments"
        )
    disk = [item for words in [*entries, *_for_new_kernels(node)] for item in _judged(words, spec)]
    running = _running(node)
    live = list(_judged(running, spec)) if running else []
    finding = core.verdict(disk + live)
    if finding["status"] == "fail":
        finding["reason"] += _hint(all(item["ok"] for item in disk), bool(live) and all(item["ok"] for item in live))
    return finding


def _hint(disk_ok: bool, live_ok: bool) -> str:
    if disk_ok:
        return "; it is right on disk: reboot, or replace the node by one of a new image"
    return "; the running kernel has it right, the next boot will not" if live_ok else ""


def _judged(words: Words, spec: Mapping[str, Any]) -> Iterator[core.Evidence]:
    for name, predicate in spec.get("present", {}).items():
        found = _value(words.words, name)
        yield core.evidence(f"{words.of}: {name}", predicate, found, core.holds(predicate, found), words.source)
    for word in spec.get("absent", []):
        there = word in words.words
        item = core.evidence(f"{words.of}: {word}", "not there", "there" if there else "not there", not there)
        yield {**item, "source": words.source}


def _value(words: List[str], name: str) -> Optional[str]:
    """The value of the last ``name=value``; of a bare ``name`` the empty text."""
    for word in reversed(words):
        key, _equals, value = word.partition("=")
        if key == name:
            return value
    return None


def _split(text: str) -> List[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that never ends is the kernel's to read; no argument we ask about holds blanks
        return text.replace('"', "").split()


def _entries(node: core.Node) -> Iterator[Words]:
    """Every kernel the boot loader offers, the rescue image included."""
    variables = _variables(node)
    for path in (path for directory in ENTRIES for path in node.glob(f"{directory}/*.conf")):
        options = [line[len("options") :] for _number, line in node.lines(path) if re.match(r"options\s", line)]
        text = re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ""), " ".join(options))
        yield Words("on disk", _split(text), path)
    for directory in GRUB:
        path = f"{directory}/grub.cfg"
        for number, line in node.lines(path):
            kernel = _LINUX.match(line)
            if kernel:
                yield Words("on disk", _split(kernel[1]), f"{path}:{number}")


def _variables(node: core.Node) -> Dict[str, str]:
    """What GRUB puts in for ``$kernelopts`` and the like: grubenv, else what grub.cfg sets."""
    found: Dict[str, str] = {}
    for directory in GRUB:
        for _number, line in node.lines(f"{directory}/grub.cfg"):
            setting = _SET.match(line)
            if setting:
                found[setting[1]] = setting[2].strip("\"'")
    for directory in GRUB:
        for _number, line in node.lines(f"{directory}/grubenv"):
            name, equals, value = line.partition("=")
            if equals:
                found[name] = value
    return found


def _for_new_kernels(node: core.Node) -> Iterator[Words]:
    """What a kernel installed later will be given, where a file says it."""
    values = {"GRUB_CMDLINE_LINUX": "", "GRUB_CMDLINE_LINUX_DEFAULT": ""}
    for _number, line in node.lines(DEFAULTS):
        setting = _DEFAULT.match(line)
        if setting:
            text = " ".join(_split(setting[3]))
            text = text.replace(f"${setting[1]}", values[setting[1]]).replace(f"${{{setting[1]}}}", values[setting[1]])
            values[setting[1]] = f"{values[setting[1]]} {text}" if setting[2] == "+=" else text
    if node.exists(DEFAULTS):  # grub2-mkconfig joins the two in this order
        yield Words("on disk, kernels to come", " ".join(values.values()).split(), DEFAULTS)
    if node.exists(CMDLINE):
        yield Words("on disk, kernels to come", _split(node.read(CMDLINE) or ""), CMDLINE)


def _running(node: core.Node) -> Optional[Words]:
    """The kernel that runs; None in a chroot, where it is that of the machine that builds."""
    if not node.exists(MANAGER):
        return None
    text = node.read(RUNNING)
    if text is None:
        raise core.ProbeError(f"{RUNNING} does not exist: /proc is not mounted")
    return Words("running kernel", _split(text), RUNNING)
