#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module login_defs: a list of rules' settings for new accounts, in the two files that have no drop-ins."""

from __future__ import annotations

DOCUMENTATION = r"""
module: login_defs
author: The cisdriver authors
short_description: Sets defaults for new accounts for a batch of rules
description:
  - Edits /etc/login.defs in place, and INACTIVE in /etc/default/useradd. Only the line of a key changes.
  - A value that is stricter already stays.
  - A rule that is no longer selected gets its lines back as they were, unless somebody has changed them since.
options:
  login_defs:
    description: Where all keys but INACTIVE stand.
    type: path
    default: /etc/login.defs
  useradd:
    description: Where INACTIVE stands.
    type: path
    default: /etc/default/useradd
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a key to its value.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.login_defs:
    rules:
      - {rule: password_expiration_limited, id: 4.6.1.1, want: {PASS_MAX_DAYS: 365}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a key to its value.
  type: dict
  returned: always
"""

import re
from typing import Any, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits

#: Keys that limit something, with the least value that limits it at all; a lower one is stricter.
AT_MOST = {"PASS_MAX_DAYS": 1, "INACTIVE": 0}
#: Keys of which a higher value is stricter.
AT_LEAST = ("PASS_MIN_DAYS", "PASS_WARN_AGE")


def pattern(key: str) -> "re.Pattern[str]":
    """The lines of a key that are in force: blanks or ``=`` before the value, which is the second group."""
    return re.compile(rf"(?m)^([ \t]*{key}(?:[ \t]*=[ \t]*|[ \t]+))(\S+)")


def current(text: str, key: str) -> Optional[str]:
    """The last of several lines holds."""
    found = pattern(key).findall(text)
    return str(found[-1][1]) if found else None


def stricter(key: str, value: Any, present: Optional[str]) -> str:
    """The value, or the present one where that is stricter."""
    if key == "UMASK" and re.fullmatch(r"[0-7]+", present or "") and not int(str(value), 8) & ~int(str(present), 8):
        return str(present)
    if present is not None and re.fullmatch(r"\d+", present):
        if key in AT_MOST and AT_MOST[key] <= int(present) <= int(value):
            return present
        if key in AT_LEAST and int(present) >= int(value):
            return present
    return str(value)


def edited(text: str, key: str, value: str, equals: str) -> str:
    """The text with the key's lines at the value; a new line at the end where it has none."""
    if current(text, key) is None:
        return text + ("\n" if text and not text.endswith("\n") else "") + f"{key}{equals}{value}\n"

    def line(found: "re.Match[str]") -> str:
        # useradd takes nothing but KEY=, and login.defs no = at all
        return (f"{key}=" if equals == "=" else found[1].replace("=", equals)) + value

    return pattern(key).sub(line, text)


def apply(batch: core.Batch) -> None:
    files = {key: batch.module.params[key] for key in ("login_defs", "useradd")}
    texts = {path: core.read(path) for path in files.values()}
    for slug in reversed(batch.absent):
        for path in texts:
            texts[path] = edits.give_back(batch, slug, path, texts[path])
    for rule in batch.present:
        for key, value in rule["want"].items():
            path, equals = (files["useradd"], "=") if key == "INACTIVE" else (files["login_defs"], "\t")
            present = current(texts[path], key)
            after = stricter(key, value, present)
            before, texts[path] = texts[path], edited(texts[path], key, after, equals)
            edits.remember(batch, rule["rule"], path, before, texts[path])
            batch.record(rule["rule"], {key: present}, {key: after})
    for path, text in texts.items():
        batch.write(path, text)
    for slug in batch.absent:  # not before: a write that fails leaves the edits where they are
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module(
        "login_defs",
        login_defs={"type": "path", "default": "/etc/login.defs"},
        useradd={"type": "path", "default": "/etc/default/useradd"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
