"""Where in a TOML text each key and list entry stands, so that a problem can name its line.

``tomllib`` gives values without positions, so this walks the text once more. It is given only
texts that ``tomllib`` has accepted and therefore checks nothing. Source: TOML 1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
#: the four kinds of strings, long ones first; a long one may end in up to two more quotes
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|'
    r"'''.*?'''(?:'{0,2})|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'",
    re.DOTALL,
)


class _Walk:
    """One pass over a text. ``found`` maps the path of every key and entry to its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.found: dict[Path, int] = {}
        #: arrays of tables, with the index of the last entry
        self.arrays: dict[Path, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Move over what ``pattern`` matches here, possibly nothing, and return it."""
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return match.group() if match else ""

    def take(self, literal: str) -> bool:
        """Move over ``literal`` when it stands here."""
        if not self.text.startswith(literal, self.at):
            return False
        self.at += len(literal)
        return True

    def note(self, path: Path, at: int) -> None:
        """Remember the first line of ``path`` and of every table that it implies."""
        line = bisect_right(self.starts, at)
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], line)

    def key(self) -> Path:
        """A key with its dots."""
        parts: list[str | int] = []
        while True:
            self.skip(_SPACE)
            quoted = self.skip(_STRING)
            parts.append(tomllib.loads(f"k={quoted}")["k"] if quoted else self.skip(_BARE))
            self.skip(_SPACE)
            if not self.take("."):
                return tuple(parts)

    def value(self, path: Path) -> None:
        """A value, with the positions of what is inside it."""
        if self.take("["):
            self.array(path)
        elif self.take("{"):
            self.inline(path)
        elif not self.skip(_STRING):
            self.skip(_SCALAR)

    def array(self, path: Path) -> None:
        """The rest of an array."""
        index = 0
        while True:
            self.skip(_BLANK)
            if self.take("]") or self.at >= len(self.text):
                return
            self.note((*path, index), self.at)
            self.value((*path, index))
            index += 1
            self.skip(_BLANK)
            self.take(",")

    def inline(self, path: Path) -> None:
        """The rest of an inline table."""
        while True:
            self.skip(_BLANK)
            if self.take("}") or self.at >= len(self.text):
                return
            self.pair(path)
            self.skip(_BLANK)
            self.take(",")

    def pair(self, table: Path) -> None:
        """``key = value``."""
        start = self.at
        path = table + self.key()
        self.note(path, start)
        self.take("=")
        self.skip(_SPACE)
        self.value(path)

    def header(self) -> Path:
        """``[table]`` or ``[[entry]]``; returns the path of what follows."""
        start = self.at
        self.take("[")
        entry = self.take("[")
        keys = self.key()
        self.take("]]" if entry else "]")
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if entry and number == len(keys) - 1:
                self.arrays[path] = self.arrays.get(path, -1) + 1
            if path in self.arrays:
                path = (*path, self.arrays[path])
        self.note(path, start)
        return path

    def run(self) -> None:
        """The whole text."""
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return
            before = self.at
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            if self.at == before:
                return


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every key, table and list entry in a valid TOML text, by its path."""
    walk = _Walk(text)
    try:
        walk.run()
    except RecursionError:
        # nested beyond reason; what was found so far is right
        return walk.found
    return walk.found


def spell(path: Path) -> str:
    """A path as a person writes it: ``servers[1].stations``, ``images."my image".suite``."""
    said = ""
    for part in path:
        if isinstance(part, int):
            said += f"[{part}]"
        else:
            said += ("." if said else "") + (part if _BARE.fullmatch(part) else show(part))
    return said


def show(value: object) -> str:
    """A value as it would stand in the file, on one line, at most 60 characters, printable."""
    if isinstance(value, bool):
        said = "true" if value else "false"
    elif isinstance(value, str):
        shown = (c if c.isprintable() and c not in '"\\' else _escape(c) for c in value[:60])
        said = f'"{"".join(shown)}{"…" if len(value) > 60 else ""}"'
    elif isinstance(value, dict):
        said = "{…}" if value else "{}"
    elif isinstance(value, list):
        said = "[…]" if value else "[]"
    elif isinstance(value, int) and value.bit_length() > 200:
        said = "a number of more than 60 digits"
    else:
        said = str(value)
    return said


def _escape(character: str) -> str:
    """One character as a TOML escape."""
    if character in '"\\':
        return "\\" + character
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\u{ord(character):04x}")
