#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module listener: where a service that stays may listen."""

from __future__ import annotations

DOCUMENTATION = r"""
module: listener
author: The cisdriver authors
short_description: Confines services to the loopback interface for a batch of rules
description:
  - Sets C(inet_interfaces) of Postfix where it is installed, and restarts it if it runs.
  - A rule that is no longer selected gets the lines back that stood there, unless somebody has changed them since.
options:
  main_cf:
    description: Postfix's file.
    type: path
    default: /etc/postfix/main.cf
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(postfix) to the value of
      C(inet_interfaces).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.listener:
    rules:
      - {rule: mail_agent_local_only, id: 2.2.15, want: {postfix: loopback-only}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to its lines of the parameter.
  type: dict
  returned: always
"""

from typing import List, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

PARAMETER = "inet_interfaces"


def parameter(text: str) -> List[Tuple[int, int]]:
    """Where the parameter is set, as ``(first line, line after)``: a line that starts with a blank carries on."""
    spans: List[Tuple[int, int]] = []
    inside = False
    for index, line in enumerate(text.splitlines()):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            if inside:
                spans[-1] = (spans[-1][0], index + 1)
            continue
        inside = line.partition("=")[0].strip() == PARAMETER
        if inside:
            spans.append((index, index + 1))
    return spans


def with_lines(text: str, wanted: List[str]) -> str:
    """The text with these lines where the parameter was first set, or at its end."""
    lines = text.splitlines()
    spans = parameter(text)
    place = spans[0][0] if spans else len(lines)
    for first, after in reversed(spans):
        del lines[first:after]
    lines[place:place] = wanted
    return "\n".join(lines) + "\n" if lines else ""


def current(text: str) -> List[str]:
    lines = text.splitlines()
    return [line for first, after in parameter(text) for line in lines[first:after]]


def value(lines: List[str]) -> str:
    """What Postfix makes of the lines, when it is one line."""
    return lines[0].partition("=")[2].strip() if len(lines) == 1 else ""


def apply(batch: core.Batch) -> None:
    path = batch.module.params["main_cf"]
    before = text = core.read(path)
    for slug in batch.absent:
        for was, now in batch.given_back(slug).values():
            if text and current(text) == now:
                batch.record(slug, {path: now}, {path: was})
                text = with_lines(text, was)
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        wanted = rule["want"].get("postfix")
        if not text or not wanted:
            continue
        was = current(text)
        now = was if value(was) == wanted else [f"{PARAMETER} = {wanted}"]
        batch.remember(rule["rule"], path, was, now)
        batch.record(rule["rule"], {path: was}, {path: now})
        text = text if was == now else with_lines(text, now)
    if batch.write(path, text) and before and not batch.module.check_mode:
        # not a reload: Postfix opens other sockets only when it starts (man 5 postconf)
        runtime.try_restart(batch, "postfix.service")
    for slug in batch.absent:  # not before: the file may refuse to be written
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module("listener", main_cf={"type": "path", "default": "/etc/postfix/main.cf"})
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
