# Copyright the cisdriver authors. Apache-2.0.
"""Lines changed in files of others, remembered per rule, so that a rule that is deselected gives them back.

The memory is a Batch's: an object ``<path>\\t<number>`` with the lines before and after. Only lines are kept, not
files: what an administrator writes above and below them meanwhile stays.
"""

from __future__ import annotations

import difflib
from typing import Iterator, List, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core


def remember(batch: core.Batch, rule: str, path: str, before: str, after: str) -> None:
    """Note how a rule changes the text of a file; call it before the file is written."""
    lines = before.splitlines()
    known = dict(_of_path(batch, rule, path))
    # noted by a run that was interrupted before it wrote the file
    unwritten = [name for name, (was, now) in known.items() if was != now and (not now or _place(lines, now) is None)]
    for old, new in _changed(lines, after.splitlines()):
        again = next((name for name in unwritten if known[name] == (old, new)), None)
        if again is not None:
            unwritten.remove(again)
            continue
        # a line of ours that changes again is still the same edit of the line that stood there first
        name = next((name for name, (_was, now) in known.items() if now and now == old), f"{path}\t{len(known)}")
        known[name] = (old, new)
        batch.remember(rule, name, old, new)


def give_back(batch: core.Batch, rule: str, path: str, text: str) -> str:
    """The text with the rule's edits undone where they still stand. The caller forgets the rule when all is written.

    Of several rules that changed one line the last has to give back first: ``reversed(batch.absent)``.
    """
    lines = text.splitlines()
    for _name, (was, now) in _of_path(batch, rule, path):
        place = _place(lines, now)
        if place is not None:
            lines[place : place + len(now)] = was
    if lines == text.splitlines():  # the end of its last line, too, is somebody else's
        return text
    return "\n".join(lines) + "\n" if lines else ""


def _of_path(batch: core.Batch, rule: str, path: str) -> Iterator[Tuple[str, Tuple[List[str], List[str]]]]:
    for name, pair in batch.given_back(rule).items():
        if name.rpartition("\t")[0] == path:
            yield name, pair


def _changed(before: List[str], after: List[str]) -> Iterator[Tuple[List[str], List[str]]]:
    """``(old lines, new lines)`` of each place that differs; a run of equally many lines is taken line by line."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, low, high, new_low, new_high in matcher.get_opcodes():
        old, new = before[low:high], after[new_low:new_high]
        if tag == "replace" and len(old) == len(new):
            yield from (([line], [new[index]]) for index, line in enumerate(old))
        elif tag != "equal":
            yield old, new


def _place(lines: List[str], wanted: List[str]) -> Optional[int]:
    """Where lines stand; the end of the file for lines that were taken away."""
    if not wanted:
        return len(lines)
    for place in range(len(lines) - len(wanted) + 1):
        if lines[place : place + len(wanted)] == wanted:
            return place
    return None
