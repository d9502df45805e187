#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module repository: the check of package repositories' metadata."""

from __future__ import annotations

DOCUMENTATION = r"""
module: repository
author: The cisdriver authors
short_description: Has dnf check the signature of repositories' metadata for a batch of rules
description:
  - Sets C(repo_gpgcheck) in the section of each enabled repository, and in C([main]) unless only some are meant.
  - Lets dnf load those repositories with the new files before these are put in place, which also imports the keys that
    dnf keeps per repository. Where it cannot, nothing is changed and it fails.
  - Keeps in mind what stood there, and gives it back when a rule is no longer wanted.
options:
  main:
    description: The files a package manager starts from; the first that is there is the one.
    type: list
    elements: path
    default: [/etc/dnf/dnf.conf, /etc/yum.conf]
  directory:
    description: Where the repositories' files are.
    type: path
    default: /etc/yum.repos.d
  release:
    description: Files that say at which release repositories are read, the strongest first.
    type: list
    elements: path
    default: [/etc/dnf/vars/releasever, /etc/system-release]
  memory:
    description: Where what stood there before is kept.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want has C(repo_gpgcheck) true, and
        C(signed), ids of the only repositories meant, from the release C(since) on.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.repository:
    rules:
      - {rule: repo_metadata_gpgcheck_enabled, id: 1.2.4, want: {repo_gpgcheck: true, signed: [amazonlinux]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping C(file section) to the value.
  type: dict
  returned: always
"""

import glob
import os
import re
import shutil
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

KEY = "repo_gpgcheck"
TRUE = ("1", "yes", "true", "on")


def sections(text: str) -> Dict[str, Tuple[int, int]]:
    """Section to the index of its header and of the line after its last."""
    lines = text.splitlines()
    heads = [(index, line.strip()[1:].partition("]")[0]) for index, line in enumerate(lines) if line.startswith("[")]
    ends = [index for index, _name in heads[1:]] + [len(lines)]
    return {name: (index, ends[place]) for place, (index, name) in enumerate(heads)}


def value(text: str, section: str, key: str) -> Optional[str]:
    """The last value of a key in a section; None where it is not set."""
    start, end = sections(text).get(section, (0, 0))
    found = None
    for line in text.splitlines()[start:end]:
        name, equals, rest = line.partition("=")
        if equals and name.strip() == key:
            found = rest.strip()
    return found


def with_value(text: str, section: str, new: Optional[str]) -> str:
    """The text with the section's repo_gpgcheck at a value, None without it. A new line comes after its last."""
    lines = text.splitlines()
    start, end = sections(text)[section]
    at = [index for index in range(start, end) if lines[index].partition("=")[0].strip() == KEY]
    if at and new is not None:
        lines[at[-1]] = re.sub(r"(=\s*).*", lambda old: old[1] + new, lines[at[-1]])
    elif at:
        del lines[at[-1]]
    elif new is not None:
        last = max(index for index in range(start, end) if lines[index].strip())
        lines.insert(last + 1, f"{KEY}={new}")
    return "\n".join(lines) + "\n"


def release(batch: core.Batch) -> Optional[Tuple[int, ...]]:
    """The dated release repositories are read at; None where it is another, such as ``latest``."""
    for path in batch.module.params["release"]:
        text = core.read(path)
        if text.strip():
            found = re.search(r"(?:^|release )(\d{4})\.(\d+)\.(\d{8})\b", text)
            return tuple(int(part) for part in found.groups()) if found else None
    return None


def meant(batch: core.Batch, want: Mapping[str, Any], texts: Mapping[str, str], main: str) -> List[Tuple[str, str]]:
    """``(file, section)`` of all a rule asks for."""
    if "since" in want:
        now = release(batch)
        if now is None or now < tuple(int(part) for part in want["since"].split(".")):
            return []
    found = [] if "signed" in want else [(main, "main")]
    for path, text in texts.items():
        for section in sections(text) if path != main else []:
            enabled = (value(text, section, "enabled") or "1").lower() in TRUE
            if enabled and section in want.get("signed", [section]):
                found.append((path, section))
    return [(path, section) for path, section in found if section in sections(texts[path])]


def refused(batch: core.Batch, texts: Mapping[str, str], main: str, ids: List[str]) -> str:
    """What dnf has against the repositories with the new files; it imports their keys on the way."""
    directory = tempfile.mkdtemp(prefix=core.TEMPORARY)
    try:
        for path, text in texts.items():
            copy = os.path.join(directory, os.path.basename(path))
            with open(copy, "w", encoding="utf-8", errors="surrogateescape") as file:  # as core.read() gives it
                file.write(text)
        argv = ["dnf", "-y", "-c", os.path.join(directory, os.path.basename(main)), f"--setopt=reposdir={directory}"]
        # a repository that is skipped because it cannot be checked would count as loaded
        argv += [*(f"--setopt={id_}.skip_if_unavailable=0" for id_ in ids), *(f"--repo={id_}" for id_ in ids)]
        rc, out, err = runtime.run(batch.module, [*argv, "makecache"])
        return "" if rc == 0 and "Ignoring repositories" not in out + err else last_lines(err, out)
    finally:
        shutil.rmtree(directory)


def last_lines(err: str, out: str) -> str:
    return " ".join((err.strip() or out.strip()).splitlines()[-3:])


def edit(batch: core.Batch, texts: Dict[str, str], main: str) -> List[str]:
    """Bring the texts to what the rules want; ids of the repositories that change."""
    changed = []
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        for path, section in meant(batch, rule["want"], texts, main):
            before = value(texts[path], section, KEY)
            after = before if (before or "").lower() in TRUE else "1"
            batch.record(rule["rule"], {f"{path} {section}": before}, {f"{path} {section}": after})
            batch.remember(rule["rule"], f"{path} {section}", before, after)
            if after != before:
                texts[path] = with_value(texts[path], section, after)
                changed += [section] if path != main else []
    return changed


def give_back(batch: core.Batch, slug: str, texts: Dict[str, str]) -> None:
    for object_, (before, after) in batch.given_back(slug).items():
        path, _blank, section = object_.rpartition(" ")
        if section in sections(texts.get(path, "")) and value(texts[path], section, KEY) == after:
            texts[path] = with_value(texts[path], section, before)
            batch.record(slug, {object_: after}, {object_: before})
    batch.forget(slug)


def apply(batch: core.Batch) -> None:
    params = batch.module.params
    main = next((path for path in params["main"] if os.path.exists(path)), "")
    if not main:
        for rule in batch.present:
            batch.record(rule["rule"], {}, {})
        return  # no package manager
    paths = [main, *sorted(glob.glob(os.path.join(params["directory"], "*.repo")))]
    before = {path: core.read(path) for path in paths}
    texts = dict(before)
    for slug in batch.absent:
        give_back(batch, slug, texts)
    changed = edit(batch, texts, main)
    if changed and not batch.module.check_mode:
        problem = refused(batch, texts, main, changed)
        if problem:
            rules = ", ".join(f"{rule['rule']} ({rule['id']})" for rule in batch.present)
            batch.fail(
                f"rule {rules}: dnf cannot load {' '.join(changed)} with {KEY}=1: {problem}. Nothing is changed."
                " Where a repository's metadata carry no signature, skip the rule, or disable that repository"
            )
    for path, text in texts.items():
        if text != before[path]:
            batch.write(path, text)


def main() -> None:
    batch = core.batch_module(
        "repository",
        main={"type": "list", "elements": "path", "default": ["/etc/dnf/dnf.conf", "/etc/yum.conf"]},
        directory={"type": "path", "default": "/etc/yum.repos.d"},
        release={
            "type": "list",
            "elements": "path",
            "default": ["/etc/dnf/vars/releasever", "/etc/system-release"],
        },
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
