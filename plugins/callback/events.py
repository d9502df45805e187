# Copyright the cisdriver authors. Apache-2.0.
"""Callback events: what a play does, one JSON line per event, for the driver's screen and records."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: events
author: The cisdriver authors
type: notification
short_description: Appends what happens to a file of JSON lines
description:
  - One event per line; C(schemas/event.json) describes them. Rules are reported one by one.
  - Several Ansible processes, such as the one inside Packer, may append to the same file at the same time.
  - Says nothing when no file is named.
requirements:
  - To be listed in C(ANSIBLE_CALLBACKS_ENABLED).
options:
  path:
    description: The file.
    type: path
    env: [{name: CISDRIVER_EVENTS}]
"""

VERSION = 1
_VERIFY = "cisdriver.amazon_linux.verify_node"
#: Longest text of a failure that an event carries, in characters; the whole stands in Ansible's own output.
LONGEST = 4000


class CallbackModule(CallbackBase):
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "cisdriver.amazon_linux.events"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, event: str, **fields: Any) -> None:
        """Append one line in one write, so that lines of two processes do not mix."""
        path = self.get_option("path")
        if not path:
            return
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"v": VERSION, "time": now, "pid": os.getpid(), "event": event, **fields}, default=str)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode() + b"\n")
        finally:
            os.close(handle)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        inventory = play.get_variable_manager()._inventory
        hosts = [host.get_name() for host in inventory.get_hosts(play.hosts)] if inventory else []
        self._write("play_start", play=play.get_name(), hosts=hosts)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._write("task_start", **_about(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._write("task_start", **_about(task))

    def v2_runner_on_ok(self, result: Any) -> None:
        answer = _answer(result)
        self._rules(result, answer, failed=False)
        for rule, finding in _mapping(answer.get("findings")).items():
            self._write("finding", host=_host(result), rule=rule, status=finding["status"])
        if result._task.action == _VERIFY:
            for check in answer.get("checks", ()):
                self._write("check", host=_host(result), check=check["name"], status=check["status"])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        answer = _answer(result)
        self._rules(result, answer, failed=True)
        if not ignore_errors:
            self._write(
                "task_failed", host=_host(result), **_about(result._task), msg=_message(answer), unreachable=False
            )

    def v2_runner_on_unreachable(self, result: Any) -> None:
        msg = _message(_answer(result))
        self._write("task_failed", host=_host(result), **_about(result._task), msg=msg, unreachable=True)

    def _rules(self, result: Any, answer: dict[str, Any], failed: bool) -> None:
        """One event per rule of a batch, taken from the module's return value."""
        ids = {item["rule"]: item["id"] for item in _batch(result)}
        for rule, entry in _mapping(answer.get("rules")).items():
            if isinstance(entry, dict) and "changed" in entry:
                status = "changed" if entry["changed"] else "ok"
                self._write(
                    "rule", host=_host(result), rule=rule, id=ids.get(rule), status="failed" if failed else status
                )

    def v2_on_file_diff(self, result: Any) -> None:
        answer = _answer(result)
        if answer.get("diff") and answer.get("changed"):
            text = self._get_diff(answer["diff"])
            if text.strip():
                self._write("diff", host=_host(result), task=result._task.get_name(), text=text)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write("stats", hosts={host: stats.summarize(host) for host in sorted(stats.processed)})


def _answer(result: Any) -> dict[str, Any]:
    """What a task returned, empty where it asked for no log."""
    answer = result._result
    return {} if answer.get("_ansible_no_log") else dict(answer)


def _host(result: Any) -> str:
    return str(result._host.get_name())


def _about(task: Any) -> dict[str, Any]:
    """Where a task stands: its name, role, and the stem of the file it is written in."""
    path = str(task.get_path() or "").rpartition(":")[0]
    role = task._role.get_name() if task._role else None
    name = task.name or task.action
    return {"task": name, "role": role, "file": Path(path).stem}


def _batch(result: Any) -> list[dict[str, Any]]:
    """The rules a batch module was given, from its invocation."""
    arguments = _mapping(_mapping(_answer(result).get("invocation")).get("module_args"))
    rules = arguments.get("rules")
    return [item for item in rules if isinstance(item, dict)] if isinstance(rules, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _message(answer: dict[str, Any]) -> str:
    """Why a task failed: its message, and what a program said on its way out."""
    if not answer:
        return "the task asked for its output not to be logged"
    parts = [str(answer.get(key) or "").strip() for key in ("msg", "stderr", "module_stderr")]
    text = "\n".join(part for part in parts if part)
    return text if len(text) <= LONGEST else "..." + text[-LONGEST:]
