# Copyright the cisdriver authors. Apache-2.0.
"""Lookup rules: what a batch module is to write, narrowed by settings and tags."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

DOCUMENTATION = r"""
name: rules
author: The cisdriver authors
short_description: The rules of a topic for a batch module, or the whole selection for the audit
description:
  - With a topic and a kind, returns the list that a batch module takes as C(rules).
  - Without a term, returns the whole selection, as the audit takes it.
  - These options are the one place where the settings have their defaults.
options:
  _terms:
    description: The topic, as C(role/topic).
  kind:
    description: The kind of setting, which names the module.
    type: str
  benchmark:
    description: The benchmark; by default the one for the host's distribution.
    type: str
    vars: [{name: cis_benchmark}]
  level:
    description: The level; level 2 contains level 1.
    type: int
    default: 1
    vars: [{name: cis_level}]
  profile:
    description: What the machine is for.
    type: str
    choices: [eks, server]
    default: eks
    vars: [{name: cis_profile}]
  only:
    description: Ids, slugs, topics, sections; when given, nothing else is selected.
    type: list
    elements: str
    default: []
    vars: [{name: cis_only}]
  skip:
    description: Ids, slugs, topics, sections that are not selected.
    type: list
    elements: str
    default: []
    vars: [{name: cis_skip}]
  strict:
    description: Ids or slugs whose exception or adaptation for EKS is not wanted; they are treated as on a server.
    type: list
    elements: str
    default: []
    vars: [{name: cis_strict}]
  values:
    description: The user's value per tailorable rule.
    type: dict
    default: {}
    vars: [{name: cis_values}]
  verify_packages:
    description: Whether the audit compares every packaged file with its package, which takes a minute or more of disk.
    type: bool
    default: false
    vars: [{name: cis_verify_packages}]
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.sysctl:
    path: /etc/sysctl.d/60-cis-network.conf
    rules: "{{ lookup('cisdriver.amazon_linux.rules', 'network/kernel_parameters', kind='sysctl') }}"
"""

RETURN = r"""
_raw:
  description: >-
    For a topic, a list of C({rule, id, state, want}); state C(present) is to be written, C(keep)
    stands outside this run's tags and its lines stay as they are, C(absent) is not selected: what was
    written for it is taken away. Whatever the module owns and this list does not name, it removes.
    Without a topic, one dict C({benchmark, level, profile, only, skip, strict, entries}) where
    entries is a list of C({id, rule, ...}).
"""

SETTINGS = (
    "cis_benchmark",
    "cis_level",
    "cis_profile",
    "cis_only",
    "cis_skip",
    "cis_strict",
    "cis_values",
    "cis_verify_packages",
)


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        variables = variables or {}
        # set_options takes variables as they are written: templates in them would stay text
        settings = {name: self._templar.template(variables[name]) for name in SETTINGS if name in variables}
        self.set_options(var_options=settings, direct=kwargs)
        try:
            names = catalogue.load()
            selection = self._selection(variables)
            entries = names.select(selection)
            if not terms:
                return [audit_plan(selection, entries, self.get_option("verify_packages"))]
            topic = names.topic(terms[0])
        except catalogue.CatalogueError as error:
            raise AnsibleError(str(error)) from error
        run_tags = variables.get("ansible_run_tags", ["all"])
        skip_tags = variables.get("ansible_skip_tags", [])
        every = [entry for entry in names.entries(selection.benchmark) if entry.rule in topic]
        chosen = {entry.recommendation.id for entry in entries}
        return [batch(topic, every, chosen, selection, self.get_option("kind"), (run_tags, skip_tags))]

    def _selection(self, variables: dict[str, Any]) -> catalogue.Selection:
        return catalogue.Selection(
            benchmark=self.get_option("benchmark") or _host_benchmark(variables),
            level=self.get_option("level"),
            profile=self.get_option("profile"),
            only=tuple(str(name) for name in self.get_option("only")),
            skip=tuple(str(name) for name in self.get_option("skip")),
            strict=tuple(str(name) for name in self.get_option("strict")),
            values=self.get_option("values"),
        )


def batch(
    topic: list[catalogue.Rule],
    entries: list[catalogue.Entry],
    chosen: set[str],
    selection: catalogue.Selection,
    kind: str,
    tags: tuple[list[str], list[str]],
) -> list[dict[str, Any]]:
    """The ``rules`` of one module call, one item per rule of the topic that the kind may write for.

    ``entries`` are those of the benchmark that the topic answers, ``chosen`` the ids that are selected.
    """
    items = {rule.slug: _item(rule, next(iter(rule.ids.values()))[0], "absent") for rule in topic if writes(rule, kind)}
    for entry in entries:
        rule, id_ = entry.rule, entry.recommendation.id
        if rule is None or rule.slug not in items or items[rule.slug]["state"] == "present":
            continue
        waits = "value_missing" in selection.conditions(rule)
        wanted = {} if waits else catalogue.tailored(rule, selection.profile_of(rule), selection.values)
        if not catalogue.runs(entry, *tags):
            items[rule.slug] = _item(rule, id_, "keep")
        elif id_ in chosen and kind in wanted:
            items[rule.slug] = {**_item(rule, id_, "present"), "want": wanted[kind]}
    return list(items.values())


def writes(rule: catalogue.Rule, kind: str) -> bool:
    """Whether a kind may ever have written for a rule, under whatever profile."""
    return kind in {**rule.require, **rule.set, **rule.eks.get("set", {})}


def _item(rule: catalogue.Rule, id_: str, state: str) -> dict[str, Any]:
    return {"rule": rule.slug, "id": id_, "state": state}


def audit_plan(
    selection: catalogue.Selection, entries: list[catalogue.Entry], verify_packages: bool = False
) -> dict[str, Any]:
    """The selection as the audit module takes it; entries without a rule stay in, marked.

    Evidence that costs a look at every packaged file is gathered only with ``verify_packages``.
    """
    costly = () if verify_packages else ("rpm_verify",)
    plan = []
    for entry in entries:
        item: dict[str, Any] = {"id": entry.recommendation.id, "rule": None}
        if entry.rule:
            item.update(rule=entry.rule.slug, require=catalogue.required(entry.rule, selection.values))
            item.update(applies_if=selection.conditions(entry.rule))
            collect = {kind: spec for kind, spec in entry.rule.collect.items() if kind not in costly}
            item.update(manual=entry.rule.manual, collect=collect)
            if selection.profile_of(entry.rule) == "eks" and "require" in entry.rule.eks:
                item["instead"] = dict(entry.rule.eks["require"])
        plan.append(item)
    return {
        "benchmark": selection.benchmark,
        "level": selection.level,
        "profile": selection.profile,
        "only": list(selection.only),
        "skip": list(selection.skip),
        "strict": list(selection.strict),
        "entries": plan,
    }


def _host_benchmark(variables: dict[str, Any]) -> str:
    facts = variables.get("ansible_facts", {})
    key = (facts.get("distribution"), str(facts.get("distribution_major_version") or facts.get("distribution_version")))
    if key not in catalogue.DEFAULT_BENCHMARKS:
        known = ", ".join(" ".join(pair) for pair in catalogue.DEFAULT_BENCHMARKS)
        raise catalogue.CatalogueError(
            f"no benchmark for {key[0]} {key[1]}: expected {known}; set cis_benchmark, or gather facts first"
        )
    return catalogue.DEFAULT_BENCHMARKS[key]
