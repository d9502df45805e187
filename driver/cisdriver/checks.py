"""The checks of a verification: how many there are, and docs/verify.md, made of them."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from cisdriver import collection

_PLUGINS = f"ansible_collections.{collection.NAME}.plugins"


class Check(NamedTuple):
    name: str
    title: str
    why: str
    topic: str


def known() -> list[Check]:
    """Every check in the order of the report; the second login, which the controller tries, is the last."""
    registry = importlib.import_module(f"{_PLUGINS}.module_utils.verify.registry")
    last = importlib.import_module(f"{_PLUGINS}.plugin_utils.second_login")
    found = [Check(one.name, one.title, one.why, one.topic) for one in registry.CHECKS.values()]
    return [*found, Check(last.NAME, last.TITLE, last.WHY, "from_the_controller")]


def count() -> int:
    return len(known())


_HEAD = """<!-- Made by `python -m cisdriver.rulebook docs`; a test holds it to the checks. -->

# Still a node of Kubernetes?

`verify_node` looks whether a machine would join a cluster and serve: what kubelet, containerd, the network plugin and
those who administer the node rely on, as it is now **and as the next boot will make it**. It changes nothing that
outlives it.

## On a node that runs

```console
cisdriver verify --host ec2-user@10.0.0.5
cisdriver verify -i inventory.yml --limit workers --json
```

It ends with 0 when every check holds or does not apply, and with **6 when a check fails, when one could not look, or
when a node is not reached**; the screen names each with its reason. The report has every check with its evidence, and
so has `.cisdriver/latest/verify/<host>.json`, in the shape of `schemas/results.json`.

## In a bake

It runs after the hardening and again after the reboot. A node that fails it becomes no image: nothing is registered,
everything is swept, and `cisdriver bake` ends with 6. `--keep-failed` is for findings of the audit and does not
override this, for an image that cannot serve is of no use to anybody: leave out the rule that did it (`--skip ID`), or
mend the base image. Units that failed on the base image already do not count.

## In your own Packer build

```yaml
- hosts: all
  become: true
  tasks:
    - ansible.builtin.include_role:
        name: cisdriver.amazon_linux.harden
    - ansible.builtin.reboot:
    - ansible.builtin.include_role:
        name: cisdriver.amazon_linux.verify_node
      vars:
        verify_node_results_path: "{{ playbook_dir }}/verify.json"    # on the controller; may be left out
        verify_node_failed_before: [a.service]                        # units that failed before already
```

The role needs `ansible-core` alone. It fails when a check does; with `verify_node_refuse: false` it goes on, and the
fact `verify_node_results` holds the results document. The second login is tried by ssh, with the options Ansible itself
got in by; Packer's provisioner needs `use_proxy = false` for that, and for the reboot.

## What is checked

Each check has a status: `pass`, `fail`, `not_applicable` with the fact that makes it so, or `error` when it could not
look, which counts as a failure. There are no exceptions: a check that fails is never accepted.
"""


def page() -> str:
    """docs/verify.md."""
    topics: dict[str, list[Check]] = {}
    for check in known():
        topics.setdefault(check.topic, []).append(check)
    lines = [_HEAD]
    for topic, members in topics.items():
        lines += [f"### {topic.replace('_', ' ').capitalize()}", ""]
        lines += ["| check | what must hold | without it |", "| --- | --- | --- |"]
        lines += [f"| `{one.name}` | {_cell(one.title)} | {_cell(one.why)} |" for one in members]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
