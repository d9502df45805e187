#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module boot_args: kernel arguments of every installed kernel and of those to come."""

from __future__ import annotations

DOCUMENTATION = r"""
module: boot_args
author: The cisdriver authors
short_description: Sets and removes kernel arguments for a batch of rules
description:
  - Changes the entries of all installed kernels by grubby, and C(/etc/default/grub) and, where there is
    one, C(/etc/kernel/cmdline) for kernels installed later. It takes effect at the next boot.
  - Keeps in mind what stood there, and gives it back when a rule is no longer wanted.
  - Without a boot loader, as in a container, there is nothing to do.
options:
  defaults:
    description: The file grub2-mkconfig reads.
    type: path
    default: /etc/default/grub
  cmdline:
    description: The file kernel-install reads, if there is one.
    type: path
    default: /etc/kernel/cmdline
  entries:
    description: The directory of the boot entries; where it holds any, grubby has to be installed.
    type: path
    default: /boot/loader/entries
  memory:
    description: Where what stood there before is kept.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want is C(present), which maps an
        argument to its value or to C({min: lowest}), and C(absent), a list of words.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.boot_args:
    rules:
      - {rule: early_process_auditing_enabled, id: 5.2.1.2, want: {present: {audit: 1}}}
      - {rule: selinux_not_disabled_in_bootloader, id: 1.6.1.2, want: {absent: [selinux=0, enforcing=0]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping C(place argument) to the words found.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Any, List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

#: ``GRUB_CMDLINE_LINUX="..."`` or ``+=`` with either quote or none, and whatever follows it on the line.
ASSIGNED = re.compile(r"""^(\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)\+?=)(["']?)(.*?)\3(\s*(?:#.*)?)$""")
NAME = "GRUB_CMDLINE_LINUX"
#: In memory, the kernels that were there first: what later ones have came from the defaults we wrote.
KERNELS = "kernels"


class Place:
    """Arguments that stand together: a boot entry, or a line of a file."""

    def __init__(self, name: str, words: List[str], kernel: str = "") -> None:
        self.name = name
        self.kernel = kernel  # of a boot entry, by which grubby knows it
        self.words = words
        self.before = list(words)


def name_of(word: str) -> str:
    return word.partition("=")[0]


def met(value: Any, word: str) -> bool:
    """Whether ``name=value`` is what a rule wants, or more where it names the least."""
    found = word.partition("=")[2]
    if isinstance(value, dict):
        return found.isdigit() and int(found) >= value["min"]
    return found == str(value)


def written(name: str, value: Any) -> str:
    return f"{name}={value['min'] if isinstance(value, dict) else value}"


def wanted(words: List[str], want: Mapping[str, Any], add: bool = True) -> List[str]:
    """The words as a rule wants them: what contradicts is gone, what is missing comes last."""
    absent = want.get("absent", [])
    words = [word for word in words if word not in absent]
    for name, value in want.get("present", {}).items():
        words = [word for word in words if name_of(word) != name or met(value, word)]
        if add and name not in [name_of(word) for word in words]:
            words.append(written(name, value))
    return words


def subjects(want: Mapping[str, Any]) -> List[str]:
    """The arguments a rule speaks of, by name, or by word where it forbids one value."""
    return [*want.get("present", {}), *want.get("absent", [])]


def about(words: List[str], subject: str) -> List[str]:
    return [word for word in words if (word if "=" in subject else name_of(word)) == subject]


def entries(batch: core.Batch) -> List[Place]:
    """The entries grubby knows; none where there is no boot loader."""
    rc, out, err = runtime.run(batch.module, ["grubby", "--info=ALL"])
    places = []
    for block in re.split(r"(?m)^(?=index=)", out) if rc == 0 else []:
        fields = dict(re.findall(r'(?m)^(\w+)="?(.*?)"?$', block))
        if "kernel" in fields:
            name = fields.get("id") or fields["kernel"]
            places.append(Place(name, fields.get("args", "").split(), fields["kernel"]))
    if not places and glob.glob(os.path.join(batch.module.params["entries"], "*.conf")):
        batch.fail(
            f"grubby --info=ALL: exit {rc}, no entry shown, yet {batch.module.params['entries']} holds some:"
            f" {err.strip() or out.strip()}; install grubby, or skip the rules"
        )
    return places


def assigned_to(line: str) -> str:
    assigned = ASSIGNED.match(line)
    return assigned[2] if assigned else ""


def line_of(lines: List[str], name: str) -> Optional[int]:
    """Index of the line that holds the arguments of a name: the last that sets it, else the last that adds to it."""
    at = [index for index, line in enumerate(lines) if assigned_to(line) == name]
    sets = [index for index in at if not lines[index].partition("=")[0].endswith("+")]
    return (sets or at or [None])[-1]


def default_places(text: str) -> List[Place]:
    """The two variables; a missing GRUB_CMDLINE_LINUX is empty."""
    found = {NAME: Place(NAME, [])}
    lines = text.splitlines()
    for name in (NAME, f"{NAME}_DEFAULT"):
        at = line_of(lines, name)
        assigned = ASSIGNED.match(lines[at]) if at is not None else None
        if assigned:
            found[name] = Place(name, assigned[4].split())
    return list(found.values())


def reworded(text: str, place: Place) -> str:
    """The text with the words a place has lost taken out and the new ones at its end; its blanks stay."""
    for word in place.before:
        if word not in place.words:
            text = re.sub(rf"\s*(?<!\S){re.escape(word)}(?!\S)", "", text)
    for word in place.words:
        if word not in place.before:
            text = f"{text} {word}" if text else word
    return text


def with_places(text: str, places: List[Place]) -> str:
    """The text with the lines of those places whose words changed."""
    lines = text.splitlines()
    for place in places:
        if place.words == place.before:
            continue
        at = line_of(lines, place.name)
        old = ASSIGNED.match(lines[at]) if at is not None else None
        if at is not None and old:
            quote = old[3] or '"'
            lines[at] = f"{old[1]}{quote}{reworded(old[4], place)}{quote}{old[5]}"
        else:
            lines.append(f'{place.name}="{reworded("", place)}"')
    return "\n".join(lines) + "\n"


def edit(batch: core.Batch, rule: Mapping[str, Any], place: Place, add: bool) -> None:
    """Bring a place to what a rule wants; note what it changes, so that it can be given back."""
    before, place.words = place.words, wanted(place.words, rule["want"], add)
    for subject in subjects(rule["want"]):
        was, now = about(before, subject), about(place.words, subject)
        batch.record(rule["rule"], {f"{place.name} {subject}": was}, {f"{place.name} {subject}": now})
        batch.remember(rule["rule"], f"{place.name} {subject}", was, now)


def give_back(batch: core.Batch, slug: str, places: List[Place]) -> None:
    """What stood there before, where a place still holds what we left; a kernel that came since is as the others."""
    remembered = batch.given_back(slug)
    known, _seen = remembered.pop(KERNELS, ([], None))
    for object_, (before, after) in remembered.items():
        name, _blank, subject = object_.rpartition(" ")
        for place in places:
            new_kernel = place.kernel and place.name not in known
            if place.name != name and not (new_kernel and name == NAME and not before):
                continue
            now = about(place.words, subject)
            if now == after and now != before:
                # grubby keeps one value per name; before, the last one counted all the same
                names = [name_of(word) for word in before] if place.kernel else []
                others = [word for word in place.words if word not in now and name_of(word) not in names]
                place.words = others + before
                batch.record(slug, {f"{place.name} {subject}": now}, {f"{place.name} {subject}": before})
    batch.forget(slug)


def update(batch: core.Batch, places: List[Place]) -> None:
    """One call of grubby per kernel: told to update ALL, it would edit the defaults after us."""
    calls: List[List[str]] = []
    for place in places:
        gone = " ".join(word for word in place.before if word not in place.words)
        new = " ".join(word for word in place.words if word not in place.before)
        if gone or new:
            batch.changed_file(place.name, gone + "\n", new + "\n")
            flags = ([f"--remove-args={gone}"] if gone else []) + ([f"--args={new}"] if new else [])
            calls.append(["grubby", f"--update-kernel={place.kernel}", *flags])
    if batch.module.check_mode:
        return
    batch.store()
    for argv in calls:
        rc, out, err = runtime.run(batch.module, argv)
        if rc:
            batch.fail(f"{' '.join(argv)}: exit {rc}: {err.strip() or out.strip()}")
    if calls:
        check_done(batch, places)


def check_done(batch: core.Batch, places: List[Place]) -> None:
    now = {place.name: place.words for place in entries(batch)}
    for place in places:
        if sorted(set(now.get(place.name, []))) != sorted(set(place.words)):
            batch.fail(
                f"boot entry {place.name}: expected {' '.join(place.words)} after grubby,"
                f" found {' '.join(now.get(place.name, [])) or 'no entry'}"
            )


def apply(batch: core.Batch) -> None:
    params = batch.module.params
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
    kernels = entries(batch)
    if not kernels:
        return
    text, line = core.read(params["defaults"]), core.read(params["cmdline"])
    defaults = default_places(text) if text else []
    coming = [Place(params["cmdline"], line.split())] if line else []
    for slug in batch.absent:
        give_back(batch, slug, [*kernels, *defaults, *coming])
    for rule in batch.present:
        for place in [*kernels, *defaults, *coming]:
            edit(batch, rule, place, add=place.name != f"{NAME}_DEFAULT")
        if batch.given_back(rule["rule"]):
            batch.remember(rule["rule"], KERNELS, [place.name for place in kernels], "seen")
    if any(place.words != place.before for place in defaults):
        batch.write(params["defaults"], with_places(text, defaults))
    if coming and coming[0].words != coming[0].before:
        batch.write(params["cmdline"], reworded(line.rstrip("\n"), coming[0]) + "\n")
    update(batch, kernels)


def main() -> None:
    batch = core.batch_module(
        "boot_args",
        defaults={"type": "path", "default": "/etc/default/grub"},
        cmdline={"type": "path", "default": "/etc/kernel/cmdline"},
        entries={"type": "path", "default": "/boot/loader/entries"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
