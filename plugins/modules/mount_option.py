#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module mount_option: options of mounts, in fstab or a unit's drop-in, and on the running mount."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mount_option
author: The cisdriver authors
short_description: Adds mount options for a batch of rules
description:
  - Writes where the mount comes from, a line of C(/etc/fstab) or a drop-in of its mount unit, keeping all options
    that are there, and puts the options on the running mount.
  - The drop-in is owned whole and goes with its rules. A line of fstab is shared; options put there stay.
  - C(/dev/shm), which systemd mounts before it reads units, gets a line in fstab.
  - What is neither mounted nor configured is left alone, and nothing is ever mounted or unmounted. A mask on a mount
    unit that a rule names is taken away for the next boot.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a path to options, or to
      C({options, live, beside}). With live false the running mount is left alone; beside names paths that have to be
      mounts of their own, or nothing is done.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.mount_option:
    rules:
      - {rule: tmp_noexec, id: 1.1.2.3, want: {/tmp: [noexec]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after with those of its options that are set.
  type: dict
  returned: always
"""

import contextlib
import glob
import os
import re
from typing import Any, Dict, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits, runtime

FSTAB = "/etc/fstab"
MOUNTINFO = "/proc/self/mountinfo"
UNITS = "/etc/systemd/system"
OTHER_ADMIN_UNITS = ("/run/systemd/system",)
VENDOR_UNITS = ("/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
#: What of systemd has to read its files again, as runtime.must_read() notes it.
MOUNT_UNITS = "mount-units"
#: Sorts after any name an administrator is likely to choose: the last Options= wins.
DROPIN = "zz-cis.conf"
#: Mounted by systemd itself with these; no unit of theirs is read in time.
API_MOUNTS = {"/dev/shm": ["nosuid", "nodev"]}
LINE = re.compile(r"^(\s*[^#\s]\S*\s+(\S+)\s+\S+)(\s+)?(\S+)?(.*)$")

Wants = Dict[str, Dict[str, Any]]


def wants_of(rule: Mapping[str, Any]) -> Wants:
    """Path to ``{options, live, beside}``, whichever form the rule has."""
    wants = {}
    for path, want in rule["want"].items():
        want = want if isinstance(want, dict) else {"options": want}
        wants[path] = {"live": True, "beside": [], **want}
    return wants


def mounted() -> Dict[str, List[str]]:
    """Options per mount point, of the last mount where several are stacked."""
    points: Dict[str, List[str]] = {}
    for line in core.read(MOUNTINFO).splitlines():
        fields = line.split()
        points[fields[4]] = fields[5].split(",")
    return points


def added(words: List[str], options: List[str]) -> List[str]:
    """``words`` with ``options``, less the words that contradict them."""
    opposite = {option[2:] for option in options}
    kept = [word for word in words if word not in opposite]
    return kept + [option for option in options if option not in kept]


# fstab ----------------------------------------------------------------------------------------


def fstab_words(text: str, path: str) -> List[List[str]]:
    matches = [LINE.match(line) for line in text.splitlines()]
    return [(m.group(4) or "defaults").split(",") for m in matches if m and os.path.normpath(m.group(2)) == path]


def fstab_with(text: str, path: str, options: List[str], new: List[str]) -> str:
    """``text`` with ``options`` on every line for ``path``; ``new`` are those of a line that is not there yet."""
    lines = text.splitlines(keepends=True)
    found = False
    for index, line in enumerate(lines):
        match = LINE.match(line.rstrip("\n"))
        if match and os.path.normpath(match.group(2)) == path:
            found = True
            words = (match.group(4) or "defaults").split(",")
            if added(words, options) != words:
                more = ",".join(added(words, options))
                lines[index] = f"{match.group(1)}{match.group(3) or ' '}{more}{match.group(5)}\n"
    if not found and new:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(f"tmpfs {path} tmpfs {','.join(added(['defaults', *new], options))} 0 0\n")
    return "".join(lines)


# units ----------------------------------------------------------------------------------------


def unit_name(path: str) -> str:
    return path.strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"


def fragment(path: str, in_fstab: bool) -> str:
    """The unit file that mounts ``path`` at boot; empty where fstab or nothing does."""
    directories = [UNITS, *OTHER_ADMIN_UNITS] + ([] if in_fstab else list(VENDOR_UNITS))
    files = [f"{directory}/{unit_name(path)}" for directory in directories]
    return next((file for file in files if os.path.isfile(file)), "")


def dropin_path(path: str) -> str:
    return f"{UNITS}/{unit_name(path)}.d/{DROPIN}"


def unit_options(path: str, file: str) -> str:
    """The Options= that wins, our drop-in not counted, as written (``%%`` and all)."""
    texts = [core.read(file)] if file else []
    dropins: Dict[str, str] = {}
    for directory in (UNITS, *OTHER_ADMIN_UNITS, *VENDOR_UNITS):
        for dropin in glob.glob(f"{glob.escape(directory)}/{glob.escape(unit_name(path))}.d/*.conf"):
            dropins.setdefault(os.path.basename(dropin), dropin)
    texts += [core.read(dropins[name]) for name in sorted(dropins) if dropins[name] != dropin_path(path)]
    found = ""
    for text in texts:
        found = (re.findall(r"^Options[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.M) or [found])[-1]
    return found


def dropin_text(batch: core.Batch, path: str, base: str) -> str:
    """Our drop-in anew: ``base`` and what the rules add, each rule's addition as a comment under its id."""
    before = core.read(dropin_path(path))
    rules = [{**rule, "options": wants_of(rule)[path]["options"]} for rule in batch.present if path in rule["want"]]
    rules = [rule for rule in rules if rule["options"]]
    kept = [line[len("# adds ") :] for slug in batch.keep for line in core.block_lines(before, slug)]
    options = [option for rule in rules for option in rule["options"]] + kept
    words = added([word for word in base.split(",") if word], sorted(set(options)))
    if not options:
        return ""
    return core.dropin(before, rules, batch.keep, adds, prefix=f"[Mount]\nOptions={','.join(words)}")


def adds(rule: Mapping[str, Any]) -> List[str]:
    """What a rule adds to the one Options= line, as comments by which a later run knows it."""
    return [f"# adds {option}" for option in rule["options"]]


# the batch ------------------------------------------------------------------------------------


class Place:
    """One path of the batch: where its options come from, now and at boot."""

    def __init__(self, path: str, fstab: str, live: Dict[str, List[str]]) -> None:
        self.path = path
        self.live = live.get(path)
        self.in_fstab = bool(fstab_words(fstab, path))
        self.unit = fragment(path, self.in_fstab)
        self.masked = os.path.realpath(f"{UNITS}/{unit_name(path)}") == os.devnull

    @property
    def by_unit(self) -> bool:
        """Whether a drop-in decides: there is a unit, or a drop-in of somebody else's beats fstab."""
        return bool(self.unit) or bool(unit_options(self.path, ""))

    def at_boot(self, fstab: str, dropin: str) -> List[List[str]]:
        """Every list of options that speaks for the next boot, given the texts as they will be."""
        lists = fstab_words(fstab, self.path)
        if self.by_unit:
            ours = re.findall(r"^Options=(.*)$", dropin, re.M)
            lists.append((ours[-1] if ours else unit_options(self.path, self.unit)).split(","))
        return lists or ([API_MOUNTS[self.path]] if self.path in API_MOUNTS else [])


def carried(lists: List[List[str]], options: List[str]) -> List[str]:
    return [option for option in options if lists and all(option in words for words in lists)]


def due(batch: core.Batch, live: Dict[str, List[str]]) -> List[Tuple[Mapping[str, Any], str, Dict[str, Any]]]:
    """``(rule, path, want)`` of all that may be done; warns of what must wait for a mount of its own."""
    found = []
    for rule in batch.present:
        for path, want in wants_of(rule).items():
            alone = [other for other in want["beside"] if other not in live]
            if alone and path in live:
                batch.module.warn(
                    f"rule {rule['rule']} ({rule['id']}): {path} is left as it is: {' and '.join(alone)} would"
                    " inherit its options; give it a mount of its own"
                )
            if not alone:
                found.append((rule, path, want))
    return found


def apply(batch: core.Batch) -> None:
    """Write fstab and drop-ins, have systemd read them, then remount what is mounted."""
    live = mounted()
    todo = due(batch, live)
    for rule in batch.present:  # one that waits for mounts of its own is answered for, too
        batch.record(rule["rule"], {}, {})
    old = new = core.read(FSTAB)
    for slug in reversed(batch.absent):
        new = edits.give_back(batch, slug, FSTAB, new)
    places = {path: Place(path, old, live) for _rule, path, _want in todo}
    for rule, path, want in todo:
        if places[path].in_fstab or path in API_MOUNTS:
            base = [word for word in live.get(path, API_MOUNTS.get(path, [])) if word in ("nosuid", "nodev", "noexec")]
            before, new = new, fstab_with(new, path, want["options"], base)
            edits.remember(batch, rule["rule"], FSTAB, before, new)
    texts = {dropin_path(path): core.read(dropin_path(path)) for path in places}
    texts.update({file: core.read(file) for file in glob.glob(f"{UNITS}/*.mount.d/{DROPIN}")})
    after = dict.fromkeys(texts, "")
    for path, place in places.items():
        if place.by_unit:
            after[dropin_path(path)] = dropin_text(batch, path, unit_options(path, place.unit))
    keep_others(batch, texts, after, {dropin_path(path) for path in places})
    record(batch, todo, places, (old, texts), (new, after))
    stale = runtime.must_read(batch, MOUNT_UNITS, new != old or after != texts)
    batch.write(FSTAB, new)
    for file, text in after.items():
        batch.write(file, text)
        if not text and not batch.module.check_mode:
            with contextlib.suppress(OSError):  # somebody else's drop-ins are in there, or nothing was ours
                os.rmdir(os.path.dirname(file))
    stale = masks_again(batch) or stale
    stale = unmask(batch, [(rule, places[path]) for rule, path, want in todo if not want["options"]]) or stale
    if stale and not batch.module.check_mode:
        runtime.run(batch.module, ["systemctl", "daemon-reload"])
        runtime.has_read(MOUNT_UNITS)
    remount(batch, todo, live)


def keep_others(batch: core.Batch, texts: Dict[str, str], after: Dict[str, str], mine: Any) -> None:
    """Drop-ins of paths outside this run stay while a rule in them is kept."""
    for file, text in texts.items():
        if file not in mine and any(core.block_lines(text, slug) for slug in batch.keep):
            after[file] = text


def record(batch: core.Batch, todo: Any, places: Dict[str, Place], old: Any, new: Any) -> None:
    for rule, path, want in todo:
        place, file = places[path], dropin_path(path)
        before = {f"{path} at boot": carried(place.at_boot(old[0], old[1][file]), want["options"])}
        then = {f"{path} at boot": carried(place.at_boot(new[0], new[1][file]), want["options"])}
        if not want["options"]:
            before = {f"{path} at boot": "masked" if place.masked else bool(place.at_boot(old[0], ""))}
            then = {f"{path} at boot": bool(place.at_boot(new[0], ""))}
            if path in API_MOUNTS:
                before, then = ({"fstab": bool(fstab_words(text, path))} for text in (old[0], new[0]))
        if place.live is not None and want["live"] and runtime.manager_runs():
            before[f"{path} now"] = carried([place.live], want["options"])
            then[f"{path} now"] = list(want["options"])
        batch.record(rule["rule"], before, then)


def unmask(batch: core.Batch, places: List[Tuple[Mapping[str, Any], Place]]) -> bool:
    """Take masks off the units of paths. The boot mounts them; nothing is mounted over what is in use."""
    masks = [(rule, f"{UNITS}/{unit_name(place.path)}") for rule, place in places if place.masked]
    stale = bool(masks) and runtime.must_read(batch, MOUNT_UNITS, differs=True)
    for rule, link in masks:
        batch.changed_file(link, "-> /dev/null\n", "")
        batch.remember(rule["rule"], f"{link}\tmask", True, False)
        batch.store()
        if not batch.module.check_mode:
            os.unlink(link)
    return stale


def masks_again(batch: core.Batch) -> bool:
    """Put back the masks that rules took off which are no longer selected, and forget these rules."""
    links = []
    for slug in batch.absent:
        names = [name for name in batch.given_back(slug) if name.endswith("\tmask")]
        links += [name.partition("\t")[0] for name in names if not os.path.lexists(name.partition("\t")[0])]
        batch.forget(slug)
    stale = bool(links) and runtime.must_read(batch, MOUNT_UNITS, differs=True)
    for link in links:
        batch.changed_file(link, "", "-> /dev/null\n")
        if not batch.module.check_mode:
            os.symlink(os.devnull, link)
    return stale


def remount(batch: core.Batch, todo: Any, live: Dict[str, List[str]]) -> None:
    """Put the options on running mounts: flags of the mount alone (``bind``), so that size and the like stay."""
    if not runtime.manager_runs():
        return
    wanted: Dict[str, List[str]] = {}
    for _rule, path, want in todo:
        if path in live and want["live"]:
            wanted[path] = added(wanted.get(path, live[path]), want["options"])
    for path, words in wanted.items():
        if words == live[path]:
            continue
        batch.changed_file(f"{path} (mounted)", ",".join(live[path]) + "\n", ",".join(words) + "\n")
        if batch.module.check_mode:
            continue
        rc, _out, err = runtime.run(batch.module, ["mount", "-o", ",".join(["remount", "bind", *words]), path])
        if rc and runtime.in_container():
            batch.module.warn(f"{path} cannot be remounted in this container: {err.strip()}")
        elif rc:
            batch.fail(f"{path}: cannot remount with {','.join(words)}: {err.strip()}; the next boot will, as written")


def main() -> None:
    batch = core.batch_module("mount_option")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
