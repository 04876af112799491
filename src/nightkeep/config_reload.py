"""Reload without I/O: has the file changed, and what is different in the new settings.

Reading the file and swapping the running parts is ``bootstrap``'s; an invalid file never gets that far, since
``nightkeep.config.parse`` raises (Q-PROXY-12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from nightkeep.config_messages import setting_name
from nightkeep.config_models import Settings

__all__ = ["Change", "ReloadWatcher", "Stamp", "diff", "flatten"]

Stamp = tuple[int, int, int]
"""A file's modification time in ns, its size in bytes, and its inode."""

_AT_START_ONLY: Final = frozenset({"gateway.host", "gateway.port", "sim.scenario"})
_HIDDEN: Final = frozenset({"hash", "webhook"})


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that is not what it was."""

    setting: str
    before: str | None  # None: it was not there
    after: str | None
    needs_restart: bool = False

    def __str__(self) -> str:
        note = " (takes effect after a restart)" if self.needs_restart else ""
        if self.before is None:
            return f"{self.setting} = {self.after} added{note}"
        if self.after is None:
            return f"{self.setting} removed{note}"
        return f"{self.setting}: {self.before} -> {self.after}{note}"


def diff(old: Settings, new: Settings) -> list[Change]:
    """What is different, by name, in the order of the new settings and then of what is gone."""
    before, after = flatten(old), flatten(new)
    names = [*after, *(name for name in before if name not in after)]
    return [
        Change(setting=name, before=before.get(name), after=after.get(name), needs_restart=name in _AT_START_ONLY)
        for name in names
        if before.get(name) != after.get(name)
    ]


def flatten(settings: Settings) -> dict[str, str]:
    """Each setting that has a value, as it could stand in a file; no secret is in it."""
    return {setting_name(path): shown for path, shown in _leaves(settings, ())}


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for number, each in enumerate(value):
            yield from _leaves(each, (*path, number))
    elif value is not None and value != ():
        yield path, _hidden(value) if path[-1] in _HIDDEN else _toml(value)


def _hidden(value: Any) -> str:
    text = str(value)
    if text.startswith(("env:", "file:", "cmd:")):
        return _toml(text)
    return f'"…" # {hashlib.sha256(text.encode()).hexdigest()[:8]}'


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return f"{value:g}" if isinstance(value, float) else str(value)


class ReloadWatcher:
    """Tells whether a file has new content. A content that was refused is not told again until it changes."""

    def __init__(self, source_hash: str, stamp: Stamp | None = None) -> None:
        self._hash = source_hash
        self._stamp = stamp

    def observe(self, stamp: Stamp | None, read: Callable[[], bytes]) -> bytes | None:
        """Look at the file: its new content, or None where there is none (or no file: what runs goes on).

        ``read`` is called only where the stamp is another; it may raise OSError, after which the next look reads.
        """
        if stamp is None or stamp == self._stamp:
            return None
        data = read()
        self._stamp = stamp
        found = hashlib.sha256(data).hexdigest()
        if found == self._hash:
            return None
        self._hash = found
        return data
