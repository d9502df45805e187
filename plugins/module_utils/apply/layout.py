# Copyright the cisdriver authors. Apache-2.0.
"""A layout of file systems on further volumes: checked, measured, and as sfdisk and fstab take it. Touches nothing."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

#: Below this XFS makes no sense, and mkfs.xfs 5.19 and later refuses under 300 MiB.
LEAST_MIB = 1024
#: Two MiB before the first partition and behind the last: alignment, and GPT's second table.
_SPARE_MIB = 4
_KEYS = {"path", "label", "share", "size", "options", "binds", "device"}
#: XFS has room for 12 characters.
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,12}")
_OPTION = re.compile(r"[A-Za-z0-9_.:=-]+")
#: Volumes of pods are bound from below /var, and people run programs from their homes.
_NEVER_NOEXEC = ("/var", "/home")


class LayoutError(Exception):
    """The layout cannot be: names the entry, what was expected and what was found."""


class Mount(NamedTuple):
    """One file system: ``mib`` is its size on a shared device of known size, else 0; ``rest`` gets what is left.

    ``device`` is one of its own, ``binds`` are paths that are bound from directories of this file system.
    """

    path: str
    label: str
    options: Tuple[str, ...]
    binds: Tuple[str, ...]
    device: str
    mib: int
    rest: bool

    @property
    def sources(self) -> Dict[str, str]:
        """Bound path to the directory of this file system that is bound there."""
        return {bind: f"{self.path}/{os.path.basename(bind)}" for bind in self.binds}


def read(layout: Sequence[Mapping[str, Any]], total_mib: int = 0) -> List[Mount]:
    """The mounts of a layout, parents first, on a shared device of ``total_mib`` (0: not known, or not shared).

    Raises LayoutError.
    """
    if not layout:
        raise LayoutError("the layout is empty: expected at least one entry {path, label}")
    mounts = sorted((_mount(entry, total_mib) for entry in layout), key=lambda mount: mount.path)
    _check_names(mounts)
    own = [mount.path for mount in mounts if mount.device]
    if own and len(own) != len(mounts):
        raise LayoutError(f"{', '.join(own)}: a device for each entry, or for none and one for all, is expected")
    rest = [mount.path for mount in mounts if mount.rest and not own]
    if len(rest) > 1:
        raise LayoutError(f"{' and '.join(rest)}: only one entry may go without share and size, and gets what is left")
    return _sized(mounts, total_mib) if total_mib and not own else mounts


def _mount(entry: Mapping[str, Any], total_mib: int) -> Mount:
    path = str(entry.get("path", ""))
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise LayoutError(f"{path or entry}: unknown key {unknown[0]}; known: {', '.join(sorted(_KEYS))}")
    for name in [path, *entry.get("binds", [])]:
        if not name.startswith("/") or name == "/" or os.path.normpath(name) != name or re.search(r"[\s#\\]", name):
            raise LayoutError(f"path {name!r}: expected an absolute, plain path below /, without a slash at its end")
    label = str(entry.get("label", ""))
    if not _LABEL.fullmatch(label):
        raise LayoutError(f"{path}: label {label!r}: expected 1 to 12 letters, digits and ._-")
    options, binds = tuple(entry.get("options", [])), tuple(entry.get("binds", []))
    for option in options:
        if not _OPTION.fullmatch(str(option)):
            raise LayoutError(f"{path}: option {option!r}: expected one word")
    forbidden = {"noexec", "nosuid", "nodev"} if binds else {"noexec"} if path in _NEVER_NOEXEC else set()
    if forbidden & set(options):
        raise LayoutError(f"{path}: option {sorted(forbidden & set(options))[0]} would break what runs from there")
    mib = _mib(path, entry, total_mib)
    return Mount(path, label, options, binds, str(entry.get("device", "")), mib, not mib)


def _mib(path: str, entry: Mapping[str, Any], total_mib: int) -> int:
    given = {key: entry[key] for key in ("share", "size") if entry.get(key) is not None}
    if len(given) > 1:
        raise LayoutError(f"{path}: share (percent) or size (GiB) is expected, found both")
    for key, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < (100 if key == "share" else 65536):
            limit = "below 100" if key == "share" else "in GiB"
            raise LayoutError(f"{path}: {key} {value!r}: expected a number above 0, {limit}")
    if "share" in given:
        return max(LEAST_MIB, int(total_mib * given["share"] / 100))
    return int(given.get("size", 0) * 1024)


def _check_names(mounts: Sequence[Mount]) -> None:
    for kind, names in (
        ("label", [mount.label for mount in mounts]),
        ("path", [path for mount in mounts for path in (mount.path, *mount.binds)]),
        ("device", [mount.device for mount in mounts if mount.device]),
    ):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        if twice:
            raise LayoutError(f"{kind} {twice[0]}: stands twice in the layout")
    for mount in mounts:
        sources = list(mount.sources.values())
        if len(set(sources)) != len(sources):
            raise LayoutError(f"{mount.path}: its binds would share a directory: {', '.join(mount.binds)}")


def _sized(mounts: Sequence[Mount], total_mib: int) -> List[Mount]:
    """With what is left for the one that gets it."""
    taken = sum(mount.mib for mount in mounts) + _SPARE_MIB
    least = taken + LEAST_MIB * any(mount.rest for mount in mounts)
    if least > total_mib:
        raise LayoutError(f"the layout needs {least} MiB, the device has {total_mib}: take a larger one, or less of it")
    small = [mount.path for mount in mounts if not mount.rest and mount.mib < LEAST_MIB]
    if small:
        raise LayoutError(f"{small[0]}: at least {LEAST_MIB} MiB are expected")
    return [mount._replace(mib=total_mib - taken) if mount.rest else mount for mount in mounts]


def in_table_order(mounts: Sequence[Mount]) -> List[Mount]:
    """As the partitions lie: whatever gets the rest is last, where it can grow with its volume."""
    return sorted(mounts, key=lambda mount: (mount.rest, mount.path))


def table(mounts: Sequence[Mount], disk_id: str) -> str:
    """Input for ``sfdisk``: a GPT whose id we choose, so that we know our own work again; without one, for a diff."""
    lines = ["label: gpt", *([f"label-id: {disk_id}"] if disk_id else []), ""]
    for mount in in_table_order(mounts):
        size = "" if mount.rest else f"size={mount.mib}MiB, "
        lines.append(f'{size}type=linux, name="{mount.label}"')
    return "\n".join(lines) + "\n"


def fstab_lines(mounts: Sequence[Mount]) -> List[str]:
    """Parents before what lies in them. No nofail: without its volume a node must not start as if all were well."""
    lines = [f"LABEL={m.label} {m.path} xfs {','.join(['defaults', *m.options])} 0 0" for m in mounts]
    binds = sorted((bind, source) for mount in mounts for bind, source in mount.sources.items())
    return lines + [f"{source} {bind} none bind 0 0" for bind, source in binds]


def targets(mounts: Sequence[Mount]) -> List[str]:
    """Every path that becomes a mount, parents first."""
    return sorted(path for mount in mounts for path in (mount.path, *mount.binds))


def tops(mounts: Sequence[Mount]) -> List[str]:
    """The targets that lie in no other: copying these copies all."""
    every = targets(mounts)
    return [path for path in every if not any(path.startswith(other + "/") for other in every)]


def in_fstab(text: str, mounts: Sequence[Mount]) -> bool:
    """Whether fstab has this layout. Raises LayoutError where it has a part of it, or mounts a path otherwise."""
    fields = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    there = {os.path.normpath(field[1]): field[0] for field in fields if len(field) > 2 and field[1].startswith("/")}
    wanted = {mount.path: f"LABEL={mount.label}" for mount in mounts}
    wanted.update({bind: source for mount in mounts for bind, source in mount.sources.items()})
    known = [path for path in wanted if path in there]
    for path in known:
        if there[path] != wanted[path]:
            raise LayoutError(f"/etc/fstab mounts {there[path]} at {path}: leave it out of the layout, or of fstab")
    if known and len(known) != len(wanted):
        missing = ", ".join(sorted(set(wanted) - set(known)))
        raise LayoutError(f"/etc/fstab has {known[0]} of the layout, but not {missing}: it is of another one")
    return bool(known)
