# Copyright the cisdriver authors. Apache-2.0.
"""Kernel modules that must not load: whether any installed kernel has them, and what modprobe would do.

Names are compared with ``-`` as ``_``, as kmod does. Of several ``install`` lines for a module the
first wins, files merged by base name (``man 5 modprobe.d``); it stops an explicit modprobe, and
``blacklist`` stops loading by alias, so both are asked for. The running kernel is not the only one.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

DIRECTORIES = tuple(base + "/modprobe.d" for base in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
#: The two commands that scanners, too, know as doing nothing.
NOTHING = {"in": ["/bin/false", "/bin/true"]}


class Line(NamedTuple):
    """A configuration line: ``command`` and ``module`` as words, the rest as text."""

    command: str
    module: str
    rest: str
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` is ``{disabled: [module, ...]}``."""
    items: List[core.Evidence] = []
    for name in spec["disabled"]:
        items += _module(node, name)
    return core.verdict(items)


def _module(node: core.Node, name: str) -> List[core.Evidence]:
    wanted = normal(name)
    kernels = installed(node)
    having = [version for version in sorted(kernels) if wanted in kernels[version]]
    if kernels and not having:
        found = f"no driver in {', '.join(sorted(kernels))}"
        return [core.evidence(f"{name} (installed kernels)", {"matches": "no driver.*"}, found, True, "/lib/modules")]
    lines = configuration(node)
    install, source = install_command(node, lines, wanted)
    denied = next((line for line in lines if line.command == "blacklist" and line.module == wanted), None)
    loaded = wanted in {line.split(" ", 1)[0] for _number, line in node.lines("/proc/modules")}
    alias = ("blacklisted", denied.source) if denied else (None, None)
    running = "loaded" if loaded else "not loaded"
    return [
        core.evidence(f"{name} (modprobe runs)", NOTHING, install, core.holds(NOTHING, install), source),
        core.evidence(f"{name} (by alias)", "blacklisted", alias[0], denied is not None, alias[1]),
        core.evidence(f"{name} (running)", "not loaded", running, not loaded, "/proc/modules"),
    ]


def normal(name: str) -> str:
    return name.replace("-", "_")


@functools.lru_cache(maxsize=1)
def installed(node: core.Node) -> Dict[str, Set[str]]:
    """Modules, built in or loadable, per installed kernel; by the files, as modules.dep may be stale."""
    kernels: Dict[str, Set[str]] = {}
    for directory in node.glob("/lib/modules/*"):
        if not os.path.isdir(node.real(directory)):
            continue
        files = node.glob(directory + "/**/*.ko*")
        files += [line for _number, line in node.lines(directory + "/modules.builtin")]
        names = {normal(re.sub(r"\.ko(\.\w+)?$", "", os.path.basename(file))) for file in files}
        if names:
            kernels[os.path.basename(directory)] = names
    return kernels


def install_command(node: core.Node, lines: List[Line], wanted: str) -> Tuple[Optional[str], Optional[str]]:
    """The command that stands for loading ``wanted``, and where it stands.

    modprobe itself is asked first: what it merges is what happens. Files say where, and
    answer alone where there is no modprobe.
    """
    ours = [line for line in lines if line.command == "install" and line.module == wanted]
    asked = node.run("modprobe", "--showconfig")
    if asked.rc != 0:
        return (ours[0].rest, ours[0].source) if ours else (None, None)
    for text in asked.out.splitlines():
        line = _parsed(text, "")
        if line and line.command == "install" and line.module == wanted:
            sources = [other.source for other in ours if other.rest == line.rest]
            return line.rest, sources[0] if sources else "modprobe --showconfig"
    return None, None


def configuration(node: core.Node) -> List[Line]:
    """``install`` and ``blacklist`` lines of all files, in the order in which modprobe reads them."""
    found = []
    for path in node.merged(DIRECTORIES, ".conf"):
        pending, began = "", 0
        for number, text in enumerate((node.read(path) or "").splitlines(), 1):
            began = began or number
            pending += text
            if pending.endswith("\\"):
                pending = pending[:-1] + " "
                continue
            line = _parsed(pending, f"{path}:{began}")
            pending, began = "", 0
            if line:
                found.append(line)
    return found


def _parsed(text: str, source: str) -> Optional[Line]:
    words = text.split()
    if len(words) < 2 or words[0] not in ("install", "blacklist"):
        return None
    return Line(words[0], normal(words[1]), " ".join(words[2:]), source)
