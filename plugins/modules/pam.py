#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module pam: a list of rules' PAM modules and options, in the stacks through authselect, and in /etc/security."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pam
author: The cisdriver authors
short_description: Puts PAM modules and their options into the stacks for a batch of rules
description:
  - Makes a custom profile of authselect out of the stacks and the nsswitch.conf that the node has, edits in it what the
    rules ask for, and selects it; authselect is installed where it is missing. Nothing else of the stacks changes.
  - Options that have a file, C(faillock.conf) and C(pwquality.conf), are written there. A stricter value stays.
  - Proves before it ends that every module exists, that C(authselect check) agrees, that nsswitch.conf says what it
    said, and that libpam, su and sudo answer as they did; else everything is put back and the module fails.
  - Where no rule needs the profile any more, what the node had is put back.
  - Amazon Linux 2 has no authselect; its stacks are left alone, with a warning.
options:
  profile:
    description: The name of the profile, below C(custom/). It is owned whole.
    type: str
    default: cis
  root:
    description: Where the node's tree begins.
    type: path
    default: /
  memory:
    description: The directory where the module remembers what it changed.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a PAM module to its options as
        PAM writes them, and to C(enabled) where it has to be in the stacks. C(authselect: custom) asks for the profile.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.pam:
    rules:
      - {rule: pam_faillock_enabled, id: 4.4.2, want: {pam_faillock: enabled}}
      - {rule: failed_logins_locked_out, id: 4.5.2, want: {pam_faillock: deny=3 unlock_time=900}}
"""

RETURN = r"""
rules:
  description: >-
    Per rule C({changed, before, after}), before and after mapping a file to the lines of the rule's modules, a file and
    key to its values, C(authselect) to the selected profile.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import authselect as tool
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import conf_lines, core, pam_stack, runtime

STACKS = ("system-auth", "password-auth")
FILES = {"pam_faillock": "/etc/security/faillock.conf", "pam_pwquality": "/etc/security/pwquality.conf"}
SECURITY = (
    "/usr/lib64/security",
    "/lib64/security",
    "/usr/lib/security",
    "/lib/security",
    "/usr/lib/*-linux-gnu/security",
)
#: In the memory, beside the slugs of rules: what the node had before the profile was selected.
NODE = "authselect"

Wanted = Dict[str, pam_stack.Options]


def wanted_by(batch: core.Batch) -> Dict[str, Wanted]:
    """Per rule, to be brought about or to be kept, its options per PAM module."""
    wants = {rule["rule"]: rule["want"] for rule in batch.present}
    for slug in batch.keep:
        kept = batch.given_back(slug).get("want")
        if kept:
            wants[slug] = kept[1]
    return {slug: parsed(want) for slug, want in sorted(wants.items())}


def parsed(want: Mapping[str, str]) -> Wanted:
    return {module: pam_stack.options(text) for module, text in want.items()}


def merged(wants: Mapping[str, Wanted]) -> Wanted:
    whole: Wanted = {}
    for want in wants.values():
        for module, options in want.items():
            whole.setdefault(module, {}).update(options)
    return whole


# The files in /etc/security


def write_files(batch: core.Batch, root: str) -> None:
    """Options with a file of their own: written for the rules that are, given back for those that are no more."""
    texts = {path: core.read(root + path) for path in FILES.values()}
    for slug in batch.absent:
        for name, (before, after) in batch.given_back(slug).items():
            path, _blank, key = name.partition(" ")
            if path in texts and conf_lines.values(texts[path], key) == after:
                texts[path] = conf_lines.with_values(texts[path], key, before)
    for rule in batch.present:
        for module, text in rule["want"].items():
            for key, value in pam_stack.options(str(text)).items():
                if key not in pam_stack.IN_FILE.get(module, ()):
                    continue
                path = FILES[module]
                before = conf_lines.values(texts[path], key)
                after = [str(pam_stack.stricter(key, value, before[-1] if before else None))] * max(len(before), 1)
                batch.remember(rule["rule"], f"{path} {key}", before, after)
                texts[path] = conf_lines.with_values(texts[path], key, after)
                batch.record(rule["rule"], {f"{path} {key}": before}, {f"{path} {key}": after})
    for path, text in texts.items():
        batch.write(root + path, text)


# The stacks


class Stacks:
    """The stacks as they are, as they were before us, and as they are to be."""

    def __init__(self, batch: core.Batch, wanted: Wanted) -> None:
        self.batch = batch
        self.wanted = wanted
        params = batch.module.params
        self.authselect = tool.Authselect(batch, params["root"], params["profile"])
        self.now = {name: core.read(self.live(name)) for name in tool.LINKS}
        self.current = self.authselect.current()
        self.ours = self.current[:1] == [self.authselect.id]
        self.origin = self._origin()

    def live(self, name: str) -> str:
        return self.authselect.path(tool.LINKS[name])

    def _origin(self) -> Dict[str, Any]:
        """``{"selected": [profile, feature...], "files": {name: text}, "entries": {path: Entry}}`` before us."""
        known = self.batch.given_back(NODE).get("node")
        if known and self.ours:
            return dict(known[0])
        if self.ours:  # the memory is lost: what stands there is all there is to build on
            return {"selected": self.current, "files": self.now, "entries": {}}
        paths = [*tool.LINKS.values(), tool.CONF]
        entries = {path: tool.entry(self.authselect.path(path)) for path in paths}
        return {"selected": self.current, "files": {k: v for k, v in self.now.items() if v}, "entries": entries}

    def needed(self) -> bool:
        """Whether the rules ask for anything that the files in /etc/security cannot hold."""
        if NODE in self.wanted or pam_stack.touches_lines(self.wanted):
            return True
        texts = [self.origin["files"].get(name, "") for name in STACKS]
        return any(self.edit(text) != self.edit(text, {}) for text in texts if text)

    def edit(self, text: str, wanted: Optional[Wanted] = None, template: bool = True) -> str:
        try:
            return pam_stack.edited(text, self.wanted if wanted is None else wanted, template)
        except ValueError as error:
            self.batch.fail(f"/etc/pam.d/{{{','.join(STACKS)}}}: {error}; nothing is changed. Skip the rules on PAM")
            raise

    def templates(self) -> Dict[str, str]:
        """What the profile is to hold: the node's own files without comments, and the rules' changes."""
        texts = {name: without_comments(text) for name, text in self.origin["files"].items()}
        return {name: self.edit(text) if name in STACKS else text for name, text in texts.items()}

    def features(self) -> List[str]:
        return ["with-faillock"] if "enabled" in self.wanted.get("pam_faillock", {}) else []

    def to_be(self) -> Dict[str, str]:
        """What authselect will generate, less its own comments."""
        feature = " " + pam_stack.FAILLOCK_FEATURE
        return {name: text.replace(feature, "") for name, text in self.templates().items()}

    def unlike(self, texts: Mapping[str, str]) -> List[str]:
        """Files that do not say what the profile says. authselect may add maps of its own to nsswitch.conf."""
        names = []
        for name, text in sorted(self.to_be().items()):
            want, found = (
                [line.split() for line in without_comments(each).splitlines() if line] for each in (text, texts[name])
            )
            if [line for line in found if line in want] != want or (name != "nsswitch.conf" and found != want):
                names.append(name)
        return names


def without_comments(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).strip("\n") + "\n"


def select(batch: core.Batch, stacks: Stacks) -> None:
    """Bring the profile into force, prove that it works, or put everything back and fail."""
    authselect = stacks.authselect
    check_modules(batch, stacks)
    show(batch, stacks, stacks.to_be())
    install(batch, authselect)
    selected = stacks.current == [authselect.id, *stacks.features()]
    settled = selected and authselect.valid() and not stacks.unlike(stacks.now)
    if not stacks.ours:
        batch.forget(NODE)
        batch.remember(NODE, "node", stacks.origin, authselect.id)
    saved = snapshot(authselect)
    before = {} if batch.module.check_mode else answers(batch, authselect.root)
    differs = authselect.write_profile(stacks.templates())
    if settled and not differs:
        return
    if selected and not settled:
        batch.changed_file("authselect check", "not valid\n", "valid\n")
    if batch.module.check_mode:
        authselect.select(stacks.features(), first=not stacks.ours)
        return
    batch.store()  # the profile may be there already, and nothing written since: the origin has to be known first
    try:
        authselect.select(stacks.features(), first=not stacks.ours)
        prove(stacks, before)
    except (RuntimeError, OSError) as error:
        left = roll_back(saved)
        kept = f"Not put back: {'; '.join(left)}" if left else "The stacks are as they were"
        batch.fail(f"{authselect.id}: {error}. {kept}; skip the rules on PAM, or mend what it names")


def roll_back(saved: Mapping[str, tool.Entry]) -> List[str]:
    """Put everything back that can be; what cannot, with the reason."""
    left = []
    for path, was in saved.items():
        try:
            tool.put_back(path, was)
        except OSError as error:
            left.append(f"{path}: {error.strerror}")
    return left


def show(batch: core.Batch, stacks: Stacks, after: Mapping[str, str]) -> None:
    """The effective files, for ``--diff`` and for each rule."""
    for name in stacks.unlike(stacks.now):
        batch.changed_file(tool.LINKS[name], stacks.now[name], after[name])
    for rule in batch.present:
        names = [name for name in rule["want"] if name != NODE]
        if NODE in rule["want"]:
            wanted = [stacks.authselect.id, *stacks.features()]
            batch.record(rule["rule"], {NODE: " ".join(stacks.current)}, {NODE: " ".join(wanted)})
        for name in STACKS if names else ():
            path, now = tool.LINKS[name], stacks.now[name]
            left = pam_stack.mentions(after.get(name, ""), names)
            # a line may be another rule's, too: what only that one changes is not told of this one
            own = now and stacks.edit(now, parsed(rule["want"])) != stacks.edit(now, {})
            batch.record(rule["rule"], {path: pam_stack.mentions(now, names) if own else left}, {path: left})


def snapshot(authselect: tool.Authselect) -> Dict[str, tool.Entry]:
    generated = [f"/etc/authselect/{name}" for name in tool.LINKS]
    paths = [authselect.path(path) for path in (*tool.LINKS.values(), tool.CONF, *generated)]
    return {path: tool.entry(path) for path in paths}


def check_modules(batch: core.Batch, stacks: Stacks) -> None:
    """Fail where a stack would need a module that is not there: nobody could log in."""
    for name, text in stacks.to_be().items():
        if name not in STACKS:
            continue
        for module in sorted(set(pam_stack.modules(text)) - set(pam_stack.modules(stacks.now[name]))):
            places = [module] if module.startswith("/") else [f"{place}/{module}" for place in SECURITY]
            if not any(glob.glob(stacks.authselect.path(place)) for place in places):
                batch.fail(
                    f"{name}: {module} is in none of {', '.join(SECURITY)}: with it in the stack nobody could log in."
                    " Nothing is changed; install its package, or skip the rule"
                )


def install(batch: core.Batch, authselect: tool.Authselect) -> None:
    if authselect.installed():
        return
    batch.changed_file("installed packages", "", "authselect\n")
    if batch.module.check_mode:
        return
    rc, out, err = runtime.run(batch.module, ["dnf", "-y", "--setopt=install_weak_deps=False", "install", "authselect"])
    if rc or not authselect.installed():
        last = " ".join((err.strip() or out.strip()).splitlines()[-3:])
        batch.fail(f"dnf install authselect: exit {rc}: {last}. The stacks are as they were")


def answers(batch: core.Batch, root: str) -> Dict[str, Any]:
    """How the node lets in who is in already: what libpam says of root's account, whether su and sudo work."""
    if root:
        return {}
    found: Dict[str, Any] = {f"account of root by {name}": tool.account_result(name, "root") for name in STACKS}
    commands = {"su": ["su", "-s", "/bin/sh", "-c", "true", "root"]}
    user = os.environ.get("SUDO_USER", "root")
    if user != "root":
        commands[f"sudo of {user}"] = ["su", "-s", "/bin/sh", "-c", "sudo -n true", user]
    for name, argv in commands.items():
        found[name] = runtime.run(batch.module, argv)[0]
    return found


def prove(stacks: Stacks, before: Mapping[str, Any]) -> None:
    """Raise RuntimeError unless the node is as it was but for what the rules ask for."""
    rc, said = stacks.authselect.run("check")
    if rc:
        raise RuntimeError(f"authselect check: exit {rc}: {said}")
    made = {name: core.read(stacks.live(name)) for name in tool.LINKS}
    for name in stacks.unlike(made):
        raise RuntimeError(f"{tool.LINKS[name]}: authselect made something else of its template: {made[name]!r}")
    for name, result in answers(stacks.batch, stacks.authselect.root).items():
        if before.get(name) == 0 and result != 0:
            raise RuntimeError(f"{name}: worked before, now fails with {result}")


def give_back(batch: core.Batch, stacks: Stacks) -> None:
    """No rule needs the profile: what the node had comes back, and the profile goes."""
    authselect, origin = stacks.authselect, stacks.origin
    known = batch.given_back(NODE)
    if not known:
        return
    if stacks.ours:
        back = {path: tuple(was) if was else None for path, was in origin["entries"].items()}
        for name, text in sorted(origin["files"].items()):
            batch.changed_file(tool.LINKS[name], stacks.now[name], text)
        if not batch.module.check_mode:
            restore(batch, authselect, origin["selected"], back)
    authselect.remove_profile()
    batch.forget(NODE)


def restore(
    batch: core.Batch, authselect: tool.Authselect, selected: List[str], back: Mapping[str, tool.Entry]
) -> None:
    """By authselect itself, then file by file: its backup may be gone, and it knows nothing of comments."""
    if selected:
        rc, said = authselect.run("select", *selected, "--force", "--nobackup")
        if rc:
            batch.fail(
                f"authselect select {' '.join(selected)}: exit {rc}: {said}. That was selected before {authselect.id},"
                f" which stays; select another profile, whereupon {authselect.id} goes, or keep the rules on PAM"
            )
    else:
        authselect.run("backup-restore", tool.BACKUP)
    try:
        for path, was in back.items():
            if not (selected and was and was[0] == "link"):
                tool.put_back(authselect.path(path), was)
        for name in tool.LINKS if not selected else ():
            tool.put_back(authselect.path(f"/etc/authselect/{name}"), None)
    except OSError as error:
        batch.fail(f"{error.filename}: cannot be put back: {error.strerror}")
    authselect.run("backup-remove", tool.BACKUP)


def apply(batch: core.Batch) -> None:
    params = batch.module.params
    root = params["root"].rstrip("/")
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
    wants = wanted_by(batch)
    stacks = Stacks(batch, merged(wants))
    if not any(stacks.now[name] for name in STACKS):
        return  # no PAM here, or none laid out this way; the audit says so
    needed = stacks.needed()
    if needed and re.search(r'(?m)^VERSION_ID="?2"?$', core.read(f"{root}/etc/os-release")):
        batch.module.warn(
            "Amazon Linux 2 has no authselect: /etc/pam.d is left as it is, the audit shows what is missing"
        )
        return
    for rule in batch.present:
        batch.remember(rule["rule"], "want", None, rule["want"])
    write_files(batch, root)
    if needed:
        select(batch, stacks)
    else:
        give_back(batch, stacks)
    for slug in batch.absent:
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module(
        memory="pam", profile={"type": "str", "default": "cis"}, root={"type": "path", "default": "/"}
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
