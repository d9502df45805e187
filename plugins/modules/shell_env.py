#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module shell_env: the time-out and the umask that shells start with, and the umask that services keep."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shell_env
author: The cisdriver authors
short_description: Sets what shells start with for a batch of rules
description:
  - Writes a file of its own in /etc/profile.d, which leaves alone what is stricter already.
  - A TMOUT that another file sets on a line of its own is set aside, and comes back with the rule deselected; where it
    is stricter, its value is taken over.
  - A weaker umask in what bash and csh read for everyone is brought to the value in place, for it stands between
    C(then) and C(fi); the old line comes back with the rule deselected, unless somebody has changed it since.
options:
  path:
    description: The file in /etc/profile.d that this module owns.
    type: path
    required: true
  unit_dropin:
    description: The name of the drop-in by which services keep their umask; without it, services are left alone.
    type: str
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(tmout) to seconds, C(umask)
        to an octal mask, C(units) to C(names) and their C(umask).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.shell_env:
    path: /etc/profile.d/cis-tmout.sh
    rules:
      - {rule: shell_timeout_configured, id: 4.6.3, want: {tmout: 900}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to what it sets.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Any, Callable, Dict, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import (
    core,
    edits,
    overrides,
    runtime,
    unit_umask,
)

ETC = "/etc"
FILES = ("profile", "bashrc", "csh.login", "csh.cshrc", "profile.d/*.sh", "profile.d/*.csh", "profile.d/*.local")
#: A command that does nothing, before a line of a shell that is set aside.
NOTHING = ": "
_OPTIONS = r"(?:-[a-z]+\s+)*"
_WORDS = rf"(?:(?:export|readonly|declare|typeset)\s+{_OPTIONS})*"
#: A line that only deals with TMOUT; group 2 is the value.
TMOUT = re.compile(
    rf"""\s*(?:{_WORDS}TMOUT=(["']?)([^\s;"'$]*)\1\s*;?\s*)?(?:(?:export|readonly|unset)\s+{_OPTIONS}TMOUT\s*;?\s*)*(?:#.*)?$"""
)
#: A umask statement; group 2 is the value, octal or symbolic.
UMASK = re.compile(
    r"((?:^|[;&|({)`]|\b(?:then|else|do|command|builtin)\s)\s*umask(?:\s+-[Sp]+)*\s+[\"']?)"
    r"([0-7]{1,4}(?![\w$])|[ugoa]*[=+-][rwxXst]*(?:,[ugoa]*[=+-][rwxXst]*)*)"
)
BITS = {"r": 4, "w": 2, "x": 1}
SHIFTS = {"u": 6, "g": 3, "o": 0}


def seconds(line: str) -> int:
    """What a line about nothing but TMOUT sets it to; 0 when it sets nothing that limits."""
    found = TMOUT.match(line)
    return int(found.group(2)) if found and (found.group(2) or "").isdigit() else 0


def is_about_tmout(line: str) -> bool:
    return "TMOUT" in line.split("#")[0] and TMOUT.match(line) is not None


def strictest(want: int, texts: Mapping[str, str], path: str) -> int:
    """The least number of seconds that any file asks for, lines set aside by an earlier run included."""
    mark = f"{NOTHING}# cisdriver {os.path.basename(path)}: "
    lines = [line.replace(mark, "", 1) for text in texts.values() for line in text.splitlines()]
    return min([want, *(value for value in map(seconds, lines) if 0 < value < want)])


def tmout_lines(value: int) -> List[str]:
    """Bash's typeset for scanners that ask for it; a TMOUT that is readonly already is left alone, silently."""
    return [
        "if (unset TMOUT) 2>/dev/null; then",
        f"typeset -xr TMOUT={value} 2>/dev/null || TMOUT={value}",
        "readonly TMOUT; export TMOUT",
        "fi",
    ]


def umask_lines(value: str) -> List[str]:
    """Never weaker than what it finds."""
    return [f"if [ $(( 0$(umask) & 0{value} )) -ne $(( 0{value} )) ]; then", f"umask {value}", "fi"]


def masked(value: str) -> int:
    """Bits that a umask masks whatever it was before."""
    if re.fullmatch(r"[0-7]+", value):
        return int(value, 8)
    mask = 0
    for who, how, letters in re.findall(r"([ugoa]*)([=+-])([rwxXst]*)", value):
        named = sum(bit for letter, bit in BITS.items() if letter in letters.lower())
        for person, shift in SHIFTS.items():
            if who and person not in who and "a" not in who:
                continue
            kept = mask & ~(7 << shift)
            mask = {"=": kept | (7 & ~named) << shift, "-": mask | named << shift, "+": mask & ~(named << shift)}[how]
    return mask


def with_umask(text: str, value: str) -> str:
    """The text with weaker umask statements at the value; comments stay."""

    def stricter(found: "re.Match[str]") -> str:
        weaker = int(value, 8) & ~masked(found.group(2))
        return found.group(1) + (value if weaker else found.group(2))

    lines = []
    for line in text.splitlines(keepends=True):
        code = re.sub(r"(^|\s)#.*", r"\1", line, flags=re.DOTALL)
        lines.append(UMASK.sub(stricter, code) + line[len(code) :])
    return "".join(lines)


def others(path: str) -> Dict[str, str]:
    """Text by file of everything but our own that shells read for everyone, links followed."""
    found = sorted({os.path.realpath(name) for pattern in FILES for name in glob.glob(f"{ETC}/{pattern}")})
    return {name: core.read(name) for name in found if name != os.path.realpath(path) and os.path.isfile(name)}


def block(values: Mapping[str, int]) -> Callable[[Mapping[str, Any]], List[str]]:
    def lines(rule: Mapping[str, Any]) -> List[str]:
        want = rule["want"]
        return (tmout_lines(values[rule["rule"]]) if "tmout" in want else []) + (
            umask_lines(want["umask"]) if "umask" in want else []
        )

    return lines


def apply(batch: core.Batch, path: str, unit_dropin: str) -> None:
    texts = others(path)
    before = core.read(path)
    values = {
        rule["rule"]: strictest(rule["want"]["tmout"], texts, path) for rule in batch.present if "tmout" in rule["want"]
    }
    after = core.dropin(before, batch.present, batch.keep, block(values))
    edited = {name: rewritten(batch, path, name, text, bool(values), "TMOUT" in after) for name, text in texts.items()}
    for rule in batch.present:
        old, new = core.block_lines(before, rule["rule"]), core.block_lines(after, rule["rule"])
        batch.record(rule["rule"], {path: old}, {path: new})
    for name, text in edited.items():
        batch.write(name, text, validate=lambda new, name=name: parses(batch, name, new))
    batch.write(path, after, validate=lambda new: parses(batch, path, new))
    for slug in batch.absent:  # not before: a write that fails leaves the edits where they are
        batch.forget(slug)
    if unit_dropin:
        unit_umask.apply(batch, unit_dropin)


def rewritten(batch: core.Batch, path: str, name: str, text: str, sets_tmout: bool, keeps_tmout: bool) -> str:
    """One file of others as the rules want it."""
    for slug in reversed(batch.absent):
        text = edits.give_back(batch, slug, name, text)
    new = overrides.set_aside(
        text, path, lambda line: sets_tmout and is_about_tmout(line), lambda _line: not keeps_tmout, NOTHING
    )
    for rule in batch.present:
        if "umask" in rule["want"]:
            old, new = new, with_umask(new, rule["want"]["umask"])
            edits.remember(batch, rule["rule"], name, old, new)
    return new


def parses(batch: core.Batch, name: str, new: str) -> str:
    """What bash has to say against a text; nothing of a file that is not its own."""
    if name.endswith(("csh", "csh.login", "csh.cshrc")):
        return ""
    rc, _out, err = runtime.run(batch.module, ["bash", "-n", new])
    return err.strip() if rc not in (0, 127) else ""


def main() -> None:
    batch = core.batch_module("shell_env", path={"type": "path", "required": True}, unit_dropin={"type": "str"})
    apply(batch, batch.module.params["path"], batch.module.params["unit_dropin"] or "")
    batch.exit()


if __name__ == "__main__":
    main()
