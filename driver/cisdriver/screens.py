"""What stands on the screen when a command has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cisdriver import cluster_screens, rundir
from cisdriver.errors import CisdriverError
from cisdriver.progress import seconds


@contextmanager
def ended(as_json: bool, base: Path) -> Iterator[None]:
    """Print the end of the run that the body makes, also when it raises. With ``--json`` the events say it all."""
    before = _record(base)
    try:
        yield
    except CisdriverError:
        _print(as_json, base, before)
        raise
    _print(as_json, base, before)


def _record(base: Path) -> tuple[Path, int] | None:
    """The newest run.json and which writing of it this is: a run that is continued writes it again."""
    record = base / "latest" / "run.json"
    return (record.resolve(), record.stat().st_mtime_ns) if record.exists() else None


def _print(as_json: bool, base: Path, before: tuple[Path, int] | None) -> None:
    latest = _record(base)
    if as_json or latest is None or latest == before:
        return
    text = summary(rundir.RunDir(latest[0].parent))
    if text:
        click.echo(text)


def summary(run: rundir.RunDir) -> str:
    """The end of a run for people: image, scores, exceptions, times, reports."""
    about = run.read("run") or {}
    parts: list[str] = []
    if about.get("verb") == "harden":
        parts += _hardened(run.read("harden") or {})
    image = (about.get("bake") or {}).get("image")
    if image:
        parts += ["", f"{click.style(image['id'], bold=True)}  {image.get('name', '')}"]
    for document in run.documents():
        parts += _scores(document) + _exceptions(document)
    for name, document in run.results("verify").items():
        parts += _verified(name, document)
    parts += cluster_screens.deployed(about.get("deploy") or {})
    parts += cluster_screens.destroyed(about.get("destroy") or {})
    parts += cluster_screens.workloads(run.results("workloads"))
    if len(about.get("stages", [])) > 1:
        parts += ["", "Time"]
        parts += [f"  {stage['label']:<40}{seconds(stage['seconds'] or 0):>12}" for stage in merged(about["stages"])]
        parts += [f"  {'In all':<40}{seconds(about['seconds']):>12}"]
    if about.get("reports"):
        parts += ["", "Reports"]
        parts += [f"  {_short(run.path / path)}" for path in about["reports"]]
    parts += cluster_screens.limits(about)
    return "\n".join(parts)


def merged(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stages with the times of one that was entered twice added up, in the order of their first entry."""
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        if stage["stage"] in found:
            found[stage["stage"]]["seconds"] += stage["seconds"] or 0
        else:
            found[stage["stage"]] = dict(stage, seconds=stage["seconds"] or 0)
    return list(found.values())


def _hardened(record: dict[str, Any]) -> list[str]:
    parts = []
    would = "would change" if record.get("check") else "changed"
    for host, rules in record.get("hosts", {}).items():
        changed = [rule for rule, status in rules.items() if status == "changed"]
        as_is = sum(status == "ok" for status in rules.values())
        parts += ["", f"{host}: {_rules(len(changed))} {would}, {as_is} as required already"]
        if record.get("check"):
            parts += [f"  {rule}" for rule in changed]
    return parts


def _rules(count: int) -> str:
    return f"{count} rule{'' if count == 1 else 's'}"


def _scores(document: dict[str, Any]) -> list[str]:
    summary, counts = document["summary"], document["summary"]["counts"]
    findings = summary["unaccepted"]
    colour = "red" if findings else "green"
    about = f"{document['benchmark']}, level {document['level']}, profile {document['profile']}"
    tally = (
        f"{counts['pass']} pass, {counts['fail']} fail ({len(summary['exceptions'])} accepted), "
        f"{counts['error']} error, {counts['not_applicable']} not applicable, {counts['manual']} manual, "
        f"{counts['no_rule_yet']} no rule yet"
    )
    return [
        "",
        f"{document['node']['name']}: {about}",
        f"  as CIS counts               {_percent(summary['score'])}",
        f"  with accepted exceptions    {_percent(summary['score_accepted'])}",
        f"  findings beyond accepted    {click.style(str(findings), fg=colour)}",
        f"  {tally}",
    ]


def _verified(name: str, document: dict[str, Any]) -> list[str]:
    counts = document["summary"]["counts"]
    good = not document["summary"]["unaccepted"]
    verdict = "still a node of Kubernetes" if good else "not a node of Kubernetes any more"
    tally = f"{counts['pass']} pass, {counts['fail']} fail, {counts['error']} could not look"
    return [
        "",
        f"{name or document['node']['name']}: {click.style(verdict, fg='green' if good else 'red')}",
        f"  {tally}, {counts['not_applicable']} not applicable",
    ]


def _percent(score: float | None) -> str:
    return "nothing counts" if score is None else f"{score:.1f} %"


def _exceptions(document: dict[str, Any]) -> list[str]:
    import textwrap

    found = [result for result in document["results"] if result["id"] in document["summary"]["exceptions"]]
    if not found:
        return []
    parts = ["", "Accepted exceptions"]
    for result in found:
        parts.append(f"  {result['id']:<10} {result['title']}")
        parts.append(textwrap.fill(result["accepted"]["why"], 98, initial_indent=" " * 13, subsequent_indent=" " * 13))
    return parts


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
