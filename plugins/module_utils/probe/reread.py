# Copyright the cisdriver authors. Apache-2.0.
"""Whether a running service has read its configuration as it stands: a service that reads it once has to be younger.

systemd makes ``/run/systemd/units/invocation:<unit>`` anew at each start (since version 236), so its time and those of
files are of one clock. Without it, in a chroot or with an older systemd, nothing can be said and nothing is.
"""

from __future__ import annotations

import datetime
from typing import Iterable, List

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core


def since_change(node: core.Node, unit: str, paths: Iterable[str]) -> List[core.Evidence]:
    """One item for the newest of the paths, files or directories; none where the unit does not run."""
    started = node.lstat(f"/run/systemd/units/invocation:{unit}")
    changes = [(about.st_mtime, path) for path, about in ((path, node.lstat(path)) for path in paths) if about]
    if started is None or not changes:
        return []
    changed, path = max(changes)
    expected = f"started after the last change of {path}, {_clock(changed)}"
    read = changed <= started.st_mtime
    found = f"started {_clock(started.st_mtime)}" + ("" if read else ", so it has to be restarted")
    return [core.evidence(f"{unit} (running)", expected, found, read)]


def _clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
