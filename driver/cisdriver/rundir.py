"""The run directory: ``.cisdriver/runs/<id>/``, one file per stage, ``.cisdriver/latest`` links to the newest."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cisdriver.errors import UsageError

#: What an attempt that is set aside leaves in its place: the run's own record.
_RECORD = frozenset({"run.json", "events.jsonl", "lock", "ansible", "attempts"})


@dataclass(frozen=True)
class RunDir:
    """Files of one run."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def write(self, name: str, document: Any) -> Path:
        """Write ``name``.json atomically: a reader sees the old text or the new one."""
        target = self.path / f"{name}.json"
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, default=str)
            file.write("\n")
        Path(temporary).chmod(0o644)
        return Path(temporary).replace(target)

    def read(self, name: str) -> Any:
        """``name``.json, or None when the stage wrote none. Raises UsageError for a broken file."""
        path = self.path / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {path}: {error}", "Run the stage again.") from error

    def forget(self, name: str) -> None:
        """Remove ``name``.json, so that what is read afterwards was written afterwards."""
        (self.path / f"{name}.json").unlink(missing_ok=True)

    def documents(self) -> list[dict[str, Any]]:
        """Results documents of the audits."""
        return list(self.results("audit").values())

    def results(self, stage: str) -> dict[str, dict[str, Any]]:
        """Results documents of a stage by node: ``<stage>.json`` of a bake's one node, whose name is "", or
        ``<stage>/<node>.json``."""
        one = self.read(stage)
        if one is not None:
            return {"": one}
        return {path.stem: self.read(f"{stage}/{path.stem}") for path in sorted((self.path / stage).glob("*.json"))}

    def set_aside(self) -> None:
        """Move what a half-done attempt wrote to ``attempts/<number>``: the next must not read it, a person may."""
        left = [path for path in self.path.iterdir() if path.name not in _RECORD]
        if not left:
            return
        above = self.path / "attempts"
        above.mkdir(exist_ok=True)
        place = above / str(len(list(above.iterdir())) + 1)
        place.mkdir()
        for path in left:
            path.rename(place / path.name)


def new_id() -> str:
    """Sorts by time; two runs of one second differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def create(base: Path) -> RunDir:
    """A fresh run directory under ``base``. Raises UsageError where none can be made."""
    run = RunDir(base.absolute() / "runs" / new_id())
    try:
        run.path.mkdir(parents=True)
        link(run)
    except OSError as error:
        raise UsageError(
            f"cannot make {run.path}: {error.strerror}", "Name another directory with --run-dir."
        ) from error
    return run


def link(run: RunDir) -> None:
    """Let ``latest`` name this run."""
    base = run.path.parents[1]
    temporary = base / f".latest-{run.id}"
    temporary.symlink_to(Path("runs") / run.id)
    temporary.replace(base / "latest")


def newest_first(base: Path) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Every run with its run.json. One whose record cannot be read is left out: it is somebody else's folder."""
    for path in sorted((base.absolute() / "runs").glob("*"), reverse=True):
        try:
            about = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        yield RunDir(path), about


@contextmanager
def held(run: RunDir) -> Iterator[None]:
    """Keep other drivers off a run; the system lets go of it when this process ends, however it does.

    Raises UsageError while another process holds it.
    """
    handle = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = (run.read("run") or {}).get("pid")
            raise UsageError(
                f"process {pid} is at work on run {run.id}", f"Wait for it, or stop it: kill -INT {pid}"
            ) from error
        yield
    finally:
        os.close(handle)


def find(base: Path, run: str | None) -> RunDir:
    """A run by id or path, by default the newest. Raises UsageError naming those there are."""
    candidates = [Path(run), base / "runs" / run] if run else [base / "latest"]
    for path in candidates:
        if (path / "events.jsonl").exists():
            return RunDir(path.resolve())
    known = sorted((path.name for path in (base / "runs").glob("*")), reverse=True)[:5]
    remedy = f"The newest are: {', '.join(known)}." if known else "`cisdriver bake` or `cisdriver audit` makes one."
    raise UsageError(f"no run {run or 'yet'} in {base / 'runs'}", remedy)
