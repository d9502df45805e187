"""Keys of packages: what a person is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import package_key as probe
from machines import Output, machine

QUERY = " ".join(probe.QUERY)
FILES = {
    "/etc/dnf/dnf.conf": "[main]\n",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-a b": "key\n",
    "/etc/yum.repos.d/a.repo": "[a]\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-a\n[b]\n[off]\nenabled=0\n",
}


def test_keys_imported_on_disk_and_named_by_repositories(tmp_path: Path) -> None:
    imported = "d832c631 6515c85e Amazon Linux <amazon-linux@amazon.com>\nabcd1234 0 \n"
    finding = probe.check(machine(tmp_path, FILES, {QUERY: imported}), {})
    assert finding["status"] == "pass"
    assert [(item["object"], item["found"]) for item in finding["evidence"]] == [
        ("imported key d832c631", "Amazon Linux <amazon-linux@amazon.com>"),
        ("imported key abcd1234", "no owner named"),
        ("key file /etc/pki/rpm-gpg/RPM-GPG-KEY-a b", "present"),
        ("key of a", "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-a"),
        ("key of b", "not set"),
    ]


def test_none_imported_yet_is_shown_as_such(tmp_path: Path) -> None:
    answer = Output(1, "package gpg-pubkey is not installed\n", "")
    shown = probe.check(machine(tmp_path, FILES, {QUERY: answer}), {})["evidence"][0]
    assert shown["found"] == "none yet; dnf imports one with the first package"


def test_a_database_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(core.ProbeError, match="rpm -q gpg-pubkey: exit 1: error: cannot open Packages"):
        probe.check(machine(tmp_path, FILES, {QUERY: Output(1, "", "error: cannot open Packages")}), {})
