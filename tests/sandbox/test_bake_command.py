"""The command as people run it, against the sandbox: level 2 for machines, and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cisdriver.sandbox.aws import podman

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.node, pytest.mark.slow]


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CISDRIVER_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "cisdriver", "bake", "--sandbox", *arguments],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT / "driver")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def packers(tmp_path: Path) -> list[int]:
    """Processes that still run a Packer of this test: their arguments or directory name its path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"packer" in words and str(tmp_path).encode() in words:
            found.append(int(process.name))
    return found


def nothing_is_left(tmp_path: Path) -> None:
    """No Packer, and no node or image of a sandbox that is gone; another test's may be on its way out."""
    assert packers(tmp_path) == []
    end = time.monotonic() + 30
    while podman.orphans():
        assert time.monotonic() < end, podman.orphans()
        time.sleep(0.5)


def test_a_level_2_bake_speaks_json_and_ends_as_its_audit_says(tmp_path: Path) -> None:
    process = start(tmp_path, "--level", "2", "--json")
    out, err = process.communicate(timeout=600)
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/event.json").read_text()))
    for line in lines:
        validator.validate(line)
    latest = tmp_path / ".cisdriver/latest"
    audit = json.loads((latest / "audit.json").read_text())
    jsonschema.validate(audit, json.loads((ROOT / "schemas/results.json").read_text()))
    assert len(audit["results"]) == 243
    assert process.returncode == (1 if audit["summary"]["unaccepted"] else 0), err
    assert lines[-1]["event"] == "run_end"
    assert lines[-1]["exit_code"] == process.returncode
    verified = [line["check"] for line in lines if line["event"] == "check"]
    results = json.loads((latest / "verify.json").read_text())["results"]
    assert verified == [result["id"] for result in results] * 2  # after the hardening, and after the reboot
    changed = {line["rule"] for line in lines if line["event"] == "rule" and line["status"] == "changed"}
    assert len(changed) > 30
    assert (latest / "report.html").stat().st_size > 10_000
    nothing_is_left(tmp_path)


def test_ctrl_c_in_the_middle_is_exit_130_and_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "--level", "1")
    events = tmp_path / ".cisdriver/latest/events.jsonl"
    end = time.monotonic() + 300
    while not (events.exists() and '"event": "rule"' in events.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "interrupted" in err.lower()
    assert "Traceback" not in out + err
    assert "Cleanly cancelled builds" in (tmp_path / ".cisdriver/latest/packer.log").read_text()
    nothing_is_left(tmp_path)
