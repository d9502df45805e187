# Copyright the cisdriver authors. Apache-2.0.
"""What a workload has proven, told from what the API server says of it. Asks nobody itself.

A workload is ``{"name", "group", "namespace", "proofs", "exec", "scales", "refused", "not_on"}``: ``proofs`` pods have
to prove it, those with the label ``cisdriver/proof`` that are not on the node ``not_on``; ``refused`` is why the API
server did not take its objects. A *view* of it is ``{"pods", "logs", "unread", "objects", "events", "exec",
"metrics"}``: API objects as dicts; by the pods' names ``logs``, and in ``unread`` why there is none; ``exec`` is what
its command said, None as long as none was run; ``metrics`` is whether the cluster is to have metrics of pods.

A container proves by a line: ``cisdriver: ok <what it saw>``, ``cisdriver: fail <cause>`` or ``cisdriver: not run:
<why>``. The last one counts. What kube-bench prints with ``--json`` is a proof, too: it has judged.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

PROOF = "cisdriver/proof"
WORKLOAD = "cisdriver/workload"
#: What a container waits for that nothing but another manifest helps. Registries and volumes may come back.
HOPELESS = ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull")
_LINE = re.compile(r"^cisdriver: (ok|fail|not run:) ?(.*)$", re.MULTILINE)
_TAIL = 3  # lines of a log in a cause

Finding = Dict[str, Any]


class Word(NamedTuple):
    """What a pod says of itself: ``ok``, ``fail``, ``not run:``, or "" for nothing yet."""

    verdict: str
    text: str


def word(log: str) -> Word:
    lines = _LINE.findall(log)
    if lines:
        return Word(*lines[-1])
    checks = [check["status"] for check in kube_bench(log)]
    told = ", ".join(f"{checks.count(status)} {status}" for status in ("PASS", "FAIL", "WARN", "INFO"))
    return Word("ok", f"judged {len(checks)} checks: {told}") if checks else Word("", "")


def kube_bench(log: str) -> List[Dict[str, Any]]:
    """The checks of a report of kube-bench: ``test_number``, ``test_desc``, ``status`` and so on. Other logs have none.

    One line is ``{"Controls": [{"tests": [{"results": [...]}]}], "Totals": ...}`` (its check/controls.go); what it
    warns of stands on lines of their own.
    """
    for line in log.splitlines():
        if line.startswith('{"Controls":'):
            try:
                controls = json.loads(line)["Controls"]
                return [check for one in controls for group in one["tests"] for check in group["results"]]
            except (ValueError, KeyError, TypeError):
                return []  # cut off, or another shape than this reads
    return []


def refusals(workloads: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> List[List[str]]:
    """Per workload, what the API server refused of it.

    ``answers`` are those of kubernetes.core.k8s to every object of every workload, in order; those to what was sent
    before, their namespaces, may stand before them. There are fewer where it ended early.
    """
    count = sum(len(one["objects"]) for one in workloads)
    left = iter(answers[max(0, len(answers) - count) :])
    made = []
    for one in workloads:
        refused = []
        for item in one["objects"]:
            answer = next(left, {"error": {"msg": "it was not sent"}})
            if answer.get("error"):
                refused.append(f"{item['kind']} {item['metadata']['name']}: {_said(answer['error'])}")
        made.append(refused)
    return made


def _said(error: Mapping[str, Any]) -> str:
    """The server's own words, which stand in kubernetes.core's as JSON."""
    text = str(error.get("msg") or error.get("reason") or error)
    with contextlib.suppress(ValueError, KeyError, TypeError):  # it says something else, as it is
        text = str(json.loads(text[text.index("{") :])["message"])
    return " ".join(text.split())


def judge(workload: Mapping[str, Any], view: Mapping[str, Any]) -> Optional[Finding]:
    """``{"status", "reason", "evidence"}``, or None while it may still prove itself."""
    if workload["refused"]:
        return _finding("fail", "the API server refuses it: " + "; ".join(workload["refused"]), [])
    if workload["scales"] and not view["metrics"]:
        reason = "the cluster serves no metrics.k8s.io: it has no metrics-server, whose add-on not every region has"
        return _finding("not_applicable", reason, [])
    proving = [
        pod for pod in view["pods"] if proves(pod) and pod["spec"].get("nodeName") != (workload["not_on"] or None)
    ]
    words = [(pod, word(view["logs"].get(_name(pod), ""))) for pod in proving]
    evidence = [_evidence(pod, said) for pod, said in words if said.verdict]
    for pod, said in words:
        if said.verdict == "fail":
            return _finding("fail", f"pod {_name(pod)}: {said.text}", evidence)
    read = [(pod, said) for pod, said in words if _name(pod) not in view["unread"]]
    broken = next((text for pod, said in read if (text := _ended_badly(pod, said, view["logs"]))), "") or next(
        (text for pod in view["pods"] if (text := _hopeless(pod))), ""
    )
    if broken:
        return _finding("fail", broken, evidence)
    if workload["exec"] and view["exec"] is not None and proving:  # the pod may have gone since
        words.append((proving[0], word(view["exec"])))
        evidence.append(_evidence(proving[0], words[-1][1], "command in "))
        if words[-1][1].verdict in ("", "fail"):
            told = words[-1][1].text or " ".join(view["exec"].split()) or "nothing"
            return _finding("fail", f"a command in pod {_name(proving[0])} says: {told}", evidence)
    spoken = [said for _, said in words if said.verdict]
    idle = [said for said in spoken if said.verdict == "not run:"]
    if idle and workload["scales"]:
        # No load where no container runs, so no second pod; that there are metrics can be seen nevertheless.
        needed = 1 if _measured(view) else len(spoken) + 1
    else:
        needed = workload["proofs"] + bool(workload["exec"])
    if len(spoken) < needed:
        return None
    return _finding("not_applicable", idle[0].text, evidence) if idle else _finding("pass", "", evidence)


def _measured(view: Mapping[str, Any]) -> bool:
    conditions = [
        (one["type"], one["status"])
        for item in view["objects"]
        if item["kind"] == "HorizontalPodAutoscaler"
        for one in item.get("status", {}).get("conditions") or []
    ]
    return ("ScalingActive", "True") in conditions


def overdue(workload: Mapping[str, Any], view: Mapping[str, Any], seconds: float) -> Finding:
    """The finding of a workload whose time is over: what it waits for, as far as the cluster tells."""
    words = {_name(pod): word(view["logs"].get(_name(pod), "")) for pod in view["pods"]}
    evidence = [_evidence(pod, words[_name(pod)]) for pod in view["pods"] if words[_name(pod)].verdict]
    waiting = (_waits(pod, view) for pod in view["pods"] if not words[_name(pod)].verdict)
    causes = [*filter(None, waiting), *_of_objects(view)]
    spoken = sum(bool(said.verdict) for said in words.values())
    left = f"{spoken} of {workload['proofs']} pods have proven it" if workload["proofs"] > 1 else "nothing is proven"
    reason = f"{left} after {seconds:.0f} s: {'; '.join(causes[:2]) or 'no pod of it was made, and nothing says why'}"
    return _finding("fail", reason, evidence)


def _finding(status: str, reason: str, evidence: List[Dict[str, Any]]) -> Finding:
    return {"status": status, "reason": " ".join(reason.split()), "evidence": evidence}


def _evidence(pod: Mapping[str, Any], said: Word, of: str = "") -> Dict[str, Any]:
    node = pod["spec"].get("nodeName", "")
    found = {"not run:": "not run: "}.get(said.verdict, said.verdict + " ") + said.text
    return {
        "object": f"{of}pod {_name(pod)}",
        "expected": "ok",
        "found": found,
        "ok": said.verdict == "ok",
        **({"source": node} if node else {}),
    }


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def proves(pod: Mapping[str, Any]) -> bool:
    """A pod that is being deleted proves nothing any more."""
    return PROOF in pod["metadata"].get("labels", {}) and not pod["metadata"].get("deletionTimestamp")


def containers(pod: Mapping[str, Any]) -> Iterable[Tuple[str, Mapping[str, Any], int]]:
    """Name, state and count of restarts of each container, those that start first first."""
    status = pod.get("status", {})
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        yield one["name"], one.get("state") or {}, one.get("restartCount", 0)


def _ended_badly(pod: Mapping[str, Any], said: Word, logs: Mapping[str, str]) -> str:
    """A container of a Job's pod, which is not started again, that ended without a word."""
    if said.verdict or pod.get("status", {}).get("phase") not in ("Failed", "Succeeded"):
        return ""
    for container, state, _ in containers(pod):
        ended = state.get("terminated")
        if ended and (ended.get("exitCode") or pod["status"]["phase"] == "Succeeded"):
            return _ended(pod, container, ended, logs)
    status = pod["status"]
    return f"pod {_name(pod)} is {status['phase']}: {status.get('reason', '')} {status.get('message', '')}"


def _ended(pod: Mapping[str, Any], container: str, ended: Mapping[str, Any], logs: Mapping[str, str]) -> str:
    how = ended.get("reason", "")
    why = f" ({how})" if how not in ("", "Error", "Completed") else ""
    message = ended.get("message", "")
    return (
        f"container {container} of pod {_name(pod)}{_where(pod)} ended with exit code {ended.get('exitCode')}{why}"
        f"{': ' + message if message else ''}; {_tail(logs.get(_name(pod), ''))}"
    )


def _where(pod: Mapping[str, Any]) -> str:
    node = pod["spec"].get("nodeName")
    return f" on {node}" if node else ""


def _tail(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"it said: {' / '.join(lines[-_TAIL:])}" if lines else "it said nothing"


def _hopeless(pod: Mapping[str, Any]) -> str:
    for container, state, _ in containers(pod):
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in HOPELESS:
            why = f"{waiting['reason']}: {waiting.get('message', '')}"
            return f"container {container} of pod {_name(pod)}{_where(pod)}: {why}"
    return ""


def _waits(pod: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    """What a pod waits for, worst first; empty for one that runs and is not to prove anything."""
    name = f"pod {_name(pod)}{_where(pod)}"
    event = _event(view["events"], _name(pod))
    if _name(pod) in view["unread"] and proves(pod):
        return f"the log of {name} is not read: {view['unread'][_name(pod)]}"
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"{name} is not scheduled: {condition.get('message') or event or 'nothing says why'}"
    for container, state, restarts in containers(pod):
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") == "CrashLoopBackOff" or (restarts and ended):
            last = _last_end(pod, container) or ended
            return f"{_ended(pod, container, last, view['logs'])}; it was started again {restarts} times"
        if waiting:
            says = [waiting.get("reason", ""), waiting.get("message", ""), event]
            return f"container {container} of {name} waits: {': '.join(part for part in says if part)}"
    if not list(containers(pod)):
        return f"{name} is {pod.get('status', {}).get('phase', 'Pending')}: {event or 'nothing says why'}"
    return f"{name} runs and has proven nothing; {_tail(view['logs'].get(_name(pod), ''))}" if proves(pod) else ""


def _last_end(pod: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    for one in pod["status"].get("containerStatuses") or []:
        if one["name"] == container:
            return dict((one.get("lastState") or {}).get("terminated") or {})
    return {}


def _event(events: Iterable[Mapping[str, Any]], name: str) -> str:
    """The newest warning about an object. ``eventTime`` is that of newer reporters."""
    about = [one for one in events if one["involvedObject"].get("name") == name and one.get("type") == "Warning"]
    about.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    return f"{about[-1].get('reason', '')}: {about[-1].get('message', '')}" if about else ""


def _of_objects(view: Mapping[str, Any]) -> List[str]:
    """What is wrong with the workload's other objects: volumes, autoscalers, and what should have made pods."""
    causes = []
    for item in view["objects"]:
        name = f"{item['kind']} {_name(item)}"
        bad = [
            one.get("message", "")
            for one in item.get("status", {}).get("conditions") or []
            if (one["type"], one["status"])
            in (("ScalingActive", "False"), ("AbleToScale", "False"), ("ReplicaFailure", "True"), ("Failed", "True"))
        ]
        event = _event(view["events"], _name(item))
        if bad or event:
            causes.append(f"{name}: {bad[0] if bad else event}")
    return causes
