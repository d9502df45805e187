#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module banner: texts shown at login."""

from __future__ import annotations

DOCUMENTATION = r"""
module: banner
author: The cisdriver authors
short_description: Writes the texts shown at login for a batch of rules
description:
  - Makes each path a regular file with the text. A symbolic link is replaced, and what it points to is left as it is.
  - A message of the day that update-motd keeps is left to it, unless it tells the system's name or release.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a path to its text.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.banner:
    rules:
      - rule: local_login_banner_configured
        id: 1.7.2
        want: {/etc/issue: Authorized users only.}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a path to its text.
  type: dict
  returned: always
"""

import os
import re

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core

UPDATE_MOTD = "/var/lib/update-motd/"


def is_left_to_update_motd(path: str) -> bool:
    """Whether the path is a link of update-motd's whose text says nothing about the system."""
    if not os.path.islink(path) or not os.path.realpath(path).startswith(UPDATE_MOTD):
        return False
    return not re.search(r"(?i)\\[mrsv]|amzn|amazon linux", core.read(path))


def apply(batch: core.Batch) -> None:
    for slug in batch.absent:
        give_back(batch, slug)
    for rule in batch.present:
        for path, text in rule["want"].items():
            before, after = core.read(path), str(text).rstrip("\n") + "\n"
            if is_left_to_update_motd(path):
                after = before
            elif os.path.islink(path):
                batch.remember(rule["rule"], path, {"link": os.readlink(path)}, after)
                replace_link(batch, path, after)
            else:
                batch.remember(rule["rule"], path, before, after)
                batch.write(path, after)
            batch.record(rule["rule"], {path: before}, {path: after})


def give_back(batch: core.Batch, slug: str) -> None:
    """The texts and links that stood where a rule that is no longer selected put its own."""
    for path, (was, now) in batch.given_back(slug).items():
        if os.path.islink(path) or core.read(path) != now:
            continue
        if isinstance(was, dict):
            link_again(batch, path, was["link"])
        else:
            batch.write(path, was)
        batch.record(slug, {path: now}, {path: was})
    batch.forget(slug)


def link_again(batch: core.Batch, path: str, target: str) -> None:
    batch.changed_file(path, core.read(path), f"link to {target}\n")
    if batch.module.check_mode:
        return
    temporary = f"{path}.cisdriver-new"
    try:
        if os.path.lexists(temporary):  # an interrupted run's
            os.unlink(temporary)
        os.symlink(target, temporary)
        os.rename(temporary, path)
    except OSError as error:
        batch.fail(f"{path}: cannot be made a link to {target} again: {error.strerror}")


def replace_link(batch: core.Batch, path: str, text: str) -> None:
    """Put a file in the link's place, whatever the text it pointed to; that stays as it is."""
    batch.changed_file(path, f"link to {os.readlink(path)}\n", text)
    if batch.module.check_mode:
        return
    batch.store()
    try:
        batch.put(path, text, 0o644, like="")
    except OSError as error:
        batch.fail(f"{path}: cannot be written, the old text stays: {error.strerror}")


def main() -> None:
    batch = core.batch_module("banner")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
