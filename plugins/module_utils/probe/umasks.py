# Copyright the cisdriver authors. Apache-2.0.
"""umask statements of shells and what they mask: octal (027, 0027, 77) and symbolic (u=rwx,g=rx,o= or g-w,o-rwx)."""

from __future__ import annotations

import re
from typing import List

#: At the place of a command, with a value: what asks for the umask has none, and a variable says nothing by itself.
_STATEMENT = re.compile(
    r"(?:^|[;&|({)`]|\b(?:then|else|do|command|builtin)\s)\s*umask(?:\s+-[Sp]+)*\s+"
    r"""["']?([0-7]{1,4}(?![\w$])|[ugoa]*[=+-][rwxXst]*(?:,[ugoa]*[=+-][rwxXst]*)*)"""
)
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1, "X": 1}


def statements(line: str) -> List[str]:
    """The values that a line without its comment gives to umask."""
    return _STATEMENT.findall(line)


def covers(value: str, least: str) -> bool:
    """Whether a umask surely masks all that ``least``, an octal one, does."""
    return not int(least, 8) & ~masked(value)


def masked(value: str) -> int:
    """Bits that a value masks whatever the umask was before."""
    if re.fullmatch(r"[0-7]+", value):
        return int(value, 8)
    mask = 0
    for clause in value.split(","):
        found = re.fullmatch(r"([ugoa]*)([=+-])([rwxXst]*)", clause)
        if found is None:
            continue
        who, how, letters = found.groups()
        named = sum(_BITS.get(letter, 0) for letter in set(letters.replace("X", "x")))
        for person in "ugo" if not who or "a" in who else sorted(set(who)):
            shift = _SHIFTS[person]
            if how == "=":
                mask = mask & ~(7 << shift) | (7 & ~named) << shift
            elif how == "-":
                mask |= named << shift
            else:
                mask &= ~(named << shift)
    return mask
