"""Machines that are only names, for tests of the AWS layer without podman."""

from __future__ import annotations

from cisdriver.sandbox.aws.machines import Address


class NoMachines:
    def __init__(self, ssh_port: int) -> None:
        self._port, self._running = ssh_port, set[str]()

    def start(self, instance: str, image: str, keys: list[str], volumes: dict[str, int]) -> None:  # noqa: ARG002 - as Machines has it
        self._running.add(instance)

    def stop(self, instance: str) -> None: ...

    def resume(self, instance: str) -> None: ...

    def remove(self, instance: str) -> None:
        self._running.discard(instance)

    def commit(self, instance: str, image: str) -> None: ...

    def forget(self, image: str) -> None: ...

    def addresses(self) -> dict[str, Address]:
        return {instance: Address("127.0.0.1", self._port, "ec2-user") for instance in self._running}

    def running(self) -> list[str]:
        return sorted(self._running)

    def close(self) -> None: ...
