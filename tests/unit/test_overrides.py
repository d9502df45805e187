"""Lines of an administrator's file, set aside and given back."""

from __future__ import annotations

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import overrides

TEXT = "# mine\na = 1\n\nb = 2"


def test_set_aside_and_back_is_the_same_to_the_byte() -> None:
    aside = overrides.set_aside(
        TEXT, "/etc/x.d/60-cis.conf", lambda line: line.startswith(("a", "b")), lambda _line: False
    )
    assert aside == "# mine\n# cisdriver 60-cis.conf: a = 1\n\n# cisdriver 60-cis.conf: b = 2"
    assert overrides.set_aside(aside, "/etc/x.d/60-cis.conf", lambda _line: False, lambda _line: True) == TEXT


def test_what_is_set_aside_is_not_set_aside_twice() -> None:
    once = overrides.set_aside(TEXT, "60-cis.conf", lambda line: "a" in line and "=" in line, lambda _line: False)
    assert (
        overrides.set_aside(once, "60-cis.conf", lambda line: "a" in line and "=" in line, lambda _line: False) == once
    )


def test_lines_of_another_dropin_stay_aside() -> None:
    text = "# cisdriver 60-cis-other.conf: a = 1\n"
    assert overrides.set_aside(text, "60-cis.conf", lambda _line: False, lambda _line: True) == text
