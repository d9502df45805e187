"""Kernel arguments: states that pass, and more of them that fail; entries, defaults and what is given back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import boot_args as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import boot_args
from machines import Refused, applied, machine, rule, tree

ENTRY = "/boot/loader/entries/a-6.12.conf"
OLDER = "/boot/loader/entries/a-6.1.conf"
GRUB_CFG = "/boot/grub2/grub.cfg"
GRUBENV = "/boot/grub2/grubenv"
DEFAULTS = "/etc/default/grub"
AUDIT = {"present": {"audit": 1}}
BACKLOG = {"present": {"audit_backlog_limit": {"min": 8192}}}
SELINUX = {"absent": ["selinux=0", "enforcing=0"]}
GOOD = "root=UUID=1 ro selinux=1 audit=1 audit_backlog_limit=8192 quiet"


def entry(options: str) -> str:
    return f"title A\nlinux /boot/vmlinuz-6.12\noptions {options}\ngrub_class amzn\n"


def booted(arguments: str = GOOD) -> dict[str, str | None]:
    return {"/run/systemd/system": None, "/proc/cmdline": f"BOOT_IMAGE=/boot/vmlinuz {arguments}\n"}


NODE = {ENTRY: entry(GOOD), DEFAULTS: f'GRUB_CMDLINE_LINUX="{GOOD}"\n', **booted()}


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("everywhere_pass", {}, AUDIT, "pass"),
        ("more_than_asked_for_pass", {ENTRY: entry(GOOD.replace("8192", "16384"))}, BACKLOG, "pass"),
        ("none_forbidden_pass", {}, SELINUX, "pass"),
        ("word_that_only_looks_like_it_pass", {ENTRY: entry("some.enforcing=0 selinux=01")}, SELINUX, "pass"),
        ("last_of_two_right_pass", {ENTRY: entry("audit=0 audit=1")}, AUDIT, "pass"),
        ("chroot_has_no_running_kernel_pass", {"/proc/cmdline": "quiet\n"}, AUDIT, "pass"),
        ("variable_of_grubenv_pass", {ENTRY: entry("$kernelopts"), GRUBENV: f"kernelopts={GOOD}\n"}, AUDIT, "pass"),
        ("variable_of_grub_cfg_pass", {ENTRY: entry("${kernelopts}"), GRUB_CFG: f'  set kernelopts="{GOOD}"\n'},
         AUDIT, "pass"),
        ("default_in_the_other_variable_pass", {DEFAULTS: f'GRUB_CMDLINE_LINUX_DEFAULT="{GOOD}"\n'}, AUDIT, "pass"),
        ("added_to_the_variable_pass", {DEFAULTS: f'GRUB_CMDLINE_LINUX="ro"\nGRUB_CMDLINE_LINUX+=" {GOOD}"\n'}, AUDIT,
         "pass"),
        ("commented_default_pass", {DEFAULTS: f"{NODE[DEFAULTS]}#GRUB_CMDLINE_LINUX_DEFAULT=\"selinux=0\"\n"}, SELINUX,
         "pass"),
        ("missing_in_the_entry_fail", {ENTRY: entry("ro quiet")}, AUDIT, "fail"),
        ("second_kernel_fail", {OLDER: entry("ro quiet")}, AUDIT, "fail"),
        ("rescue_image_fail", {"/boot/loader/entries/a-0-rescue.conf": entry("ro")}, AUDIT, "fail"),
        ("last_of_two_wrong_fail", {ENTRY: entry("audit=1 audit=0")}, AUDIT, "fail"),
        ("too_little_fail", {ENTRY: entry(GOOD.replace("8192", "8191"))}, BACKLOG, "fail"),
        ("no_number_fail", {ENTRY: entry(GOOD.replace("8192", "many"))}, BACKLOG, "fail"),
        ("commented_options_fail", {ENTRY: "linux /boot/v\n#options audit=1\n"}, AUDIT, "fail"),
        ("name_that_only_begins_so_fail", {ENTRY: entry("audit_backlog_limit=1 xaudit=1")}, AUDIT, "fail"),
        ("line_of_grub_cfg_fail", {GRUB_CFG: "menuentry x {\n\tlinux16 /boot/v ro selinux=0\n}\n"}, SELINUX, "fail"),
        ("default_for_new_kernels_fail", {DEFAULTS: 'GRUB_CMDLINE_LINUX="ro"\n'}, AUDIT, "fail"),
        ("default_taken_back_fail", {DEFAULTS: f'{NODE[DEFAULTS]}GRUB_CMDLINE_LINUX_DEFAULT="audit=0"\n'}, AUDIT,
         "fail"),
        ("default_set_anew_fail", {DEFAULTS: f"{NODE[DEFAULTS]}GRUB_CMDLINE_LINUX='quiet'\n"}, AUDIT, "fail"),
        ("kernel_install_fail", {"/etc/kernel/cmdline": "root=UUID=1 ro\n"}, AUDIT, "fail"),
        ("grubenv_beats_grub_cfg_fail", {ENTRY: entry("$kernelopts"), GRUB_CFG: f"set kernelopts='{GOOD}'\n",
                                         GRUBENV: "kernelopts=ro\n"}, AUDIT, "fail"),
        ("running_kernel_fail", booted("ro quiet"), AUDIT, "fail"),
        ("running_kernel_forbidden_fail", booted("ro enforcing=0"), SELINUX, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, Any], spec: dict[str, Any], status: str) -> None:
    whole = {**NODE, **files}
    if name.startswith("chroot"):
        del whole["/run/systemd/system"]
    assert probe.check(machine(tmp_path, whole), spec)["status"] == status, name


def test_right_on_disk_and_not_yet_running_names_the_reboot(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**NODE, **booted("ro quiet")}), AUDIT)
    assert finding["reason"] == (
        "running kernel: audit: expected 1, found not set in /proc/cmdline;"
        " it is right on disk: reboot, or replace the node by one of a new image"
    )


def test_running_and_not_on_disk_names_the_next_boot(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**NODE, ENTRY: entry("ro")}), AUDIT)
    assert finding["reason"].endswith(f"in {ENTRY}; the running kernel has it right, the next boot will not")


def test_without_a_boot_loader_it_does_not_apply(tmp_path: Path) -> None:
    assert probe.check(machine(tmp_path, {**booted(), DEFAULTS: NODE[DEFAULTS]}), AUDIT)["status"] == "not_applicable"


# The module


class Place:
    """A tree with boot entries, and a grubby that knows them by their kernels."""

    def __init__(self, root: Path, entries: dict[str, str], defaults: str, cmdline: str = "") -> None:
        self.root, self.calls, self.works = root, [], True
        tree(root, {"default/grub": defaults, **({"cmdline": cmdline} if cmdline else {})})
        (root / "entries").mkdir()
        for kernel, options in entries.items():
            (root / f"entries/{kernel}.conf").write_text(options)

    def options(self, kernel: str = "6.12") -> str:
        return (self.root / f"entries/{kernel}.conf").read_text()

    @property
    def defaults(self) -> str:
        return (self.root / "default/grub").read_text()

    def grubby(self, argv: list[str]) -> tuple[int, str, str]:
        paths = sorted((self.root / "entries").iterdir())
        if argv[0] != "grubby" or not self.works:
            raise FileNotFoundError(2, "No such file or directory")
        if argv == ["grubby", "--info=ALL"]:
            blocks = (f'index=0\nkernel="/boot/v-{p.stem}"\nargs="{p.read_text()}"\nid="m-{p.stem}"\n' for p in paths)
            return 0, "".join(blocks), ""
        self.calls.append(argv)
        flags = dict(argument[2:].split("=", 1) for argument in argv[1:])
        for path in paths:
            if flags["update-kernel"] == f"/boot/v-{path.stem}":
                added = flags.get("args", "").split()  # in place of what the name had
                names = [word.partition("=")[0] for word in added]
                words = [word for word in path.read_text().split() if word not in flags.get("remove-args", "").split()]
                path.write_text(" ".join([word for word in words if word.partition("=")[0] not in names] + added))
        return 0, "", ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            params = {"defaults": "default/grub", "cmdline": "cmdline", "entries": "entries"}
            batch.module.params.update({name: str(self.root / path) for name, path in params.items()})
            boot_args.apply(batch)

        return applied(apply, list(rules), check=check, program=self.grubby, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        return done


EARLY = rule("early_process_auditing_enabled", "5.2.1.2", AUDIT)
LIMIT = rule("audit_backlog_sufficient", "5.2.1.3", BACKLOG)
ALLOWED = rule("selinux_not_disabled_in_bootloader", "1.6.1.2", SELINUX)
GONE = [rule(each["rule"], each["id"], state="absent") for each in (EARLY, LIMIT, ALLOWED)]
STOCK = "GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=\" clocksource=tsc\"  # the node's\nGRUB_CMDLINE_LINUX_DEFAULT='quiet'\n"


def test_all_kernels_and_those_to_come(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro quiet", "6.1": "ro audit=1"}, STOCK, cmdline="root=/dev/a  ro\n")
    done = place.settles(EARLY, LIMIT)
    assert place.options() == "ro quiet audit=1 audit_backlog_limit=8192"
    assert place.options("6.1") == "ro audit=1 audit_backlog_limit=8192"
    assert place.defaults == STOCK.replace("tsc", "tsc audit=1 audit_backlog_limit=8192")
    assert (tmp_path / "cmdline").read_text() == "root=/dev/a  ro audit=1 audit_backlog_limit=8192\n"
    assert len(place.calls) == 2  # one per kernel for both rules
    assert done["rules"]["early_process_auditing_enabled"]["after"]["m-6.12 audit"] == ["audit=1"]


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ("ro audit=0", "ro audit=1 audit_backlog_limit=8192"),
        ("ro audit_backlog_limit=64 audit=1", "ro audit=1 audit_backlog_limit=8192"),
        ("ro audit=1 audit_backlog_limit=20000", "ro audit=1 audit_backlog_limit=20000"),
        ("ro audit=1 audit=0 audit_backlog_limit=8192", "ro audit=1 audit_backlog_limit=8192"),
    ],
)
def test_what_contradicts_goes_and_more_than_asked_for_stays(tmp_path: Path, options: str, after: str) -> None:
    place = Place(tmp_path, {"6.12": options}, "")
    place.settles(EARLY, LIMIT)
    assert place.options() == after


def test_what_is_forbidden_goes_from_either_variable(tmp_path: Path) -> None:
    text = "GRUB_CMDLINE_LINUX='enforcing=0 ro'\nexport GRUB_CMDLINE_LINUX_DEFAULT=\"quiet selinux=0 xselinux=0\"\n"
    place = Place(tmp_path, {"6.12": "ro selinux=0 enforcing=01"}, text)
    place.settles(ALLOWED)
    assert place.options() == "ro enforcing=01"
    assert place.defaults == "GRUB_CMDLINE_LINUX=' ro'\nexport GRUB_CMDLINE_LINUX_DEFAULT=\"quiet xselinux=0\"\n"


def test_a_default_that_takes_it_back_is_corrected(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro audit=1"}, 'GRUB_CMDLINE_LINUX_DEFAULT="audit=0 quiet"\n')
    place.settles(EARLY)
    assert place.defaults == 'GRUB_CMDLINE_LINUX_DEFAULT=" quiet"\nGRUB_CMDLINE_LINUX="audit=1"\n'


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ('GRUB_CMDLINE_LINUX+=" quiet"\n', 'GRUB_CMDLINE_LINUX+=" quiet audit=1"\n'),
        ('GRUB_CMDLINE_LINUX="ro"\nGRUB_CMDLINE_LINUX+=" quiet"\n',
         'GRUB_CMDLINE_LINUX="ro audit=1"\nGRUB_CMDLINE_LINUX+=" quiet"\n'),
    ],
)  # fmt: skip
def test_what_is_added_to_a_variable_is_not_taken_back(tmp_path: Path, text: str, after: str) -> None:
    place = Place(tmp_path, {"6.12": "ro"}, text)
    place.settles(EARLY)
    assert place.defaults == after
    place.settles(*GONE)
    assert place.defaults == text


def test_what_stood_there_comes_back(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro quiet", "6.1": "ro audit=0 selinux=0"}, STOCK, cmdline="ro\n")
    place.run(EARLY, LIMIT, ALLOWED)
    (tmp_path / "entries/6.18.conf").write_text("ro audit=1 audit_backlog_limit=8192")  # installed meanwhile
    place.settles(*GONE)
    assert place.options() == place.options("6.18").replace("ro", "ro quiet") == "ro quiet"
    assert place.options("6.1").split() == ["ro", "audit=0", "selinux=0"]
    assert place.defaults == STOCK
    assert (tmp_path / "cmdline").read_text() == "ro\n"


def test_what_was_forbidden_comes_back_in_place_of_what_it_beat(tmp_path: Path) -> None:
    text = 'GRUB_CMDLINE_LINUX="selinux=1 selinux=0"\n'
    place = Place(tmp_path, {"6.12": "ro selinux=1 selinux=0"}, text)
    place.settles(ALLOWED)
    assert place.options() == "ro selinux=1"
    place.settles(*GONE)
    assert place.options() == "ro selinux=0" and place.defaults == text


def test_what_an_administrator_set_since_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro audit=1"}, STOCK)
    place.run(EARLY, LIMIT)
    (tmp_path / "entries/6.12.conf").write_text("ro audit=1 audit_backlog_limit=32768")
    place.settles(*GONE)
    assert place.options() == "ro audit=1 audit_backlog_limit=32768"


def test_a_rule_outside_of_the_tags_keeps_its_arguments(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro"}, STOCK)
    place.run(EARLY, LIMIT)
    place.settles(rule(EARLY["rule"], "5.2.1.2", state="keep"), GONE[1])
    assert place.options() == "ro audit=1"


def test_without_a_boot_loader_there_is_nothing_to_do(tmp_path: Path) -> None:
    place = Place(tmp_path, {}, STOCK)
    assert not place.settles(EARLY, LIMIT)["changed"]
    assert place.defaults == STOCK


def test_entries_that_grubby_does_not_show_are_named(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro"}, STOCK)
    place.works = False
    with pytest.raises(Refused, match=r"yet .*entries holds some: .*; install grubby, or skip the rules"):
        place.run(EARLY)
    assert place.defaults == STOCK


def test_a_grubby_that_does_nothing_is_found_out(tmp_path: Path) -> None:
    place = Place(tmp_path, {"6.12": "ro"}, "")
    honest = place.grubby

    def idle(argv: list[str]) -> tuple[int, str, str]:
        return honest(argv) if argv[1] == "--info=ALL" else (0, "", "")

    place.grubby = idle  # type: ignore[method-assign] # what grubby answers here
    with pytest.raises(Refused, match=re.escape("boot entry m-6.12: expected ro audit=1 after grubby, found ro")):
        place.run(EARLY)
