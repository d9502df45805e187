#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module account: what a list of rules asks of accounts, of root's PATH and of homes, where a program may decide it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: account
author: The cisdriver authors
short_description: Secures accounts, root's PATH and homes for a batch of rules
description:
  - >-
    Sets shells and root's group in one edit of /etc/passwd, under the lock that shadow-utils takes; locks passwords
    with usermod.
  - Takes permission bits away, and changes owners, of directories in root's PATH, of homes and of dot files in them.
  - Never deletes an account or a file, and never writes a password; what that would take, the audit shows.
  - What a rule changed comes back when it is no longer selected, unless somebody has changed it since. Passwords that
    were moved to /etc/shadow stay there.
options:
  exempt:
    description: System accounts whose shell and password stay as they are. The audit still shows them.
    type: list
    elements: str
    default: []
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps the name of a check to what it
        asks, as C(schemas/rule.json) has it. Checks that are only judged are passed over.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.account:
    exempt: [cwagent]
    rules:
      - {rule: system_accounts_secured, id: 4.6.2, want: {system_accounts: {shells: [/usr/sbin/nologin]}}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping what was looked at to its state.
  type: dict
  returned: always
"""

import contextlib
import os
from typing import Any, Callable, Dict, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import accounts, core, homes, owned, runtime

ETC = "/etc"


class Work:
    """What one call changes: fields of /etc/passwd, which are written at once, then passwords and files."""

    def __init__(self, batch: core.Batch) -> None:
        self.batch = batch
        self.objects = owned.Objects(batch)
        self.passwd = accounts.raw(f"{ETC}/passwd")
        # of several lines of a name the first holds, and is the one that with_field() changes
        self.users = list({user.name: user for user in reversed(accounts.users(self.passwd))}.values())[::-1]
        self.passwords = accounts.passwords(core.read(f"{ETC}/shadow"))
        self.fields: Dict[Tuple[str, str], str] = {}
        self.commands: List[Tuple[Mapping[str, Any], List[str]]] = []

    def field(self, rule: Mapping[str, Any], name: str, field: str, before: str, after: str) -> None:
        """One field of /etc/passwd."""
        if before == after:
            return
        self.fields[name, field] = after
        self.batch.record(rule["rule"], {f"{field} of {name}": before}, {f"{field} of {name}": after})

    def password(self, rule: Mapping[str, Any], name: str, before: str, after: str, *arguments: str) -> None:
        """Its state, never itself: empty, set, locked."""
        self.batch.record(rule["rule"], {f"password of {name}": before}, {f"password of {name}": after})
        self.batch.changed_file(f"{ETC}/shadow: {name}", f"{before}\n", f"{after}\n")
        self.commands.append((rule, ["usermod", *arguments, name]))

    def lock(self, rule: Mapping[str, Any], name: str) -> None:
        password = self.passwords.get(name, "!")
        if accounts.is_locked(password):
            return
        state = "set" if password else "empty"
        self.batch.remember(rule["rule"], f"{name}\tpassword", state, "locked")
        self.password(rule, name, state, "locked", "--lock")
        self.passwords[name] = f"!{password}"

    def finish(self) -> None:
        if self.fields:
            self._write_passwd()
        self.batch.store()
        for rule, argv in self.commands if not self.batch.module.check_mode else ():
            rc, out, err = runtime.run(self.batch.module, argv)
            if rc:
                who = f"rule {rule['rule']} ({rule['id']})"
                self.batch.fail(f"{who}: {' '.join(argv)}: exit {rc}: {err.strip() or out.strip()}")

    def _write_passwd(self) -> None:
        """Read again under the lock: an account may have come since."""
        path = f"{ETC}/passwd"
        try:
            with contextlib.nullcontext() if self.batch.module.check_mode else accounts.locked(ETC):
                text = accounts.raw(path)
                for (name, field), value in self.fields.items():
                    text = accounts.with_field(text, name, accounts.FIELDS[field], value)
                self.batch.write(path, text, os.stat(path).st_mode & 0o7777, shown=accounts.without_passwords)
        except OSError as error:
            self.batch.fail(f"{path}: cannot be changed: {error}")


def secure(work: Work, rule: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Shell and password of accounts of the system; nobody, 65534, is one of them."""
    least = accounts.uid_min(core.read(f"{ETC}/login.defs"))
    exempt = work.batch.module.params["exempt"]
    for user in work.users:
        if user.name in ("root", *exempt) or (user.uid >= least and user.uid != homes.NOBODY):
            continue
        if user.name not in want.get("except", ()) and user.shell not in want["shells"]:
            refuse_to_shut_out(work, rule, user.name)
            work.batch.remember(rule["rule"], f"{user.name}\tshell", user.shell, want["shells"][0])
            work.field(rule, user.name, "shell", user.shell, want["shells"][0])
        if user.password != "x":  # then it counts, whatever /etc/shadow says
            work.passwords[user.name] = user.password
        work.lock(rule, user.name)


def refuse_to_shut_out(work: Work, rule: Mapping[str, Any], name: str) -> None:
    if name == os.environ.get("SUDO_USER"):
        work.batch.fail(
            f"rule {rule['rule']} ({rule['id']}): {name} runs this and would not get in again without a shell:"
            " name the account in cis_account_exempt, connect as another one, or skip the rule"
        )


def root_gid(work: Work, rule: Mapping[str, Any], want: int) -> None:
    for user in work.users:
        if user.name == "root":
            work.batch.remember(rule["rule"], "root\tgid", str(user.gid), str(want))
            work.field(rule, "root", "gid", str(user.gid), str(want))


def shadowed(work: Work, rule: Mapping[str, Any], _want: bool) -> None:
    """pwconv moves what stands in /etc/passwd, and drops what nobody has any more from /etc/shadow."""
    offenders = [user for user in work.users if user.password != "x"]
    for user in offenders:
        name = f"password field of {user.name}"
        work.batch.record(rule["rule"], {name: "no x"}, {name: "x"})
        work.batch.changed_file(f"{ETC}/passwd: {user.name}", "no x\n", "x\n")
        work.passwords[user.name] = user.password
    if offenders and not work.batch.module.check_mode:
        rc, _out, err = runtime.run(work.batch.module, ["pwconv"])
        if rc:
            work.batch.fail(
                f"rule {rule['rule']} ({rule['id']}): pwconv: exit {rc}: {err.strip()};"
                " the lines of /etc/passwd and /etc/shadow it stumbles over show in pwck -r"
            )


def not_empty(work: Work, rule: Mapping[str, Any], _want: bool) -> None:
    for name, password in list(work.passwords.items()):
        if not password:
            work.lock(rule, name)


def root_path(work: Work, rule: Mapping[str, Any], _want: str) -> None:
    homes.secure_path(work.batch, work.objects, rule, work.users, core.read(f"{ETC}/login.defs"))


def home_directories(work: Work, rule: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    for user in homes.people(work.users, core.read(f"{ETC}/shells"), core.read(f"{ETC}/login.defs")):
        homes.directory(work.objects, rule, user, work.users, int(want["max_mode"], 8))


def dot_files(work: Work, rule: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    if "max_mode" not in want:
        return
    for user in homes.people(work.users, core.read(f"{ETC}/shells"), core.read(f"{ETC}/login.defs")):
        homes.dot_files(work.objects, rule, user, want)


#: What can be set; the rest of a want is judged by the audit alone.
WRITERS: Dict[str, Callable[[Work, Mapping[str, Any], Any], None]] = {
    "system_accounts": secure,
    "root_gid": root_gid,
    "shadowed": shadowed,
    "password_not_empty": not_empty,
    "root_path": root_path,
    "homes": home_directories,
    "dot_files": dot_files,
}


def give_back(work: Work, slug: str) -> None:
    """What a rule that is no longer selected changed, where it still is as the rule left it."""
    rule = {"rule": slug, "id": "deselected"}
    users = {user.name: user for user in work.users}
    for object_, (was, now) in work.batch.given_back(slug).items():
        name, _tab, field = object_.partition("\t")
        if work.objects.give_back(rule, object_, was, now) or name not in users:
            continue
        if field == "password":
            give_back_password(work, rule, name, was)
        elif str(getattr(users[name], field)) == now:
            work.field(rule, name, field, now, was)


def give_back_password(work: Work, rule: Mapping[str, Any], name: str, was: str) -> None:
    """usermod --unlock refuses to leave an account without a password: that takes an empty one."""
    password = work.passwords.get(name, "")
    if was == "empty" and password == "!":
        work.password(rule, name, "locked", was, "--password", "")
    elif was == "set" and password[:1] == "!" and len(password) > 1:
        work.password(rule, name, "locked", was, "--unlock")


def apply(batch: core.Batch) -> None:
    work = Work(batch)
    for slug in batch.absent:
        give_back(work, slug)
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        for check, want in rule["want"].items():
            if check in WRITERS:
                WRITERS[check](work, rule, want)
    work.finish()
    for slug in batch.absent:  # not before: what fails leaves the changes where they are
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module("account", exempt={"type": "list", "elements": "str", "default": []})
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
