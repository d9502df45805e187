# Copyright the cisdriver authors. Apache-2.0.
"""The stack of a PAM service as libpam reads it, and the configuration files of its modules.

``man 5 pam.d``: a service is a file of ``/etc/pam.d``, else of ``/usr/lib/pam.d``. ``include`` and ``substack`` bring
the lines of that type of another file, ``@include`` all of them. A backslash continues a line, ``#`` ends it. A
leading ``-`` lets a line vanish silently where its module is not installed.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")
SECURITY = ("/usr/lib64/security", "/lib64/security", "/usr/lib/security", "/lib/security")
_SECURITY_MULTIARCH = "/usr/lib/*-linux-gnu/security"
_MAX_DEPTH = 16
_LINE = re.compile(r"(?i)(-?)(auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+(\S+)\s*(.*)")
_INCLUDE = re.compile(r"@include\s+(\S+)")
_ARGUMENT = re.compile(r"\[((?:[^\]\\]|\\.)*)\]|(\S+)")
#: The simple controls in the bracket's terms: what becomes of success, and of a failure nothing else is said of.
_SIMPLE = {
    "required": {"success": "ok", "default": "bad"},
    "requisite": {"success": "ok", "default": "die"},
    "sufficient": {"success": "done", "default": "ignore"},
    "optional": {"success": "ok", "default": "ignore"},
}
#: What a module says that refuses a user or a password.
_REFUSALS = ("auth_err", "perm_denied", "authtok_err", "maxtries", "user_unknown", "acct_expired")
_CONF_LINE = re.compile(r"([A-Za-z_]+)(?:\s*=\s*|\s+|$)(.*)")


class Line(NamedTuple):
    """One module of a stack: ``module`` without directory and ``.so``, ``controls`` from return value to action."""

    control: str
    controls: Dict[str, str]
    module: str
    args: List[str]
    source: str
    installed: bool

    def refuses(self) -> bool:
        """Whether the service refuses when this module does."""
        default = self.controls.get("default", "ignore")
        return all(self.controls.get(value, default) in ("bad", "die") for value in _REFUSALS[:3])

    def ends_on_refusal(self) -> bool:
        default = self.controls.get("default", "ignore")
        return any(self.controls.get(value, default) == "die" for value in _REFUSALS)

    def ends_on_success(self) -> bool:
        return self.controls.get("success", self.controls.get("default", "ignore")) == "done"

    def option(self, name: str) -> Optional[str]:
        """The value of the last argument of that name, ``yes`` for a bare word; None when there is none."""
        value = None
        for arg in self.args:
            if arg == name:
                value = "yes"
            elif arg.startswith(name + "="):
                value = arg[len(name) + 1 :]
        return value


def stack(node: core.Node, service: str, kind: str, depth: int = 0) -> List[Line]:
    """The lines of one type (``auth``, ...) of a service, included ones in their place.

    Raises ProbeError when a file it needs is missing or includes itself.
    """
    if depth > _MAX_DEPTH:
        raise core.ProbeError(f"PAM service {service}: more than {_MAX_DEPTH} files include one another")
    path = next((f"{place}/{service}" for place in DIRECTORIES if node.exists(f"{place}/{service}")), None)
    if path is None:
        raise core.ProbeError(f"PAM service {service}: no such file in {' or '.join(DIRECTORIES)}")
    found: List[Line] = []
    for number, text in _logical_lines(node.read(path) or ""):
        other = _INCLUDE.match(text)
        if other:
            found += stack(node, os.path.basename(other[1]), kind, depth + 1)
            continue
        match = _LINE.match(text)
        if not match or match[2].lower() != kind:
            continue
        if match[3].lower() in ("include", "substack"):
            found += stack(node, os.path.basename(match[4]), kind, depth + 1)
            continue
        line = _line(node, match, f"{path}:{number}")
        if line.installed or not match[1]:
            found.append(line)
    return found


def _logical_lines(text: str) -> Iterator[Tuple[int, str]]:
    """``(number of its first line, text)`` of lines that say something."""
    start, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        line = line.split("#", 1)[0].rstrip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined += line
        if joined.strip():
            yield start, joined.strip()
        start, joined = 0, ""
    if joined.strip():
        yield start, joined.strip()


def _line(node: core.Node, match: "re.Match[str]", source: str) -> Line:
    control = match[3].lower()
    if control.startswith("["):
        controls = dict(pair.split("=", 1) for pair in control.strip("[]").split() if "=" in pair)
    else:
        controls = _SIMPLE.get(control, {})
    module = os.path.basename(match[4])
    args = [bracket if bracket else word for bracket, word in _ARGUMENT.findall(match[5])]
    return Line(control, controls, _stem(module), args, source, _installed(node, match[4]))


def _stem(module: str) -> str:
    return module[:-3] if module.endswith(".so") else module


def _installed(node: core.Node, module: str) -> bool:
    if module.startswith("/") and "$ISA" not in module:
        return node.exists(module)
    name = os.path.basename(module)
    return any(node.exists(f"{place}/{name}") for place in SECURITY) or bool(node.glob(f"{_SECURITY_MULTIARCH}/{name}"))


def settings(node: core.Node, path: str, name: str) -> Optional[Tuple[str, str]]:
    """``(value, file:line)`` of the last line of a setting in a file of /etc/security; ``yes`` for a bare word."""
    value = None
    for number, text in node.lines(path):
        match = _CONF_LINE.match(text)
        if match and match[1] == name:
            value = (match[2].split("#", 1)[0].strip() or "yes", f"{path}:{number}")
    return value
