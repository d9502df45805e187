# Copyright the cisdriver authors. Apache-2.0.
"""Keys that packages are checked by: those imported, those on disk, and those repositories name. Only collects."""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, repositories

FILES = "/etc/pki/rpm-gpg/*"
QUERY = ("rpm", "-q", "gpg-pubkey", "--queryformat", "%{VERSION} %{RELEASE} %{PACKAGER}\\n")
WANTED = "of a vendor the site wants"


def check(node: core.Node, _spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = list(_imported(node))
    for path in node.glob(FILES):
        items.append(core.evidence(f"key file {path}", WANTED, "present", True, path))
    for repository in repositories.enabled(node):
        value = repository.values.get("gpgkey")
        source = value.source if value else repository.path
        items.append(core.evidence(f"key of {repository.id}", WANTED, value.text if value else None, True, source))
    return core.verdict(items)


def _imported(node: core.Node) -> Iterator[core.Evidence]:
    """The id is the version; the release is a date that changes when a key is issued anew."""
    answer = node.run(*QUERY)
    if answer.rc and "is not installed" not in answer.out + answer.err:
        raise core.ProbeError(f"{' '.join(QUERY[:3])}: exit {answer.rc}: {answer.err.strip() or answer.out.strip()}")
    keys = [line.split(None, 2) for line in answer.out.splitlines()] if answer.rc == 0 else []
    for fields in keys:
        id_, dated, owner = (*fields, "", "", "")[:3]
        yield core.evidence(f"imported key {id_}", WANTED, owner or "no owner named", True, f"gpg-pubkey-{id_}-{dated}")
    if not keys:
        yield core.evidence("imported keys", WANTED, "none yet; dnf imports one with the first package", True)
