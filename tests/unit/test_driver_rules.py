"""``cisdriver rules``: the catalogue as people and programs see it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cisdriver import collection, names
from driver_support import AL2023, cisdriver, environment


def test_the_list_has_one_row_per_recommendation_with_the_promised_keys(tmp_path: Path) -> None:
    done = cisdriver("rules", "list", "--benchmark", AL2023, "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [row["id"] for row in rows] == list(collection.load().benchmarks[AL2023])
    keys = ["benchmark", "id", "title", "level", "assessment", "rule", "role", "topic", "kinds", "verdict", "why"]
    assert all(list(row) == keys for row in rows)
    row = next(row for row in rows if row["id"] == "3.2.1")
    assert (row["rule"], row["role"], row["kinds"]) == ("ip_forwarding_disabled", "network", ["sysctl"])
    assert row["verdict"] == "except"
    assert row["why"]


def test_an_id_without_a_rule_says_so() -> None:
    bare = [row for row in names.rows("eks-1.8.0", "eks", {}) if row["rule"] is None]
    assert bare
    assert {row["verdict"] for row in bare} == {"no rule yet"}
    shown = names.show(bare[0]["id"], "eks-1.8.0")
    assert shown["rule"] is None
    assert "No rule is written" in names.page(shown)


def test_filters_narrow() -> None:
    def ids(**filters: str) -> list[str]:
        return [row["id"] for row in names.rows(AL2023, "eks", filters)]

    assert "3.2.1" in ids(section="3.2")
    assert all(id_.startswith("3.2.") for id_ in ids(section="3.2"))
    assert all(id_.split(".")[0] == "1" for id_ in ids(section="1"))
    assert "3.2.1" in ids(verdict="except")
    assert "3.2.2" not in ids(verdict="except")
    assert set(ids(level="1")) | set(ids(level="2")) == set(ids())
    assert ids(search="ip forwarding") == ["3.2.1"]
    assert set(ids(kind="sysctl")) < set(ids())


def test_on_a_server_nothing_is_excepted() -> None:
    assert not [row for row in names.rows(AL2023, "server", {}) if row["verdict"] in ("adapt", "except")]


def test_a_rule_is_shown_whole(tmp_path: Path) -> None:
    text = cisdriver("rules", "show", "3.2.1", cwd=tmp_path).stdout
    for part in (
        "ip_forwarding_disabled",
        "al2-3.0.0     3.3.1",
        "Written with --profile server to /etc/sysctl.d/",
        "net.ipv4.ip_forward: 0",
        "Excepted on an EKS node",
        "cannot carry pods",
        "What must hold instead",
        "roles/network/rules/kernel_parameters.yml",
    ):
        assert part in text
    assert cisdriver("rules", "show", "ip_forwarding_disabled", cwd=tmp_path).stdout == text


def test_every_rule_can_be_shown() -> None:
    for slug in collection.load().rules:
        assert names.page(names.show(slug, AL2023)).startswith(slug)


def test_the_files_shown_are_those_the_tasks_write() -> None:
    rule = collection.load().rules["send_redirects_disabled"]
    path = names.files(rule)["sysctl"]
    tasks = (collection.ROOT / "roles/network/tasks/kernel_parameters.yml").read_text()
    assert f"path: {path}\n" in tasks


def test_the_catalogue_loads_beside_the_collections_of_pip(tmp_path: Path) -> None:
    code = (
        "import ansible_collections.amazon.aws as first\n"
        "from cisdriver import collection\n"
        "import ansible_collections.kubernetes.core\n"
        "print(len(collection.load().rules), collection.catalogue.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == len(collection.load().rules)
