# Copyright the cisdriver authors. Apache-2.0.
"""What the batch modules share: the argument, the drop-in they own, atomic writes, the answer.

Never imports ``probe``: the audit must not share code with the hand that hardens.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from typing import Any, Callable, Container, Dict, Iterable, List, Mapping, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule

#: First line of every file of which this collection owns the whole.
HEADER = "# Written by cisdriver.amazon_linux: it owns this file, changes made here are lost."

RULES_ARGUMENT: Dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "rule": {"type": "str", "required": True},
        "id": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "keep", "absent"], "default": "present"},
        "want": {"type": "raw"},
    },
}


#: Where a module keeps what stood in files of others before it changed them.
MEMORY = "/var/lib/cisdriver"

#: Begins the name of whatever lies about only while a module is at work.
TEMPORARY = ".cisdriver-"
LOCK = "/run/cisdriver.lock"
_LOCK_SECONDS = 600


class Batch:
    """One pass over the rules of one module call, and the answer it gives.

    ``present`` are the rules to bring about, ``keep`` the slugs outside this run's tags, ``absent`` the slugs of which
    whatever this module once wrote is to be taken away, and nothing else.
    """

    def __init__(self, module: AnsibleModule, memory: str = "") -> None:
        self.module = module
        self.present: List[Dict[str, Any]] = [r for r in module.params["rules"] if r["state"] == "present"]
        self.keep = {r["rule"] for r in module.params["rules"] if r["state"] == "keep"}
        self.absent = [r["rule"] for r in module.params["rules"] if r["state"] == "absent"]
        self._memory_path = os.path.join(module.params["memory"], memory + ".json") if memory else ""
        self._memory: Dict[str, Dict[str, Tuple[Any, Any]]] = self._remembered()
        self._memory_stale = False
        self._rules: Dict[str, Dict[str, Any]] = {}
        self._diffs: List[Dict[str, str]] = []
        self._changed = False
        for rule in self.present:
            if not isinstance(rule["want"], (dict, list)):
                module.fail_json(
                    msg=f"rule {rule['rule']} ({rule['id']}): expected a mapping or list, found {rule['want']!r}"
                )

    def remember(self, rule: str, object_: str, before: Any, after: Any) -> None:
        """Note what a rule changes in something that is not ours, so that it can be given back.

        ``before`` and ``after`` are JSON values, None where there was or will be nothing. Call it before the change is
        made: write() stores it first. What stood there before the first change is kept through later ones. What needs
        no change is not noted: where an administrator has chosen it since, it is not ours to take away.
        """
        known = self._memory.get(rule, {}).get(object_)
        if before == after:
            return
        entry = (known[0] if known else before, after)
        if entry != known:
            self._memory.setdefault(rule, {})[object_] = entry
            self._memory_stale = True

    def given_back(self, rule: str) -> Dict[str, Tuple[Any, Any]]:
        """What a rule changed: object to ``(before, after)``.

        The caller puts ``before`` where it still finds ``after``; anything else an administrator has put there since.
        """
        return dict(self._memory.get(rule, {}))

    def forget(self, rule: str, object_: Optional[str] = None) -> None:
        """Drop the memory of a rule, or of one object of it."""
        if object_ is None:
            self._memory_stale |= self._memory.pop(rule, None) is not None
        elif self._memory.get(rule, {}).pop(object_, None) is not None:
            self._memory_stale = True
            if not self._memory[rule]:
                del self._memory[rule]

    def _remembered(self) -> Dict[str, Dict[str, Tuple[Any, Any]]]:
        text = read(self._memory_path) if self._memory_path else ""
        try:
            found = json.loads(text) if text else {}
            return {rule: {name: (was, now) for name, (was, now) in of.items()} for rule, of in found.items()}
        except (ValueError, AttributeError, TypeError) as error:
            self.module.fail_json(
                msg=f"{self._memory_path}: expected JSON as this module writes it, found something else ({error});"
                " nothing was changed. Move the file away: what was changed before can then not be given back"
            )
            return {}

    def store(self) -> None:
        """Write the memory down. write() and exit() do; a module that changes more than files does so before."""
        if not self._memory_stale or self.module.check_mode:
            return
        self._memory_stale = False
        try:
            if self._memory:
                os.makedirs(os.path.dirname(self._memory_path), mode=0o700, exist_ok=True)
                self.put(self._memory_path, json.dumps(self._memory, indent=1, sort_keys=True) + "\n", 0o600)
            elif os.path.exists(self._memory_path):
                os.unlink(self._memory_path)
        except OSError as error:
            self.fail(f"{self._memory_path}: cannot be written, so nothing is changed: {error.strerror}")

    def record(self, rule: str, before: Any, after: Any) -> None:
        """Note what one rule found and left. Called again for the same rule, it adds."""
        entry = self._rules.setdefault(rule, {"changed": False, "before": {}, "after": {}})
        if before != after:
            entry["changed"] = self._changed = True
        entry["before"].update(before)
        entry["after"].update(after)

    def changed_file(self, path: str, before: str, after: str) -> None:
        """Note a file that differs, for ``--diff``."""
        if before != after:
            self._changed = True
            self._diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})

    def write(
        self,
        path: str,
        after: str,
        mode: int = 0o644,
        validate: Optional[Callable[[str], str]] = None,
        shown: Callable[[str], str] = str,
    ) -> bool:
        """Make ``path`` hold ``after`` (empty: remove it), atomically. Returns whether it differed.

        ``validate`` gets the name of the new file before it is put in place and returns
        an error text, or nothing; the old file stays when it objects. ``shown`` makes of a
        text what ``--diff`` may show of it.
        """
        before = read(path)
        if before == after:
            return False
        self.changed_file(path, shown(before), shown(after))
        if self.module.check_mode:
            return True
        self.store()
        try:
            if after:
                self.put(path, after, mode, validate)
            else:
                os.unlink(path)
        except OSError as error:  # read-only file system, immutable file, full disk
            self.fail(f"{path}: cannot be written, the old text stays: {error.strerror}")
        return True

    def restrict(self, path: str, mode: int) -> None:
        """Take from an owned file the mode bits beyond ``mode``: a file replaced keeps the mode it had."""
        try:
            current = os.stat(path).st_mode & 0o7777
        except FileNotFoundError:
            return
        if current & ~mode:
            self.changed_file(path, f"mode {current:04o}\n", f"mode {current & mode:04o}\n")
            if not self.module.check_mode:
                try:
                    os.chmod(path, current & mode)
                except OSError as error:
                    self.fail(f"{path}: expected mode {mode:04o} or less, cannot be set: {error.strerror}")

    def put(
        self,
        path: str,
        text: str,
        mode: int = 0o644,
        validate: Optional[Callable[[str], str]] = None,
        like: Optional[str] = None,
    ) -> None:
        """Put a file in place in one step: a reader, a kill and a power cut meet the old one or the new one, whole.

        It gets the mode, owner and label of ``like``, by default of the file that is there; where there is none,
        ``mode``. Nothing is left to be done once it is in place: nobody would do it after an interruption. When this
        returns it is on disk, and so whatever comes after it cannot be there without it. Raises OSError.
        """
        directory, like = os.path.dirname(path), path if like is None else like
        os.makedirs(directory, mode=0o755, exist_ok=True)
        remove_temporary(directory)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                file.flush()
                self._dress(temporary, path, mode, like)
                os.fsync(file.fileno())
            problem = validate(temporary) if validate else ""
            if problem:
                self.fail(f"{path}: the new text is refused, the old one stays: {problem}")
            if os.path.exists(path):
                os.close(os.open(path, os.O_WRONLY))  # an immutable file refuses here, as the error it is
            os.rename(temporary, path)
            sync_directory(directory)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def _dress(self, temporary: str, path: str, mode: int, like: str) -> None:
        if os.path.exists(like):
            about = os.stat(like)
            os.chown(temporary, about.st_uid, about.st_gid)
            shutil.copystat(like, temporary)  # with access lists and the SELinux label
            os.utime(temporary)
            return
        os.chmod(temporary, mode)
        if self.module.selinux_enabled():
            self.module.set_context_if_different(temporary, self.module.selinux_default_context(path), False)

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=_text(message), rules=_text(self._rules))

    def exit(self) -> None:
        self.store()
        self.module.exit_json(changed=self._changed, diff=_text(self._diffs), rules=_text(self._rules))


def batch_module(memory: str = "", **arguments: Any) -> Batch:
    """The module of one kind: ``rules`` plus what the kind needs besides; check mode always.

    ``memory`` is the kind's name where the module changes what is not ours: its option ``memory`` is the directory.
    """
    spec = {"rules": RULES_ARGUMENT, **arguments}
    if memory:
        spec["memory"] = {"type": "path", "default": MEMORY}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if not module.check_mode:
        _be_alone(module)
    return Batch(module, memory)


def _be_alone(module: AnsibleModule) -> None:
    """Wait for a module of another run: one whose connection is cut goes on to its end. The lock goes with it."""
    try:
        handle = os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # a chroot without /run: nobody else works there
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                module.fail_json(
                    msg=f"another run has been changing this machine for {_LOCK_SECONDS} s ({LOCK} is held)"
                )
            time.sleep(0.2)
    remove_temporary(tempfile.gettempdir())


def remove_temporary(directory: str) -> None:
    """Take away what a module that was killed left lying in a directory."""
    for entry in os.scandir(directory):
        if entry.name.startswith(TEMPORARY) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)


def sync_directory(directory: str) -> None:
    """Bring the names in a directory to disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str) -> str:
    """Text of a file, empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _text(value: Any) -> Any:
    """An answer whose bytes that are no UTF-8, of names or of files, are written out: Ansible refuses others."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_text(key): _text(item) for key, item in value.items()}
    return [_text(item) for item in value] if isinstance(value, (list, tuple)) else value


Blocks = Dict[str, Tuple[str, List[str]]]


def dropin(
    before: str,
    present: Iterable[Mapping[str, Any]],
    keep: Container[str],
    lines_of: Callable[[Mapping[str, Any]], List[str]],
    prefix: str = "",
) -> str:
    """The owned file anew: a block per rule, ``# <id> <slug>`` above its lines.

    ``present`` and ``keep`` are as of a Batch. Blocks of ``keep`` rules stand as they were, those of any other
    rule are gone. Sorted by id, so that one rule alone and all together give the same file.
    """
    blocks: Blocks = {slug: block for slug, block in _blocks(before).items() if slug in keep}
    for rule in present:
        lines = lines_of(rule)
        if lines:  # a rule may ask for something outside of this file
            blocks[rule["rule"]] = (rule["id"], lines)
    if not blocks:
        return ""
    text = [HEADER] + ([prefix] if prefix else [])
    for slug, (id_, lines) in sorted(blocks.items(), key=lambda item: (_numbers(item[1][0]), item[0])):
        text += [f"# {id_} {slug}", *lines]
    return "\n".join(text) + "\n"


def block_lines(text: str, slug: str) -> List[str]:
    """Lines that an owned file holds for a rule."""
    return _blocks(text).get(slug, ("", []))[1]


def _blocks(text: str) -> Blocks:
    blocks: Blocks = {}
    current: List[str] = []
    for line in text.splitlines():
        words = line[2:].split() if line.startswith("# ") else []
        if len(words) == 2 and words[0][0].isdigit():
            current = []
            blocks[words[1]] = (words[0], current)
        elif blocks:
            current.append(line)
    return blocks


def _numbers(id_: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in id_.split(".") if part.isdigit())
