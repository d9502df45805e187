# Copyright the cisdriver authors. Apache-2.0.
"""PAM: what the stacks that everything includes come to, whatever made them, and whether authselect made them.

A spec maps a PAM module to what it must be set to. ``enabled`` asks for it in the stack of each of SERVICES, where its
refusal counts and nothing lets a user by before it. Other names are options: what stands on the line wins, then the
module's file in /etc/security, then what is compiled in. Two are worked out: ``classes`` of characters that pwquality
demands in all, and ``hash``, the only algorithm on the line of pam_unix. ``authselect: custom`` asks for a valid custom
profile.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, pam_stack

SERVICES = ("system-auth", "password-auth")
AUTHSELECT = "/etc/authselect/authselect.conf"
HASHES = ("md5", "bigcrypt", "sha256", "sha512", "blowfish", "gost_yescrypt", "yescrypt")
CREDITS = ("dcredit", "ucredit", "lcredit", "ocredit")
#: Above any number of seconds: faillock takes 0 and never for a lock that only an administrator takes off.
_NEVER = str(2**32)
#: ``man 8 pam_faillock``, ``man 8 pam_pwhistory``, ``man 5 pwquality.conf``: what holds when nothing is said.
COMPILED_IN = {
    "pam_faillock": {"deny": "3", "unlock_time": "600"},
    "pam_pwhistory": {"remember": "10"},
    "pam_pwquality": {"minlen": "8", "minclass": "0", "retry": "1", "enforcing": "1", **dict.fromkeys(CREDITS, "0")},
}
#: Files a module reads, the last of which wins. libpwquality reads its drop-ins before the main file.
FILES = {
    "pam_faillock": ("/etc/security/faillock.conf",),
    "pam_pwhistory": ("/etc/security/pwhistory.conf",),
    "pam_pwquality": ("/etc/security/pwquality.conf.d/*.conf", "/etc/security/pwquality.conf"),
}
TYPES = {"pam_faillock": "auth"}


class Value(NamedTuple):
    """What an option comes to, and where that is said."""

    found: Optional[str]
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    for module, wanted in spec.items():
        if module == "authselect":
            items += _authselect(node)
            continue
        for name, predicate in wanted.items():
            if name == "enabled":
                items += _enabled(node, module)
            elif name == "hash":
                items += _hash(node, predicate)
            else:
                items += _option(node, module, name, predicate)
    return core.verdict(items)


def _enabled(node: core.Node, module: str) -> Iterator[core.Evidence]:
    for service in SERVICES:
        if module == "pam_faillock":
            auth = pam_stack.stack(node, service, "auth")
            yield _placed(f"{service}: auth pam_faillock preauth", auth, module, "preauth", before=True)
            yield _placed(f"{service}: auth pam_faillock authfail", auth, module, "authfail", before=False)
            account = pam_stack.stack(node, service, "account")
            yield _placed(f"{service}: account pam_faillock", account, module, "", before=True)
        else:
            lines = pam_stack.stack(node, service, "password")
            yield _placed(f"{service}: password {module}", lines, module, "", before=True)
    if module == "pam_pwquality":
        yield from _option(node, module, "enforcing", {"not": [0]})


def _placed(object_: str, lines: List[pam_stack.Line], module: str, arg: str, before: bool) -> core.Evidence:
    """The module's line, with that argument if one is named, is on its side of pam_unix and has its say."""
    expected = f"required, {'before' if before else 'after'} pam_unix"
    unix = next((index for index, line in enumerate(lines) if line.module == "pam_unix"), len(lines))
    problem, source = "not there", ""
    for index, line in enumerate(lines):
        if line.module != module or (arg and arg not in line.args):
            continue
        source = line.source
        problem = _objection(lines, index, unix, before)
        if not problem:
            return core.evidence(object_, expected, line.control, True, source)
    return core.evidence(object_, expected, problem, False, source or None)


def _objection(lines: List[pam_stack.Line], index: int, unix: int, before: bool) -> str:
    """Why the line at ``index`` does not do its work; empty when it does."""
    line = lines[index]
    if not line.installed:
        return f"{line.module}.so is not installed"
    if not line.refuses():
        return f"{line.control}: its refusal does not count"
    if before and index > unix:
        return f"after pam_unix ({lines[unix].source})"
    if not before and index < unix:
        return f"before pam_unix ({lines[unix].source})"
    for earlier in lines[:index]:
        if earlier.module == "pam_permit" and earlier.ends_on_success():
            return f"never reached: pam_permit ends the stack ({earlier.source})"
        if earlier.module in ("pam_deny", "pam_unix") and earlier.ends_on_refusal():
            return f"never reached: {earlier.module} ends the stack when it refuses ({earlier.source})"
    return ""


def _hash(node: core.Node, predicate: Any) -> Iterator[core.Evidence]:
    for service in SERVICES:
        lines = [line for line in pam_stack.stack(node, service, "password") if line.module == "pam_unix"]
        for line in lines:
            found = " ".join(arg for arg in line.args if arg in HASHES) or None
            ok = core.holds(predicate, found)
            yield core.evidence(f"{service}: hash of pam_unix", predicate, found, ok, line.source)
        if not lines:
            yield core.evidence(f"{service}: password pam_unix", "there", "not there", False)


def _option(node: core.Node, module: str, name: str, predicate: Any) -> Iterator[core.Evidence]:
    """One item per line of the module in the stacks; where no stack has it, what its file says."""
    kind = TYPES.get(module, "password")
    seen = False
    for service in SERVICES:
        for line in pam_stack.stack(node, service, kind):
            if line.module == module:
                seen = True
                yield _judged(f"{service}: {module} {name}", name, predicate, _value(node, module, name, line))
    if not seen and module in FILES:
        yield _judged(f"{module} {name}", name, predicate, _value(node, module, name, None))
    elif not seen:
        yield core.evidence(f"{module} {name}", predicate, None, False)


def _judged(object_: str, name: str, predicate: Any, value: Value) -> core.Evidence:
    judged = _NEVER if name == "unlock_time" and value.found in ("0", "never") else value.found
    return core.evidence(object_, predicate, value.found, core.holds(predicate, judged), value.source)


def _value(node: core.Node, module: str, name: str, line: Optional[pam_stack.Line]) -> Value:
    if name == "classes":
        return _classes(node, module, line)
    on_line = line.option(name) if line else None
    if line and on_line is not None:
        return Value(on_line, line.source)
    said = _in_files(node, module, name, line.option("conf") if line else None)
    if said:
        return Value(*said)
    compiled = COMPILED_IN.get(module, {}).get(name)
    if compiled is not None:
        return Value(compiled, "compiled in")
    return Value(None, line.source if line else FILES[module][-1])


def _in_files(node: core.Node, module: str, name: str, conf: Optional[str]) -> Optional[Tuple[str, str]]:
    """What the module's files say last; ``conf`` is the file its line names instead."""
    patterns = (conf,) if conf else FILES.get(module, ())
    for pattern in reversed(patterns):
        for path in reversed(node.glob(pattern)):
            said = pam_stack.settings(node, path, name)
            if said:
                return said
    return None


def _classes(node: core.Node, module: str, line: Optional[pam_stack.Line]) -> Value:
    """A negative credit demands that many characters of its class, on top of minclass."""
    minclass = _value(node, module, "minclass", line)
    demanded = [value for value in (_value(node, module, name, line) for name in CREDITS) if _number(value) < 0]
    if len(demanded) > _number(minclass):
        return Value(str(len(demanded)), demanded[0].source)
    return minclass


def _number(value: Value) -> int:
    try:
        return int(value.found or 0)
    except ValueError:
        return 0


def _authselect(node: core.Node) -> Iterator[core.Evidence]:
    text = node.read(AUTHSELECT)
    profile = text.split("\n", 1)[0].strip() if text else None
    custom = {"matches": "custom/.+"}
    yield core.evidence("authselect profile", custom, profile, core.holds(custom, profile), AUTHSELECT)
    done = node.run("authselect", "check")
    said = (done.err.strip() or done.out.strip()).splitlines()
    found = "valid" if done.rc == 0 else said[0] if said else f"exit {done.rc}"
    yield core.evidence("authselect check", "valid", found, done.rc == 0)
