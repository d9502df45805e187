#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module file_scan: what everybody may write on the host's own file systems."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_scan
author: The cisdriver authors
short_description: Takes from everybody the right to write the host's files
description:
  - Walks the local file systems of the host once, container trees and other machines' file systems left out.
  - >-
    C(world_writable_file) takes the permission to write from others, C(world_writable_directory) gives the sticky bit.
    Devices, sockets and links are left alone. Of other classes nothing is changed: who is to own a file, and whether a
    program may be setuid, is a person's decision.
  - A rule that is no longer selected gives the modes back, unless somebody has changed them since.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(absent) to classes of objects.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.file_scan:
    rules:
      - rule: world_writable_paths_secured
        id: 6.1.11
        want: {absent: [world_writable_file, world_writable_directory]}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a path to its mode and owners.
  type: dict
  returned: always
"""

import os
import stat
from typing import Any, Callable, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import (
    core,
    host_files,
    owned,
)

MENDED = ("world_writable_file", "world_writable_directory")


def tightened(want: Mapping[str, Any], path: str) -> Callable[[owned.State], owned.State]:
    def change(state: owned.State) -> owned.State:
        if not state.mode & stat.S_IWOTH:
            return state
        directory = os.path.isdir(path)
        if directory and "world_writable_directory" in want["absent"]:
            return state._replace(mode=state.mode | stat.S_ISVTX)
        if not directory and "world_writable_file" in want["absent"]:
            return state._replace(mode=state.mode & ~stat.S_IWOTH)
        return state

    return change


def forget_vanished(batch: core.Batch, slug: str) -> None:
    """Temporary files come and go; of those that are gone nothing needs to be known."""
    for object_ in batch.given_back(slug):
        if not os.path.lexists(object_.rpartition("\t")[0]):
            batch.forget(slug, object_)


def apply(batch: core.Batch) -> None:
    objects = owned.Objects(batch)
    for slug in batch.absent:
        for object_, (was, now) in batch.given_back(slug).items():
            objects.give_back({"rule": slug, "id": "deselected"}, object_, was, now)
        batch.forget(slug)
    rules = [rule for rule in batch.present if set(MENDED) & set(rule["want"]["absent"])]
    paths = host_files.world_writable(batch.module) if rules else []
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        forget_vanished(batch, rule["rule"])
        for path in paths if rule in rules else ():
            objects.settle(rule, path, tightened(rule["want"], path))


def main() -> None:
    batch = core.batch_module("file_scan")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
