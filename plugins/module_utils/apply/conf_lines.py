# Copyright the cisdriver authors. Apache-2.0.
"""Lines ``key = value`` or ``key value`` of a file without sections, as those in /etc/security are."""

from __future__ import annotations

import re
from typing import List


def values(text: str, key: str) -> List[str]:
    """What the lines of a key say, in order; the last one holds."""
    return [value for _lead, value, _comment in pattern(key).findall(text)]


def pattern(key: str) -> "re.Pattern[str]":
    """The lines of a key: what leads to the value, the value, what follows it. A comment may."""
    return re.compile(rf"(?m)^([ \t]*{key}(?:[ \t]*=[ \t]*|[ \t]+))([^#\n]*?)([ \t]*(?:#.*)?)$")


def with_values(text: str, key: str, new: List[str]) -> str:
    """The text with the lines of a key at these values; a first line goes where the comment on the key stands."""
    lines = text.splitlines(keepends=True)
    at = [index for index, line in enumerate(lines) if pattern(key).match(line.rstrip("\n"))]
    if len(at) == len(new):
        for number, index in enumerate(at):
            found = pattern(key).match(lines[index])
            if found:  # as it was found above; blanks and comment stay
                lines[index] = lines[index][: found.start(2)] + new[number] + lines[index][found.end(2) :]
        return "".join(lines)
    kept = [line for index, line in enumerate(lines) if index not in at]
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    comments = [index for index, line in enumerate(kept) if re.match(rf"#\s*{key}\s*=", line)]
    place = at[0] if at else comments[0] + 1 if comments else len(kept)
    return "".join(kept[:place] + [f"{key} = {value}\n" for value in new] + kept[place:])
