"""The command line as people meet it."""

from __future__ import annotations

import json
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cisdriver import collection, errors
from cisdriver.cli import reference
from driver_support import ROOT, cisdriver, environment


def test_help_costs_at_most_a_quarter_of_a_second(tmp_path: Path) -> None:
    cisdriver("--help", cwd=tmp_path)  # compiles what was never imported
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = cisdriver("--help", cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert "cisdriver bake --level 1 --sandbox" in done.stdout
    assert min(costs) <= 0.25, costs


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, cisdriver.cli as c; c.cli(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"ansible", "boto3", "jinja2", "moto", "pydantic", "rich", "yaml"}


def test_the_reference_is_what_the_commands_say() -> None:
    written = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert written == reference.reference(), "python -m cisdriver.cli.reference > docs/cli.md"


@pytest.mark.parametrize(("path", "text"), list(reference.commands(reference.cli, "cisdriver")))
def test_every_command_has_a_sentence_and_an_example(path: str, text: str) -> None:
    sentence = text.split("\n\n")[1].strip()
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "Example:" in text, path


def test_defaults_named_in_help_are_the_lookups() -> None:
    text = dict(reference.commands(reference.cli, "cisdriver"))["cisdriver harden"]
    for name, value in collection.defaults().items():
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            assert re.search(rf"^  --{name} [^-]*\[default: {value}\]", text, re.MULTILINE), name


def test_exit_codes_stand_in_one_file_and_each_has_one_class() -> None:
    classes = errors.CisdriverError.__subclasses__()
    codes = [error.exit_code for error in classes]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6, 130]
    assert set(errors.EXIT_CODES) == {0, *codes}


def test_without_credentials_a_bake_ends_at_once_and_names_both_ways_on(tmp_path: Path) -> None:
    def seconds(env: dict[str, str]) -> float:
        began = time.monotonic()
        cisdriver("bake", cwd=tmp_path, env=env)
        return time.monotonic() - began

    with socket.create_server(("127.0.0.1", 0)) as silent:
        # The metadata service has to be asked too, and may be a black hole.
        env = environment(tmp_path, AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        del env["AWS_EC2_METADATA_DISABLED"]
        # The machine may be busy with other tests, and then starts slowly what does not ask, too.
        asked, not_asked = (min(seconds(one) for _ in range(3)) for one in (env, environment(tmp_path)))
        done = cisdriver("bake", cwd=tmp_path, env=env)
    assert asked - not_asked < 1.5, (asked, not_asked)
    assert done.returncode == 2
    assert done.stderr.count("no AWS credentials found") == 1
    assert "aws configure" in done.stderr
    assert "--sandbox" in done.stderr
    assert not (tmp_path / ".cisdriver").exists()


@pytest.mark.parametrize(
    "words", [("deploy", "--image", "a=ami-00000001"), ("destroy", "--yes"), ("verify", "--cluster")]
)
def test_without_credentials_no_verb_of_the_cluster_begins(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = cisdriver(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "no AWS credentials found" in done.stderr
    assert "--sandbox" in done.stderr
    assert not (tmp_path / ".cisdriver").exists()


def test_a_missing_packer_is_named(tmp_path: Path) -> None:
    env = environment(tmp_path, PATH=str(tmp_path), AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    done = cisdriver("bake", "--region", "eu-central-1", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert "packer is not installed\n" in done.stderr
    assert "apt-get install packer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bake", "--level", "3"), "'3' is not one of '1', '2'"),
        (("bake", "--only", "9.9.9"), "'9.9.9'"),
        (("bake", "--benchmark", "nonesuch"), "unknown benchmark 'nonesuch'"),
        (("bake", "--base", "amazon-eks-*"), "--base-owner"),
        (("bake", "--base", "ami-1", "--base-owner", "self"), "--base-owner goes with a name"),
        (("harden",), "no node is named"),
        (("harden", "--host", "a", "--tags", "3.3.l"), "'3.3.l'"),
        (("harden", "--host", "a b"), "expected [user@]host[:port], found 'a b'"),
        (("audit", "-i", "nowhere.yml"), "no inventory at nowhere.yml"),
        (("audit", "--host", "a", "--private-key", "nokey"), "no private key at nokey"),
        (("verify",), "no node is named"),
        (("verify", "--host", "a", "--level", "2"), "No such option"),
        (("verify", "--cluster", "--host", "a"), "--cluster runs workloads on a cluster"),
        (("verify", "--cluster", "1st"), "--cluster: expected a name of at most 50 letters"),
        (("verify", "--cluster", "--sandbox"), "no sandbox is kept in"),
        (("deploy", "--sandbox"), "there is no image to deploy in the sandbox"),
        (("deploy", "--image", "ami-1"), "--image: expected an AMI id such as ami-0123456789abcdef0"),
        (("deploy", "--image", "ami-00000001"), "so its node group needs a name"),
        (("deploy", "--vpc-id", "vpc-00000001"), "--vpc-id is given without --subnet-ids"),
        (("deploy", "--public-access-cidr", "everywhere"), "expected IPv4 networks such as 203.0.113.0/24"),
        (("deploy", "--admin", "me"), "expected ARNs of roles or users"),
        (("deploy", "--node-count", "0"), "expected 1 to 100 nodes, found 0"),
        (("deploy", "--nat", "two"), "'two' is not one of"),
        (("destroy",), "no terminal to ask on"),
        (("run", "--sandbox", "--level", "3"), "'3' is not one of '1', '2'"),
        (("run", "--sandbox", "--subnet-ids", "subnet-00000001"), "--subnet-ids is given without --vpc-id"),
        (("report",), "no run yet"),
        (("report", "20260101"), "no run 20260101"),
        (("rules", "show", "99.1"), "no rule or id '99.1'"),
        (("rules", "list", "--benchmark", "al2023-1.0.1"), "did you mean 'al2023-1.0.0'?"),
        (("bakee",), "Did you mean 'bake'?"),
        (("audit", "--config", "nowhere.yml"), "cannot read nowhere.yml"),
        (("audit", "--host", "a", "--run-dir", "/proc/nowhere"), "--run-dir"),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = cisdriver(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_typo_in_the_settings_file_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "cisdriver.yml").write_text("level: 1\nkubernets_version: 1.33\n")
    done = cisdriver("bake", "--sandbox", cwd=tmp_path)
    assert done.returncode == 2
    assert "cisdriver.yml:2: unknown setting 'kubernets_version'; did you mean 'kubernetes_version'?" in done.stderr
    assert not (tmp_path / ".cisdriver").exists()


def test_an_unreachable_node_is_named(tmp_path: Path) -> None:
    for verb, code in (("audit", 5), ("harden", 3), ("verify", 6)):
        done = cisdriver(verb, "--host", "nobody@127.0.0.1:9", cwd=tmp_path)
        assert done.returncode == code
        assert "127.0.0.1-9 is unreachable" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("-i", "empty.yml"), ("-i", "one.yml", "--limit", "two")])
def test_an_inventory_without_a_node_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "empty.yml").write_text("all: {hosts: {}}\n")
    (tmp_path / "one.yml").write_text("all: {hosts: {one: {}}}\n")
    done = cisdriver("harden", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert f"no node is in {arguments[1]}" in done.stderr


def test_json_is_all_that_stands_on_stdout(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = collection.schema("event")
    done = cisdriver("audit", "--host", "nobody@127.0.0.1:9", "--json", cwd=tmp_path)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        jsonschema.validate(event, schema)
    assert [events[0]["event"], events[-1]["event"]] == ["run_start", "run_end"]
    assert events[-1]["exit_code"] == done.returncode == 5
    summed = json.loads((tmp_path / ".cisdriver/latest/run.json").read_text())
    assert (summed["status"], summed["exit_code"]) == ("failed", 5)
    assert not list((tmp_path / ".cisdriver").rglob("command"))  # holds the environment


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(tmp_path: Path, shell: str) -> None:
    script = cisdriver("completion", shell, cwd=tmp_path)
    assert script.returncode == 0
    assert "_CISDRIVER_COMPLETE" in script.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cisdriver bake --level ", "2"),
        ("cisdriver bake --only 3.2.", "3.2.1"),
        ("cisdriver harden --tags ip_", "ip_forwarding_disabled"),
        ("cisdriver harden --tags lev", "level2"),
        ("cisdriver rules show ip_", "ip_forwarding_disabled"),
        ("cisdriver rules list --benchmark al2", "al2-3.0.0"),
    ],
)
def test_names_of_the_catalogue_complete(tmp_path: Path, words: str, expected: str) -> None:
    parts = words.split(" ")
    env = environment(tmp_path, COMP_WORDS=words, COMP_CWORD=str(len(parts) - 1), _CISDRIVER_COMPLETE="bash_complete")
    code = "from cisdriver.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert f"plain,{expected}" in done.stdout.splitlines(), done.stderr


def test_the_version_is_the_collections(tmp_path: Path) -> None:
    assert cisdriver("--version", cwd=tmp_path).stdout == f"cisdriver {collection.version()}\n"


def test_the_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    env = environment(tmp_path, PATH=str(tmp_path))
    done = cisdriver("doctor", "--json", cwd=tmp_path, env=env)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 2
    assert checks["packer"]["status"] == "missing"
    assert "apt-get install packer" in checks["packer"]["remedy"]
    assert checks["ansible-core"]["status"] == "ok"
    assert checks["permissions"]["status"] == "not checked"
    assert "credentials" in done.stderr
