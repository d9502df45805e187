# Copyright the cisdriver authors. Apache-2.0.
"""Lines of an administrator's file that would beat our drop-in: set aside, and given back.

A line set aside becomes ``# cisdriver <drop-in>: <line>``. It is a comment to every reader, it
says which drop-in replaced it, and it comes back when that drop-in no longer speaks of its subject.
"""

from __future__ import annotations

import os
from typing import Callable


def set_aside(
    text: str, dropin: str, offends: Callable[[str], bool], restore: Callable[[str], bool], lead: str = ""
) -> str:
    """``text`` with offending lines set aside, and with lines given back for which ``restore`` holds.

    Both callables get the line as the administrator wrote it. ``lead`` stands before the comment: a shell's ``if``
    needs a command between ``then`` and ``fi``.
    """
    mark = f"{lead}# cisdriver {os.path.basename(dropin)}: "
    lines = []
    for line in text.splitlines(keepends=True):
        if line.startswith(mark):
            original = line[len(mark) :]
            lines.append(original if restore(original) else line)
        else:
            lines.append(mark + line if offends(line) else line)
    return "".join(lines)
