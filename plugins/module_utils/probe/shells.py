# Copyright the cisdriver authors. Apache-2.0.
"""Asks real shells: as a login, an interactive shell and sh would start, for root and for a user without rights.

The user is nobody with /etc/skel as home, which is what a new user gets. Each shell starts from an empty environment,
in a session of its own (an interactive bash would otherwise wait for a terminal), and for ten seconds at most.
"""

from __future__ import annotations

from typing import Dict, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

SECONDS = 10
#: How a shell is started, up to the command it runs.
SHELLS: Dict[str, Tuple[str, ...]] = {
    "login shell": ("/bin/bash", "-lc"),
    "interactive shell": ("/bin/bash", "--rcfile", "/etc/bashrc", "-ic"),
    "login sh": ("/bin/sh", "-lc"),
}
#: Home, and how a process becomes the user.
USERS: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    "root": ("/root", ()),
    "nobody": ("/etc/skel", ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")),
}
_MARK = "cisdriver-answer:"


def argv(user: str, shell: str, question: str, umask: str = "022", path: str = "/usr/bin:/bin") -> Tuple[str, ...]:
    """The command that asks; its output ends with a line that starts with the mark."""
    home, become = USERS[user]
    # files that the shell reads may print something: the mark tells the answer from it
    asked = f'printf "\\n{_MARK}"; {question}'
    environment = [f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "SHELL=/bin/bash", "TERM=dumb"]
    environment += ["HISTFILE=/dev/null", f"PATH={path}"]
    start = ("/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh")
    # at the head of the session, timeout ends what the shell has started as well, which would keep its pipes open
    limit = ("setsid", "-w", "timeout", "-k", "1", str(SECONDS))
    return (*limit, *become, "env", "-i", *environment, *start, *SHELLS[shell], asked)


def ask(node: core.Node, user: str, shell: str, question: str, umask: str = "022", path: str = "/usr/bin:/bin") -> str:
    """What the question prints. Raises ProbeError when the shell does not come to answer."""
    done = node.run(*argv(user, shell, question, umask, path))
    answer = done.out.rpartition(_MARK)
    if answer[1]:
        return answer[2].strip("\n")
    if done.rc in (124, -9, 137):  # the last two where TERM was not enough
        raise core.ProbeError(f"the {shell} of {user} gives no answer in {SECONDS} seconds: what does it wait for?")
    why = done.err.strip() or f"exit {done.rc}"
    raise core.ProbeError(f"the {shell} of {user} does not answer: {why}")
