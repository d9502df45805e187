# Copyright the cisdriver authors. Apache-2.0.
"""How probes look at a machine and how they say what they found.

Never imports ``apply``: the audit does not trust the hand that hardened.

A *finding* is a dict ``{"status", "reason", "evidence"}``. Status is one of STATUSES;
reason is a sentence for all but a pass; evidence is a list of
``{"object", "expected", "found", "ok"}`` and, where it is known, ``"source"``.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

STATUSES = ("pass", "fail", "not_applicable", "manual", "error")
CONTAINER_MARKS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")

Finding = Dict[str, Any]
Evidence = Dict[str, Any]


class ProbeError(Exception):
    """The probe could not look. It becomes the status ``error``, never a pass."""


class Output(NamedTuple):
    """What a program answered."""

    rc: int
    out: str
    err: str


def _run(argv: Sequence[str]) -> Output:
    env = {**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, env=env
        )
    except FileNotFoundError:
        return Output(127, "", f"{argv[0]}: not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeError(f"cannot run {' '.join(argv)}: {error}") from error
    return Output(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


class Node:
    """The machine under audit. Answers are kept, so that a hundred rules ask once.

    ``root`` points tests at a tree; ``run`` replaces the programs of the machine.
    Paths that go in and come out are the node's own (``/etc/passwd``), whatever the root.
    """

    def __init__(self, root: str = "/", run: Callable[[Sequence[str]], Output] = _run) -> None:
        self._root = root.rstrip("/")
        self._run = run
        self._outputs: Dict[Tuple[str, ...], Output] = {}
        self._texts: Dict[str, Optional[str]] = {}
        #: What a probe found at some expense and keeps for the next rule, under a name of its own.
        self.memo: Dict[Any, Any] = {}

    def real(self, path: str) -> str:
        return self._root + path

    def run(self, *argv: str) -> Output:
        """Output of a program that only reads; 127 when it is not installed."""
        if argv not in self._outputs:
            self._outputs[argv] = self._run(argv)
        return self._outputs[argv]

    def anew(self, *argv: str) -> Output:
        """Output of a program that acts, or whose answer may have changed since."""
        return self._run(argv)

    def must(self, *argv: str) -> str:
        """Standard output of a program that has to succeed. Raises ProbeError."""
        done = self.run(*argv)
        if done.rc != 0:
            raise ProbeError(f"{' '.join(argv)}: exit {done.rc}: {done.err.strip() or done.out.strip()}")
        return done.out

    def read(self, path: str) -> Optional[str]:
        """Text of a file, or None when there is none (a dangling link counts as none)."""
        if path not in self._texts:
            try:
                with open(self.real(path), encoding="utf-8", errors="replace") as file:
                    self._texts[path] = file.read()
            except (FileNotFoundError, NotADirectoryError):
                self._texts[path] = None
            except OSError as error:
                raise ProbeError(f"cannot read {path}: {error.strerror}") from error
        return self._texts[path]

    def lines(self, path: str) -> List[Tuple[int, str]]:
        """``(number, stripped text)`` of lines that hold more than a ``#`` comment."""
        numbered = enumerate((self.read(path) or "").splitlines(), 1)
        return [
            (number, line.strip()) for number, line in numbered if line.strip() and not line.lstrip().startswith("#")
        ]

    def glob(self, pattern: str) -> List[str]:
        found = glob.glob(self.real(pattern), recursive=True)
        return sorted(path[len(self._root) :] for path in found)

    def lstat(self, path: str) -> Optional[os.stat_result]:
        try:
            return os.lstat(self.real(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ProbeError(f"cannot stat {path}: {error.strerror}") from error

    def exists(self, path: str) -> bool:
        return os.path.exists(self.real(path))

    def in_container(self) -> bool:
        """Whether the kernel is a host's and not this machine's own."""
        return any(self.exists(mark) for mark in CONTAINER_MARKS)

    def merged(self, directories: Sequence[str], suffix: str) -> List[str]:
        """Files as systemd, modprobe and sysctl merge them: by base name, the first directory wins a name."""
        winners: Dict[str, str] = {}
        for directory in directories:
            for path in self.glob(f"{directory}/*{suffix}"):
                winners.setdefault(os.path.basename(path), path)
        return [winners[name] for name in sorted(winners)]

    def packages(self) -> Dict[str, str]:
        """Installed packages, name to version-release, from the RPM database."""
        listing = self.must("rpm", "-qa", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\\n")
        return dict(line.split(" ", 1) for line in listing.splitlines() if " " in line)


def about(node: Node) -> Dict[str, Any]:
    """What was looked at: ``{name, os, kernel}``."""
    release = dict(line.split("=", 1) for _number, line in node.lines("/etc/os-release") if "=" in line)
    uname = os.uname()
    return {"name": uname.nodename, "os": release.get("PRETTY_NAME", "").strip('"'), "kernel": uname.release}


def holds(predicate: Any, found: Any) -> bool:
    """Whether a found value meets a predicate.

    A predicate is a scalar (equal as text), or a mapping of ``min``, ``max``, ``in``,
    ``not`` (a list), ``matches`` (a whole-string regular expression), ``ignore_case``;
    all of them must hold. None, nothing found, meets no predicate.
    """
    if found is None:
        return False
    if not isinstance(predicate, Mapping):
        return as_text(predicate) == as_text(found)
    fold = str.lower if predicate.get("ignore_case") else str
    text = fold(as_text(found))
    if "min" in predicate or "max" in predicate:
        try:
            number = int(text)
        except ValueError:
            return False
        if number < predicate.get("min", number) or number > predicate.get("max", number):
            return False
    if "in" in predicate and text not in [fold(as_text(item)) for item in predicate["in"]]:
        return False
    if "not" in predicate and text in [fold(as_text(item)) for item in predicate["not"]]:
        return False
    return "matches" not in predicate or re.fullmatch(predicate["matches"], text) is not None


def describe(predicate: Any) -> str:
    """A predicate in words, for evidence."""
    if not isinstance(predicate, Mapping):
        return as_text(predicate)
    parts = []
    if "min" in predicate and "max" in predicate:
        parts.append(f"{predicate['min']} to {predicate['max']}")
    elif "min" in predicate:
        parts.append(f"at least {predicate['min']}")
    elif "max" in predicate:
        parts.append(f"at most {predicate['max']}")
    if "in" in predicate:
        parts.append(" or ".join(as_text(item) for item in predicate["in"]))
    if "not" in predicate:
        parts.append("not " + " or ".join(as_text(item) for item in predicate["not"]))
    if "matches" in predicate:
        parts.append(f"matching {predicate['matches']}")
    return ", ".join(parts)


def as_text(value: Any) -> str:
    """A YAML scalar as configuration files write it: booleans are yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def evidence(object_: str, expected: Any, found: Any, ok: bool, source: Optional[str] = None) -> Evidence:
    """One thing looked at. ``found`` None is shown as ``not set``."""
    text = "not set" if found is None else _utf8(as_text(found))
    item = {"object": one_line(object_), "expected": describe(expected), "found": text, "ok": ok}
    if source:
        item["source"] = one_line(source)
    return item


def one_line(name: str) -> str:
    """A file's name as a line of text, whatever bytes it has."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in _utf8(name)
    )


def _utf8(text: str) -> str:
    """Bytes that are no UTF-8 written out: Ansible refuses an answer that has them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def verdict(items: List[Evidence]) -> Finding:
    """Pass when all evidence is ok, else fail with a sentence that names the first offender."""
    bad = [item for item in items if not item["ok"]]
    if not bad:
        return {"status": "pass", "reason": "", "evidence": items}
    first = bad[0]
    where = f" in {first['source']}" if first.get("source") else ""
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    reason = f"{first['object']}: expected {first['expected']}, found {first['found']}{where}{more}"
    return {"status": "fail", "reason": reason, "evidence": items}


def not_applicable(reason: str) -> Finding:
    return {"status": "not_applicable", "reason": reason, "evidence": []}


def combine(findings: List[Finding]) -> Finding:
    """One finding for a rule of several kinds: the worst status wins, not applicable only if all are."""
    for status in ("error", "fail", "pass", "not_applicable"):
        matching = [finding for finding in findings if finding["status"] == status]
        if matching:
            items = [item for finding in findings for item in finding["evidence"]]
            reasons = [finding["reason"] for finding in matching if finding["reason"]]
            return {"status": status, "reason": "; ".join(reasons), "evidence": items}
    raise ValueError("no finding to combine")
