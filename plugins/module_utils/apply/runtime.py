# Copyright the cisdriver authors. Apache-2.0.
"""What of the running system a module may touch: programs, the service manager, the kernel."""

from __future__ import annotations

import contextlib
import os
from typing import Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core

MANAGER = "/run/systemd/system"
#: What has files to read again is noted here until it has: a boot empties it, and reads all files.
OWED = "/run/cisdriver"
CONTAINER_MARKS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")

#: By any of these a machine is known as a node of a Kubernetes cluster.
NODE_MARKS = ("/etc/eks", "/usr/bin/kubelet", "/etc/kubernetes/kubelet", "/etc/sysctl.d/99-kubernetes-cri.conf")


def node_mark() -> str:
    """The first mark of a Kubernetes node that is there, or nothing."""
    return next((mark for mark in NODE_MARKS if os.path.exists(mark)), "")


def manager_runs() -> bool:
    """Whether systemd runs here (``man 3 sd_booted``). In a chroot it does not: only files are written."""
    return os.path.isdir(MANAGER)


def in_container() -> bool:
    return any(os.path.exists(mark) for mark in CONTAINER_MARKS)


def owns_kernel() -> bool:
    """Whether kernel-wide state is this machine's own: neither a chroot's nor a container's is."""
    return manager_runs() and not in_container()


def run(module: AnsibleModule, argv: Sequence[str]) -> Tuple[int, str, str]:
    """Exit code, output and errors of a program; 127 when there is none of that name."""
    try:
        rc, out, err = module.run_command(list(argv), environ_update={"LC_ALL": "C"}, handle_exceptions=False)
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    return rc, out, err


def boot_state(batch: core.Batch, unit: str) -> str:
    """What ``systemctl is-enabled`` says of a unit; ``not-found`` however the version of systemctl puts it."""
    rc, out, err = run(batch.module, ["systemctl", "is-enabled", unit])
    if not out.strip() and "No such file or directory" not in err and "not-found" not in err:
        batch.fail(f"systemctl is-enabled {unit}: exit {rc}: {err.strip()}")
    return out.strip() or "not-found"


def must_read(batch: core.Batch, reader: str, differs: bool) -> bool:
    """Whether a unit has to read its files again. Ask before they are written; tell has_read() when it has.

    ``differs``: they are about to change. Else it has to where a run was interrupted after it had changed them.
    """
    if not manager_runs():
        return False
    note = os.path.join(OWED, reader)
    if differs:
        if not batch.module.check_mode:
            os.makedirs(OWED, mode=0o700, exist_ok=True)
            os.close(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return True
    owed = os.path.exists(note)
    if owed:
        batch.changed_file(f"{reader} (running)", "with its old configuration\n", "with its new configuration\n")
    return owed


def has_read(reader: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(OWED, reader))


def try_restart(batch: core.Batch, unit: str) -> None:
    """Start a unit anew whose daemon reads its files only when it starts. One that is stopped stays so."""
    if not manager_runs():
        return
    rc, _out, err = run(batch.module, ["systemctl", "try-restart", unit])
    if rc:
        batch.fail(f"{unit} does not restart with its new configuration: {err.strip()}; see journalctl -u {unit}")
