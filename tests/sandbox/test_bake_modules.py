"""The modules of a bake on their own: Packer old and new, interrupted, failing; the sweep; the publishing."""

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

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.modules import aws_sweep, packer_build
from botocore.exceptions import ClientError
from cisdriver.sandbox.aws import Sandbox

_ROOT = Path(__file__).resolve().parents[2]
_TEMPLATES = _ROOT / "roles/image/files/packer"
_RUN = [{"Key": "cisdriver:run-id", "Value": "r1"}]


# packer_build

_FAKE = """#!/bin/sh
case "$1" in
  version) echo "Packer v{version}" ;;
  init) echo "init $2" >> "{calls}" ;;
  build) shift; echo "build $*" >> "{calls}"; {build} ;;
esac
"""
_DONE = """echo '{"builds": [
 {"artifact_id": "eu-central-1:ami-old", "packer_run_uuid": "0"},
 {"artifact_id": "eu-central-1:ami-new", "packer_run_uuid": "1"}], "last_run_uuid": "1"}' > manifest.json"""


class Packer:
    """A program that answers as Packer does; ``calls`` is what it was asked."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._calls = directory, directory / "calls"

    def make(self, version: str, build: str) -> None:
        program = self._directory / "packer"
        script = _FAKE.replace("{version}", version).replace("{calls}", str(self._calls)).replace("{build}", build)
        program.write_text(script)
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def start(self, **arguments: Any) -> subprocess.Popen[str]:
        given = {
            "binary": str(self._directory / "packer"),
            "template": str(_TEMPLATES / "eks.pkr.hcl"),
            "variables": "v.json",
            "manifest": str(self._directory / "manifest.json"),
            "directory": str(self._directory),
            **arguments,
        }
        code = (
            "from ansible.module_utils.testing import patch_module_args\n"
            "from ansible_collections.cisdriver.amazon_linux.plugins.modules import packer_build\n"
            f"with patch_module_args({given!r}): packer_build.main()"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)

    def run(self, **arguments: Any) -> dict[str, Any]:
        out, _ = self.start(**arguments).communicate(timeout=60)
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def packer(tmp_path: Path) -> Packer:
    return Packer(tmp_path)


def test_an_old_packer_is_given_the_file_alone(packer: Packer) -> None:
    packer.make("1.6.6", _DONE)
    assert packer.run()["image_id"] == "ami-new"
    assert packer.calls == [f"build -color=false -timestamp-ui -var-file=v.json {_TEMPLATES}/eks.pkr.hcl"]


def test_a_current_packer_is_given_the_folder_after_init(packer: Packer) -> None:
    packer.make("1.11.2", _DONE)
    assert packer.run()["version"] == "1.11.2"
    assert packer.calls[0] == f"init {_TEMPLATES}"
    assert packer.calls[1].endswith(f" {_TEMPLATES}")


@pytest.mark.parametrize(
    ("version", "says"), [("", "is not HashiCorp's Packer"), (None, "is not found: Packer is needed to bake")]
)
def test_a_packer_that_is_not_there_is_named_with_the_way_to_get_it(
    packer: Packer, version: str | None, says: str
) -> None:
    if version is not None:
        packer.make(version, "true")
    message = packer.run(state="present")["msg"]
    assert says in message
    assert "apt install packer" in message


def test_an_interrupted_module_lets_packer_clean_up_first(packer: Packer, tmp_path: Path) -> None:
    packer.make("1.6.6", f"trap 'sleep 0.5; echo cleaned > {tmp_path}/cleaned; exit 1' INT; sleep 60 & wait")
    module = packer.start()
    _until(lambda: (tmp_path / "packer.pid").exists() and len(packer.calls) == 1)
    time.sleep(0.2)
    module.send_signal(signal.SIGTERM)
    out, _ = module.communicate(timeout=30)
    assert "interrupted: signal SIGTERM" in json.loads(out)["msg"]
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "packer.pid").exists()


def test_a_packer_whose_module_was_killed_is_stopped_by_its_directory(packer: Packer, tmp_path: Path) -> None:
    packer.make("1.6.6", f"trap 'echo cleaned > {tmp_path}/cleaned; exit 1' INT; sleep 60 & wait")
    module = packer.start()
    _until(lambda: (tmp_path / "packer.pid").exists() and len(packer.calls) == 1)
    time.sleep(0.2)
    module.kill()
    module.communicate(timeout=10)
    assert packer.run(state="stopped")["changed"] is True
    assert (tmp_path / "cleaned").exists()
    assert packer.run(state="stopped")["changed"] is False


def test_a_build_that_takes_too_long_is_ended(packer: Packer) -> None:
    packer.make("1.6.6", "trap 'exit 1' INT; sleep 60 & wait")
    assert "not done after 1 s" in packer.run(timeout=1)["msg"]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            'x: fatal: [default]: FAILED! => {"msg": "no"}\nBuild \'x\' errored after 1 s: Error executing Ansible',
            "no.",
        ),
        ("Build 'x' errored: Error querying AMI: InvalidAMIID.NotFound", "Error querying AMI: InvalidAMIID.NotFound."),
        ("Error: Unsupported argument\n\n  * no such thing", "Unsupported argument\n\n  * no such thing."),
        ("", "it said nothing."),
    ],
)
def test_the_reason_is_found_in_the_log(log: str, why: str) -> None:
    assert packer_build._why(log) == why


def test_the_template_is_valid_for_the_installed_packer(tmp_path: Path) -> None:
    names = [
        line.split('"')[1] for line in (_TEMPLATES / "eks.pkr.hcl").read_text().splitlines() if line[:9] == "variable "
    ]
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    values: dict[str, Any] = {name: name for name in names} | {
        "ssh_port": 22,
        "root_volume_size": 20,
        "tags": {"a": "b"},
    }
    values |= {"encrypt": True, "associate_public_ip": None, "private_key_file": str(key), "playbook": str(key)}
    values |= {"ssh_interface": "private_ip", "region": "eu-central-1", "endpoint_url": "", "ssh_host": ""}
    values |= {
        "ansible_playbook": str(Path(sys.executable).parent / "ansible-playbook"),
        "playbook_variables": str(key),
        "kms_key_id": "",
        "instance_profile": "",
    }
    variables = tmp_path / "v.pkrvars.json"
    for interface, profile, volume in (("private_ip", "", 0), ("session_manager", "own", 50)):
        more = {"ssh_interface": interface, "instance_profile": profile, "second_volume_size": volume}
        variables.write_text(json.dumps(values | more))
        command = ["packer", "validate", f"-var-file={variables}", str(_TEMPLATES / "eks.pkr.hcl")]
        env = {**os.environ, "CHECKPOINT_DISABLE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def _until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# aws_sweep


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[Sandbox, Any, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        own = Sandbox(machines="aws_machines:NoMachines")
        with own as endpoint:
            yield own, endpoint.client("ec2"), endpoint.client("iam")


def _tagged(*kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": _RUN} for kind in kinds]


def _started(ec2: Any, **more: Any) -> str:
    base = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    reply = ec2.run_instances(ImageId=base, InstanceType="m6i.large", MinCount=1, MaxCount=1, **more)
    return str(reply["Instances"][0]["InstanceId"])


def test_a_sweep_deletes_what_the_run_left_and_nothing_else(sandbox: tuple[Sandbox, Any, Any]) -> None:
    own, ec2, iam = sandbox
    other = _started(ec2)
    ec2.create_key_pair(KeyName="kept")
    group = ec2.create_security_group(GroupName="g", Description="d", TagSpecifications=_tagged("security-group"))[
        "GroupId"
    ]
    ec2.create_key_pair(KeyName="k", TagSpecifications=_tagged("key-pair"))
    instance = _started(ec2, SecurityGroupIds=[group], TagSpecifications=_tagged("instance", "volume"))
    half = ec2.create_image(InstanceId=instance, Name="half")["ImageId"]  # as Packer leaves it: without tags
    finished = ec2.create_image(InstanceId=instance, Name="finished")["ImageId"]
    ec2.create_tags(Resources=[finished], Tags=[*_RUN, {"Key": "cisdriver:status", "Value": "ready"}])
    iam.create_role(RoleName="cisdriver-r1", AssumeRolePolicyDocument='{"Version": "2012-10-17"}', Tags=_RUN)
    iam.attach_role_policy(RoleName="cisdriver-r1", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.create_instance_profile(InstanceProfileName="cisdriver-r1")
    iam.add_role_to_instance_profile(InstanceProfileName="cisdriver-r1", RoleName="cisdriver-r1")

    sweep = aws_sweep.Sweep(ec2, iam, "r1", timeout=20)
    sweep.run()
    assert sweep.left == {}
    assert sweep.removed["images"] == [half]
    left = own.leftovers()
    assert left.pop("volumes")
    assert left == {"instances": [other], "key_pairs": ["kept"], "containers": [other]}
    assert [image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]] == [finished]

    again = aws_sweep.Sweep(ec2, iam, "r1", timeout=5)
    again.run()
    assert again.removed == {}


def test_a_sweep_spares_a_finished_image_whose_tag_ec2_does_not_show_yet(sandbox: tuple[Sandbox, Any, Any]) -> None:
    _own, ec2, iam = sandbox
    instance = _started(ec2, TagSpecifications=_tagged("instance", "volume"))
    image = ec2.create_image(InstanceId=instance, Name="just-tagged")["ImageId"]
    ec2.create_tags(Resources=[image], Tags=_RUN)
    sweep = aws_sweep.Sweep(ec2, iam, "r1", timeout=20, spare=[image])
    sweep.run()
    assert "images" not in sweep.removed
    assert [one["State"] for one in ec2.describe_images(ImageIds=[image])["Images"]] == ["available"]
    again = aws_sweep.Sweep(ec2, iam, "r1", timeout=20)
    again.run()
    assert again.removed["images"] == [image]


def test_a_sweep_deletes_a_finished_image_that_was_never_recorded(sandbox: tuple[Sandbox, Any, Any]) -> None:
    _own, ec2, iam = sandbox
    instance = _started(ec2, TagSpecifications=_tagged("instance", "volume"))
    image = ec2.create_image(InstanceId=instance, Name="unrecorded")["ImageId"]
    done = [*_RUN, {"Key": "cisdriver:status", "Value": "ready"}]
    snapshot = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    ec2.create_tags(Resources=[image, snapshot], Tags=done)
    sweep = aws_sweep.Sweep(ec2, iam, "r1", timeout=20, finished=True)
    sweep.run()
    assert sweep.removed["images"][-1] == image
    assert snapshot in sweep.removed["snapshots"]


@pytest.mark.parametrize("code", ["Unavailable", "ServiceUnavailable", "RequestLimitExceeded"])
def test_a_sweep_tries_again_while_ec2_is_overloaded(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Not what it means that a thing is gone: InvalidAMIID.Unavailable does."""
    monkeypatch.setattr(aws_sweep.time, "sleep", lambda _seconds: None)
    answers = [code, code, ""]

    def delete(_identity: str) -> None:
        answer = answers.pop(0)
        if answer:
            raise ClientError({"Error": {"Code": answer, "Message": "too much going on"}}, "DeleteKeyPair")

    sweep = aws_sweep.Sweep(None, None, "r1", timeout=60)
    sweep._delete("key_pairs", "k3", delete)
    assert sweep.removed == {"key_pairs": ["k3"]}
    late = aws_sweep.Sweep(None, None, "r1", timeout=-1)
    answers[:] = [code]
    late._delete("key_pairs", "k3", delete)
    assert "too much going on" in late.left["k3"]


def test_a_sweep_goes_on_after_what_it_cannot_delete(sandbox: tuple[Sandbox, Any, Any]) -> None:
    own, ec2, iam = sandbox
    ec2.create_key_pair(KeyName="k2", TagSpecifications=_tagged("key-pair"))
    group = ec2.create_security_group(GroupName="h", Description="d", TagSpecifications=_tagged("security-group"))[
        "GroupId"
    ]
    own.fail("ec2", "DeleteKeyPair", "UnauthorizedOperation", "not for you")
    sweep = aws_sweep.Sweep(ec2, iam, "r1", timeout=5)
    sweep.run()
    assert list(sweep.left) == ["k2"]
    assert "not for you" in sweep.left["k2"]
    assert sweep.removed == {"security_groups": [group]}
    aws_sweep.Sweep(ec2, iam, "r1", timeout=5).run()
    assert "k2" not in own.leftovers().get("key_pairs", [])
