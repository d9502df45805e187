# Copyright the cisdriver authors. Apache-2.0.
"""Mode, owner, group and the like of every packaged file, beside what its package recorded.

Reads nothing but metadata of files (no digests, sizes, times), yet of all of them: a minute of disk on a live node, so
at the lowest priority and only when it is asked for. ``expected`` in a spec names, by glob, what hardening itself and
the node's own services tighten; a difference there needs no review.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

_IDLE = ("nice", "-n", "19", "ionice", "-c", "3")
_VERIFY = ("rpm", "-V", "--nodeps", "--noscripts", "--nomtime", "--nosize", "--nomd5", "--nolinkto")
#: Packages per question: each is answered within the time a program of the node may take.
_AT_ONCE = 40
#: Nine marks, or ``missing``; perhaps an attribute (c: configuration, g: ghost, ...); the path.
_LINE = re.compile(r"([S.?][M.?][5.?][D.?][L.?][U.?][G.?][T.?][P.?]|missing) +(?:([a-z]) )? *(/.*)")
_WORDS = {"M": "mode", "D": "device numbers", "U": "owner", "G": "group", "P": "capabilities"}


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """Evidence for a person: what differs; it decides nothing."""
    packages = sorted(node.packages())
    items: List[core.Evidence] = []
    known = 0
    for start in range(0, len(packages), _AT_ONCE):
        done = node.run(*_IDLE, *_VERIFY, *packages[start : start + _AT_ONCE])
        if done.rc == 127:
            raise core.ProbeError(f"cannot verify the packages: {done.err.strip()}")
        for line in done.out.splitlines():
            match = _LINE.match(line)
            if not match:
                continue
            marks, kind, path = match.groups()
            if any(fnmatch.fnmatchcase(path, glob) for glob in spec.get("expected", ())):
                known += 1
            else:
                items.append(_difference(marks, kind, path))
    items.append(core.evidence(f"files of {len(packages)} packages", "verified", f"{known} known to differ", True))
    return {"status": "pass", "reason": "", "evidence": items}


def _difference(marks: str, kind: Any, path: str) -> core.Evidence:
    what = "missing" if marks == "missing" else ", ".join(_WORDS[mark] for mark in marks if mark in _WORDS) or marks
    return core.evidence(path, "as its package recorded", what + (" (configuration)" * (kind == "c")), True)
