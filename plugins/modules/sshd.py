#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module sshd: a list of rules' keywords in one drop-in that sshd reads before anything else."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd
author: The cisdriver authors
short_description: Configures the SSH server for a batch of rules
description:
  - Writes one drop-in that it owns whole. sshd takes the first value of a keyword, so the drop-in is read first;
    if sshd_config does not include it before its first keyword, a line is put there that does.
  - Comments out lines for everyone that say otherwise in sshd_config and its drop-ins; leaves C(Match) blocks alone.
  - Lets sshd test the whole, and sees that every value wins, before it puts anything in place. Then reloads it.
  - Refuses lists of users or groups by which whoever runs this could not log in again.
options:
  path:
    description: The drop-in.
    type: path
    default: /etc/ssh/sshd_config.d/00-cis.conf
  main:
    description: The file sshd starts from.
    type: path
    default: /etc/ssh/sshd_config
  environment:
    description: The file with the options of sshd.service.
    type: path
    default: /etc/sysconfig/sshd
  rules:
    description:
      - Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a keyword to its value.
      - C(access_lists) maps AllowUsers, AllowGroups, DenyUsers, DenyGroups to members; null while undecided.
      - C(crypto_policy) is C(inherited).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.sshd:
    rules:
      - {rule: sshd_root_login_disabled, id: 4.2.7, want: {PermitRootLogin: "no"}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping C(file) to the rule's lines.
  type: dict
  returned: always
"""

import contextlib
import fnmatch
import glob
import grp
import os
import pwd
import re
import shlex
import shutil
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

UNIT = "sshd.service"

ACCESS_LISTS = ("AllowUsers", "AllowGroups", "DenyUsers", "DenyGroups")
#: Keywords of which a lower number is stricter: one that stands there already is kept. 0 would mean none.
LOWER_IS_STRICTER = ("maxauthtries", "maxsessions", "logingracetime")


def split(line: str) -> Tuple[str, str]:
    """Keyword in lower case and value, both empty for a comment."""
    found = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)?(.*)", line)
    return (found.group(1).lower(), found.group(2).strip().strip('"')) if found else ("", "")


#: A line that was commented out, and after the mark the line.
SET_ASIDE = re.compile(r"(?m)^# [\d.]+ cisdriver: (.*)$")


def dropin_directory(path: str) -> str:
    return os.path.join(os.path.dirname(path), "*.conf")


def other_files(main: str, path: str) -> List[str]:
    """sshd_config and its drop-ins, less ours."""
    return [main] + [name for name in sorted(glob.glob(dropin_directory(path))) if name != path]


def lines_for_everyone(text: str) -> Iterator[Tuple[int, str, str]]:
    """``(index, keyword, value)`` of the lines outside of Match blocks."""
    matched = False
    for index, line in enumerate(text.splitlines()):
        keyword, value = split(line)
        if keyword == "match":
            matched = value.lower() != "all"
        elif keyword and not matched:
            yield index, keyword, value


def lines_of(rule: Mapping[str, Any], others: Mapping[str, str]) -> List[str]:
    """The rule's lines in the drop-in."""
    lines = []
    for keyword, value in rule["want"].items():
        if keyword == "access_lists":
            for name in ACCESS_LISTS:
                members = (value or {}).get(name, [])
                text = members if isinstance(members, str) else " ".join(members)
                lines += [f"{name} {text}"] if text else []
        elif keyword != "crypto_policy":
            lines.append(f"{keyword} {stricter(keyword.lower(), str(value), others)}")
    return lines


def stricter(keyword: str, value: str, others: Mapping[str, str]) -> str:
    """The value, or the lowest that another file sets already: hardening must not loosen."""
    if keyword not in LOWER_IS_STRICTER:
        return value
    present = [found for text in others.values() for _index, name, found in lines_for_everyone(text) if name == keyword]
    return str(min([int(value)] + [int(found) for found in present if found.isdigit() and int(found) > 0]))


def without_contrary(text: str, wanted: Mapping[str, Tuple[str, str]]) -> str:
    """The text with lines for everyone commented out that say other than ``wanted``, {keyword: (id, value)}."""
    lines = text.splitlines(keepends=True)
    for index, keyword, value in lines_for_everyone(text):
        id_, right = wanted.get(keyword, ("", value))
        if value.lower() != right.lower():
            lines[index] = f"# {id_} cisdriver: {lines[index]}"
    return "".join(lines)


def with_what_we_set_aside(text: str, owned: str) -> str:
    """The text with those lines in force again of whose keyword our drop-in says nothing any more."""
    ours = {split(line)[0] for line in owned.splitlines()}
    return SET_ASIDE.sub(lambda line: line[0] if split(line[1])[0] in ours else line[1], text)


def including(text: str, path: str, owned: bool) -> str:
    """The main file with an Include of ours before its first keyword, or without that line once we own nothing."""
    line = f"Include {path}\n"
    if not owned:
        return text[len(line) :] if text.startswith(line) else text
    for _index, keyword, value in lines_for_everyone(text):
        if keyword == "include" and any(
            fnmatch.fnmatch(path, os.path.join("/etc/ssh", name)) for name in value.split()
        ):
            return text
        if keyword != "include":
            break
    return line + text


def without_opt_out(text: str, id_: str) -> str:
    """/etc/sysconfig/sshd with CRYPTO_POLICY commented out."""
    return re.sub(r"(?im)^(\s*CRYPTO_POLICY\s*=)", rf"# {id_} cisdriver: \1", text)


def desired(batch: core.Batch) -> Dict[str, str]:
    """Path to text of every file that may change; ours may be empty, which removes it."""
    path, main, environment = (batch.module.params[name] for name in ("path", "main", "environment"))
    others = {name: core.read(name) for name in other_files(main, path)}
    owned = core.dropin(core.read(path), batch.present, batch.keep, lambda rule: lines_of(rule, others))
    wanted = {}
    for rule in batch.present:
        for line in lines_of(rule, others):
            keyword, value = split(line)
            if keyword not in map(str.lower, ACCESS_LISTS):  # these add up, and none contradicts another
                wanted[keyword] = (rule["id"], value)
    texts = {name: without_contrary(with_what_we_set_aside(text, owned), wanted) for name, text in others.items()}
    texts[main] = including(texts[main], path, bool(owned))
    texts[path] = owned
    opted_out = core.read(environment)
    for rule in batch.present:
        if rule["want"].get("crypto_policy"):
            texts[environment] = without_opt_out(opted_out, rule["id"])
    if environment not in texts and not batch.keep:
        texts[environment] = SET_ASIDE.sub(r"\1", opted_out)
    return texts


class Candidate:
    """The configuration as it would be, in a directory of its own: what sshd says to it before it is put in place."""

    def __init__(self, batch: core.Batch, texts: Mapping[str, str]) -> None:
        self.batch = batch
        self.directory = tempfile.mkdtemp(prefix=core.TEMPORARY)
        self.main = os.path.join(self.directory, "sshd_config")
        params = batch.module.params
        names = {*glob.glob(dropin_directory(params["path"])), params["path"]}
        copies = {name: self._copy(name, texts[name]) for name in sorted(names) if texts.get(name)}
        with open(self.main, "w", encoding="utf-8", errors="surrogateescape") as file:
            for line in texts[params["main"]].splitlines():
                keyword, value = split(line)
                file.write((self._redirected(value, copies) if keyword == "include" else line) + "\n")

    def _copy(self, name: str, text: str) -> str:
        copy = os.path.join(self.directory, os.path.basename(name))
        with open(copy, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return copy

    def _redirected(self, value: str, copies: Mapping[str, str]) -> str:
        """Include lines that name our copies in place of the files they stand for."""
        patterns = [os.path.join("/etc/ssh", name) for name in value.split()]
        chosen = [
            copies.get(name, name)
            for pattern in patterns
            for name in sorted({*glob.glob(pattern), *fnmatch.filter(copies, pattern)})
        ]
        return "\n".join(f"Include {name}" for name in chosen)

    def sshd(self, *arguments: str) -> Tuple[int, str, str]:
        argv = ["/usr/sbin/sshd", *arguments, "-f", self.main]
        if not glob.glob("/etc/ssh/ssh_host_*_key"):
            key = os.path.join(self.directory, "key")  # an image before its first boot
            if not os.path.exists(key):
                self.batch.module.run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check_rc=True)
            argv += ["-h", key]
        code, out, err = self.batch.module.run_command(argv)
        return code, out, err.replace(self.directory + "/", "")

    def effective(self) -> Dict[str, List[str]]:
        """What ``sshd -T`` shows, with the options of sshd.service, which beat every file."""
        code, out, err = self.sshd("-T", "-C", "user=root,host=localhost,addr=127.0.0.1", *service_options(self.batch))
        if code != 0:
            self.batch.fail(
                f"{self.batch.module.params['path']}: nothing is changed, sshd -T refuses it: {err.strip()}"
            )
        found: Dict[str, List[str]] = {}
        for line in out.splitlines():
            keyword, _blank, value = line.partition(" ")
            found.setdefault(keyword, []).append(value)
        return found

    def remove(self) -> None:
        shutil.rmtree(self.directory)


def service_options(batch: core.Batch) -> List[str]:
    """``-o`` options on the command line of sshd.service, such as EC2 Instance Connect's."""
    if not runtime.manager_runs():
        return []
    show = ["systemctl", "show", "sshd.service", "--property=ExecStart", "--value"]
    _code, out, _err = batch.module.run_command(show)
    command = re.search(r"argv\[\]=(.*?) ;", out)
    words = command.group(1).split() if command else []
    for value in re.findall(r"(?m)^OPTIONS=[\"']?(.*?)[\"']?$", core.read(batch.module.params["environment"])):
        with contextlib.suppress(ValueError):
            words += shlex.split(value)
    # systemctl shows no quotes: what follows -o is its value until the next option or variable
    values = re.findall(r"\s-o\s*((?:(?!\s[-$]).)+)", f" {' '.join(words)}")
    return [part for value in values for part in ("-o", value.strip())]


def check_wins(batch: core.Batch, candidate: Candidate, texts: Mapping[str, str]) -> None:
    """Fail, naming the rule and what wins, unless sshd arrives at every value of ours."""
    effective = candidate.effective()
    for rule in batch.present:
        for line in core.block_lines(texts[batch.module.params["path"]], rule["rule"]):
            keyword, value = split(line)
            if keyword in map(str.lower, ACCESS_LISTS):
                continue
            found = " ".join(effective.get(keyword, ["unset"]))
            if found.lower() != value.lower():
                batch.fail(
                    f"rule {rule['rule']} ({rule['id']}): expected {keyword} {value}, but sshd would use {found}, for"
                    f" {winner(batch, keyword, texts)}; nothing is changed"
                )


def winner(batch: core.Batch, keyword: str, texts: Mapping[str, str]) -> str:
    """In words, what sets a keyword in spite of us."""
    if any(option.lower().startswith(keyword) for option in service_options(batch)):
        return "sshd.service runs it with a -o option; see systemctl cat sshd.service"
    for path, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if split(line)[0] == keyword and path != batch.module.params["path"]:
                return f"{path}:{number} says {line.strip()!r}"
    return "an included file says so"


def check_not_shut_out(batch: core.Batch, candidate: Candidate) -> None:
    """Fail if the lists that now hold together would refuse the user this runs for."""
    rule = next((rule for rule in batch.present if rule["want"].get("access_lists")), None)
    user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    if rule is None or not os.environ.get("SUDO_USER", os.environ.get("SSH_CONNECTION")):
        return  # a chroot or a local build: nobody came in by ssh
    lists = {name: " ".join(candidate.effective().get(name.lower(), [])).split() for name in ACCESS_LISTS}
    account = pwd.getpwnam(user)
    groups = {grp.getgrgid(gid).gr_name for gid in os.getgrouplist(user, account.pw_gid) if known_group(gid)}
    for name, members in lists.items():
        names = groups if name.endswith("Groups") else {user}
        listed = any(fnmatch.fnmatchcase(one, pattern.split("@")[0]) for one in names for pattern in members)
        if members and listed == name.startswith("Deny"):
            batch.fail(
                f"rule {rule['rule']} ({rule['id']}): {name} {' '.join(members)} would shut out {user}, for whom this"
                f" runs; nothing is changed. Name a list in cis_values that lets {user} in"
            )


def known_group(gid: int) -> bool:
    try:
        return bool(grp.getgrgid(gid))
    except KeyError:
        return False


def apply(batch: core.Batch) -> None:
    """Work out every file, let sshd judge the whole, then put in place, reload."""
    params = batch.module.params
    if not os.path.exists(params["main"]):
        batch.fail(f"{params['main']} does not exist; is openssh-server installed?")
    texts = desired(batch)
    before = {path: core.read(path) for path in texts}
    candidate = Candidate(batch, texts)
    try:
        code, _out, err = candidate.sshd("-t")
        if code != 0:
            batch.fail(f"{params['path']}: nothing is changed, sshd -t refuses it: {err.strip()}")
        check_wins(batch, candidate, texts)
        check_not_shut_out(batch, candidate)
    finally:
        candidate.remove()
    stale = runtime.must_read(batch, UNIT, texts != before)
    # the drop-in first: whatever happens after it, what was in force before is never less strict
    order = sorted(texts, key=lambda path: path != params["path"])
    for path in order:
        batch.write(path, texts[path], mode=0o600)
    batch.restrict(params["path"], 0o600)
    for rule in batch.present:
        lines = {path: (mentions(rule, before[path]), mentions(rule, texts[path])) for path in texts}
        shown = {path: pair for path, pair in lines.items() if pair[0] != pair[1] or path == params["path"]}
        batch.record(rule["rule"], {p: old for p, (old, _) in shown.items()}, {p: new for p, (_, new) in shown.items()})
    if stale and not batch.module.check_mode:
        reload(batch)


def mentions(rule: Mapping[str, Any], text: str) -> List[str]:
    """Lines of a text that the rule is about."""
    keywords = {keyword.lower() for keyword in rule["want"]}
    if "access_lists" in keywords:
        keywords |= set(map(str.lower, ACCESS_LISTS))
    if "crypto_policy" in keywords:
        return re.findall(r"(?im)^\s*CRYPTO_POLICY\s*=.*$", text)
    return [line.strip() for line in text.splitlines() if split(line)[0] in keywords]


def reload(batch: core.Batch) -> None:
    """Reload, not restart: the connection this runs over stays. A stopped sshd reads the files when it starts."""
    active, _out, _err = batch.module.run_command(["systemctl", "is-active", "--quiet", UNIT])
    if active == 0:
        code, _out, err = batch.module.run_command(["systemctl", "reload", UNIT])
        if code != 0:
            batch.fail(f"{UNIT} does not reload, though sshd -t accepts its files: {err.strip()}")
    runtime.has_read(UNIT)


def main() -> None:
    batch = core.batch_module(
        path={"type": "path", "default": "/etc/ssh/sshd_config.d/00-cis.conf"},
        main={"type": "path", "default": "/etc/ssh/sshd_config"},
        environment={"type": "path", "default": "/etc/sysconfig/sshd"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
