"""Where each setting stands in the text of a TOML file, so that a message can name its line.

Not a parser: the text was read by ``tomllib`` before, or is being searched for the place of a syntax error. The
scanner follows tables, arrays of tables, dotted and quoted keys, inline tables, arrays and multi-line strings, and
of anything else it makes what it can without complaint. It runs only when there is something to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Positions", "find_positions"]

Path = tuple[str | int, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}\r\n#]*")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"?'),
    re.compile(r"'[^'\n]*'?"),
)
_ESCAPES = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_PLAIN_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}
_DEEPEST = 100


class Positions:
    """The line of each key path; a path that is not there has the line of its nearest parent."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line (from 1) of a setting, or of what it should stand in; None for the file as a whole."""
        whole = tuple(path)
        for length in range(len(whole), 0, -1):
            found = self._lines.get(whole[:length])
            if found is not None:
                return found
        return None

    def has(self, path: Sequence[str | int]) -> bool:
        """Tell whether the file itself has this setting."""
        return tuple(path) in self._lines


def find_positions(text: str) -> Positions:
    """Scan a TOML text; never raises."""
    scanner = _Scanner(text)
    scanner.scan()
    return Positions(scanner.lines)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._line = 1
        self._counted_to = 0
        self._arrays: dict[Path, int] = {}

    def scan(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return
            start = self.at
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table, 0)
            if self.at == start:
                self._to_next_line()

    def _header(self) -> Path:
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        line = self._line_here()
        path: Path = ()
        keys = self._keys()
        for number, key in enumerate(keys):
            path = (*path, key)
            if is_array and number == len(keys) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self._note(path, line)
            if path in self._arrays:
                path = (*path, self._arrays[path])
            self._note(path, line)
        self._to_next_line()
        return path

    def _pair(self, table: Path, depth: int) -> None:
        line = self._line_here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, line)
        self._skip(_SPACE)
        if self._peek() == "=":
            self.at += 1
            self._skip(_SPACE)
            self._value(path, depth)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            key = self._key()
            if key is None:
                return keys
            keys.append(key)
            self._skip(_SPACE)
            if self._peek() != ".":
                return keys
            self.at += 1

    def _key(self) -> str | None:
        if self._peek() in ('"', "'"):
            raw = self._string()
            return _unescape(raw[1:-1]) if raw[:1] == '"' else raw[1:-1]
        bare = _BARE.match(self.text, self.at)
        if bare is None:
            return None
        self.at = bare.end()
        return bare[0]

    def _value(self, path: Path, depth: int) -> None:
        first = self._peek()
        if first in ('"', "'"):
            self._string()
        elif first in ("[", "{") and depth < _DEEPEST:
            self._items(path, depth + 1, is_table=first == "{")
        else:
            self._skip(_SCALAR)

    def _items(self, path: Path, depth: int, *, is_table: bool) -> None:
        """The members of an inline table or an array."""
        self.at += 1
        number = 0
        while self.at < len(self.text):
            self._skip(_BLANK)
            start = self.at
            if self._peek() in ("]", "}", ""):
                self.at += 1
                return
            if is_table:
                self._pair(path, depth)
            else:
                self._note((*path, number), self._line_here())
                self._value((*path, number), depth)
            number += 1
            self._skip(_BLANK)
            if self._peek() == ",":
                self.at += 1
            if self.at == start:
                self.at += 1  # not TOML: go on behind it

    def _string(self) -> str:
        for pattern in _STRINGS:
            found = pattern.match(self.text, self.at)
            if found is not None:
                self.at = found.end()
                return found[0]
        start, self.at = self.at, len(self.text)
        return self.text[start:]

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()

    def _to_next_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)


def _unescape(text: str) -> str:
    return _ESCAPES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) > 1:
        value = int(code[1:], 16)
        return chr(value) if value < 0x110000 else "\ufffd"
    return _PLAIN_ESCAPES.get(code, code)
