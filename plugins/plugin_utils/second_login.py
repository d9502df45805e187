# Copyright the cisdriver authors. Apache-2.0.
"""The check ``second_login``: whether a new connection still gets in, with sudo, while the first one is held.

Runs on the controller, imports nothing of Ansible. The other checks run on the node (``module_utils/verify``).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

NAME = "second_login"
TITLE = "A new login gets in, and sudo works in it"
WHY = "Nobody gets in any more, and whoever is logged in already notices nothing of it"
#: Seconds for the whole login, well above what PAM's delays come to.
TIMEOUT = 90
_IN = "cisdriver: logged in"


class Login(NamedTuple):
    """How the first connection got in. None: ssh's own configuration decides."""

    host: str
    user: str | None = None
    port: int | None = None
    key: str | None = None
    #: The user's own arguments for ssh, such as ``-o ProxyCommand=...``.
    arguments: tuple[str, ...] = ()
    executable: str = "ssh"
    sudo_password: str | None = None

    def __str__(self) -> str:
        return f"{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


def command(login: Login) -> list[str]:
    """The command line. ssh takes an option's first value, so ours come first: never the first login's connection."""
    options = {"ControlMaster": "no", "ControlPath": "none", "BatchMode": "yes", "ConnectTimeout": "30"}
    options["LogLevel"] = "ERROR"
    given = {"Port": login.port, "User": login.user, "IdentityFile": f'"{login.key}"' if login.key else None}
    options.update({name: str(value) for name, value in given.items() if value is not None})
    argv = [login.executable, *(f"-o{name}={value}" for name, value in options.items()), *login.arguments, login.host]
    sudo = "sudo -n true" if login.sudo_password is None else "sudo -k -S -p '' true"
    return [*argv, f"echo '{_IN}'; {sudo}"]


def check(login: Login, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Log in again: ``{name, title, why, status, reason, evidence}``. Never raises for a node that does not answer."""
    try:
        done = subprocess.run(
            command(login),
            input=None if login.sudo_password is None else f"{login.sudo_password}\n",
            stdin=subprocess.DEVNULL if login.sudo_password is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _finding("fail", [_evidence(f"login {login}", "let in", f"no answer within {timeout:.0f} s", ok=False)])
    except OSError as error:
        return _found("error", f"cannot run {login.executable}: {error.strerror}", [])
    words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    if _IN not in done.stdout:
        return _finding("fail", [_evidence(f"login {login}", "let in", words, ok=False)])
    let_in = _evidence(f"login {login}", "let in", "let in", ok=True)
    works = done.returncode == 0
    sudo = _evidence("sudo in that login", "works", "works" if works else words, ok=works)
    return _finding("pass" if works else "fail", [let_in, sudo])


def not_applicable(fact: str) -> dict[str, Any]:
    """The check where there is no ssh to try again."""
    return _found("not_applicable", fact, [])


def _evidence(what: str, expected: str, found: str, ok: bool) -> dict[str, Any]:
    return {"object": what, "expected": expected, "found": found, "ok": ok, "source": "ssh from the controller"}


def _finding(status: str, evidence: Sequence[dict[str, Any]]) -> dict[str, Any]:
    bad = [item for item in evidence if not item["ok"]]
    reason = f"{bad[0]['object']}: expected {bad[0]['expected']}, found {bad[0]['found']}" if bad else ""
    return _found(status, reason, evidence)


def _found(status: str, reason: str, evidence: Sequence[dict[str, Any]]) -> dict[str, Any]:
    about = {"name": NAME, "title": TITLE, "why": WHY}
    return {**about, "status": status, "reason": reason, "evidence": list(evidence)}
