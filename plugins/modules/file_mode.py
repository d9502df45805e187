#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module file_mode: owner, group and permissions a list of rules asks for, tightened in one pass."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_mode
author: The cisdriver authors
short_description: Tightens owner, group and mode of a batch of rules
description:
  - Takes permission bits away and never gives any; changes owner or group only where they are not accepted.
  - Follows a symbolic link at a plain path, and none that a glob or a walk comes across.
  - Passes over files that vanish meanwhile, and those that are not there.
  - What a rule changed at a plain path comes back when it is no longer selected, unless somebody has changed it
    since; in a walked tree it does not.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want is a list of items.
      - >-
        An item has C(path) or C(find), and C(type), C(names), C(prune), C(max_mode), C(owner), C(group), C(any_of),
        C(classes), C(directory_of), C(state), C(create_if_package), as C(schemas/rule.json) describes them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.file_mode:
    rules:
      - rule: shadow_permissions
        id: 6.1.6
        want: [{path: /etc/shadow, owner: root, group: root, max_mode: "0000"}]
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a path to its mode and owners.
  type: dict
  returned: always
"""

import fnmatch
import functools
import glob
import grp
import os
import pwd
import stat
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply.owned import State, put

IS_TYPE = {"file": stat.S_ISREG, "directory": stat.S_ISDIR}


@functools.lru_cache(maxsize=None)
def every_user() -> List[pwd.struct_passwd]:
    return pwd.getpwall()


@functools.lru_cache(maxsize=None)
def every_group() -> List[grp.struct_group]:
    return grp.getgrall()


def apply(batch: core.Batch) -> None:
    """Rule after rule; ``seen`` lets one rule see what another did to the same object, in check mode too."""
    seen: Dict[str, State] = {}
    for slug in batch.absent:
        give_back(batch, slug, seen)
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        for item in rule["want"]:
            where = location(item)
            if item.get("state") == "absent":
                remove(batch, rule, where)
                continue
            if "create_if_package" in item:
                create(batch, rule, item, where, seen)
            for path in objects(item, where):
                tighten(batch, rule, item, path, seen)


def location(item: Mapping[str, Any]) -> str:
    """The item's path, in the directory of the path that another file configures, if it does."""
    path = str(item.get("find") or item["path"])
    elsewhere = item.get("directory_of")
    for line in core.read(elsewhere["file"]).splitlines() if elsewhere else ():
        key, _equals, value = line.partition("=")
        if key.strip() == elsewhere["key"]:
            path = os.path.dirname(value.strip())
    return path


def objects(item: Mapping[str, Any], where: str) -> Iterator[str]:
    """Paths of the item's type, never a link."""
    if "find" in item:
        found: Iterator[str] = walk(where, item.get("prune", ()))
    elif glob.has_magic(where):
        found = iter(sorted(glob.glob(where)))
    else:
        found = iter([os.path.realpath(where)])
    is_type = IS_TYPE[item.get("type", "file")]
    names = item.get("names")
    for path in found:
        about = looked_at(path)
        if about and is_type(about.st_mode) and (names is None or named_so(path, names)):
            yield path


def walk(top: str, prune: Sequence[str]) -> Iterator[str]:
    start = looked_at(top)
    pending = [top] if start else []
    while pending:
        try:
            entries = sorted(os.scandir(pending.pop()), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            about = looked_at(entry.path)
            if about is None or about.st_dev != start.st_dev or entry.path in prune:
                continue
            yield entry.path
            if stat.S_ISDIR(about.st_mode):
                pending.append(entry.path)


def looked_at(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def named_so(path: str, names: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(os.path.basename(path), name) for name in names)


def tighten(
    batch: core.Batch, rule: Mapping[str, Any], item: Mapping[str, Any], path: str, seen: Dict[str, State]
) -> None:
    about = looked_at(path)
    if about is None:
        return
    before = seen.get(path) or State(stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid)
    after = wanted(batch, rule, item, path, before)
    if after == before:
        return
    if "find" not in item:  # what lies in a tree comes and goes, and nobody set its modes by hand
        for attribute in State._fields:
            was, will = getattr(before, attribute), getattr(after, attribute)
            batch.remember(rule["rule"], f"{path}\t{attribute}", was, will)
        batch.store()
    if not batch.module.check_mode and not put(batch, rule, path, before, after):
        return
    seen[path] = after
    note(batch, rule, path, str(before), str(after))


def note(batch: core.Batch, rule: Mapping[str, Any], path: str, before: str, after: str) -> None:
    batch.record(rule["rule"], {path: before}, {path: after})
    batch.changed_file(path, before + "\n" if before else "", after + "\n" if after else "")


def wanted(batch: core.Batch, rule: Mapping[str, Any], item: Mapping[str, Any], path: str, now: State) -> State:
    """The state nearest to the present one that the item accepts."""
    for judged in item.get("classes", (item,)):
        if "classes" in item and not named_so(path, judged.get("names", ["*"])):
            continue
        choices = [nearest(batch, rule, {**judged, **choice}, now) for choice in judged.get("any_of", ({},))]
        # of several ways that are right, the one that leaves the owners as they are
        return min(choices, key=lambda state: (state != now, state[1:] != now[1:]))
    return now


def nearest(batch: core.Batch, rule: Mapping[str, Any], choice: Mapping[str, Any], now: State) -> State:
    mode = now.mode & int(choice.get("max_mode", "7777"), 8)
    users = {account.pw_name: account.pw_uid for account in every_user()}
    groups = {group.gr_name: group.gr_gid for group in every_group()}
    service = [account for account in every_user() if account.pw_shell.endswith(("nologin", "false"))]
    uid = accepted(batch, rule, choice.get("owner"), now.uid, users, [account.pw_uid for account in service])
    gid = accepted(batch, rule, choice.get("group"), now.gid, groups, [account.pw_gid for account in service])
    return State(mode, now.uid if uid is None else uid, now.gid if gid is None else gid)


def accepted(
    batch: core.Batch,
    rule: Mapping[str, Any],
    names: Any,
    number: int,
    ids: Mapping[str, int],
    service: List[int],
) -> Optional[int]:
    """The id itself if one of ``names`` has it, else that of the first name; None where any id will do."""
    if names is None:
        return None
    choices = [names] if isinstance(names, str) else names
    if "@unknown" in choices and number not in ids.values():
        return number
    if any(number in service if name == "@service" else ids.get(name) == number for name in choices):
        return number
    if choices[0] not in ids:
        batch.fail(f"rule {rule['rule']} ({rule['id']}): this machine has no account {choices[0]}")
    return ids[choices[0]]


def give_back(batch: core.Batch, slug: str, seen: Dict[str, State]) -> None:
    """Modes, owners and files as they were before a rule that is no longer selected."""
    rule = {"rule": slug, "id": "deselected"}
    for name, (was, now) in batch.given_back(slug).items():
        path, _tab, attribute = name.partition("\t")
        about = looked_at(path)
        if attribute == "file":
            give_back_file(batch, rule, path, was, about)
        elif about is not None:
            before = seen.get(path) or State(stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid)
            after = before._replace(**{attribute: was})
            if getattr(before, attribute) == now and (batch.module.check_mode or put(batch, rule, path, before, after)):
                seen[path] = after
                note(batch, rule, path, str(before), str(after))
    batch.forget(slug)


def give_back_file(
    batch: core.Batch,
    rule: Mapping[str, Any],
    path: str,
    was: Optional[Dict[str, Any]],
    about: Optional[os.stat_result],
) -> None:
    """A file that was made goes, as long as nobody has written to it; one that was removed comes back."""
    if was is None and about is not None and about.st_size == 0:
        remove(batch, rule, path)
    elif was is not None and about is None:
        batch.write(path, was["text"], was["mode"])
        if not batch.module.check_mode:
            os.chown(path, was["uid"], was["gid"])
        batch.record(rule["rule"], {path: "absent"}, {path: "present"})


def create(
    batch: core.Batch, rule: Mapping[str, Any], item: Mapping[str, Any], path: str, seen: Dict[str, State]
) -> None:
    """An empty file where there is none, as long as the package it belongs to is installed."""
    if os.path.lexists(path):
        return
    done, _out, _err = batch.module.run_command(["rpm", "-q", "--quiet", item["create_if_package"]])
    if done != 0:
        return
    state = nearest(batch, rule, item, State(int(item["max_mode"], 8), os.geteuid(), os.getegid()))
    note(batch, rule, path, "absent", str(state))
    batch.remember(rule["rule"], f"{path}\tfile", None, "made")
    batch.store()
    if batch.module.check_mode:
        seen[path] = state
        return
    try:
        batch.put(path, "", state.mode, like="")
        put(batch, rule, path, State(state.mode, os.geteuid(), os.getegid()), state)
    except OSError as error:
        batch.fail(f"rule {rule['rule']} ({rule['id']}): cannot create {path}: {error.strerror}")


def remove(batch: core.Batch, rule: Mapping[str, Any], path: str) -> None:
    if not os.path.lexists(path):
        return
    note(batch, rule, path, "present", "absent")
    about = os.lstat(path)
    if stat.S_ISREG(about.st_mode):
        kept = {"mode": stat.S_IMODE(about.st_mode), "uid": about.st_uid, "gid": about.st_gid}
        batch.remember(rule["rule"], f"{path}\tfile", {**kept, "text": core.read(path)}, None)
        batch.store()
    if batch.module.check_mode:
        return
    try:
        os.unlink(path)
    except OSError as error:
        batch.fail(f"rule {rule['rule']} ({rule['id']}): cannot remove {path}: {error.strerror}")


def main() -> None:
    batch = core.batch_module("file_mode")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
