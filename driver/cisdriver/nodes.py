"""The verbs ``harden``, ``audit`` and ``verify``: plays against machines that run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cisdriver import checks, choice, collection, hosts
from cisdriver.errors import (
    BakeError,
    CisdriverError,
    FindingsError,
    InterruptedRunError,
    ScanError,
    UsageError,
    VerificationError,
)
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings

#: Longest reason of a check on the last screen, in characters; the report has the whole.
_REASON = 300
_WRAPPING = re.compile(r"^Task failed: (.*The lookup plugin 'cisdriver[\w.]*' failed: )?", re.DOTALL)


def totals(settings: Settings) -> dict[str, int]:
    """Rules per stage, of the benchmark that has most of them: which one it is the host decides."""
    found = [choice.count(settings, chosen.benchmark) for chosen in choice.selections(settings)]
    return {stage: max(counts[stage] for counts in found) for stage in ("harden", "audit")}


def harden(settings: Settings, check: bool, diff: bool, as_json: bool) -> Session:
    """Harden the named nodes. Raises BakeError when a node could not be hardened."""
    hosts.check(settings)
    with session("harden", settings, totals(settings), as_json) as now:
        now.facts["check"] = check
        arguments = [flag for flag, given in (("--check", check), ("--diff", diff)) if given]
        for flag, names in (("--tags", settings.tags), ("--skip-tags", settings.skip_tags)):
            arguments += [flag, ",".join(names)] if names else []
        outcome = now.play(_play(now, "harden", arguments, choice.extra_vars(settings)))
        _refuse_nobody(now, outcome)
        now.run.write("harden", _record(now, outcome))
        if outcome.rc:
            raise _failure(now, outcome, BakeError, "the node could not be hardened")
    return now


def audit(settings: Settings, as_json: bool) -> Session:
    """Audit the named nodes. Raises ScanError when one could not be looked at, FindingsError for findings."""
    from cisdriver import report

    hosts.check(settings)
    with session("audit", settings, totals(settings), as_json) as now:
        (now.run.path / "audit").mkdir()
        path = str(now.run.path / "audit" / "{{ inventory_hostname }}.json")
        outcome = now.play(_play(now, "audit", [], {**choice.extra_vars(settings), "cis_results_path": path}))
        _refuse_nobody(now, outcome)
        documents = now.run.documents()
        if documents:
            now.facts["reports"] = report.write(now.run, now.about())
        if outcome.rc or not documents:
            raise _failure(now, outcome, ScanError, "the audit could not look")
        refuse_findings(documents, "The report names each; `cisdriver rules show ID` tells what a rule wants.")
    return now


def verify(settings: Settings, as_json: bool) -> Session:
    """Verify the named nodes. Raises VerificationError when one would not serve, or could not be looked at."""
    from cisdriver import report

    hosts.check(settings, ", or a cluster with --cluster")
    with session("verify", settings, {"verify": checks.count()}, as_json) as now:
        (now.run.path / "verify").mkdir()
        path = str(now.run.path / "verify" / "{{ inventory_hostname }}.json")
        outcome = now.play(_play(now, "verify", [], {"verify_node_results_path": path}))
        _refuse_nobody(now, outcome)
        found = now.run.results("verify")
        if found:
            now.facts["reports"] = report.write(now.run, now.about())
        broken = {name: lines for name, document in found.items() if (lines := broken_checks(document))}
        if broken and not outcome.interrupted:
            others = {event["host"]: event for event in now.tally.failures if event["host"] not in found}
            said = [f"{name}: {lines}" for name, lines in broken.items()] + [
                explain(event) for event in others.values()
            ]
            raise VerificationError("\n".join(said), "The report has each with its evidence.")
        if outcome.rc or not found:
            raise _failure(now, outcome, VerificationError, "the node could not be verified")
    return now


def broken_checks(
    document: Mapping[str, Any], what: str = "checks", verdict: str = "; the node would not serve"
) -> str:
    """The checks of a verification that fail or could not look, a line each below a sentence; empty for none."""
    results = document["results"]
    broken = [result for result in results if result["status"] in ("fail", "error")]
    if not broken:
        return ""
    lines = [f"{len(broken)} of {len(results)} {what} fail{'s' if len(broken) == 1 else ''}{verdict}"]
    for result in broken:
        mark = " (could not look)" if result["status"] == "error" else ""
        reason = " ".join(result["reason"].split())
        lines.append(f"  {result['id']}{mark}: {reason if len(reason) <= _REASON else reason[:_REASON] + '…'}")
    return "\n".join(lines)


def _refuse_nobody(now: Session, outcome: Outcome) -> None:
    """Ansible is content to have nothing to do; whoever asked for it is not."""
    empty = "no hosts" in read_log(outcome)  # `no hosts matched`, or `leaves us with no hosts to target`
    if empty and not now.tally.played and not outcome.interrupted:
        where = now.settings.inventory or ", ".join(now.settings.host)
        limit = f" and --limit {now.settings.limit}" if now.settings.limit else ""
        raise UsageError(f"no node is in {where}{limit}", "`ansible-inventory -i FILE --list` shows what is.")


def refuse_findings(documents: Iterable[dict[str, Any]], remedy: str) -> None:
    """Raise FindingsError when an audit has findings that nothing accepts."""
    count = sum(document["summary"]["unaccepted"] for document in documents)
    if count:
        raise FindingsError(f"{count} finding{'s' if count > 1 else ''} beyond the accepted ones", remedy)


def _play(now: Session, verb: str, arguments: list[str], variables: dict[str, Any]) -> Play:
    settings = now.settings
    if settings.limit:
        arguments += ["--limit", settings.limit]
    if settings.private_key:
        arguments += ["--private-key", str(settings.private_key.absolute())]
    return Play(
        playbook=f"{collection.NAME}.{verb}",
        ident=verb,
        extra_vars=variables,
        inventory=hosts.inventory(settings, now.run.path),
        arguments=tuple(arguments),
        verbose=settings.verbose,
    )


def _record(now: Session, outcome: Outcome) -> dict[str, Any]:
    """harden.json: per host, each rule and whether it was changed."""
    rules: dict[str, dict[str, str]] = {}
    for (host, rule), status in sorted(now.tally.rules.items()):
        rules.setdefault(host, {})[rule] = status
    return {
        "version": "1",
        "stage": "harden",
        "status": "done" if outcome.rc == 0 else "interrupted" if outcome.interrupted else "failed",
        "check": now.facts["check"],
        "hosts": rules,
        "failures": [{key: event[key] for key in ("host", "task", "msg")} for event in now.tally.failures],
        "log": str(outcome.log.relative_to(now.run.path)),
    }


def _failure(now: Session, outcome: Outcome, kind: type[CisdriverError], summary: str) -> CisdriverError:
    """The error a play ended with, in the words of the task that failed."""
    log = f"Ansible's own output is in {outcome.log}."
    if outcome.interrupted:
        return InterruptedRunError("interrupted", f"What happened so far is in {now.run.path}.")
    failures = now.tally.failures
    if not failures:
        return kind(f"{summary}: {last_words(outcome)}", log)
    lines = [explain(event) for event in {event["host"]: event for event in failures}.values()]
    return kind("\n".join(lines), log)


def explain(event: dict[str, Any]) -> str:
    """A failed task in a line or two."""
    # Ansible wraps what our lookup says into the whole way by which it got there.
    message = _WRAPPING.sub("", str(event["msg"]))
    if event["unreachable"]:
        return f"{event['host']} is unreachable: {message} (check address, port, user and key)"
    return f"{event['host']}: {event['task']}: {message}"


def reason(outcome: Outcome) -> str:
    """Why a play failed: the task that did so first, or what Ansible said last."""
    return explain(outcome.failures[0]) if outcome.failures else last_words(outcome)


def in_flags(text: str, names: Mapping[str, str]) -> str:
    """A role's words with its variables (``names``: variable to setting) named as our flags."""
    return re.sub(r"\b[a-z]+_\w+", lambda match: flag(names[match[0]]) if match[0] in names else match[0], text)


def flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def read_log(outcome: Outcome) -> str:
    try:
        return outcome.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_words(outcome: Outcome) -> str:
    """What Ansible said last, for a play that ended before any task did."""
    lines = read_log(outcome).splitlines()
    errors = [line for line in lines if line.startswith(("[ERROR]", "ERROR!", "error:"))]
    return (errors or [line for line in lines if line.strip()] or ["Ansible said nothing"])[-1].strip()
