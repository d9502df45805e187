"""A rule that is deselected: what was changed for it is as it was, and what others wrote meanwhile stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits
from ansible_collections.cisdriver.amazon_linux.plugins.modules import banner, file_mode, login_defs, service
from machines import Module, Refused, applied, rule, settles


def edited(memory: Path, path: Path, slug: str, before: str, after: str) -> None:
    """A module that makes one text another for a rule."""

    def apply(batch: core.Batch) -> None:
        edits.remember(batch, slug, str(path), before, after)
        batch.write(str(path), after)

    applied(apply, [rule(slug, "1.1", {})], memory=memory)


def undone(memory: Path, path: Path, slug: str) -> str:
    def apply(batch: core.Batch) -> None:
        batch.write(str(path), edits.give_back(batch, slug, str(path), core.read(str(path))))
        batch.forget(slug)

    settles(apply, [rule(slug, "1.1", state="absent")], memory=memory)
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a 1\nb 2\n", "a 1\nb 9\n"),
        ("a 1\n", "a 1\nb 2\n"),
        ("a 1\na 2\n", "a 9\na 9\n"),
        ("", "a 1\n"),
        ("a 1\nb 2\n", "a 1\n"),
        ("  Umask=022   # mine\n", "umask 027\n"),
    ],
)
def test_lines_come_back(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "with a space.conf"
    path.write_text(before)
    edited(tmp_path / "memory", path, "r", before, after)
    assert undone(tmp_path / "memory", path, "r") == before


def test_lines_that_others_wrote_meanwhile_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("a 1\nb 2\n")
    edited(tmp_path / "memory", path, "r", "a 1\nb 2\n", "a 1\nb 9\n")
    path.write_text("# note\na 1\nb 9\nc 3\n")
    assert undone(tmp_path / "memory", path, "r") == "# note\na 1\nb 2\nc 3\n"


def test_a_line_that_others_changed_since_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("b 2\n")
    edited(tmp_path / "memory", path, "r", "b 2\n", "b 9\n")
    path.write_text("b 7\n")
    assert undone(tmp_path / "memory", path, "r") == "b 7\n"


def test_what_stood_there_first_survives_a_second_value(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("b 2\n")
    edited(tmp_path / "memory", path, "r", "b 2\n", "b 9\n")
    edited(tmp_path / "memory", path, "r", "b 9\n", "b 5\n")
    assert undone(tmp_path / "memory", path, "r") == "b 2\n"


def test_check_mode_remembers_nothing(tmp_path: Path) -> None:
    memory = tmp_path / "memory"

    def apply(batch: core.Batch) -> None:
        batch.remember("r", "x", 1, 2)

    applied(apply, [rule("r", "1.1", {})], check=True, memory=memory)
    assert not memory.exists()


def test_the_memory_is_written_before_the_file(tmp_path: Path) -> None:
    """Where the memory cannot be written nothing is changed: it could not be given back."""
    (tmp_path / "memory").write_text("a file where the directory should be")
    path = tmp_path / "a"

    def apply(batch: core.Batch) -> None:
        batch.remember("r", "x", 1, 2)
        batch.write(str(path), "new\n")

    with pytest.raises(Refused, match="nothing is changed"):
        applied(apply, [rule("r", "1.1", {})], memory=tmp_path / "memory")
    assert not path.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"r": 1}', '{"r": {"x": [1]}}'])
def test_a_spoilt_memory_is_named_and_nothing_is_changed(tmp_path: Path, text: str) -> None:
    (tmp_path / "kind.json").write_text(text)
    with pytest.raises(Refused, match=r"kind\.json: expected JSON"):
        applied(lambda _batch: None, [rule("r", "1.1", {})], memory=tmp_path)


def test_file_modes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    path.chmod(0o666)
    want = [rule("r", "1.1", [{"path": str(path), "max_mode": "0640"}])]
    applied(file_mode.apply, want, memory=tmp_path / "memory")
    assert path.stat().st_mode & 0o777 == 0o640
    settles(file_mode.apply, [rule("r", "1.1", state="absent")], memory=tmp_path / "memory")
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_file_that_was_removed_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "cron.deny"
    path.write_text("mallory\n")
    path.chmod(0o604)
    want = [rule("r", "1.1", [{"path": str(path), "state": "absent"}])]
    applied(file_mode.apply, want, memory=tmp_path / "memory")
    assert not path.exists()
    settles(file_mode.apply, [rule("r", "1.1", state="absent")], memory=tmp_path / "memory")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("mallory\n", 0o604)


def test_banners_and_links(tmp_path: Path) -> None:
    (tmp_path / "issue").write_text("\\S\n")
    (tmp_path / "motd").symlink_to("elsewhere")
    want = {str(tmp_path / name): "Authorized use only.\n" for name in ("issue", "motd", "new")}
    settles(banner.apply, [rule("r", "1.7.1", want)], memory=tmp_path / "memory")
    assert not (tmp_path / "motd").is_symlink()
    settles(banner.apply, [rule("r", "1.7.1", state="absent")], memory=tmp_path / "memory")
    assert (tmp_path / "issue").read_text() == "\\S\n"
    assert (tmp_path / "motd").readlink() == Path("elsewhere")
    assert not (tmp_path / "new").exists()


def test_login_defs(tmp_path: Path) -> None:
    files = {"login_defs": tmp_path / "login.defs", "useradd": tmp_path / "useradd"}
    files["login_defs"].write_text("PASS_MAX_DAYS 99999\n# end\n")
    files["useradd"].write_text("INACTIVE=-1\n")

    def run(rules: list[dict[str, object]]) -> None:
        params = {"rules": rules, "memory": str(tmp_path / "m"), **{name: str(path) for name, path in files.items()}}
        batch = core.Batch(Module(params, False, lambda _argv: (0, "", "")), "login_defs")  # type: ignore[arg-type] # stands for Ansible\'s
        login_defs.apply(batch)
        batch.store()

    run([rule("r", "4.6.1.1", {"PASS_MAX_DAYS": 365, "INACTIVE": 30, "PASS_MIN_DAYS": 1})])
    assert "PASS_MIN_DAYS" in files["login_defs"].read_text()
    run([rule("r", "4.6.1.1", state="absent")])
    assert files["login_defs"].read_text() == "PASS_MAX_DAYS 99999\n# end\n"
    assert files["useradd"].read_text() == "INACTIVE=-1\n"


@pytest.mark.parametrize("was", ["enabled", "disabled", "static"])
def test_units(tmp_path: Path, was: str) -> None:
    state = {"x.service": was}

    def systemctl(argv: list[str]) -> tuple[int, str, str]:
        verb, unit = argv[1], argv[-1]
        if verb == "is-enabled":
            return 0, state[unit] + "\n", ""
        if verb == "unmask":
            state[unit] = "static" if was == "static" else "disabled"
        elif verb in ("mask", "enable", "disable"):
            state[unit] = {"mask": "masked", "enable": "enabled", "disable": "disabled"}[verb]
        return 0, "", ""

    memory = tmp_path / "memory"
    applied(service.apply, [rule("r", "2.2.1", {"masked": ["x.service"]})], program=systemctl, memory=memory)
    assert state == {"x.service": "masked"}
    applied(service.apply, [rule("r", "2.2.1", state="absent")], program=systemctl, memory=memory)
    assert state == {"x.service": was}


@pytest.mark.parametrize("text", ["a 1", "a 1\x0cb\n", "a 1\r\n"])
def test_a_file_of_which_nothing_was_changed_is_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(text.encode())
    assert undone(tmp_path / "memory", path, "r") and path.read_bytes() == text.encode()


def test_what_an_administrator_chose_since_and_the_rule_agrees_with_is_his(tmp_path: Path) -> None:
    """A run that changes nothing notes nothing: the value is not taken for one that we wrote."""
    memory = tmp_path / "memory"
    seen = []
    for before, after in ((1, 14), (16, 16)):
        applied(lambda batch, b=before, a=after: batch.remember("r", "x", b, a), [rule("r", "1.1", {})], memory=memory)
    applied(lambda batch: seen.append(batch.given_back("r")), [rule("r", "1.1", state="absent")], memory=memory)
    assert seen == [{"x": (1, 14)}]


def test_a_file_that_cannot_be_written_keeps_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memory = tmp_path / "login.defs", tmp_path / "memory"
    path.write_text("PASS_MAX_DAYS 99999\n")

    def apply(batch: core.Batch) -> None:
        batch.module.params.update(login_defs=str(path), useradd=str(tmp_path / "useradd"))
        login_defs.apply(batch)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    applied(apply, [rule("r", "4.6.1.1", {"PASS_MAX_DAYS": 365})], memory=memory)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        with pytest.raises(Refused, match="Read-only"):
            applied(apply, [rule("r", "4.6.1.1", state="absent")], memory=memory)
    applied(apply, [rule("r", "4.6.1.1", state="absent")], memory=memory)
    assert path.read_text() == "PASS_MAX_DAYS 99999\n"
