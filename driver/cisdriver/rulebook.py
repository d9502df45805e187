"""docs/rules/, docs/exceptions.md and docs/verify.md, made of the rules and checks themselves.

``python -m cisdriver.rulebook docs`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cisdriver import checks, choice, collection, names

BENCHMARK = choice.BAKE_BENCHMARK
SECTIONS = {
    "1": ("initial_setup", "Initial setup"),
    "2": ("services", "Services"),
    "3": ("network", "Network"),
    "4": ("access", "Access, authentication and authorization"),
    "5": ("logging", "Logging and auditing"),
    "6": ("maintenance", "System maintenance"),
}
_MADE = "<!-- Made by `python -m cisdriver.rulebook docs`; a test holds it to the rules. -->\n"
_WORDS = {"apply": "applied as it stands", "adapt": "adapted", "except": "excepted", "manual": "shown, not set"}
_LINE = 100


def pages() -> dict[str, str]:
    """File name below docs to text: one page per section, an index, the exceptions, and the checks."""
    found = {f"rules/{number}-{role}.md": _section(number, title) for number, (role, title) in SECTIONS.items()}
    return {"rules/README.md": _index(), **found, "exceptions.md": _exceptions(), "verify.md": checks.page()}


def write(docs: Path) -> None:
    for name, text in pages().items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(text, encoding="utf-8")


def _entries(section: str = "") -> list[collection.catalogue.Entry]:
    entries = collection.load().entries(BENCHMARK)
    return [entry for entry in entries if f"{entry.recommendation.id}.".startswith(f"{section}." if section else "")]


def _index() -> str:
    lines = [
        _MADE,
        "# The rules",
        "",
        f"What each recommendation of {BENCHMARK} asks, what is set where, what EKS does to it, how to leave it out.",
        "On the command line: `cisdriver rules list` and `cisdriver rules show 3.2.1`.",
        "",
        "| section | recommendations | adapted for EKS | excepted for EKS | shown to a person |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for number, (role, title) in SECTIONS.items():
        verdicts = [entry.rule.verdict("eks") for entry in _entries(number) if entry.rule]
        counts = " | ".join(str(verdicts.count(verdict)) for verdict in ("adapt", "except", "manual"))
        lines.append(f"| [{number}. {title}]({number}-{role}.md) | {len(_entries(number))} | {counts} |")
    return "\n".join(lines) + "\n"


def _section(number: str, title: str) -> str:
    lines = [_MADE, f"# {number}. {title}", ""]
    for entry in _entries(number):
        lines += [*_recommendation(entry), ""]
    return "\n".join(lines)


def _recommendation(entry: collection.catalogue.Entry) -> Iterator[str]:
    asked, rule = entry.recommendation, entry.rule
    yield f"## {asked.id} {asked.title}"
    yield ""
    if rule is None:
        yield f"Level {asked.level}, {asked.assessment}. No rule is written for this id yet."
        return
    others = [f"{name} {', '.join(ids)}" for name, ids in rule.ids.items() if name != BENCHMARK]
    elsewhere = f" ({'; '.join(others)})" if others else ""
    yield f"Level {asked.level}, {asked.assessment}. Rule `{rule.slug}`{elsewhere}."
    yield ""
    shown = names.show(rule.slug, BENCHMARK)
    if rule.manual:
        yield f"- For a person: {_prose(rule.manual)}"
        yield from _data("Shown in the report", dict(rule.collect))
    yield from _data("Applies if", dict(rule.applies_if))
    yield from _data("Required", dict(rule.require))
    yield from _written(shown)
    yield from _eks(rule)
    yield _leave_out(asked.id, rule)


def _written(shown: Mapping[str, Any]) -> Iterator[str]:
    per_profile, files = shown["writes"], shown["files"]
    if shown["manual"]:
        return
    same = per_profile["eks"] == per_profile["server"]
    for profile, writes in per_profile.items():
        if same and profile == "server":
            return
        on = "" if same else {"eks": " on an EKS node", "server": " on a server"}[profile]
        if not writes:
            yield f"- Set{on}: nothing"
        for kind, want in writes.items():
            place = f" in `{files[kind]}`" if kind in files else ""
            if want == shown["require"].get(kind):
                yield f"- Set{on}{place}: {kind} as required"
            else:
                yield from _data(f"Set{on}{place}", {kind: want})


def _eks(rule: collection.catalogue.Rule) -> Iterator[str]:
    if not rule.eks:
        return
    yield f"- EKS: **{_WORDS[rule.verdict('eks')]}.** {_prose(rule.eks['why'])}"
    if "require" in rule.eks:
        yield from _data("Must hold instead", dict(rule.eks["require"]))


def _leave_out(id_: str, rule: collection.catalogue.Rule) -> str:
    words = [f"`--skip {id_}`"]
    if rule.eks:
        words.append(f"as on a server: `--strict {id_}`")
    if rule.value:
        bounds = yaml.safe_dump(dict(rule.value), default_flow_style=True, width=1000).strip()
        words.append(f"your value: `--value {rule.slug}=...`, within `{bounds}`")
    return f"- Leave it out: {'; '.join(words)}"


def _data(heading: str, value: Any) -> Iterator[str]:
    """A list item: in one line where it fits, else as a block."""
    if not value:
        return
    line = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000).strip()
    if len(line) <= _LINE:
        yield f"- {heading}: `{line[1:-1]}`"
        return
    yield f"- {heading}:"
    yield ""
    yield "  ```yaml"
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=_LINE)
    yield from (f"  {line}" for line in text.rstrip().splitlines())
    yield "  ```"


def _prose(text: str) -> str:
    return " ".join(text.split())


def _exceptions() -> str:
    entries = [(entry.recommendation, entry.rule) for entry in _entries() if entry.rule and entry.rule.eks]
    lines = [
        _MADE,
        "# What is different on an EKS node",
        "",
        f"Profile `eks`, benchmark {BENCHMARK}. An excepted recommendation is not met, on purpose: reports show it as",
        "failed and accepted, as long as what must hold instead does hold. An adapted one is met in another way, or",
        "accepted where the node cannot meet it. With profile `server`, or `--strict ID`, none of this applies.",
    ]
    for verdict, heading in (("except", "Excepted"), ("adapt", "Adapted")):
        chosen = [(asked, rule) for asked, rule in entries if rule.verdict("eks") == verdict]
        lines += ["", f"## {heading}: {len(chosen)}", "", "| id | level | recommendation | why | must hold instead |"]
        lines += ["| --- | ---: | --- | --- | --- |"]
        for asked, rule in chosen:
            instead = yaml.safe_dump(dict(rule.eks.get("require", {})), default_flow_style=True, width=10_000).strip()
            shown = "" if instead == "{}" else f"`{instead[1:-1].replace('|', chr(92) + '|')}`"
            lines.append(f"| {asked.id} | {asked.level} | {asked.title} | {_prose(rule.eks['why'])} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
