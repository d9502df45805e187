"""A sandbox that is kept: found again by the next owner as it was left, and ended on request, or by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cisdriver.sandbox import aws
from cisdriver.sandbox.aws import Endpoint, Sandbox, SandboxError

ROOT = Path(__file__).resolve().parents[2]
MACHINES = "aws_machines:NoMachines"


@pytest.fixture(autouse=True)
def _machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def kept(path: Path, region: str = "eu-central-1") -> Sandbox:
    return Sandbox(region, MACHINES, keep=path)


def test_the_next_owner_finds_it_as_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    assert Sandbox.kept(path) is None
    with kept(path) as first:
        vpc = first.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    again = kept(path)
    try:
        with again as second:
            assert second == first
            assert [one["VpcId"] for one in second.client("ec2").describe_vpcs(VpcIds=[vpc])["Vpcs"]] == [vpc]
            assert again.requests("ec2", "CreateVpc")
        with pytest.raises(SandboxError, match="is of eu-central-1, not of us-east-1"):
            kept(path, "us-east-1").start()
    finally:
        assert Sandbox.end(path)
    assert not path.exists()
    assert Sandbox.kept(path) is None
    assert not Sandbox.end(path)


def test_it_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    code = (
        "import os, signal, sys; from pathlib import Path; from cisdriver.sandbox.aws import Sandbox;"
        f" Sandbox(machines={MACHINES!r}, keep=Path(sys.argv[1])).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'driver'}:{Path(__file__).parent}"}
    subprocess.run([sys.executable, "-c", code, path], env=env, check=False, timeout=60)
    try:
        found = Sandbox.kept(path)
        assert found is not None
        assert found.client("ec2").describe_vpcs()["Vpcs"]
    finally:
        assert Sandbox.end(path)


def test_it_ends_by_itself_when_nobody_asks_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "IDLE_SECONDS", 1)
    path = tmp_path / "kept"
    kept(path).start()
    end = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_what_a_killed_account_left_is_no_account(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    gone = Endpoint("http://127.0.0.1:9", "eu-central-1", {}, "127.0.0.1", 9, "vpc-0", "subnet-0", "ami-0")
    (path / "endpoint.json").write_text(json.dumps(gone.__dict__))
    assert Sandbox.kept(path) is None
    try:
        assert kept(path).start().url != gone.url
    finally:
        assert Sandbox.end(path)
