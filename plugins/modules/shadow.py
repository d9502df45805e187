#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module shadow: a list of rules' ageing of the passwords that exist."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow
author: The cisdriver authors
short_description: Sets the ageing of existing passwords for a batch of rules
description:
  - Calls chage, which locks the files, for accounts that have a usable password and are not exempt.
  - A value that is stricter already stays.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  exempt:
    description: Accounts to leave alone, such as break-glass accounts. The audit still shows them.
    type: list
    elements: str
    default: []
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps min_days, max_days, warn_days,
        inactive_days to its value.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.shadow:
    rules:
      - {rule: password_expiration_limited, id: 4.6.1.1, want: {max_days: 365}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping an account to its value.
  type: dict
  returned: always
"""

import time
from typing import Any, Dict, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core

SHADOW = "/etc/shadow"
#: Setting to field, option of chage, least value that counts, and whether a higher one is stricter.
SETTINGS = {
    "min_days": (3, "--mindays", 0, True),
    "max_days": (4, "--maxdays", 1, False),
    "warn_days": (5, "--warndays", 0, True),
    "inactive_days": (6, "--inactive", 0, False),
}


def accounts(text: str, exempt: List[str]) -> List[List[str]]:
    """Fields of accounts with a usable password."""
    split = [line.split(":") for line in text.splitlines()]
    return [
        fields
        for fields in split
        if len(fields) == 9 and fields[1] and fields[1][0] not in "!*" and fields[0] not in exempt
    ]


def is_strict(present: str, value: int, least: int, higher: bool) -> bool:
    if not present.isdigit() or int(present) < least:
        return False
    return int(present) >= value if higher else int(present) <= value


def refuse_to_expire(batch: core.Batch, aged: List[List[str]], today: int) -> None:
    """Stop before anything changes where a password would be too old at once: its account could not log in any more."""
    for rule in batch.present:
        days = rule["want"].get("max_days")
        for fields in aged if days is not None else []:
            changed = fields[2]
            if changed.isdigit() and int(changed) + int(days) < today and not is_strict(fields[4], int(days), 1, False):
                age = f"the password of {fields[0]} is {today - int(changed)} days old"
                batch.fail(
                    f"rule {rule['rule']} ({rule['id']}): {age} and would expire at once with max_days {days}:"
                    " change it, name the account in cis_password_exempt, or skip the rule"
                )


def apply(batch: core.Batch) -> None:
    """All changes of an account in one call of chage."""
    aged = accounts(core.read(SHADOW), batch.module.params["exempt"])
    refuse_to_expire(batch, aged, int(time.time() // 86400))
    for fields in aged:
        arguments = given_back(batch, fields)
        for rule in batch.present:
            arguments.update(changes(batch, rule, fields))
        batch.store()
        if arguments and not batch.module.check_mode:
            argv = ["chage", *(word for pair in arguments.items() for word in pair), fields[0]]
            code, _out, err = batch.module.run_command(argv)
            if code != 0:
                batch.fail(f"{SHADOW}: cannot set the ageing of {fields[0]}: {err.strip()}")
    for slug in batch.absent:
        batch.forget(slug)


def given_back(batch: core.Batch, fields: List[str]) -> Dict[str, str]:
    """Options of chage by which an account gets back what rules that are no longer selected changed."""
    arguments = {}
    for slug in batch.absent:
        for name, (was, now) in batch.given_back(slug).items():
            account, _tab, setting = name.partition("\t")
            field, option = SETTINGS[setting][:2]
            if account == fields[0] and fields[field] == now:
                arguments[option] = was or "-1"
                batch.record(slug, {account: now}, {account: was})
                batch.changed_file(f"{SHADOW}: {account}: {setting}", f"{now}\n", f"{was}\n")
    return arguments


def changes(batch: core.Batch, rule: Mapping[str, Any], fields: List[str]) -> Dict[str, str]:
    arguments = {}
    for setting, value in rule["want"].items():
        field, option, least, higher = SETTINGS[setting]
        if not is_strict(fields[field], int(value), least, higher):
            arguments[option] = str(value)
            batch.remember(rule["rule"], f"{fields[0]}\t{setting}", fields[field], str(value))
            batch.record(rule["rule"], {fields[0]: fields[field]}, {fields[0]: str(value)})
            name = f"{SHADOW}: {fields[0]}: {setting}"
            batch.changed_file(name, f"{fields[field]}\n", f"{value}\n")
    return arguments


def main() -> None:
    batch = core.batch_module("shadow", exempt={"type": "list", "elements": "str", "default": []})
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
