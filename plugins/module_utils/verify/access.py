# Copyright the cisdriver authors. Apache-2.0.
"""Whether those who administer the node still get in and become root: by SSH, by sudo, by Session Manager."""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
import stat
import time
from typing import Iterator, List, Mapping, NamedTuple, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import accounts, core, service
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import sshd as sshd_probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import paths
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

CLOUD = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg")
DEFAULT_USER = "ec2-user"
SSM_UNIT = "amazon-ssm-agent.service"
SSM_USER = "ssm-user"
SSM_SUDOERS = "/etc/sudoers.d/ssm-agent-users"
#: shadow's number of days for never (``PASS_MAX_DAYS`` as shipped); accounts made with more do not live to see it.
NEVER = 99999
_NO_LOGIN = "/etc/nologin", "/run/nologin"
_DEFAULT_USER = re.compile(
    r"(?m)^[ \t]+default_user:[ \t]*\n(?:[ \t]+\S.*\n|[ \t]*\n)*?[ \t]+name:[ \t]*[\"']?([\w.-]+)"
)
#: visudo wants a mode that sudo itself does not ask for.
_MODE_ALONE = "bad permissions, should be mode 0440"


def login_user(node: core.Node) -> str:
    """Who logs in here: the caller of sudo, who did, and else the user that cloud-init makes."""
    caller = os.environ.get("SUDO_USER", "")
    if caller not in ("", "root"):
        return caller
    for path in reversed([path for pattern in CLOUD for path in node.glob(pattern)]):
        block = _DEFAULT_USER.search(node.read(path) or "")
        if block:
            return block.group(1)
    return DEFAULT_USER


def _account(node: core.Node, name: str) -> Optional[accounts.User]:
    return next((user for user in accounts.users(node) if user.name == name), None)


@check(
    "sshd starts, and lets the login user in by key",
    why="A node nobody can log in to cannot be mended, and a bake whose login breaks ends without an image",
)
def sshd(node: core.Node) -> core.Finding:
    if not node.exists("/usr/sbin/sshd"):
        return core.not_applicable("there is no sshd on this machine")
    name = login_user(node)
    try:
        effective = sshd_probe.effective(node, name)
    except core.ProbeError as error:
        return core.verdict([core.evidence("sshd -T", "accepts its configuration", str(error), False, sshd_probe.MAIN)])
    items = [core.evidence("sshd -T", "accepts its configuration", "accepted", True, sshd_probe.MAIN)]
    by_key = " ".join(effective.get("pubkeyauthentication", ["yes"]))
    items.append(core.evidence(f"PubkeyAuthentication for {name}", "yes", by_key, by_key == "yes"))
    for path in filter(node.exists, _NO_LOGIN):
        items.append(core.evidence(path, "absent", "there: it refuses all but root", False, path))
    user = _account(node, name)
    if user is None:
        items.append(core.evidence(f"account {name}", "there, or made at the first boot", "not there yet", True))
        return core.verdict(items)
    items += _listed(node, user, effective)
    items.append(_shell(node, user))
    items += _keys(node, user, effective)
    return core.verdict(items)


def _listed(node: core.Node, user: accounts.User, effective: Mapping[str, List[str]]) -> Iterator[core.Evidence]:
    """Who is on a deny list is out; where there is an allow list, of users or of groups, who is not on it, too."""
    groups = node.must("id", "-Gn", user.name).split()
    for keyword, names in (
        *(("DenyUsers", [user.name]), ("AllowUsers", [user.name])),
        *(("DenyGroups", groups), ("AllowGroups", groups)),
    ):
        patterns = [word for line in effective.get(keyword.lower(), ()) for word in line.split()]
        if patterns:
            listed = any(_matches(name, patterns) for name in names)
            expected = f"{'with' if keyword.startswith('Allow') else 'without'} {' or '.join(names)}"
            yield core.evidence(keyword, expected, " ".join(patterns), listed == keyword.startswith("Allow"))


def _matches(name: str, patterns: List[str]) -> bool:
    """As ``man 5 ssh_config`` has PATTERNS: one with ``!`` takes back what others give."""
    found = False
    for pattern in patterns:
        of_name, _at, of_host = pattern.lstrip("!").partition("@")
        if fnmatch.fnmatchcase(name, of_name) and _from_there(of_host):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _from_there(pattern: str) -> bool:
    """Whether a pattern for hosts fits the caller's address; where that is not known, any does."""
    address = (os.environ.get("SSH_CONNECTION", "").split() or [""])[0]
    if not pattern or not address:
        return True
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return fnmatch.fnmatchcase(address, pattern)


def _shell(node: core.Node, user: accounts.User) -> core.Evidence:
    ok = node.exists(user.shell) and not re.search(r"/(nologin|false)$", user.shell)
    found = user.shell if node.exists(user.shell) else f"{user.shell}, which does not exist"
    return core.evidence(f"shell of {user.name}", "a shell that is there", found, ok, user.source)


def _keys(node: core.Node, user: accounts.User, effective: Mapping[str, List[str]]) -> Iterator[core.Evidence]:
    """sshd reads key files as the user, and with StrictModes only those that nobody else can write."""
    strict = " ".join(effective.get("strictmodes", ["yes"])) == "yes"
    files = [word for line in effective.get("authorizedkeysfile", ()) for word in line.split()]
    seen = False
    for pattern in files or [".ssh/authorized_keys"]:
        file = pattern.replace("%h", user.home).replace("%u", user.name).replace("%U", str(user.uid))
        path = os.path.join(user.home, file.replace("%%", "%"))
        if not node.exists(path):
            continue
        seen = True
        problem = _unreadable(node, path, user) or (_writable(node, path, user) if strict else "")
        expected = f"readable by {user.name}, writable by nobody else"
        yield core.evidence(path, expected, problem or expected, not problem, path)
    if not seen:
        found = "none: cloud-init writes it at the first boot, or a command of sshd gives the keys"
        yield core.evidence(f"key file of {user.name}", "one, or made at the first boot", found, True)


def _unreadable(node: core.Node, path: str, user: accounts.User) -> str:
    """What keeps the user from the file; empty when nothing does."""
    for place, about in paths.way(node, path):
        wanted = 0o1 if stat.S_ISDIR(about.st_mode) else 0o4
        shift = 6 if about.st_uid == user.uid else 3 if about.st_gid == user.gid else 0
        if not about.st_mode >> shift & wanted:
            return f"{place} has mode {stat.S_IMODE(about.st_mode):04o}, uid {about.st_uid}"
    return ""


def _writable(node: core.Node, path: str, user: accounts.User) -> str:
    """sshd looks at the file and the directories above it, up to the home."""
    while True:
        about = node.lstat(path)
        if about and (about.st_uid not in (0, user.uid) or about.st_mode & 0o022):
            return f"{path} has mode {stat.S_IMODE(about.st_mode):04o}, uid {about.st_uid}: sshd refuses it"
        if path in (user.home, "/"):
            return ""
        path = os.path.dirname(path)


@check(
    "sudo reads its files, and the login user becomes root without a password",
    why="Accounts of the cloud have no password to give, so that without it nobody administers the node",
)
def sudo(node: core.Node) -> core.Finding:
    if not node.exists("/usr/bin/sudo"):
        return core.not_applicable("there is no sudo on this machine")
    done = node.run("visudo", "-c")
    if done.rc == 127:
        raise core.ProbeError(f"visudo -c: {done.err}")
    said = [line for line in (done.err + done.out).splitlines() if line.strip() and not line.endswith(": parsed OK")]
    ok = done.rc == 0 or (bool(said) and all(line.endswith(_MODE_ALONE) for line in said))
    found = "valid" if done.rc == 0 else " ".join(said).strip() or f"exit {done.rc}"
    items = [core.evidence("visudo -c", "valid", found, ok, "/etc/sudoers")]
    items += _becomes_root(node, login_user(node))
    return core.verdict(items)


def _becomes_root(node: core.Node, name: str) -> Iterator[core.Evidence]:
    """Tried, as nothing else knows what PAM and the order of lines make of it."""
    object_, expected = f"sudo -n true as {name}", "root, without a password"
    if _account(node, name) is None:
        yield core.evidence(object_, expected, "no such account yet", True)
        return
    password = accounts.passwords(node).get(name, "!")
    if password and not accounts.is_locked(password):
        yield core.evidence(object_, expected, "not tried: the account has a password of its own", True)
        return
    done = node.run("runuser", "-u", name, "--", "sudo", "-n", "true")
    said = done.err.strip().splitlines() or [f"exit {done.rc}"]
    yield core.evidence(object_, expected, expected if done.rc == 0 else said[-1], done.rc == 0)


@check(
    "The SSM agent starts at boot, and its user becomes root",
    why="Session Manager is the way in when SSH is not, and Inspector sees only nodes whose agent runs",
)
def ssm_agent(node: core.Node) -> core.Finding:
    state = service.enabled_state(node, SSM_UNIT)
    if state == "not-found":
        return core.not_applicable("there is no SSM agent on this machine")
    unit = f"/etc/systemd/system/{SSM_UNIT}"
    source = unit if node.lstat(unit) else None
    items = [core.evidence(f"{SSM_UNIT} (at boot)", "enabled", state, state == "enabled", source)]
    user = _account(node, SSM_USER)
    if user is not None:  # made with the first session
        items.append(_shell(node, user))
    if node.exists(SSM_SUDOERS) and user is not None:
        items += _becomes_root(node, SSM_USER)
    elif node.exists(SSM_SUDOERS):
        done = node.run("visudo", "-c", "-f", SSM_SUDOERS)
        found = "valid" if done.rc == 0 else (done.err or done.out).strip()
        items.append(core.evidence(SSM_SUDOERS, "valid", found, done.rc == 0, SSM_SUDOERS))
    return core.verdict(items)


class Ageing(NamedTuple):
    """Fields of a line of /etc/shadow, in days, as text."""

    changed: str
    maximum: str
    expires: str
    source: str


@check(
    "No account that logs in by key expires",
    why="PAM refuses an expired account or password whatever the key, and a locked password cannot be changed",
)
def password_aging(node: core.Node) -> core.Finding:
    if node.read(accounts.SHADOW) is None:
        raise core.ProbeError(f"{accounts.SHADOW} does not exist")
    items: List[core.Evidence] = []
    for user in _by_key(node):
        items += _ages(user.name, _ageing(node, user.name), accounts.passwords(node)[user.name])
    return core.verdict(items or [core.evidence("accounts that log in by key", "do not expire", "none", True)])


def _by_key(node: core.Node) -> List[accounts.User]:
    named = (login_user(node), SSM_USER)
    return [
        user
        for user in accounts.users(node)
        if user.name in named or (user in accounts.interactive(node) and _has_keys(node, user))
    ]


def _has_keys(node: core.Node, user: accounts.User) -> bool:
    return bool((node.read(os.path.join(user.home, ".ssh/authorized_keys")) or "").strip())


def _ageing(node: core.Node, name: str) -> Optional[Ageing]:
    for number, line in node.lines(accounts.SHADOW):
        fields = line.split(":")
        if fields[0] == name and len(fields) == 9:
            return Ageing(fields[2], fields[4], fields[7], f"{accounts.SHADOW}:{number}")
    return None


def _ages(name: str, ageing: Optional[Ageing], password: str) -> Iterator[core.Evidence]:
    if ageing is None:
        yield core.evidence(f"ageing of {name}", "none", "no line: it does not age", True, accounts.SHADOW)
        return
    expires = f"{_date(ageing.expires)}" if ageing.expires else "never"
    yield core.evidence(f"expiry of account {name}", "never", expires, not ageing.expires, ageing.source)
    forced = ageing.changed == "0"
    maximum = ageing.maximum if ageing.maximum.isdigit() else ""
    limited = accounts.is_locked(password) and maximum != "" and int(maximum) < NEVER
    found = "must be changed at the next login" if forced else f"ages after {maximum} days" if maximum else "never ages"
    expected = "never ages: it is locked" if accounts.is_locked(password) else "need not be changed at the next login"
    yield core.evidence(f"password of {name}", expected, found, not forced and not limited, ageing.source)


def _date(day: str) -> str:
    """A day since 1970 as people write it."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(day) * 86400)) if day.isdigit() else day
