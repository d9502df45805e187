"""``cisdriver run --sandbox`` as people run it: killed in the middle, twice, continued, deployed again, destroyed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cisdriver import collection, processes
from cisdriver.sandbox.aws import Sandbox, podman

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.node, pytest.mark.slow]
_RUN = ("run", "--level", "1", "--sandbox")


class Driver:
    """The command, always from the same directory. ``latest`` is the newest run's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.latest = directory / ".cisdriver" / "latest"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CISDRIVER_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "cisdriver", *arguments],
            cwd=self.directory,
            env={**kept, "PYTHONPATH": str(ROOT / "driver")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def done(self, *arguments: str) -> str:
        """Run it to its end; returns what it printed."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
        return out

    def killed(self, when: Callable[[], bool], *arguments: str) -> None:
        """Start it, and kill it by SIGKILL, itself alone, as the kernel does when memory runs out."""
        process = self.start(*arguments)
        end = time.monotonic() + 300
        while not when():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.1)
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()

    def read(self, name: str) -> Any:
        return json.loads((self.latest / f"{name}.json").read_text())

    def saw(self, **wanted: str) -> bool:
        """Whether there is such an event."""
        return any(wanted.items() <= event.items() for event in self.events())

    def events(self) -> list[dict[str, Any]]:
        path = self.latest / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    made = Driver(tmp_path)
    yield made
    left = processes.with_variable("CISDRIVER_EVENTS", str(made.latest.resolve() / "events.jsonl"))
    processes.send(left, signal.SIGKILL)
    Sandbox.end(tmp_path / ".cisdriver" / "sandbox")


def test_a_run_killed_twice_goes_on_deploys_again_without_a_change_and_is_destroyed(
    driver: Driver, tmp_path: Path
) -> None:
    driver.killed(lambda: driver.saw(event="rule"), *_RUN)
    first = driver.latest.resolve()
    assert driver.read("run")["status"] == "running"
    assert not (first / "bake.json").exists()

    driver.killed(lambda: (first / "ansible" / "deploy").exists() and _asked(tmp_path, "CreateStack"), *_RUN)
    image = driver.read("bake")["image"]["id"]
    assert not (first / "deploy.json").exists()

    out = driver.done(*_RUN)
    assert driver.latest.resolve() == first
    assert f"Continue run {first.name} of these settings: the bake of {image} stands; next is deploy." in out
    assert "What the sandbox cannot show" in out
    _is_done(driver, image)
    # One bake was killed and swept, the other made the image: nothing of either is left, and no other image.
    assert _images(tmp_path) == [image]

    assert "nothing changed" in driver.done("deploy", "--sandbox")
    out = driver.done("verify", "--cluster", "--sandbox")
    assert "al2023-level-1: no workload has proved anything" in out

    refused = driver.start("destroy", "--sandbox")
    assert "no terminal to ask on" in refused.communicate(timeout=60)[0]
    assert refused.returncode == 2
    out = driver.done("destroy", "--sandbox", "--images", "--yes")
    assert f"image               {image}" in out
    assert driver.read("destroy")["status"] == "done"
    assert not (tmp_path / ".cisdriver" / "sandbox").exists()
    assert podman.orphans() == []
    assert "nothing to destroy" in driver.done("destroy", "--sandbox", "--yes")


def _is_done(driver: Driver, image: str) -> None:
    """The record of the run, whatever it has been through, is that of one that ended well."""
    run, deployed = driver.read("run"), driver.read("deploy")
    assert (run["status"], run["exit_code"], run["bake"]["image"]["id"]) == ("done", 0, image)
    jsonschema.validate(deployed, collection.schema("deploy"))
    assert [(group["name"], group["image"]["id"]) for group in deployed["node_groups"]] == [("al2023-level-1", image)]
    found = json.loads((driver.latest / "workloads" / "al2023-level-1.json").read_text())
    jsonschema.validate(found, collection.schema("results"))
    assert found["summary"]["counts"]["fail"] == found["summary"]["counts"]["error"] == 0
    validator = jsonschema.Draft202012Validator(collection.schema("event"))
    for event in driver.events():
        validator.validate(event)
    ends = [event["stage"] for event in driver.events() if event["event"] == "stage_end"]
    assert ends.count("publish") == 1
    assert "sweep" in ends


def _asked(tmp_path: Path, operation: str) -> bool:
    path = tmp_path / ".cisdriver" / "sandbox" / "requests.jsonl"
    return path.exists() and f'"operation": "{operation}"' in path.read_text()


def _images(tmp_path: Path) -> list[str]:
    endpoint = Sandbox.kept(tmp_path / ".cisdriver" / "sandbox")
    assert endpoint is not None
    return [one["ImageId"] for one in endpoint.client("ec2").describe_images(Owners=["self"])["Images"]]
