# Copyright the cisdriver authors. Apache-2.0.
"""Files of the host's own file systems: containers' trees, other mounts of them and network file systems left out."""

from __future__ import annotations

import os
import re
from typing import Container, Iterable, List, NamedTuple, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

MOUNTS = "/proc/self/mountinfo"
#: File systems on a disk of this machine; the root counts whatever it is.
TYPES = ("xfs", "ext4", "ext3", "ext2")
TMPFS = ("/dev/shm", "/tmp", "/var/tmp")
#: Trees of containers and their volumes (containerd, kubelet, soci, nerdctl, CNI); setup-local-disks binds some of
#: them. The audit's list is probe/scan.py's; a test holds them equal.
CONTAINER_TREES = (
    *("/mnt/k8s-disks", "/run/containerd", "/run/docker", "/run/netns", "/run/soci-snapshotter-grpc", "/var/lib/cni"),
    *("/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/nerdctl"),
    *("/var/lib/soci-snapshotter-grpc", "/var/log/containers", "/var/log/pods"),
)


def privileged(module: AnsibleModule) -> List[str]:
    """Setuid and setgid programs, sorted, where such a bit means anything: not on nosuid or noexec mounts."""
    return _found(module, _roots({"nosuid", "noexec"}), "setuid and setgid programs", "-type f -perm /6000")


def world_writable(module: AnsibleModule) -> List[str]:
    """Files everybody may write, and directories of which everybody may remove another's files; sorted."""
    test = "-type f -perm -0002 -o -type d -perm -0002 ! -perm -1000"
    return _found(module, _roots(), "files and directories everybody may write", test)


def _found(module: AnsibleModule, roots: List[str], what: str, test: str) -> List[str]:
    if not roots:
        return []
    # -printf '' has find ask for the type first: to compare each file's name with each tree takes as long as the walk
    prune = ["-type", "d", "-printf", "", "("]
    for tree in _trees():
        prune += ["-path", tree, "-o"]
    argv = ["nice", "-n", "19", "find", *roots, "-xdev", *prune[:-1], ")", "-prune"]
    argv += ["-o", "(", *test.split(), ")", "-print0"]
    rc, out, err = runtime.run(module, argv)
    unseen = [line for line in err.splitlines() if not _harmless(line)] if rc else []
    if unseen or (rc and not err.strip()):
        why = "; ".join(unseen) or f"exit {rc}"
        module.fail_json(msg=f"find cannot list the {what} below {', '.join(roots)}: {why}")
    # each once: of mounts stacked on one directory all are started from
    return sorted({path for path in out.split("\0") if path})


def _harmless(complaint: str) -> bool:
    """Whether find missed nothing of the host's own: what vanished meanwhile, and dead mounts of others."""
    told = re.fullmatch(r"find: '(.*)': (.*)", complaint)
    return bool(told) and (told[2] == "No such file or directory" or told[1] in [mount.point for mount in _mounts()])


def _trees() -> List[str]:
    """Container trees, and where they are links what they point to."""
    return sorted({*CONTAINER_TREES, *(os.path.realpath(tree) for tree in CONTAINER_TREES)})


def _roots(without: Container[str] = ()) -> List[str]:
    """Where to start: local file systems that have none of these mount options, each once."""
    chosen: List[Tuple[str, str, str]] = []
    for mount in sorted(_mounts(), key=lambda mount: (len(mount.root), mount.point)):
        local = mount.point == "/" or mount.type in TYPES or (mount.type == "tmpfs" and mount.point in TMPFS)
        if not local or any(option in without for option in mount.options) or _below(mount.point, _trees()):
            continue
        if os.path.isdir(mount.point) and not any(
            mount.device == device and _below(mount.root, [root]) for _point, device, root in chosen
        ):
            chosen.append((mount.point, mount.device, mount.root))
    return sorted(point for point, _device, _root in chosen)


class _Mount(NamedTuple):
    point: str
    root: str
    type: str
    device: str
    options: List[str]


def _mounts() -> Iterable[_Mount]:
    """Fields as ``man 5 proc`` has them."""
    for line in core.read(MOUNTS).splitlines():
        fields = line.split()
        type_ = fields[fields.index("-", 6) + 1]
        yield _Mount(_unescaped(fields[4]), _unescaped(fields[3]), type_, fields[2], fields[5].split(","))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)


def _below(path: str, directories: Iterable[str]) -> bool:
    return any(path == directory or path.startswith(directory.rstrip("/") + "/") for directory in directories)
