"""Whole bakes against the embedded AWS with a stand-in node: one that succeeds, and one for each way to fail.

What became of AWS is read from the recorded requests and from what is left, not from what Packer says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cisdriver import account as account_of
from cisdriver import bake as driver
from cisdriver.errors import VerificationError
from cisdriver.sandbox import node as standin
from cisdriver.sandbox.aws import Endpoint, Sandbox
from cisdriver.settings import Settings

pytestmark = [pytest.mark.node, pytest.mark.slow]
_ROOT = Path(__file__).resolve().parents[2]
_PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
#: One rule that every node has, so that hardening takes a second where it is not what is tested.
_ONE_RULE = {"cis_only": ["3.3.1"]}


class Account:
    """A sandbox, its clients, and bakes in it."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.sandbox, self.endpoint = sandbox, endpoint
        self.ec2, self.ssm = endpoint.client("ec2"), endpoint.client("ssm")

    def operations(self, since: int = 0) -> list[str]:
        return [request["operation"] for request in self.sandbox.requests()[since:]]

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ec2.describe_images(Owners=["self"])["Images"]
        return found


class Bake:
    """One run of playbook bake. ``result`` is its bake.json."""

    def __init__(self, account: Account, directory: Path, run_id: str, **variables: Any) -> None:
        self.account, self.directory = account, directory
        self.before = len(account.sandbox.requests())
        given = {
            "image_run_id": run_id,
            "image_run_dir": str(directory),
            "image_ssh_host": account.endpoint.ssh_host,
            "image_ssh_port": account.endpoint.ssh_port,
            **variables,
        }
        (directory / "given.json").write_text(json.dumps(given))

    def start(self, playbook: str = "bake") -> subprocess.Popen[str]:
        env = {**os.environ, **self.account.endpoint.env, "ANSIBLE_CONFIG": str(_ROOT / "ansible.cfg")}
        env |= {
            "ANSIBLE_COLLECTIONS_PATH": str(_ROOT / "collections"),
            "CISDRIVER_EVENTS": str(self.directory / "events"),
        }
        env |= {"ANSIBLE_CALLBACKS_ENABLED": "cisdriver.amazon_linux.events"}
        command = [str(_PLAYBOOK), f"cisdriver.amazon_linux.{playbook}", "-e", f"@{self.directory / 'given.json'}"]
        with (self.directory / f"{playbook}.out").open("w") as out:
            return subprocess.Popen(
                command, env=env, cwd=self.directory, stdout=out, stderr=out, text=True, start_new_session=True
            )

    def run(self, playbook: str = "bake") -> int:
        with self.start(playbook) as process:
            return process.wait(900)

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "bake.json").read_text())
        return found

    @property
    def operations(self) -> list[str]:
        return self.account.operations(self.before)

    def said(self) -> str:
        texts = [path.read_text()[-3000:] for path in self.directory.glob("*") if path.suffix in (".out", ".log")]
        return "\n".join(texts)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    sandbox = Sandbox()
    with sandbox as endpoint:
        yield Account(sandbox, endpoint)


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Write a playbook for the instance: one play with these tasks."""

    def write(*tasks: dict[str, Any]) -> str:
        path = tmp_path / "provision.yml"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "become": True, "tasks": list(tasks)}]))
        return str(path)

    return write


def _stage(name: str) -> dict[str, Any]:
    """One stage of the provisioning alone, failing as in the whole."""

    def include(tasks: str) -> dict[str, Any]:
        return {
            "ansible.builtin.include_role": {"name": "cisdriver.amazon_linux.image", "tasks_from": f"provision/{tasks}"}
        }

    return {"block": [include(name)], "rescue": [include("failed")]}


def test_a_bake_registers_a_hardened_clean_and_tagged_image(account: Account, tmp_path: Path) -> None:
    bake = Bake(
        account, tmp_path, "good", cis_level=1, cis_only=["network"], image_keep_failed=True,
        image_tags={"team": "platform"}, image_deprecate_after_days=90, image_publish_ssm_parameter="/golden/good",
    )  # fmt: skip
    assert bake.run() == 0, bake.said()
    result, audit = bake.result, json.loads((tmp_path / "audit.json").read_text())
    compliant = audit["summary"]["unaccepted"] == 0
    assert result["status"] == ("done" if compliant else "findings")
    image = next(one for one in account.images() if one["ImageId"] == result["image"]["id"])
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert tags["cisdriver:score"] == str(audit["summary"]["score"])
    assert {"cisdriver:benchmark": "al2023", "cisdriver:level": "1", "team": "platform"}.items() <= tags.items()
    assert tags["cisdriver:base-ami"] == account.endpoint.base_ami
    assert image["ImdsSupport"] == "v2.0" and "DeprecationTime" in image
    assert image["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    snapshot = account.ec2.describe_snapshots(SnapshotIds=result["image"]["snapshots"])["Snapshots"][0]
    assert {tag["Key"] for tag in snapshot["Tags"]} >= {"cisdriver:run-id", "cisdriver:score"}
    published = [request["parameters"] for request in account.sandbox.requests("ssm", "PutParameter")]
    assert [one["Value"] for one in published] == ([image["ImageId"]] if compliant else [])

    started = account.sandbox.requests("ec2", "RunInstances")[-1]["parameters"]
    assert started["KeyName"] == "cisdriver-good"
    assert started["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    rule = account.sandbox.requests("ec2", "AuthorizeSecurityGroupIngress")[-1]["parameters"]["IpPermissions"][0]
    assert rule["IpRanges"] == [{"CidrIp": "127.0.0.1/32"}]
    order = [
        one for one in bake.operations if one in ("RunInstances", "StopInstances", "CreateImage", "TerminateInstances")
    ]
    assert order == ["RunInstances", "StopInstances", "CreateImage", "TerminateInstances"]
    assert account.sandbox.leftovers() == {}
    assert not (tmp_path / "build-key").exists()
    _verified_twice(tmp_path, result)
    _looks_new_and_hardened(account, result["image"]["id"])


def _verified_twice(directory: Path, result: dict[str, Any]) -> None:
    """After the hardening and after the reboot, with the same checks; the last one's results are kept."""
    verification = json.loads(Path(result["verification"]).read_text())
    jsonschema.validate(verification, json.loads((_ROOT / "schemas/results.json").read_text()))
    assert verification["summary"]["unaccepted"] == 0
    assert verification["results"][-1]["id"] == "second_login"
    assert verification["results"][-1]["status"] == "pass"
    found = [json.loads(line) for line in (directory / "events").read_text().splitlines()]
    assert {event["event"] for event in found} >= {"rule", "finding", "check"}
    checks = [event["check"] for event in found if event["event"] == "check"]
    assert checks == [one["id"] for one in verification["results"]] * 2


def _looks_new_and_hardened(account: Account, image: str) -> None:
    """Start an instance of the image and look: identity of its own, nothing of the build, still hardened."""
    reply = account.ec2.run_instances(ImageId=image, InstanceType="m6i.large", MinCount=1, MaxCount=1)
    identity = reply["Instances"][0]["InstanceId"]
    try:
        machine = standin.find(f"cisdriver-{identity}")
        assert machine.wait_running() in ("running", "degraded")
        assert len(machine.read("/etc/machine-id").strip()) == 32
        assert (
            "cisdriver-good" not in machine.exec("cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys").stdout
        )
        assert machine.exec("ls /etc/ssh/ssh_host_ed25519_key").returncode == 0
        assert machine.exec("ls /home/ec2-user/.ansible /root/.ansible").returncode != 0
        assert machine.read("/etc/sysctl.d/60-cis-network.conf").count("# 3.3") > 3
    finally:
        account.ec2.terminate_instances(InstanceIds=[identity])
    assert account.sandbox.leftovers() == {}


def test_a_bake_with_partitions_lays_them_out_and_an_instance_of_the_image_has_them(
    account: Account, tmp_path: Path
) -> None:
    bake = Bake(
        account, tmp_path, "parts", image_partitions=True, image_partitions_size=20, image_keep_failed=True, **_ONE_RULE
    )
    assert bake.run() == 0, bake.said()
    disks = account.sandbox.requests("ec2", "RunInstances")[-1]["parameters"]["BlockDeviceMappings"]
    wanted = {"VolumeSize": 20, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    assert [disk["DeviceName"] for disk in disks] == ["/dev/xvda", "/dev/xvdb"]
    assert wanted.items() <= disks[1]["Ebs"].items()
    image = next(one for one in account.images() if one["ImageId"] == bake.result["image"]["id"])
    assert bake.result["image"]["block_device_mappings"] == image["BlockDeviceMappings"]
    assert {"Key": "cisdriver:partitions", "Value": "/dev/xvdb"} in image["Tags"]
    assert account.sandbox.leftovers() == {}
    reply = account.ec2.run_instances(ImageId=image["ImageId"], InstanceType="m6i.large", MinCount=1, MaxCount=1)
    identity = reply["Instances"][0]["InstanceId"]
    try:
        machine = standin.find(f"cisdriver-{identity}")
        assert machine.wait_running() in ("running", "degraded")
        for path in (
            "/var",
            "/var/log",
            "/var/log/audit",
            "/var/tmp",
            "/home",
            "/var/lib/containerd",
            "/var/lib/kubelet",
        ):
            assert machine.exec(["findmnt", "--mountpoint", path, "--types", "xfs"]).returncode == 0, path
        assert machine.exec("grep -rl cisdriver-parts /home /root /var/log").stdout == ""  # the build's key and logs
    finally:
        account.ec2.terminate_instances(InstanceIds=[identity])
    assert account.sandbox.leftovers() == {}


def test_a_provisioner_that_fails_leaves_nothing(account: Account, tmp_path: Path, play: Any) -> None:
    failing = play({"ansible.builtin.fail": {"msg": "the dog ate it"}})
    bake = Bake(account, tmp_path, "dog", image_provision_playbook=failing)
    assert bake.run() != 0
    assert bake.result["status"] == "failed"
    assert "the dog ate it" in bake.result["reason"], bake.said()
    assert "CreateImage" not in bake.operations
    _nothing_left(bake)


def test_findings_keep_the_image_from_being_registered(account: Account, tmp_path: Path, play: Any) -> None:
    stock = play(_stage("audit"))
    parameter = "/golden/findings"
    bake = Bake(
        account,
        tmp_path,
        "findings",
        image_provision_playbook=stock,
        image_publish_ssm_parameter=parameter,
        **_ONE_RULE,
    )
    assert bake.run() != 0
    assert (bake.result["status"], bake.result["image"]) == ("findings", None), bake.said()
    assert "1 findings beyond the accepted ones" in bake.result["reason"]
    assert "CreateImage" not in bake.operations
    assert "PutParameter" not in bake.operations
    _nothing_left(bake)


def test_a_node_that_would_not_serve_is_never_registered(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, on a base image whose next boot forwards nothing: what no rule of ours can make good."""

    class Running:
        """The sandbox of this module, lent to the command."""

        def __init__(self, region: str, keep: Path | None) -> None:
            assert (region, keep) == (account.endpoint.region, None)

        def start(self) -> Endpoint:
            return account.endpoint

        def close(self) -> None:
            pass

    base = _image_with(account, "/etc/sysctl.d/99-zz.conf", "net.ipv4.ip_forward = 0\n")
    before = len(account.sandbox.requests())
    monkeypatch.setattr(account_of, "sandbox_class", lambda: Running)
    settings = Settings(
        sandbox=True, region=account.endpoint.region, base=base, only=("3.3.1",), keep_failed=True, run_dir=tmp_path
    )
    with pytest.raises(VerificationError) as error:
        driver.bake(settings, as_json=True)
    run = tmp_path / "latest"
    assert error.value.exit_code == 6
    for part in ("the bake failed: verify: ", "\n  forwarding: net.ipv4.ip_forward", "\n  pod_network: "):
        assert part in error.value.message
    result, verification = (json.loads((run / name).read_text()) for name in ("bake.json", "verify.json"))
    assert (result["status"], result["image"], result["left"]) == ("verification_failed", None, {})
    assert Path(result["verification"]).samefile(run / "verify.json")
    assert {"forwarding", "pod_network"} <= {one["id"] for one in verification["results"] if one["status"] == "fail"}
    for name in ("report.html", "report.md"):
        assert "/etc/sysctl.d/99-zz.conf" in (run / name).read_text().replace("\\", "")
    assert "CreateImage" not in account.operations(before)
    assert account.sandbox.leftovers() == {}


def _image_with(account: Account, path: str, text: str) -> str:
    """An image of the base with one more file."""
    reply = account.ec2.run_instances(
        ImageId=account.endpoint.base_ami, InstanceType="m6i.large", MinCount=1, MaxCount=1
    )
    identity = reply["Instances"][0]["InstanceId"]
    machine = standin.find(f"cisdriver-{identity}")
    machine.wait_running()
    machine.put(path, text)
    image: str = account.ec2.create_image(InstanceId=identity, Name=f"with-{Path(path).stem}")["ImageId"]
    account.ec2.terminate_instances(InstanceIds=[identity])
    return image


def test_an_image_that_cannot_be_made_leaves_nothing(account: Account, tmp_path: Path, play: Any) -> None:
    account.sandbox.fail("ec2", "CreateImage", "SnapshotCreationPerVolumeRateExceeded", "too many snapshots")
    bake = Bake(account, tmp_path, "rate", image_provision_playbook=play({"ansible.builtin.ping": {}}))
    assert bake.run() != 0
    assert "too many snapshots" in bake.result["reason"], bake.said()
    _nothing_left(bake)


def test_a_name_that_is_taken_is_refused_before_anything_starts(account: Account, tmp_path: Path) -> None:
    base = account.endpoint.base_ami
    instance = account.ec2.run_instances(ImageId=base, InstanceType="m6i.large", MinCount=1, MaxCount=1)
    identity = instance["Instances"][0]["InstanceId"]
    taken = account.ec2.create_image(InstanceId=identity, Name="taken")["ImageId"]
    account.ec2.terminate_instances(InstanceIds=[identity])
    bake = Bake(account, tmp_path, "taken", image_name="taken")
    assert bake.run() != 0
    assert f"The name taken is taken in {account.endpoint.region} by {taken}" in bake.result["reason"], bake.said()
    assert not {"ImportKeyPair", "CreateSecurityGroup", "RunInstances"} & set(bake.operations)
    account.ec2.deregister_image(ImageId=taken)
    for snapshot in account.sandbox.leftovers()["snapshots"]:
        account.ec2.delete_snapshot(SnapshotId=snapshot)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"image_kubernetes_version": "1.99"}, "EKS publishes no al2023 image for Kubernetes 1.99 on x86_64"),
        ({"image_base": {"owner": "amazon", "name": "no-such-*"}}, "No image fits"),
        ({"image_session_manager": True}, "image_session_manager needs Packer 1.7 or newer"),
    ],
)
def test_what_cannot_succeed_is_refused_at_once(
    account: Account, tmp_path: Path, variables: dict[str, Any], says: str
) -> None:
    bake = Bake(account, tmp_path, "refused", **variables)
    assert bake.run() != 0
    assert says in bake.result["reason"], bake.said()
    assert "RunInstances" not in bake.operations
    assert account.sandbox.leftovers() == {}


def test_an_interrupted_bake_is_swept(account: Account, tmp_path: Path, play: Any) -> None:
    flag = tmp_path / "reached"
    reached = {
        "ansible.builtin.file": {"path": str(flag), "state": "touch"},
        "delegate_to": "localhost",
        "become": False,
    }
    slow = play(reached, {"ansible.builtin.command": "sleep 120"})
    bake = Bake(account, tmp_path, "ctrl-c", image_provision_playbook=slow)
    with bake.start() as process:
        _until(flag.exists, 90)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    assert bake.run("sweep") == 0, bake.said()
    assert "Cleanly cancelled builds" in (tmp_path / "packer.log").read_text()
    assert "CreateImage" not in bake.operations
    assert not (tmp_path / "packer.pid").exists()
    _nothing_left(bake)


def test_a_reboot_that_never_comes_back_is_given_up(tmp_path: Path, play: Any) -> None:
    sandbox = Sandbox(reboots=False)
    with sandbox as endpoint:
        reboot = play(_stage("reboot"))
        bake = Bake(
            Account(sandbox, endpoint), tmp_path, "gone", image_reboot_timeout=5, image_provision_playbook=reboot
        )
        assert bake.run() != 0
        assert bake.result["reason"].startswith("reboot: The hardened node did not come back within 5 s"), bake.said()
        assert "CreateImage" not in bake.operations
        _nothing_left(bake)


def _nothing_left(bake: Bake) -> None:
    assert bake.account.sandbox.leftovers() == {}
    assert {"TerminateInstances", "DeleteKeyPair", "DeleteSecurityGroup"} <= set(bake.operations)
    assert not (bake.directory / "build-key").exists()


def _until(holds: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
