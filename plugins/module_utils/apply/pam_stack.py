# Copyright the cisdriver authors. Apache-2.0.
"""Edits of a PAM stack, line by line, that leave the jumps of bracket controls where they landed."""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

_LINE = re.compile(r"(?i)(-?)(auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+(\S+)\s*(.*)")
_JUMP = re.compile(r"=(\d+)\b")
_HASHES = ("md5", "bigcrypt", "sha256", "sha512", "blowfish", "gost_yescrypt", "yescrypt")
#: Options that stand on the line of a module; all others of a rule stand in its file under /etc/security.
ON_LINE = {
    "pam_pwquality": ("retry", "enforce_for_root"),
    "pam_pwhistory": ("remember",),
    "pam_unix": ("remember", *_HASHES),
}
#: On a line these would win over the module's file; they leave the lines when a rule writes them there.
IN_FILE = {
    "pam_faillock": ("deny", "unlock_time"),
    "pam_pwquality": ("minlen", "minclass"),
}
#: Options whose lower, and whose higher value is the stricter one.
LOWER = ("deny", "retry")
HIGHER = ("minlen", "minclass", "remember", "unlock_time")
#: By this word in a template authselect keeps or drops the line.
FAILLOCK_FEATURE = '{include if "with-faillock"}'

Options = Dict[str, Optional[str]]


class Line(NamedTuple):
    """One line of a stack, or a text of no meaning (``module`` empty)."""

    type: str
    control: str
    module: str
    args: Tuple[str, ...]
    text: str = ""

    @property
    def name(self) -> str:
        stem = self.module.rsplit("/", 1)[-1]
        return stem[:-3] if stem.endswith(".so") else stem

    def render(self) -> str:
        if not self.module:
            return self.text
        return " ".join([f"{self.type:<11} {self.control:<13} {self.module}", *self.args])


def options(text: str) -> Options:
    """Options as a rule writes them, ``deny=3 unlock_time=900``: name to value, None for a bare word."""
    pairs = [word.partition("=") for word in text.split()]
    return {name: value if equals else None for name, equals, value in pairs}


def stricter(name: str, value: Optional[str], present: Optional[str]) -> Optional[str]:
    """``present`` where it is stricter than ``value`` already."""
    if value is None or present is None or not re.fullmatch(r"\d+|never", present):
        return value
    if name == "unlock_time" and present in ("0", "never"):
        return present
    if name in LOWER and 0 < int(present) <= int(value):
        return present
    if name in HIGHER and value not in ("0", "never") and int(present) >= int(value):
        return present
    return value


def parse(text: str) -> List[Line]:
    """The lines that mean something, and blank ones; comments go, continued lines are joined."""
    lines = []
    for raw in text.replace("\\\n", " ").splitlines():
        stripped = raw.split("#", 1)[0].strip()
        match = _LINE.fullmatch(stripped)
        if match:
            args = tuple(re.findall(r"\[(?:[^\]\\]|\\.)*\]|\S+", match[5]))
            lines.append(Line(match[1] + match[2].lower(), match[3], match[4], args))
        elif stripped or not raw.strip():
            lines.append(Line("", "", "", (), stripped))
    return lines


def edited(text: str, wanted: Mapping[str, Mapping[str, Optional[str]]], template: bool) -> str:
    """A stack in which the modules of ``wanted`` are, in their places, with their options.

    ``template``: the lines of faillock carry authselect's condition. Raises ValueError where no line of
    pam_unix shows where they belong.
    """
    lines = parse(text)
    for kind in ("auth", "password"):
        if not any(line.name == "pam_unix" and line.type.lstrip("-") == kind for line in lines):
            raise ValueError(f"no {kind} line of pam_unix")
    if "enabled" in wanted.get("pam_faillock", {}):
        lines = _with_faillock(lines, template)
    if "pam_faillock" in wanted:
        lines = _without_args(lines, "pam_faillock", wanted["pam_faillock"])
    if _on_lines("pam_pwquality", wanted):
        lines = _with_pwquality(lines, wanted["pam_pwquality"])
    if _on_lines("pam_pwhistory", wanted):
        lines = _with_pwhistory(lines, wanted["pam_pwhistory"])
    if "pam_unix" in wanted:
        lines = _with_args(lines, "pam_unix", wanted["pam_unix"])
    return "\n".join(line.render() for line in lines).strip("\n") + "\n"


def touches_lines(wanted: Mapping[str, Mapping[str, Optional[str]]]) -> bool:
    """Whether options are asked for that only a stack can hold."""
    return any(_on_lines(module, wanted) for module in wanted)


def mentions(text: str, modules: Iterable[str]) -> List[str]:
    """The lines of a stack that name one of the modules, blanks evened out."""
    return [" ".join(line.render().split()) for line in parse(text) if line.name in modules]


def modules(text: str) -> List[str]:
    """The modules a stack cannot do without, as it writes them."""
    kept = [line for line in parse(text) if line.module and not line.type.startswith("-")]
    return [line.module for line in kept if line.control.lower() not in ("include", "substack")]


def _on_lines(module: str, wanted: Mapping[str, Mapping[str, Optional[str]]]) -> bool:
    return any(name == "enabled" or name in ON_LINE.get(module, ()) for name in wanted.get(module, {}))


def _kind(line: Line) -> str:
    return line.type.lstrip("-")


def _insert(lines: List[Line], at: int, new: Line) -> List[Line]:
    """``new`` before the line at ``at``; jumps over that place get longer by one, jumps to it land on ``new``."""
    return [*_jumps(lines, at, _kind(new), 1), new, *lines[at:]]


def _remove(lines: List[Line], at: int) -> List[Line]:
    return [*_jumps(lines, at, _kind(lines[at]), -1), *lines[at + 1 :]]


def _jumps(lines: List[Line], at: int, kind: str, by: int) -> List[Line]:
    """The lines before ``at``, with the jumps of that type that reach beyond it made to land where they did."""
    before = []
    for index, line in enumerate(lines[:at]):
        between = sum(1 for other in lines[index + 1 : at] if _kind(other) == kind)
        if _kind(line) == kind and line.control.startswith("["):
            line = line._replace(control=_longer(line.control, between, by))
        before.append(line)
    return before


def _longer(control: str, between: int, by: int) -> str:
    return _JUMP.sub(lambda jump: f"={int(jump[1]) + by * (int(jump[1]) > between)}", control)


def _with_faillock(lines: List[Line], template: bool) -> List[Line]:
    """``man 8 pam_faillock``: preauth before any module that asks, authfail once all have failed, and the account."""
    kept: Dict[str, List[str]] = {"preauth": [], "authfail": [], "": []}
    for at in reversed(range(len(lines))):
        if lines[at].name == "pam_faillock" and "authsucc" not in lines[at].args:
            role = next((role for role in ("preauth", "authfail") if role in lines[at].args), "")
            kept[role] = [arg for arg in lines[at].args if arg not in (role, "silent") and not arg.startswith("{")]
            lines = _remove(lines, at)
    condition = [FAILLOCK_FEATURE] if template else []

    def line(kind: str, *args: str) -> Line:
        return Line(kind, "required", "pam_faillock.so", (*args, *condition))

    early = ("pam_env", "pam_faildelay")
    asks = [at for at, each in enumerate(lines) if _kind(each) == "auth" and each.name not in early]
    lines = _insert(lines, asks[0], line("auth", "preauth", "silent", *kept["preauth"]))
    lines = _insert(lines, _where_all_failed(lines), line("auth", "authfail", *kept["authfail"]))
    accounts = [at for at, each in enumerate(lines) if _kind(each) == "account"]
    return _insert(lines, accounts[0] if accounts else len(lines), line("account", *kept[""]))


def _where_all_failed(lines: List[Line]) -> int:
    """The place in the auth stack that is reached only when no module has let the user in."""
    found = [at for at, line in enumerate(lines) if _kind(line) == "auth"]
    unix = [at for at in found if lines[at].name == "pam_unix"][-1]
    place = next((at for at in found if at > unix and lines[at].name == "pam_deny"), found[-1] + 1)
    control = lines[unix].control.lower()
    jump = re.search(r"\bsuccess=(\w+)", control)
    between = sum(1 for at in found if unix < at < place)
    leaves = control == "sufficient" or (
        jump is not None and (jump[1] == "done" or (jump[1].isdigit() and int(jump[1]) > between))
    )
    if not leaves:
        raise ValueError(
            f"auth {lines[unix].control} pam_unix.so goes on where it lets a user in: no place for authfail"
        )
    return place


def _with_pwquality(lines: List[Line], wanted: Mapping[str, Optional[str]]) -> List[Line]:
    at = next((at for at, line in enumerate(lines) if line.name == "pam_pwquality"), None)
    if at is None:
        new = Line("password", "requisite", "pam_pwquality.so", ("try_first_pass", "local_users_only"))
        lines = _insert(lines, _first(lines, "password"), new)
    lines = [_binding(line) if line.name == "pam_pwquality" else line for line in lines]
    on_line = {name: value for name, value in wanted.items() if name in ON_LINE["pam_pwquality"]}
    return _without_args(_with_args(lines, "pam_pwquality", on_line), "pam_pwquality", wanted)


def _with_pwhistory(lines: List[Line], wanted: Mapping[str, Optional[str]]) -> List[Line]:
    if not any(line.name == "pam_pwhistory" for line in lines):
        place = next(at for at, line in enumerate(lines) if line.name == "pam_unix" and _kind(line) == "password")
        asked = [at for at, line in enumerate(lines[:place]) if line.name == "pam_pwquality"]
        # without a module before it that asks for the password, it has to ask itself
        args = ("use_authtok", "enforce_for_root") if asked else ("enforce_for_root",)
        place = asked[-1] + 1 if asked else _first(lines, "password")
        lines = _insert(lines, place, Line("password", "requisite", "pam_pwhistory.so", args))
    lines = [_binding(line) if line.name == "pam_pwhistory" else line for line in lines]
    return _with_args(lines, "pam_pwhistory", {name: value for name, value in wanted.items() if name != "enabled"})


def _first(lines: List[Line], kind: str) -> int:
    return next(at for at, line in enumerate(lines) if _kind(line) == kind)


def _binding(line: Line) -> Line:
    """A line whose refusal does not count becomes requisite; a bracket is taken for what its author meant."""
    weak = line.control.lower() in ("optional", "sufficient")
    return line._replace(control="requisite", type=_kind(line)) if weak else line._replace(type=_kind(line))


def _with_args(lines: List[Line], module: str, wanted: Mapping[str, Optional[str]]) -> List[Line]:
    """The password lines of a module with these options; a stricter value that stands there stays."""
    changed = []
    for line in lines:
        if line.name == module and _kind(line) == "password":
            line = line._replace(args=tuple(_arguments(list(line.args), wanted)))
        changed.append(line)
    return changed


def _arguments(args: List[str], wanted: Mapping[str, Optional[str]]) -> List[str]:
    hashes = [name for name in wanted if name in _HASHES]
    if hashes:
        args = [arg for arg in args if arg not in _HASHES or arg in hashes]
    bare = []
    for name, value in wanted.items():
        present = [arg for arg in args if arg == name or arg.startswith(name + "=")]
        if value is None:
            bare += [] if present else [name]
            continue
        said = [arg.partition("=")[2] for arg in present]
        new = f"{name}={stricter(name, value, said[-1] if said else None)}"
        at = args.index(present[0]) if present else len(args)
        args = [arg for arg in args[:at] if arg not in present] + [new] + [a for a in args[at:] if a not in present]
    # scanners look for "... enforce_for_root retry=3" and for "sha512 shadow" in this order
    retry = next((at for at, arg in enumerate(args) if arg.startswith("retry=")), len(args))
    return args[:retry] + bare + args[retry:]


def _without_args(lines: List[Line], module: str, wanted: Mapping[str, Optional[str]]) -> List[Line]:
    """The lines of a module without those of the options that its file is to say."""
    gone = tuple(name + "=" for name in wanted if name in IN_FILE.get(module, ()))
    if not gone:
        return lines
    return [
        line._replace(args=tuple(arg for arg in line.args if not arg.startswith(gone))) if line.name == module else line
        for line in lines
    ]
