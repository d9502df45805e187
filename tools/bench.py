"""What it costs: the help screen in CPU seconds, hardening and audit in module executions and seconds, the scan.

Run by `make bench`. Starts one stand-in node and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cisdriver.sandbox import node as standin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, scan  # noqa: E402  its path has to be known first

BIN = Path(sys.executable).parent
#: What the project promises; a figure beyond it fails the benchmark.
LIMITS = {"help_cpu_seconds": 0.25, "scan_ratio": 1.3, "harden_module_executions": 60}


def help_cpu() -> float:
    """User and system seconds of `cisdriver --help`, the best of five."""
    best = 99.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([BIN / "cisdriver", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(best, 3)


def play(verb: str, inventory: Path, level: int) -> tuple[int, float]:
    """Module executions over SSH, and seconds, of one playbook run."""
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    began = time.monotonic()
    done = subprocess.run(
        [
            BIN / "ansible-playbook",
            "-vvv",
            "-i",
            inventory,
            f"cisdriver.amazon_linux.{verb}",
            "-e",
            f"cis_level={level}",
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{verb} failed:\n{done.stdout[-3000:]}")
    return done.stdout.count("SSH: EXEC"), round(time.monotonic() - began, 1)


def scan_ratio(files: int = 500_000) -> float:
    """Seconds of the audit's scan by those of one plain walk that looks at each file, the best of three each."""
    with tempfile.TemporaryDirectory() as directory:
        for number in range(files // 1000):
            folder = Path(directory, str(number // 25), str(number))
            folder.mkdir(parents=True)
            for name in range(1000):
                (folder / str(name)).touch(mode=0o644)
        Path(directory, "proc/self").mkdir(parents=True)
        Path(directory, "proc/self/mountinfo").write_text("1 0 0:1 / / rw - overlay overlay rw\n")
        walk = ["find", directory, "-xdev", "-printf", "%m\\n"]
        plain = min(_seconds(lambda: subprocess.run(walk, check=True, stdout=subprocess.DEVNULL)) for _ in range(3))
        ours = min(_seconds(lambda: scan.whole(core.Node(directory))) for _ in range(3))
    return round(ours / plain, 2)


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def measure(level: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory, standin.start(f"cisdriver-bench-{os.getpid()}") as node:
        inventory = Path(directory, "inventory.yml")
        inventory.write_text(node.inventory())
        figures: dict[str, float] = {"help_cpu_seconds": help_cpu(), "scan_ratio": scan_ratio()}
        figures["harden_module_executions"], figures["harden_seconds"] = play("harden", inventory, level)
        _, figures["harden_again_seconds"] = play("harden", inventory, level)
        figures["audit_module_executions"], figures["audit_seconds"] = play("audit", inventory, level)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", type=int, default=2, choices=(1, 2))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.level)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            limit = f"  (at most {LIMITS[name]})" if name in LIMITS else ""
            print(f"{name.replace('_', ' '):28} {figure:8}{limit}")
    beyond = [name for name, limit in LIMITS.items() if figures[name] > limit]
    if beyond:
        sys.exit(f"beyond the limit: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
