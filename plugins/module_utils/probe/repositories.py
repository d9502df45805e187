# Copyright the cisdriver authors. Apache-2.0.
"""Package repositories as dnf and yum read them, for the kinds package_key, repository and pending_update.

Only files are read: a repository that does not answer must not hold up the audit.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

#: On Amazon Linux 2 only the second is a file; on 2023 it links to the first.
MAIN = ("/etc/dnf/dnf.conf", "/etc/yum.conf")
DIRECTORIES = ("/etc/yum.repos.d", "/etc/distro.repos.d")
VARIABLES = ("/etc/dnf/vars", "/etc/yum/vars")
RELEASES = ("/etc/system-release", "/usr/lib/system-release")

_TRUE = ("1", "yes", "true", "on")


class Value(NamedTuple):
    """A value and the file and line it stands in."""

    text: str
    source: str


class Repository(NamedTuple):
    """A section of a .repo file. ``values`` hold those of dnf.conf where the section is silent."""

    id: str
    path: str
    values: Dict[str, Value]

    @property
    def enabled(self) -> bool:
        return self.flag("enabled") is not False

    @property
    def sources(self) -> List[str]:
        """Every address it may be read from."""
        keys = ("baseurl", "mirrorlist", "metalink")
        words = [word for key in keys if key in self.values for word in re.split(r"[\s,]+", self.values[key].text)]
        return [word for word in words if word]

    def flag(self, key: str) -> Optional[bool]:
        """A boolean as dnf reads it; None where nothing says it."""
        return self.values[key].text.lower() in _TRUE if key in self.values else None


def enabled(node: core.Node) -> List[Repository]:
    """Repositories that are on, by file and section. Raises ProbeError where no package manager is configured."""
    main = next((path for path in MAIN if node.exists(path)), None)
    if main is None:
        raise core.ProbeError(f"neither {' nor '.join(MAIN)} exists: no package manager is configured")
    inherited = _sections(node, main).get("main", {})
    found = []
    for path in (path for directory in DIRECTORIES for path in node.glob(f"{directory}/*.repo")):
        for name, values in _sections(node, path).items():
            inherits = {key: value for key, value in inherited.items() if key in ("gpgcheck", "repo_gpgcheck")}
            found.append(Repository(name, path, {**inherits, **values}))
    return [repository for repository in found if repository.enabled and repository.id != "main"]


def _sections(node: core.Node, path: str) -> Dict[str, Dict[str, Value]]:
    """Section to key to value; an indented line goes on with the value above it."""
    sections: Dict[str, Dict[str, Value]] = {}
    section, key = "", ""
    for number, line in enumerate((node.read(path) or "").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line[0].isspace() and key:
            value = sections[section][key]
            sections[section][key] = Value(f"{value.text} {line.strip()}".strip(), value.source)
        elif line.startswith("["):
            section, key = line.strip()[1:].partition("]")[0], ""
            sections.setdefault(section, {})
        elif "=" in line and section:
            key = line.partition("=")[0].strip()
            sections[section][key] = Value(line.partition("=")[2].strip(), f"{path}:{number}")
    return sections


def release(node: core.Node) -> Tuple[str, str]:
    """The release that repositories are read at, and where it is said: ``2023.12.20260724`` for Amazon Linux."""
    for directory in VARIABLES:
        text = node.read(f"{directory}/releasever")
        if text and text.strip():
            return text.strip(), f"{directory}/releasever"
    for path in RELEASES:
        found = re.search(r"release (\S+)", node.read(path) or "")
        if found:
            return found[1], path
    return "unknown", RELEASES[0]


def dated(text: str) -> Optional[Tuple[int, ...]]:
    """A dated release as numbers; None where it is another, such as ``latest``."""
    return tuple(int(part) for part in text.split(".")) if re.fullmatch(r"\d{4}\.\d+\.\d{8}", text) else None
