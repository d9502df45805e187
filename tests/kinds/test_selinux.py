"""SELinux: states that pass, and more of them that fail; the next boot's mode, and what enforcing needs first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import selinux as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import selinux
from machines import Refused, applied, machine, rule, tree

CONFIG = "/etc/selinux/config"
ENFORCE = "/sys/fs/selinux/enforce"
BOOTED: dict[str, str | None] = {"/run/systemd/system": None}
STOCK = "# SELINUX= can be\nSELINUX=permissive\n# SELINUXTYPE=\nSELINUXTYPE=targeted\n"
ON = {"mode": ["permissive", "enforcing"]}
HARD = {"mode": ["enforcing"]}
POLICY = {"policy": ["targeted", "mls"]}


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("stock_pass", {**BOOTED, ENFORCE: "0"}, ON, "pass"),
        ("enforcing_pass", {**BOOTED, ENFORCE: "1", CONFIG: "SELINUX=enforcing\n"}, HARD, "pass"),
        ("in_capitals_pass", {**BOOTED, ENFORCE: "1", CONFIG: "SELINUX=Enforcing \n"}, HARD, "pass"),
        ("words_after_the_mode_pass", {CONFIG: "SELINUX=enforcing # really\n"}, HARD, "pass"),
        ("config_is_a_link_pass", {**BOOTED, ENFORCE: "0", "/etc/real": STOCK, CONFIG: "-> ../real"}, ON, "pass"),
        ("chroot_pass", {CONFIG: "SELINUX=enforcing\n"}, HARD, "pass"),
        ("container_pass", {**BOOTED, "/run/systemd/container": "podman", ENFORCE: "0", CONFIG: "SELINUX=enforcing\n"},
         HARD, "pass"),
        ("policy_pass", {}, POLICY, "pass"),
        ("policy_mls_pass", {CONFIG: "SELINUXTYPE=mls\n"}, POLICY, "pass"),
        ("permissive_fail", {**BOOTED, ENFORCE: "0"}, HARD, "fail"),
        ("disabled_fail", {**BOOTED, CONFIG: "SELINUX=disabled\n"}, ON, "fail"),
        ("kernel_without_fail", {**BOOTED}, ON, "fail"),
        ("on_disk_only_fail", {**BOOTED, ENFORCE: "0", CONFIG: "SELINUX=enforcing\n"}, HARD, "fail"),
        ("running_only_fail", {**BOOTED, ENFORCE: "1"}, HARD, "fail"),
        ("first_line_counts_fail", {**BOOTED, ENFORCE: "1", CONFIG: "SELINUX=disabled\nSELINUX=enforcing\n"}, HARD,
         "fail"),
        ("blank_before_the_sign_fail", {CONFIG: "SELINUX = enforcing\n"}, HARD, "fail"),
        ("indented_fail", {CONFIG: "  SELINUX=enforcing\n"}, HARD, "fail"),
        ("commented_fail", {CONFIG: "#SELINUX=enforcing\n"}, HARD, "fail"),
        ("dangling_link_fail", {CONFIG: "-> ../nowhere"}, ON, "fail"),
        ("policy_minimum_fail", {CONFIG: "SELINUXTYPE=minimum\n"}, POLICY, "fail"),
        ("policy_of_two_lines_fail", {CONFIG: "SELINUXTYPE=targeted\nSELINUXTYPE=minimum\n"}, POLICY, "fail"),
        ("policy_in_capitals_fail", {CONFIG: "SELINUXTYPE=Targeted\n"}, POLICY, "fail"),
        ("policy_with_a_comment_fail", {CONFIG: "SELINUXTYPE=targeted # mine\n"}, POLICY, "fail"),
        ("policy_not_set_fail", {CONFIG: "SELINUX=permissive\n"}, POLICY, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, Any], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, {CONFIG: STOCK, **files}), spec)["status"] == status, name


def test_the_half_state_names_the_reboot(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**BOOTED, ENFORCE: "0", CONFIG: "SELINUX=enforcing\n"}), HARD)
    assert finding["reason"] == (
        f"mode of the running kernel: expected enforcing, found permissive in {ENFORCE};"
        " it is right on disk: reboot, or replace the node by one of a new image"
    )


def test_a_chroot_says_that_the_kernel_is_not_its_own(tmp_path: Path) -> None:
    seen = probe.check(machine(tmp_path, {CONFIG: STOCK}), ON)["evidence"][1]
    assert seen["found"] == "not looked at: in a container or chroot the kernel is another machine's"


# The module


class Place:
    """A tree with a configuration, and programs that install and label. ``live``: the mode, empty in a chroot."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, config: str = STOCK, live: str = "", containerd: str = ""
    ) -> None:
        self.root, self.ran, self.packages = (
            tree(root, {"selinux/config": config, "selinux/targeted/policy": None}),
            [],
            [],
        )
        self.containerd = containerd
        monkeypatch.setattr(runtime, "owns_kernel", lambda: bool(self.live))
        monkeypatch.setattr(selinux, "ENFORCE", str(root / "enforce"))
        monkeypatch.setattr(selinux, "NODEADM_UNITS", [str(root / "nodeadm-run.service")])
        monkeypatch.setattr(selinux, "CONTAINERD", [str(root / "containerd")])
        monkeypatch.setattr(selinux, "CONTAINERD_CONFIG", str(root / "config.toml"))
        if containerd:
            tree(root, {"containerd": "", "nodeadm-run.service": "init --config-source file:///etc/eks/nodeadm.d/\n"})
        self.boot(live)

    def boot(self, live: str) -> None:
        self.live = live
        (self.root / "enforce").write_text({"enforcing": "1", "permissive": "0"}.get(live, ""))

    @property
    def config(self) -> str:
        return (self.root / "selinux/config").read_text()

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "rpm":
            return int(argv[2] not in self.packages), "", ""
        if argv[1:] == ["--version"]:
            return 0, f"containerd github.com/containerd/containerd/v2 {self.containerd} abc\n", ""
        self.packages += argv[-1:] if argv[0] == "dnf" else []
        self.ran.append(argv[:2])
        return 0, "", ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            params = {"config": "selinux/config", "nodeadm": "nodeadm.d/80-cis.yaml", "autorelabel": ".autorelabel"}
            batch.module.params.update({name: str(self.root / path) for name, path in params.items()})
            selinux.apply(batch)

        return applied(apply, list(rules), check=check, program=self.program, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        assert ["setenforce"] not in [argv[:1] for argv in self.ran]
        return done


KIND = rule("selinux_policy_configured", "1.6.1.3", POLICY)
NOT_OFF = rule("selinux_not_disabled", "1.6.1.4", ON)
ENFORCING = rule("selinux_enforcing", "1.6.1.5", HARD)
GONE = [rule(each["rule"], each["id"], state="absent") for each in (NOT_OFF, ENFORCING, KIND)]


@pytest.mark.parametrize("mode", ["permissive", "enforcing"])
def test_what_is_accepted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    text = f"SELINUX={mode}\nSELINUXTYPE=mls\n"
    place = Place(tmp_path, monkeypatch, text, live=mode, containerd="2.1.5")
    assert not place.settles(KIND, NOT_OFF)["changed"]
    assert place.config == text and place.ran == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELINUX = enforcing\nSELINUXTYPE=targeted\n", "SELINUX=permissive\nSELINUXTYPE=targeted\n"),
        ("SELINUX=off\n SELINUXTYPE=mls\n", "SELINUX=permissive\nSELINUXTYPE=targeted\n"),
        ("SELINUX=Enforcing # x\nSELINUXTYPE=Targeted # x\n", "SELINUX=Enforcing # x\nSELINUXTYPE=targeted\n"),
        ("# none\n", "# none\nSELINUX=permissive\nSELINUXTYPE=targeted\n"),
        ("SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=minimum", "SELINUX=permissive\nSELINUXTYPE=targeted\n"),
    ],
)
def test_only_the_line_of_the_key_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    place = Place(tmp_path, monkeypatch, before)
    place.settles(NOT_OFF, KIND)
    assert place.config == after


def test_a_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, "SELINUX=disabled\n")
    (tmp_path / "selinux/config").rename(tmp_path / "selinux/real")
    (tmp_path / "selinux/config").symlink_to("real")
    place.run(NOT_OFF)
    assert (tmp_path / "selinux/config").is_symlink() and "SELINUX=permissive" in place.config


@pytest.mark.parametrize("live", ["disabled", ""])
def test_from_disabled_the_labels_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str) -> None:
    place = Place(tmp_path, monkeypatch, "SELINUX=disabled\n", live=live)
    place.settles(NOT_OFF, ENFORCING)
    assert "SELINUX=permissive" in place.config and (tmp_path / ".autorelabel").exists()
    (tmp_path / ".autorelabel").unlink()  # as that boot does
    place.boot("permissive")
    place.settles(NOT_OFF, ENFORCING)
    assert "SELINUX=enforcing" in place.config and not (tmp_path / ".autorelabel").exists()
    place.boot("enforcing")
    place.settles(*GONE)
    assert place.config == "SELINUX=disabled\n"


@pytest.mark.parametrize(
    ("version", "section"),
    [("2.1.5", "plugins.'io.containerd.cri.v1.runtime'"), ("1.7.29", 'plugins."io.containerd.grpc.v1.cri"')],
)
def test_enforcing_brings_what_containers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, section: str
) -> None:
    place = Place(tmp_path, monkeypatch, live="permissive", containerd=version)
    done = place.settles(NOT_OFF, ENFORCING)
    assert "SELINUX=enforcing" in place.config
    assert place.ran == [["dnf", "-y"], ["restorecon", "-R"]] and place.packages == ["container-selinux"]
    text = (tmp_path / "nodeadm.d/80-cis.yaml").read_text()
    assert text.endswith(f"    config: |\n      [{section}]\n      enable_selinux = true\n")
    assert done["rules"]["selinux_enforcing"]["after"]["SELINUX"] == "enforcing"
    place.settles(NOT_OFF, *GONE[1:])
    assert place.config == STOCK and not (tmp_path / "nodeadm.d/80-cis.yaml").exists()


def test_in_an_image_the_next_boot_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, containerd="2.1.5")
    place.settles(ENFORCING)
    assert place.ran == [["dnf", "-y"]] and (tmp_path / ".autorelabel").read_text() == "-F\n"
    place.settles(*GONE)
    assert place.config == STOCK and not (tmp_path / ".autorelabel").exists()


def test_a_server_without_containers_needs_labels_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, live="permissive")
    place.settles(ENFORCING)
    assert place.ran == [["restorecon", "-R"]] and not (tmp_path / "nodeadm.d").exists()


@pytest.mark.parametrize("check", [True, False])
def test_without_a_safe_place_for_containerds_setting_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    place = Place(tmp_path, monkeypatch, live="permissive", containerd="2.1.5")
    (tmp_path / "nodeadm-run.service").write_text("ExecStart=/usr/bin/nodeadm init --skip config\n")
    with pytest.raises(Refused, match=r"rule selinux_enforcing \(1.6.1.5\): containerd needs enable_selinux = true"):
        place.run(NOT_OFF, ENFORCING, check=check)
    assert place.config == STOCK and place.ran == []
    (tmp_path / "config.toml").write_text("[plugins]\n  enable_selinux = true\n")
    place.settles(ENFORCING)
    assert "SELINUX=enforcing" in place.config and not (tmp_path / "nodeadm.d").exists()


def test_a_policy_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, "SELINUX=disabled\nSELINUXTYPE=mls\n")
    with pytest.raises(Refused, match=r"mls: no policy there for the next boot to load; .* install selinux-policy-mls"):
        place.run(NOT_OFF)
    assert "disabled" in place.config


def test_what_an_administrator_set_since_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, "SELINUX=disabled\n")
    place.run(NOT_OFF)
    (tmp_path / "selinux/config").write_text("SELINUX=enforcing\n")
    assert "SELINUX=enforcing" in place.config
    place.settles(*GONE)
    assert place.config == "SELINUX=enforcing\n"


def test_a_rule_outside_of_the_tags_keeps_its_node_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, live="permissive", containerd="2.1.5")
    place.run(ENFORCING)
    place.settles(NOT_OFF, rule("selinux_enforcing", "1.6.1.5", state="keep"))
    assert "enable_selinux" in (tmp_path / "nodeadm.d/80-cis.yaml").read_text() and "=enforcing" in place.config
