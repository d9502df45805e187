"""The machines behind the instances: stand-in nodes in podman."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Address:
    """Where a machine's sshd listens."""

    host: str
    port: int
    user: str


class Machines(Protocol):
    """What EC2 does to machines. Each call returns when it is done."""

    def start(self, instance: str, image: str, keys: list[str], volumes: dict[str, int]) -> None:
        """``volumes`` maps device names beside the root's to GiB; those of a committed image start as its copies."""

    def stop(self, instance: str) -> None: ...
    def resume(self, instance: str) -> None: ...
    def remove(self, instance: str) -> None: ...
    def commit(self, instance: str, image: str) -> None: ...
    def forget(self, image: str) -> None: ...
    def addresses(self) -> dict[str, Address]: ...
    def running(self) -> list[str]: ...
    def close(self) -> None: ...


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
