"""What a run is about: the settings' selection, checked against the catalogue and counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cisdriver import collection
from cisdriver.errors import UsageError
from cisdriver.settings import Settings, suggest

#: Tags Ansible itself gives a meaning.
_ANSIBLE_TAGS = {"all", "always", "never", "tagged", "untagged"}
#: What a bake starts from unless told otherwise: the EKS-optimized Amazon Linux 2023 image.
BAKE_BENCHMARK = "al2023-1.0.0"


def selections(settings: Settings, benchmarks: Iterable[str] = ()) -> list[collection.catalogue.Selection]:
    """The selection per benchmark the run may meet: the one that was set, else ``benchmarks``, else every default.

    Raises UsageError for a level, id, slug, tag or value that none of them knows.
    """
    names = collection.load()
    chosen = [settings.benchmark] if settings.benchmark else list(benchmarks)
    chosen = chosen or sorted(set(collection.catalogue.DEFAULT_BENCHMARKS.values()))
    found = [selection(settings, benchmark) for benchmark in chosen]
    try:
        for benchmark in chosen:
            names.benchmark(benchmark)
        _check_names(settings, names, chosen)
        for slug, value in settings.values.items():
            if slug not in names.rules:
                raise UsageError(f"--value: unknown rule {slug!r}{suggest(slug, names.rules)}", _REMEDY)
            collection.catalogue.check_value(names.rules[slug], value)
    except collection.catalogue.CatalogueError as error:
        raise UsageError(str(error), _REMEDY) from error
    return found


_STRICT = "`cisdriver rules list --verdict except` and `--verdict adapt` show them."
_REMEDY = "`cisdriver rules list` shows every benchmark, id, rule and topic."


def selection(settings: Settings, benchmark: str) -> collection.catalogue.Selection:
    """The selection for one benchmark, with the lookup's defaults where nothing is set."""
    defaults = collection.defaults()
    return collection.catalogue.Selection(
        benchmark=benchmark,
        level=settings.level or defaults["level"],
        profile=settings.profile or defaults["profile"],
        only=settings.only,
        skip=settings.skip,
        values=settings.values,
        strict=settings.strict,
    )


def _check_names(settings: Settings, names: collection.catalogue.Catalogue, benchmarks: list[str]) -> None:
    known = set().union(*(names.known_names(benchmark) for benchmark in benchmarks))
    tags = known | {f"level{level}" for level in collection.catalogue.LEVELS} | _ANSIBLE_TAGS
    for flag, given, allowed in (
        ("--only", settings.only, known),
        ("--skip", settings.skip, known),
        ("--tags", settings.tags, tags),
        ("--skip-tags", settings.skip_tags, tags),
    ):
        for name in given:
            if name not in allowed:
                raise UsageError(
                    f"{flag}: no rule, id, topic or section {name!r} in {' or '.join(benchmarks)}"
                    f"{suggest(name, allowed)}",
                    _REMEDY,
                )
    for name in settings.strict:
        if name not in names.with_eks_verdict():
            guess = suggest(name, names.with_eks_verdict())
            raise UsageError(
                f"--strict: {name!r} is no id or slug of a rule that EKS adapts or excepts{guess}", _STRICT
            )


def extra_vars(settings: Settings) -> dict[str, Any]:
    """The collection's variables for what was set, and only for that: the defaults are the lookup's own."""
    given = {
        "cis_benchmark": settings.benchmark,
        "cis_level": settings.level,
        "cis_profile": settings.profile,
        "cis_only": list(settings.only),
        "cis_skip": list(settings.skip),
        "cis_strict": list(settings.strict),
        "cis_values": settings.values,
        "cis_verify_packages": settings.verify_packages or None,
    }
    return {name: value for name, value in given.items() if value not in (None, [], {})}


def count(settings: Settings, benchmark: str) -> dict[str, int]:
    """How many rules a node has to go through: ``{"harden": 92, "audit": 110}``."""
    chosen = selection(settings, benchmark)
    entries = _entries(chosen)
    kinds = collection.kinds_with_module()
    written = set()
    for entry in entries:
        rule = entry.rule
        if (
            rule
            and collection.catalogue.runs(entry, settings.tags, settings.skip_tags)
            and kinds & set(rule.writes(chosen.profile_of(rule)))
        ):
            written.add(rule.slug)
    return {"harden": len(written), "audit": len({entry.rule.slug for entry in entries if entry.rule})}


def _entries(chosen: collection.catalogue.Selection) -> list[collection.catalogue.Entry]:
    """``only`` and ``skip`` may hold a name of the other default benchmark: here it selects nothing."""
    names = collection.load()
    known = names.known_names(chosen.benchmark)
    narrowed = collection.catalogue.Selection(
        chosen.benchmark,
        chosen.level,
        chosen.profile,
        tuple(name for name in chosen.only if name in known),
        tuple(name for name in chosen.skip if name in known),
        chosen.values,
        chosen.strict,
    )
    return [] if chosen.only and not narrowed.only else names.select(narrowed)
