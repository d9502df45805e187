#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module aide_database: the database that AIDE compares with, built of what the machine is now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aide_database
author: The cisdriver authors
short_description: Builds AIDE's database where there is none for the present configuration
description:
  - Runs C(aide --init) in the foreground, which takes minutes on a full system, and puts the new database in place.
    A database as new as its configuration stays as it is; what has changed since is for C(aide --check) to tell.
  - Belongs at the very end of a play, for whatever changes later is reported as changed.
  - A rule that is no longer selected loses the database that was built for it, unless another was built since.
options:
  memory:
    description: The directory on the node that keeps which database was built here.
    type: path
    default: /var/lib/cisdriver
  rebuild:
    description: The configuration has just been changed, or in check mode would have been.
    type: bool
    default: false
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want is C({exists: true}).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.aide_database:
    rules:
      - {rule: aide_installed, id: 1.3.1, want: {exists: true}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping the database to its state.
  type: dict
  returned: always
"""

import os
import re
from typing import Dict, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

CONF = "/etc/aide.conf"
DATABASE = "/var/lib/aide/aide.db.gz"


def settings(text: str) -> Dict[str, str]:
    """``key=value`` lines, and ``@@define``s put in their place."""
    found: Dict[str, str] = {}
    defined: Dict[str, str] = {}
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and words[0] == "@@define":
            defined[words[1]] = words[2].strip()
        match = re.match(r"\s*(database\w*)\s*=\s*(\S+)", line)
        if match:
            found[match.group(1)] = re.sub(r"@@\{(\w+)\}", lambda name: defined.get(name.group(1), ""), match.group(2))
    return found


def file_of(batch: core.Batch, conf: str, *keys: str) -> str:
    """The file that the first of these keys names."""
    of = settings(core.read(conf))
    url = next((of[key] for key in keys if key in of), None)
    if url is None and not os.path.exists(conf) and batch.module.check_mode:
        return DATABASE  # where the package puts it, that would by now be installed
    if url is None or not url.startswith("file:"):
        batch.fail(f"{conf}: expected {' or '.join(keys)} to be file:<path>, found {url or 'no such line'}")
        return DATABASE
    path = url[len("file:") :]
    return "/" + path.lstrip("/")


def modified(path: str) -> Optional[int]:
    """Nanoseconds; None where there is no file."""
    try:
        return os.stat(path).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None


def condition(database: str, conf: str, rebuild: bool) -> str:
    at = modified(database)
    if at is None or not os.path.getsize(database):
        return "absent"
    return "older than its configuration" if rebuild or at < (modified(conf) or 0) else "present"


def build(batch: core.Batch, conf: str, database: str) -> None:
    new = file_of(batch, conf, "database_out")
    idle = ["ionice", "-c", "3", "nice", "-n", "10"]
    rc, out, err = runtime.run(batch.module, [*idle, "aide", f"--config={conf}", "--init"])
    if rc or not modified(new):
        what = (err or out).strip() or f"{new} was not written"
        batch.fail(f"aide --init: exit {rc}: {what}; the old database, if there was one, stays")
    try:
        os.chmod(new, 0o600)
        handle = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        for rule in batch.present:  # before it is in place: it keeps its time
            batch.remember(rule["rule"], database, None, modified(new))
        batch.store()
        os.replace(new, database)
        core.sync_directory(os.path.dirname(database))
    except OSError as error:
        batch.fail(f"{new} cannot be put in place as {database}: {error.strerror}")


def take_away(batch: core.Batch) -> None:
    for slug in batch.absent:
        for path, (_none, built) in batch.given_back(slug).items():
            if modified(path) == built:
                batch.record(slug, {path: "present"}, {path: "absent"})
                batch.changed_file(path, "present\n", "absent\n")
                if not batch.module.check_mode:
                    os.unlink(path)
        batch.forget(slug)


def apply(batch: core.Batch, rebuild: bool = False, conf: str = CONF) -> None:
    take_away(batch)
    if not batch.present:
        return
    database = file_of(batch, conf, "database_in", "database")
    before = condition(database, conf, rebuild)
    for rule in batch.present:
        batch.record(rule["rule"], {database: before}, {database: "present"})
    if before == "present":
        return
    batch.changed_file(database, before + "\n", "present\n")
    if not batch.module.check_mode:
        build(batch, conf, database)


def main() -> None:
    batch = core.batch_module("aide_database", rebuild={"type": "bool", "default": False})
    apply(batch, batch.module.params["rebuild"])
    batch.exit()


if __name__ == "__main__":
    main()
