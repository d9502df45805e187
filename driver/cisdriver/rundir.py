"""The run directory: ``.cisdriver/runs/<id>/``, one file per stage, ``.cisdriver/latest`` links to the newest."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cisdriver.errors import UsageError


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


def new_id() -> str:
    """Sorts by time; two runs of one second differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def create(base: Path) -> RunDir:
    """A fresh run directory under ``base``. Raises UsageError where none can be made."""
    path = base.absolute() / "runs" / new_id()
    try:
        path.mkdir(parents=True)
        link = base.absolute() / f".latest-{path.name}"
        link.symlink_to(Path("runs") / path.name)
        link.replace(base / "latest")
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}", "Name another directory with --run-dir.") from error
    return RunDir(path)


def find(base: Path, run: str | None) -> RunDir:
    """A run by id or path, by default the newest. Raises UsageError naming those there are."""
    candidates = [Path(run), base / "runs" / run] if run else [base / "latest"]
    for path in candidates:
        if (path / "events.jsonl").exists():
            return RunDir(path.resolve())
    known = sorted((path.name for path in (base / "runs").glob("*")), reverse=True)[:5]
    remedy = f"The newest are: {', '.join(known)}." if known else "`cisdriver bake` or `cisdriver audit` makes one."
    raise UsageError(f"no run {run or 'yet'} in {base / 'runs'}", remedy)
