# Copyright the cisdriver authors. Apache-2.0.
"""The clock and the resolver: without either a node signs no request to AWS and finds no API server."""

from __future__ import annotations

import os
import re
from typing import Iterator, List

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, firewall, time_sync
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import facts
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

#: Amazon Time Sync: what is reached from every subnet, and its public name.
AMAZON = re.compile(r"169\.254\.169\.123$|fd00:ec2::123$|([\w-]+\.)?time\.aws\.com\.?$")
NSSWITCH, RESOLV = "/etc/nsswitch.conf", "/etc/resolv.conf"
RESOLVED = "systemd-resolved.service"
_RESOLVED_DIRECTORY = "/run/systemd/resolve/"


@check(
    "The clock is set by Amazon Time Sync", "A clock that is minutes off makes AWS refuse every request the node signs"
)
def time_source(node: core.Node) -> core.Finding:
    main = time_sync.main_file(node)
    if node.read(main) is None:
        missing = core.evidence(main, "there, and naming Amazon Time Sync", "missing", False)
        return core.verdict([missing])
    found = list(time_sync.sources(node, main))
    amazon = [source for source in found if AMAZON.match(source.host)]
    expected = "169.254.169.123, fd00:ec2::123 or time.aws.com among them"
    shown = "; ".join(f"{source.host} ({source.place})" for source in found)
    return core.verdict([core.evidence("time sources", expected, shown or "none", bool(amazon), main)])


@check("Names are resolved", "The node finds no API server, no registry and no AWS service")
def name_resolution(node: core.Node) -> core.Finding:
    items = [_switch(node), *_resolver(node, RESOLV)]
    own = facts.kubelet_configuration(node).get("resolvConf")
    if own and own != RESOLV:
        items += _resolver(node, str(own))  # what kubelet gives pods that do not ask the cluster
    return core.verdict(items)


def _switch(node: core.Node) -> core.Evidence:
    """glibc asks by ``hosts`` (man 5 nsswitch.conf); without the line or the file it asks DNS and then files."""
    expected = "dns or resolve, and nothing that ends the search before"
    for number, line in node.lines(NSSWITCH):
        service, _colon, rest = line.partition(":")
        if service.strip() == "hosts":
            words = re.findall(r"\[[^]]*\]|\S+", rest.partition("#")[0])
            return core.evidence("hosts", expected, " ".join(words), _asks_dns(words), f"{NSSWITCH}:{number}")
    return core.evidence("hosts", expected, "no line, which means dns", True, NSSWITCH)


def _asks_dns(words: List[str]) -> bool:
    for word in words:
        if word in ("dns", "resolve"):
            return True
        ends = word.startswith("[") and re.search(r"(?i)(?<!!)notfound\s*=\s*return|!\w+\s*=\s*return", word)
        if ends and not re.search(r"(?i)!notfound\s*=\s*return", word):
            return False
    return False


def _resolver(node: core.Node, path: str) -> Iterator[core.Evidence]:
    target = _target(node, path)
    text = node.read(path)
    if text is None:
        found = f"a link to {target}, which is not there" if target else None
        yield core.evidence(path, "there", found or "missing", False)
    else:
        servers = re.findall(r"(?m)^\s*nameserver\s+(\S+)", text)
        yield core.evidence(path, "a nameserver", " ".join(servers) or "none", bool(servers))
        yield from _readable(node, path)
    if _RESOLVED_DIRECTORY in target or "127.0.0.53" in (text or ""):
        unit = firewall.unit_of(node, RESOLVED)
        starts = unit.state.startswith(("enabled", "static", "alias"))
        runs = unit.active or not node.exists("/run/systemd/system")
        yield core.evidence(RESOLVED, f"enabled and running, for {path} is its own", str(unit), starts and runs)


def _target(node: core.Node, path: str) -> str:
    """Where a link points, whole; empty for what is none."""
    try:
        link = os.readlink(node.real(path))
    except OSError:
        return ""
    return os.path.normpath(os.path.join(os.path.dirname(path), link))


def _readable(node: core.Node, path: str) -> Iterator[core.Evidence]:
    """Whoever runs a program reads it: the file, and the directories on the way."""
    final = os.path.realpath(node.real(path))
    root = os.path.realpath(node.real("/"))
    while len(final) > len(root):
        mode = os.stat(final).st_mode
        if not mode & (0o1 if os.path.isdir(final) else 0o4):
            name = "/" + os.path.relpath(final, root)
            yield core.evidence(name, "readable by all", f"mode {mode & 0o7777:04o}", False)
        final = os.path.dirname(final)
