"""Checks of units and paths, and how all are run: against trees of files with programs that answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import core as verify
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import (
    paths,
    registry,
    units,
    volumes,
)
from machines import Output, machine

BOOTED: dict[str, str | None] = {"/run/systemd/system": None}
Files = dict[str, str | None]
Answers = dict[str, str | Output]


def failing(finding: probe.Finding) -> list[str]:
    return [item["object"] for item in finding["evidence"] if not item["ok"]]


# How they are run


def test_every_check_has_a_title_and_a_reason() -> None:
    for name, check in registry.CHECKS.items():
        assert name.replace("_", "").isalnum() and name == name.lower()
        assert check.title[0].isupper() or check.title.split()[0] in ("containerd", "kubelet,", "sshd", "sudo")
        assert check.title[-1] != "." and check.why


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (probe.ProbeError("no /proc"), "no /proc"),
        (KeyError("x"), "KeyError: 'x'; this is a defect of cisdriver"),
    ],
)
def test_a_check_that_cannot_look_is_an_error(tmp_path: Path, raised: Exception, reason: str) -> None:
    def look(_node: probe.Node) -> probe.Finding:
        raise raised

    found = verify.run(machine(tmp_path), verify.check("title", "why")(look))
    assert (found["status"], found["reason"]) == ("error", reason)


# Units


def unit_answers(said: str = "", rc: int = 0, **states: str) -> Answers:
    """Programs of a node whose units are as stock, but for ``states``; ``_`` stands for a dash."""
    changed = {name.replace("_", "-") + ".service": state for name, state in states.items()}
    stock = {unit: "enabled" if unit in units.ENABLED else "disabled" for unit in units.UNITS}
    answers: Answers = {}
    for unit, state in {**stock, **changed}.items():
        answers[f"systemctl is-enabled {unit}"] = Output(0 if state == "enabled" else 1, f"{state}\n", "")
        answers[f"systemctl is-enabled {unit.replace('.service', '.socket')}"] = Output(1, "not-found\n", "")
    there = [unit for unit in units.UNITS if changed.get(unit) not in ("masked", "masked-runtime", "not-found")]
    answers[" ".join(["systemd-analyze", "verify", "--man=no", *there])] = Output(rc, "", said)
    return answers


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("stock", unit_answers()),
        ("joined_al2", unit_answers(kubelet="enabled", containerd="enabled", nodeadm_run="not-found")),
        ("no_node", unit_answers(kubelet="not-found", containerd="not-found")),
        ("started_by_a_socket", {**unit_answers(sshd="disabled"), "systemctl is-enabled sshd.socket": "enabled\n"}),
        ("a_package's_file", unit_answers("/usr/lib/systemd/system/chronyd.service:9: Unknown key name 'X'\n")),
        ("another's_unit", unit_answers("/etc/systemd/system/other.service:1: Assignment outside of section.\n")),
        ("a_warning", unit_answers("kubelet.service: is somewhat slow\n")),
    ],
)
def test_units_pass(tmp_path: Path, name: str, answers: Answers) -> None:
    assert units.units_valid(machine(tmp_path, {}, answers))["status"] == "pass", name


@pytest.mark.parametrize(
    ("answers", "objects"),
    [
        (unit_answers(containerd="masked"), ["containerd.service"]),
        (unit_answers(containerd="masked-runtime"), ["containerd.service"]),
        (unit_answers(rescue="masked"), ["rescue.service"]),
        (unit_answers(nodeadm_config="disabled"), ["nodeadm-config.service"]),
        (unit_answers(sshd="enabled-runtime"), ["sshd.service"]),
        (
            unit_answers("/etc/systemd/system/kubelet.service:3: Unbalanced quoting, ignoring\n"),
            ["systemd-analyze verify kubelet.service"],
        ),
        (
            unit_answers("/etc/systemd/system/kubelet.service.d/x.conf:2: Unknown key 'Foo'\n"),
            ["systemd-analyze verify kubelet.service"],
        ),
        (
            unit_answers("nodeadm-run.service: Command /usr/bin/nodeadm is not executable\n", rc=1),
            ["systemd-analyze verify nodeadm-run.service"],
        ),
        (
            unit_answers("Unit emergency.service has a bad unit file setting.\n", rc=1),
            ["systemd-analyze verify emergency.service"],
        ),
        (unit_answers("Failed to initialize manager\n", rc=1), ["systemd-analyze verify"]),
    ],
)
def test_units_fail(tmp_path: Path, answers: Answers, objects: list[str]) -> None:
    finding = units.units_valid(machine(tmp_path, {}, answers))
    assert (finding["status"], failing(finding)) == ("fail", objects)


def test_the_link_that_masks_a_unit_is_named(tmp_path: Path) -> None:
    files: Files = {"/etc/systemd/system/containerd.service": "-> /dev/null"}
    finding = units.units_valid(machine(tmp_path, files, unit_answers(containerd="masked")))
    assert finding["reason"].endswith("found masked in /etc/systemd/system/containerd.service")


def test_units_that_nobody_can_verify_are_an_error(tmp_path: Path) -> None:
    answers = {name: answer for name, answer in unit_answers().items() if "analyze" not in name}
    with pytest.raises(probe.ProbeError, match="systemd-analyze"):
        units.units_valid(machine(tmp_path, {}, answers))


@pytest.mark.parametrize(
    ("dropin", "status"), [("", "pass"), ("[Service]\nUMask=0022\n", "pass"), ("[Service]\nUMask=0077\n", "fail")]
)
def test_service_umask(tmp_path: Path, dropin: str, status: str) -> None:
    unit = "/etc/systemd/system/kubelet.service"
    files: Files = {unit: "[Service]\nExecStart=/usr/bin/kubelet\n", f"{unit}.d/x.conf": dropin}
    finding = units.service_umask(machine(tmp_path, files, unit_answers()))
    assert finding["status"] == status
    if status == "fail":
        assert finding["reason"].endswith("found 0077 in /etc/systemd/system/kubelet.service.d/x.conf:2")


def test_service_umask_without_a_node(tmp_path: Path) -> None:
    states = {name.rpartition(".")[0].replace("-", "_"): "not-found" for name in units.KUBERNETES}
    assert units.service_umask(machine(tmp_path, {}, unit_answers(**states)))["status"] == "not_applicable"


LISTED = "systemctl list-units --all --plain --no-legend --state=failed,auto-restart"


def journal(unit: str, own: str = "", systemd: str = "") -> Answers:
    rest = "--lines=1 --output=cat --no-pager --quiet"
    return {f"journalctl _SYSTEMD_UNIT={unit} {rest}": own, f"journalctl --unit={unit} {rest}": systemd}


def test_failed_units(tmp_path: Path) -> None:
    node = machine(tmp_path / "none", BOOTED, {LISTED: ""})
    assert units.failed_units(node)["status"] == "pass"
    rows = "srv.mount loaded failed failed /srv\nkubelet.service loaded activating auto-restart kubelet\n"
    answers = {
        LISTED: rows,
        **journal("srv.mount", "", "Failed to mount /srv"),
        **journal("kubelet.service", "no CA\n"),
    }
    finding = units.failed_units(machine(tmp_path / "two", BOOTED, answers))
    assert failing(finding) == ["srv.mount", "kubelet.service"]
    assert [item["found"] for item in finding["evidence"]] == ["failed: Failed to mount /srv", "auto-restart: no CA"]


@pytest.mark.parametrize(
    ("unit", "status"),
    [
        ("cri-containerd-1f.scope", "pass"),
        ("run-r5e.scope", "pass"),
        ("var-lib-kubelet-pods-6b\\x2d1-volumes-kubernetes.io\\x7esecret-x.mount", "pass"),
        ("var-lib-kubelet-plugins-kubernetes.io-csi-x-globalmount.mount", "pass"),
        ("var-lib-kubelet.mount", "fail"),
        ("var-lib-containerd.mount", "fail"),
        ("srv-run-containerd.mount", "fail"),
    ],
)
def test_what_pods_leave_failed_is_no_fault_of_the_node(tmp_path: Path, unit: str, status: str) -> None:
    answers = {LISTED: f"{unit} loaded failed failed x\n", **journal(unit, "Killed")}
    assert units.failed_units(machine(tmp_path, BOOTED, answers))["status"] == status


@pytest.mark.parametrize(("joined", "status"), [(False, "pass"), (True, "fail")])
def test_nodeadm_may_fail_before_the_node_joins(tmp_path: Path, joined: bool, status: str) -> None:
    files = {**BOOTED, **({units.JOINED: "x"} if joined else {})}
    answers = {
        LISTED: "nodeadm-run.service loaded failed failed x\n",
        **journal("nodeadm-run.service", "no NodeConfig"),
    }
    assert units.failed_units(machine(tmp_path, files, answers))["status"] == status


def test_failed_units_without_a_manager_and_without_an_answer(tmp_path: Path) -> None:
    assert units.failed_units(machine(tmp_path))["status"] == "not_applicable"
    with pytest.raises(probe.ProbeError, match="systemctl list-units"):
        units.failed_units(machine(tmp_path, BOOTED, {LISTED: Output(1, "", "Failed to connect to bus")}))


# Paths


def with_modes(node: probe.Node, **modes: int) -> probe.Node:
    for path, mode in modes.items():
        Path(node.real(path)).chmod(mode)
    return node


NODE_FILES: Files = {
    "/usr/bin/kubelet": "",
    "/usr/local/aws-cli/v2/bin/aws": "",
    "/usr/bin/aws": "-> /usr/local/aws-cli/v2/bin/aws",
    "/opt/cni/bin/bridge": "",
    "/opt/cni/bin/LICENSE": "",
    "/etc/eks/release": "",
    "/etc/eks/nodeadm.d/secret.yaml": "",
    "/etc/kubernetes/kubelet/config.json": "",
    "/etc/kubernetes/pki/server.key": "",
    "/etc/systemd/system/kubelet.service": "",
    "/etc/systemd/network/99-default.link": "",
    "/etc/systemd/network/wg0.netdev": "",
    "/etc/kubernetes/registry.json": "",
}
SECRETS = (
    *("/etc/eks/nodeadm.d/secret.yaml", "/etc/kubernetes/pki/server.key", "/etc/kubernetes/registry.json"),
    *("/etc/kubernetes/kubelet/config.json", "/etc/systemd/network/wg0.netdev"),
)
PROGRAMS = ("/usr/bin/kubelet", "/usr/local/aws-cli/v2/bin/aws", "/opt/cni/bin/bridge")


def open_node(root: Path) -> probe.Node:
    node = machine(root, NODE_FILES)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    with_modes(node, **dict.fromkeys(PROGRAMS, 0o755))
    return with_modes(node, **dict.fromkeys(SECRETS, 0o600))


def test_an_open_node_with_private_secrets_passes(tmp_path: Path) -> None:
    finding = paths.files_readable(open_node(tmp_path))
    assert finding["status"] == "pass", finding["reason"]


@pytest.mark.parametrize(
    ("path", "mode", "objects", "words"),
    [
        ("/usr/bin/kubelet", 0o750, ["/usr/bin/kubelet"], "found mode 0750"),
        ("/opt/cni/bin/bridge", 0o754, ["/opt/cni/bin/bridge"], "found mode 0754"),
        ("/opt/cni/bin/LICENSE", 0o640, ["/opt/cni/bin/LICENSE"], "found mode 0640"),
        ("/etc/eks/release", 0o640, ["/etc/eks/release"], "build steps and log collectors"),
        ("/etc/systemd/system/kubelet.service", 0o640, ["/etc/systemd/system/kubelet.service"], "found mode 0640"),
        ("/etc/systemd/network/99-default.link", 0o640, ["/etc/systemd/network/99-default.link"], "systemd-network"),
        ("/etc/kubernetes/kubelet", 0o750, ["/etc/kubernetes/kubelet"], "found mode 0750"),
        ("/usr/local/aws-cli/v2", 0o750, ["/usr/bin/aws"], "mode 0750 of /usr/local/aws-cli/v2 above it"),
        ("/usr/local/aws-cli/v2/bin/aws", 0o700, ["/usr/bin/aws"], "mode 0700 of /usr/local/aws-cli/v2/bin/aws"),
    ],
)
def test_what_a_umask_closed_fails(tmp_path: Path, path: str, mode: int, objects: list[str], words: str) -> None:
    finding = paths.files_readable(with_modes(open_node(tmp_path), **{path: mode}))
    assert failing(finding) == objects
    assert words in finding["reason"]


def test_links_that_lead_nowhere_or_in_circles_are_passed_over(tmp_path: Path) -> None:
    node = machine(tmp_path, {"/usr/bin/aws": "-> /nowhere", "/usr/bin/ctr": "-> /usr/bin/ctr"})
    assert paths.files_readable(node)["status"] == "pass"


def test_a_tree_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = open_node(tmp_path)

    def refuse(path: str) -> None:
        raise probe.ProbeError(f"cannot stat {path}: Input/output error")

    monkeypatch.setattr(node, "lstat", refuse)
    with pytest.raises(probe.ProbeError, match="Input/output error"):
        paths.files_readable(node)


def mount_line(point: str, options: str, device: str = "259:1") -> str:
    return f"30 1 {device} / {point} {options} shared:1 - xfs /dev/x rw\n"


ROOT_MOUNT = mount_line("/", "rw,relatime")
ROOT_ENTRY = "UUID=1 / xfs defaults,noatime 1 1\n"
VOLUMES: Files = dict.fromkeys(paths.EXECUTABLE)


def flags(root: Path, table: str = ROOT_MOUNT, fstab: str = ROOT_ENTRY, files: Files | None = None) -> probe.Finding:
    whole = {**VOLUMES, volumes.TABLE: table, "/etc/fstab": fstab, **(files or {})}
    return paths.exec_allowed(machine(root, whole))


UNIT = "/etc/systemd/system/var-lib-kubelet.mount"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("one_volume", {}),
        ("noexec_elsewhere", {"table": ROOT_MOUNT + mount_line("/var/log", "rw,noexec,nosuid,nodev", "7:1")}),
        ("like_by_name_alone", {"table": ROOT_MOUNT + mount_line("/var/lib/kubelet2", "rw,noexec", "7:1")}),
        ("var_closed_and_kubelet_open", {
            "table": ROOT_MOUNT + mount_line("/var", "rw,nosuid", "7:1") + mount_line("/var/lib", "rw", "7:2"),
            "fstab": ROOT_ENTRY + "LABEL=v /var xfs nodev,nosuid 0 0\nLABEL=l /var/lib xfs defaults 0 0\n"}),
        ("taken_back", {"fstab": ROOT_ENTRY + "LABEL=k /var/lib/kubelet xfs user,exec,suid,dev 0 0\n"}),
        ("bound_from_an_open_disk", {
            "fstab": ROOT_ENTRY + "LABEL=i /mnt/disk xfs noatime 0 0\n",
            "files": {UNIT: "[Mount]\nWhat=/mnt/disk/kubelet\nWhere=/var/lib/kubelet\nOptions=bind\n"}}),
        ("plugins_on_nosuid", {"table": ROOT_MOUNT + mount_line("/opt", "rw,nosuid,nodev", "7:1")}),
        ("nothing_said_of_the_next_boot", {"fstab": ""}),
    ],
)  # fmt: skip
def test_exec_allowed_passes(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    finding = flags(tmp_path, **more)
    assert finding["status"] == "pass", (name, finding["reason"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"table": ROOT_MOUNT + mount_line("/var/lib/kubelet", "rw,noexec", "7:1")}, "/proc/self/mountinfo:2"),
        ({"table": ROOT_MOUNT + mount_line("/var", "rw,nodev,nosuid", "7:1")}, "/var/lib/kubelet (now), /var"),
        ({"table": ROOT_MOUNT + mount_line("/opt/cni/bin", "ro,noexec", "7:1")}, "/opt/cni/bin (now)"),
        ({"table": mount_line("/", "rw,nosuid")}, "/usr/bin (now), /"),
        (
            {
                "table": ROOT_MOUNT
                + mount_line("/var/lib/kubelet", "rw", "7:1")
                + mount_line("/var", "rw,nosuid", "7:2")
            },
            "/var/lib/kubelet (now), /var",
        ),
        ({"fstab": ROOT_ENTRY + "LABEL=k /var/lib/kubelet xfs noexec 0 0\n"}, "/etc/fstab:2"),
        ({"fstab": ROOT_ENTRY + "LABEL=k /var/lib/containerd/ xfs user 0 0\n"}, "/var/lib/containerd (at boot)"),
        ({"fstab": ROOT_ENTRY + "LABEL=v /var xfs nodev,nosuid 0 0\n"}, "/var/lib/kubelet (at boot), /var"),
        ({"files": {UNIT: "[Mount]\nWhat=/dev/x\nOptions=nodev\n"}}, f"{UNIT}:3"),
        (
            {"files": {UNIT: "[Mount]\nWhat=/dev/x\n", f"{UNIT}.d/a.conf": "[Mount]\nOptions=noexec\n"}},
            f"{UNIT}.d/a.conf:2",
        ),
        (
            {
                "fstab": ROOT_ENTRY + "LABEL=i /mnt/disk xfs noexec 0 0\n",
                "files": {UNIT: "[Mount]\nWhat=/mnt/disk/kubelet\nOptions=bind\n"},
            },
            "/var/lib/kubelet (at boot), /mnt/disk",
        ),
        (
            {"fstab": ROOT_ENTRY + "LABEL=i /mnt xfs nosuid 0 0\n/mnt/k /var/lib/kubelet none bind 0 0\n"},
            "/var/lib/kubelet (at boot), /mnt",
        ),
    ],
)
def test_exec_allowed_fails(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    finding = flags(tmp_path, **more)
    assert finding["status"] == "fail"
    assert words in finding["reason"]


def test_a_bind_mount_on_itself_ends(tmp_path: Path) -> None:
    entry = "/var/lib/kubelet /var/lib/kubelet none bind 0 0\n"
    assert flags(tmp_path, fstab=ROOT_ENTRY + entry)["status"] == "pass"


def test_without_proc_nobody_knows_the_mounts(tmp_path: Path) -> None:
    with pytest.raises(probe.ProbeError, match="/proc is not mounted"):
        paths.exec_allowed(machine(tmp_path, VOLUMES))


def programs(root: Path, mode: int = 0o755, without: str = "", **more: str) -> probe.Node:
    names = {f"/usr/sbin/{name}": "" for name in paths.PROGRAMS if name != without}
    node = machine(root, {paths.KUBELET: "", **names, **more})
    return with_modes(node, **dict.fromkeys(names, mode))


def test_node_programs(tmp_path: Path) -> None:
    assert paths.node_programs(programs(tmp_path / "all"))["status"] == "pass"
    assert paths.node_programs(programs(tmp_path / "root", 0o700))["status"] == "pass"
    finding = paths.node_programs(programs(tmp_path / "nfs", without="mount.nfs"))
    assert finding["reason"] == "mount.nfs: expected executable, for kubelet, for NFS volumes, found not there"
    dangling = {"/usr/bin/mount.nfs": "-> /usr/libexec/nfs"}
    assert failing(paths.node_programs(programs(tmp_path / "link", without="mount.nfs", **dangling))) == ["mount.nfs"]
    assert set(failing(paths.node_programs(programs(tmp_path / "no", 0o644)))) == set(paths.PROGRAMS)
    assert paths.node_programs(machine(tmp_path / "none"))["status"] == "not_applicable"
