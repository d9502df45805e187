#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module selinux: mode and policy of the next boot, with what containers need before SELinux may enforce."""

from __future__ import annotations

DOCUMENTATION = r"""
module: selinux
author: The cisdriver authors
short_description: Sets mode and policy of SELinux for a batch of rules
description:
  - Changes C(/etc/selinux/config) for the next boot. It never changes the mode of the running kernel.
  - From disabled it goes to permissive only, with C(/.autorelabel), so that the next boot gives every file a label.
    Once that boot is over, another run goes on to enforcing.
  - Before SELinux may enforce where containerd is installed, it installs container-selinux, has nodeadm give containerd
    C(enable_selinux) by a NodeConfig it owns, and labels what containers are started from anew. Where containerd's
    configuration cannot be given safely, nothing is changed and it fails.
options:
  config:
    description: The configuration of SELinux.
    type: path
    default: /etc/selinux/config
  nodeadm:
    description: The NodeConfig by which nodeadm merges C(enable_selinux) into containerd's configuration.
    type: path
    default: /etc/eks/nodeadm.d/80-cis-selinux.yaml
  autorelabel:
    description: The file that has the next boot label everything anew.
    type: path
    default: /.autorelabel
  memory:
    description: Where what stood there before is kept.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want has C(mode) or C(policy), a list of
        what is accepted, of which the first is set where another is found.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.selinux:
    rules:
      - {rule: selinux_not_disabled, id: 1.6.1.4, want: {mode: [permissive, enforcing]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a key, package or file to its value.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

KEYS = {"mode": "SELINUX", "policy": "SELINUXTYPE"}
ENFORCE = "/sys/fs/selinux/enforce"
CONTAINERD = ("/usr/bin/containerd", "/usr/local/bin/containerd")
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
#: nodeadm merges the NodeConfigs it finds here over the user data, if its unit names the directory (amazon-eks-ami,
#: nodeadm/internal/api/merge.go); containerd's own imports replace whole sections and are no way.
NODEADM_UNITS = "/etc/systemd/system/nodeadm-run.service", "/usr/lib/systemd/system/nodeadm-run.service"
#: The section of the CRI plugin by containerd's major version.
CRI = {"1": 'plugins."io.containerd.grpc.v1.cri"', "2": "plugins.'io.containerd.cri.v1.runtime'"}
#: What kubelet, nodeadm and containers are started from and live in; wrong labels there keep a node from joining.
LABELLED = ("/usr/bin", "/etc", "/opt/cni", "/var/lib/containerd", "/var/lib/kubelet")
#: What fixfiles reads there: all labels, those a person may have chosen included.
AUTORELABEL = "-F\n"


def configured(text: str, key: str) -> str:
    """The first value of a key, as libselinux reads it: at the start of a line, no blank before the sign.

    Of a mode the first word counts, in any case; of a policy, the name of a directory, the line as it stands.
    """
    found = re.search(rf"(?m)^{key}=(.*)", text)
    value = found[1].strip() if found else ""
    return (value.split() or [""])[0].lower() if key == KEYS["mode"] else value


def with_value(text: str, key: str, value: str) -> str:
    """The text with the key's first line at the value, in place of lines that only look like it, and no second one."""
    lines = text.splitlines()
    like = [index for index, line in enumerate(lines) if re.match(rf"\s*{key}\s*=", line)]
    if like:
        lines[like[0]] = f"{key}={value}"
    else:
        lines.append(f"{key}={value}")
    return "\n".join(line for index, line in enumerate(lines) if index not in like[1:]) + "\n"


def live() -> str:
    """How the kernel treats SELinux; empty in a container or chroot, where it is another machine's."""
    if not runtime.owns_kernel():
        return ""
    text = core.read(ENFORCE).strip()
    return {"1": "enforcing", "0": "permissive"}.get(text, "disabled")


def step(value: str, mode: str, original: str, pending: bool) -> str:
    """The mode that may come next: what had no labels gets them first, in a boot of its own.

    ``original`` is the configured mode this run found, ``pending`` whether the next boot labels everything anyway.
    """
    unlabelled = mode == "disabled" or (not mode and (original in ("", "disabled") or pending))
    return "permissive" if value == "enforcing" != original and unlabelled else value


def containerd(batch: core.Batch) -> str:
    """Major version of the containerd that is installed; empty without one."""
    for path in CONTAINERD:
        if os.path.exists(path):
            _rc, out, _err = runtime.run(batch.module, [path, "--version"])
            version = re.search(r"\bv?(\d+)\.\d+\.\d+", out)
            return version[1] if version else "2"
    return ""


def node_config(batch: core.Batch, rule: Mapping[str, Any], version: str) -> List[str]:
    """Lines of our NodeConfig; none where the administrator's configuration of containerd says it already."""
    if any("/etc/eks/nodeadm.d" in core.read(path) for path in NODEADM_UNITS):
        return [
            *("apiVersion: node.eks.aws/v1alpha1", "kind: NodeConfig", "spec:", "  containerd:", "    config: |"),
            *(f"      [{CRI.get(version, CRI['2'])}]", "      enable_selinux = true"),
        ]
    if re.search(r"(?m)^\s*enable_selinux\s*=\s*true\b", core.read(CONTAINERD_CONFIG)):
        return []
    batch.fail(
        f"rule {rule['rule']} ({rule['id']}): containerd needs enable_selinux = true before SELinux may enforce, and"
        f" there is no safe place to say so: no nodeadm-run.service here reads /etc/eks/nodeadm.d. Set it in"
        f" {CONTAINERD_CONFIG}, in [{CRI.get(version, CRI['2'])}], or do not ask for enforcing. Nothing is changed"
    )
    return []


def install_policy(batch: core.Batch, rule: str) -> None:
    """container-selinux: without its types every container is denied. It stays when the rule goes."""
    if runtime.run(batch.module, ["rpm", "-q", "container-selinux"])[0] == 0:
        return
    batch.record(rule, {"package container-selinux": "absent"}, {"package container-selinux": "installed"})
    batch.changed_file("installed packages", "", "container-selinux\n")
    if batch.module.check_mode:
        return
    argv = ["dnf", "-y", "--setopt=install_weak_deps=False", "install", "container-selinux"]
    rc, out, err = runtime.run(batch.module, argv)
    if rc:
        last = " ".join((err.strip() or out.strip()).splitlines()[-3:])
        batch.fail(f"{' '.join(argv)}: exit {rc}, SELinux stays as it was: {last}")


def needs_labels(mode: str, before: str, after: str) -> bool:
    """Whether files may lack the labels the next boot goes by."""
    if mode == "disabled":
        return after != "disabled"
    return before != after and (after == "enforcing" or before in ("", "disabled"))


def relabel(batch: core.Batch, rule: str, mode: str) -> None:
    """Labels anew: at once where the kernel keeps them, else at the next boot."""
    path = batch.module.params["autorelabel"]
    if mode in ("permissive", "enforcing"):
        places = [place for place in LABELLED if os.path.isdir(place)]
        batch.record(rule, {"labels": "as they were"}, {"labels": "of the policy"})
        if batch.module.check_mode:
            return
        rc, out, err = runtime.run(batch.module, ["restorecon", "-R", *places])
        if rc:
            batch.fail(f"restorecon -R {' '.join(places)}: exit {rc}, SELinux stays as it was: {err.strip() or out}")
    elif not os.path.exists(path):
        batch.record(rule, {path: "absent"}, {path: "at the next boot"})
        batch.remember(rule, path, None, AUTORELABEL)
        batch.write(path, AUTORELABEL)


def give_back(batch: core.Batch, slug: str, text: str) -> str:
    for object_, (before, after) in batch.given_back(slug).items():
        if object_ == batch.module.params["autorelabel"]:
            if core.read(object_) == after:
                batch.record(slug, {object_: "at the next boot"}, {object_: "absent"})
                batch.write(object_, "")
        elif configured(text, object_) == after:
            batch.record(slug, {object_: after}, {object_: before})
            text = with_value(text, object_, before)
    batch.forget(slug)
    return text


def change(batch: core.Batch, rule: Mapping[str, Any], text: str, original: str) -> str:
    """The configuration as a rule wants it."""
    for name, accepted in rule["want"].items():
        key = KEYS[name]
        now = configured(text, key)
        value = now if now in accepted else accepted[0]
        if name == "mode":
            pending = os.path.exists(batch.module.params["autorelabel"])
            value = step(value, live(), configured(original, key), pending)
        batch.record(rule["rule"], {key: now}, {key: value})
        if value != now:
            batch.remember(rule["rule"], key, now, value)
            text = with_value(text, key, value)
    return text


def apply(batch: core.Batch) -> None:
    """First whatever may refuse, then what enforcing needs, the configuration last."""
    params = batch.module.params
    path = os.path.realpath(params["config"])  # /etc/sysconfig/selinux links here
    before = text = core.read(path)
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
    if not before:
        return  # no SELinux on this machine
    # the rule that made it enforcing found what another had made of disabled: it goes first
    left = {slug: batch.given_back(slug).get(KEYS["mode"], ("", ""))[1] for slug in batch.absent}
    for slug in sorted(left, key=lambda slug: left[slug] != "enforcing"):
        text = give_back(batch, slug, text)
    version = containerd(batch)
    enforcing = [rule for rule in batch.present if version and rule["want"].get("mode", [""])[0] == "enforcing"]
    bundle = {rule["rule"]: node_config(batch, rule, version) for rule in enforcing}
    # a rule that takes any mode first, so that the strictest has the last word
    for rule in sorted(batch.present, key=lambda each: -len(each["want"].get("mode", []))):
        text = change(batch, rule, text, before)
    if text != before:
        check_policy(batch, text)
    for rule in enforcing:
        install_policy(batch, rule["rule"])
    nodeadm = core.read(params["nodeadm"])
    batch.write(params["nodeadm"], core.dropin(nodeadm, batch.present, batch.keep, lambda r: bundle.get(r["rule"], [])))
    for rule in [each for each in batch.present if "mode" in each["want"]][-1:]:
        if needs_labels(live(), configured(before, "SELINUX"), configured(text, "SELINUX")):
            relabel(batch, rule["rule"], live())
    batch.write(path, text)


def check_policy(batch: core.Batch, text: str) -> None:
    """Fail where the policy that the next boot is to load is not installed."""
    config = os.path.realpath(batch.module.params["config"])
    name = configured(text, "SELINUXTYPE") or "targeted"
    directory = os.path.join(os.path.dirname(config), name)
    if configured(text, "SELINUX") != "disabled" and not glob.glob(os.path.join(directory, "policy*")):
        batch.fail(
            f"{directory}: no policy there for the next boot to load; nothing is changed in {config}:"
            f" install selinux-policy-{name} first"
        )


def main() -> None:
    batch = core.batch_module(
        "selinux",
        config={"type": "path", "default": "/etc/selinux/config"},
        nodeadm={"type": "path", "default": "/etc/eks/nodeadm.d/80-cis-selinux.yaml"},
        autorelabel={"type": "path", "default": "/.autorelabel"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
