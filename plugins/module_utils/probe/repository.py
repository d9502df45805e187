# Copyright the cisdriver authors. Apache-2.0.
"""Enabled package repositories: what they are, and how far what they deliver is checked.

An empty spec collects them. Else ``gpgcheck`` and ``repo_gpgcheck`` true ask for the check of packages and of
metadata, ``transports`` names the only schemes of addresses, ``pinned`` asks for a dated release. ``signed`` with
``since`` narrows repo_gpgcheck to repositories whose metadata carry a signature, and to releases that have it.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, repositories


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    found = repositories.enabled(node)
    if not found:
        return core.not_applicable("no package repository is enabled")
    if not spec:
        return core.verdict([_described(repository) for repository in found])
    items: List[core.Evidence] = []
    for repository in found:
        items += _checks(node, repository, spec)
        items += _transports(repository, spec.get("transports", []))
    if spec.get("pinned"):
        items.append(_pinned(node))
    return core.verdict(items)


def _described(repository: repositories.Repository) -> core.Evidence:
    checks = ", ".join(
        f"{key}={'not set' if key not in repository.values else repository.values[key].text}"
        for key in ("gpgcheck", "repo_gpgcheck", "gpgkey")
    )
    found = f"{' '.join(repository.sources) or 'no address'}; {checks}"
    return core.evidence(f"repository {repository.id}", "one the site wants", found, True, repository.path)


def _checks(node: core.Node, repository: repositories.Repository, spec: Mapping[str, Any]) -> Iterator[core.Evidence]:
    for key in ("gpgcheck", "repo_gpgcheck"):
        if not spec.get(key):
            continue
        value = repository.values.get(key)
        name = f"{key} of {repository.id}"
        if key == "repo_gpgcheck" and not _carries_a_signature(node, repository, spec):
            yield core.evidence(name, "as the metadata allow", "no signature to check, as far as is known", True)
            continue
        source = value.source if value else repository.path
        yield core.evidence(name, "1", value.text if value else None, repository.flag(key) is True, source)


def _carries_a_signature(node: core.Node, repository: repositories.Repository, spec: Mapping[str, Any]) -> bool:
    if "signed" in spec and repository.id not in spec["signed"]:
        return False
    since = repositories.dated(spec["since"]) if "since" in spec else None
    release = repositories.dated(repositories.release(node)[0])
    # a release that follows the newest one, or is none of Amazon Linux 2023, is not known to carry any
    return since is None or (release is not None and release >= since)


def _transports(repository: repositories.Repository, transports: List[str]) -> Iterator[core.Evidence]:
    for address in repository.sources if transports else []:
        scheme = address.partition(":")[0].lower()
        name = f"address of {repository.id}"
        yield core.evidence(name, {"in": transports}, address, scheme in transports, repository.path)


def _pinned(node: core.Node) -> core.Evidence:
    text, source = repositories.release(node)
    ok = repositories.dated(text) is not None
    return core.evidence("release that repositories are read at", "a dated one", text, ok, source)
