"""Instances are stand-in nodes, and none outlives its sandbox for long."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from cisdriver.sandbox import node as standin
from cisdriver.sandbox.aws import Endpoint, Sandbox

pytestmark = [pytest.mark.node, pytest.mark.slow]


def _start(endpoint: Endpoint, **more: str) -> str:
    run = {"ImageId": endpoint.base_ami, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    reply = endpoint.client("ec2").run_instances(**run, **more)
    return str(reply["Instances"][0]["InstanceId"])


def test_closing_removes_what_still_runs() -> None:
    sandbox = Sandbox()
    with sandbox as endpoint:
        endpoint.client("ec2").create_key_pair(KeyName="mine")
        # A node of a cluster does not take the port from the machine that is to be logged into.
        first, second = _start(endpoint), _start(endpoint, KeyName="mine")
        addresses = sandbox.machines()
        assert addresses[first]["port"] != endpoint.ssh_port == addresses[second]["port"]
        assert {f"cisdriver-{first}", f"cisdriver-{second}"} <= set(standin.names())
    assert not {f"cisdriver-{first}", f"cisdriver-{second}"} & set(standin.names())


def test_what_a_killed_sandbox_leaves_is_removed_by_the_next() -> None:
    killed = Sandbox()
    name = f"cisdriver-{_start(killed.start())}"
    assert killed._process is not None
    os.kill(killed._process.pid, signal.SIGKILL)
    killed.close()
    assert name in standin.names()
    with Sandbox():
        assert name not in standin.names()


def test_no_image_outlives_its_sandbox() -> None:
    listing = ["podman", "images", "--format", "{{.Repository}}", "localhost/cisdriver/sandbox/*"]
    sandbox = Sandbox()
    with sandbox as endpoint:
        ec2 = endpoint.client("ec2")
        identity = _start(endpoint)
        ec2.stop_instances(InstanceIds=[identity])
        ec2.create_image(InstanceId=identity, Name="kept")
        assert sandbox._process is not None
        mine = f"localhost/cisdriver/sandbox/{sandbox._process.pid}"
        assert mine in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    assert mine not in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
