"""The run's one stream of events: ``events.jsonl``, appended to by the driver and by every Ansible of the run.

``schemas/event.json`` describes the lines. What the screen shows and what run.json sums up both come from here.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

VERSION = 1

Event = dict[str, Any]


def append(path: Path, event: str, **fields: Any) -> None:
    """Append one event in one write."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"v": VERSION, "time": now, "event": event, **fields}, default=str)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)


class Tail:
    """What has been appended to a file since the last look. A line still being written waits for its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[Event]:
        """New events. A line that is no event is dropped: some other program wrote it."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [event for line in lines if (event := _parse(line))]


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("v") == VERSION and "event" in event else None


def read(path: Path) -> list[Event]:
    """Every event of a run."""
    return Tail(path).read()


def moment(event: Event) -> datetime:
    return datetime.fromisoformat(event["time"])
