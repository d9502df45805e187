"""The built artefacts, used elsewhere: the tarball with ansible-core alone, the wheel without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

PLAY = """
- hosts: all
  become: true
  tasks:
    - ansible.builtin.include_role:
        name: cisdriver.amazon_linux.harden
    - ansible.builtin.include_role:
        name: cisdriver.amazon_linux.verify_node
      vars:
        verify_node_results_path: "{{ playbook_dir }}/verify.json"
    - ansible.builtin.include_role:
        name: cisdriver.amazon_linux.audit
      vars:
        cis_results_path: "{{ playbook_dir }}/audit.json"
"""


def run(*argv: str | Path, cwd: Path, **env: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    done = subprocess.run(
        [str(arg) for arg in argv], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would hand out: no builds of an earlier run, no virtual environment."""
    path = tmp_path_factory.mktemp("checkout")
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, files):
        source, target = ROOT / name, path / name
        if not source.exists() and not source.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    return path


@pytest.fixture(scope="module")
def tarball(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tarball")
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", out, cwd=checkout)
    (built,) = out.glob("cisdriver-amazon_linux-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=checkout)
    (built,) = out.glob("cisdriver-*.whl")
    return built


def test_tarball_and_wheel_carry_the_same_collection(tarball: Path, wheel: Path) -> None:
    prefix = "cisdriver/_collections/ansible_collections/cisdriver/amazon_linux/"
    with tarfile.open(tarball) as tar:
        ours = {name for name in tar.getnames() if tar.getmember(name).isfile()} - {"MANIFEST.json", "FILES.json"}
    with zipfile.ZipFile(wheel) as archive:
        theirs = {name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)}
    assert ours == theirs - {"galaxy.yml"}
    assert {name.split("/")[0] for name in ours} == {
        "LICENSE", "README.md", "benchmarks", "meta", "playbooks", "plugins", "roles", "schemas",
    }  # fmt: skip


def test_the_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    listing = run(
        sys.executable, "-m", "cisdriver", "rules", "list", "--benchmark", "al2023-1.0.0", "--json", cwd=tmp_path, **env
    )
    assert len(json.loads(listing)) == 243
    where = run(sys.executable, "-c", "import cisdriver; print(cisdriver.__file__)", cwd=tmp_path, **env)
    assert str(tmp_path) in where


@pytest.mark.node
def test_the_tarball_and_ansible_core_alone_harden_a_node(tarball: Path, tmp_path: Path, stock_node) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin_dir = tmp_path / "venv/bin"
    run(bin_dir / "pip", "install", "-q", "-c", ROOT / "constraints.txt", "ansible-core", cwd=tmp_path)
    run(bin_dir / "ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path / "c", tarball, cwd=tmp_path)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "inventory.yml").write_text(stock_node.inventory())
    env = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "c"), "ANSIBLE_HOME": str(tmp_path / "home")}
    run(bin_dir / "ansible-playbook", "-i", "inventory.yml", "play.yml", cwd=tmp_path, **env)
    verified = {one["id"]: one["status"] for one in json.loads((tmp_path / "verify.json").read_text())["results"]}
    assert verified["second_login"] == verified["forwarding"] == "pass"
    summary = json.loads((tmp_path / "audit.json").read_text())["summary"]
    assert summary["unaccepted"] == 0 and summary["counts"]["pass"] > 50
