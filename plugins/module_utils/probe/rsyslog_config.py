# Copyright the cisdriver authors. Apache-2.0.
"""rsyslog's configuration as a sequence of statements, in both of its languages, includes in their place.

Legacy lines (``$Directive value``, ``selector  action``) end with the line; RainerScript objects (``module(...)``) with
their parenthesis. https://www.rsyslog.com/doc/configuration/conf_formats.html
"""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, NamedTuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

MAIN = "/etc/rsyslog.conf"
_BLANK = re.compile(r"(?:\s+|#[^\n]*|/\*.*?\*/)*", re.S)
_OBJECT = re.compile(r"\b(action|global|include|input|module)\s*\(", re.I)
#: The rest of an object: text, strings, whole-line comments, up to its parenthesis.
_BODY = re.compile(r'(?:[^"#()]|"(?:\\.|[^"\\])*"|#[^\n]*\n)*\)', re.S)
#: A line whose comment begins outside of a string.
_COMMENT = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^"#])*\s#')
_PARAMETER = re.compile(r'([\w.]+)\s*=\s*\[?\s*"((?:\\.|[^"\\])*)"')
_LINE = re.compile(r"(?:\\\n|[^\n])*")
_DEEPEST = 10


class Statement(NamedTuple):
    """``name`` is that of an object, or of a legacy directive with its ``$``, in lower case; empty for a rule.

    ``text`` is the statement on one line, for an object without what stands before it on the line (``selector``).
    """

    name: str
    text: str
    parameters: Dict[str, str]
    selector: str
    source: str

    @property
    def target(self) -> str:
        """The last word of a legacy line: the action of a rule, the value of a directive."""
        words = [word for word in self.text.split() if word not in ("{", "}")]
        return words[-1] if len(words) > 1 else ""


def statements(node: core.Node, path: str = MAIN, depth: int = 0) -> Iterator[Statement]:
    """Every statement from a file on, in the order in which rsyslog reads them."""
    if depth > _DEEPEST:
        raise core.ProbeError(f"{path}: included more than {_DEEPEST} deep; does it include itself?")
    for statement in _of_text(node.read(path) or "", path):
        yield statement
        pattern = ""
        if statement.name == "$includeconfig":
            pattern = statement.target
        elif statement.name == "include":
            pattern = statement.parameters.get("file", "")
        for included in _matching(node, pattern) if pattern else ():
            yield from statements(node, included, depth + 1)


def _matching(node: core.Node, pattern: str) -> List[str]:
    return node.glob(pattern + "*" if pattern.endswith("/") else pattern)


def _of_text(text: str, path: str) -> Iterator[Statement]:
    place = 0
    while True:
        blank = _BLANK.match(text, place)
        place = blank.end() if blank else place
        if place >= len(text):
            return
        source = f"{path}:{text.count(chr(10), 0, place) + 1}"
        rest = _LINE.match(text, place)
        line = rest[0] if rest else ""
        found = None if line.startswith("$") else _OBJECT.search(line)
        found = None if found and _COMMENT.match(line[: found.start()]) else found
        body = _BODY.match(text, place + found.end()) if found else None
        if found and body:
            yield _object(found[1].lower(), text[place + found.start() : body.end()], line[: found.start()], source)
            place = body.end()
            continue
        yield _legacy(line, source)
        place += max(len(line), 1)


def _object(name: str, text: str, selector: str, source: str) -> Statement:
    plain = re.sub(r"(?m)^\s*#.*$", "", text)
    parameters = {key.lower(): value for key, value in _PARAMETER.findall(plain)}
    return Statement(name, " ".join(plain.split()), parameters, selector.strip(), source)


def _legacy(line: str, source: str) -> Statement:
    text = " ".join(re.sub(r"(?:\\\n|\s#.*)", " ", line).split())
    name = text.split()[0].lower() if text.startswith("$") else ""
    return Statement(name, text, {}, "", source)
