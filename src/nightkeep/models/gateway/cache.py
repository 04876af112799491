"""The cache of exact matches: an answer that was paid for once may serve the same request again.

Off unless the operator turns it on, and then only for requests that allow it (``x-nightkeep-cache: use``, or
``refresh`` to replace what is kept; ``cache-control: no-store`` forbids, ``no-cache`` refreshes). Exact means the same
scope, door and bytes of the body; nothing is guessed, and no scope ever sees another's answer (law 10). Only whole,
successful answers are kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.core.errors import RequestError
from nightkeep.models.gateway.call import Call
from nightkeep.models.gateway.tape import Recording

__all__ = ["CacheMode", "ResponseCache"]

CacheMode = Literal["off", "use", "refresh"]
_SHARE_OF_ONE: Final = 8  # one answer may take an eighth of the cache at the most


class _Entry(msgspec.Struct, frozen=True):
    recording: Recording
    stored: float  # monotonic seconds


class ResponseCache:
    """Answers by their request, bounded in bytes and time."""

    def __init__(self, clock: Clock, *, is_enabled: bool, ttl_s: float, max_bytes: int) -> None:
        self.is_enabled = is_enabled
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0

    def mode(self, call: Call) -> CacheMode:
        """What the request allows. Raises RequestError on an unknown word."""
        wanted = call.headers.get("x-nightkeep-cache", "off")
        if wanted not in ("off", "use", "refresh"):
            raise RequestError(f"x-nightkeep-cache is 'use', 'refresh' or 'off', not {wanted[:40]!r}")
        control = call.headers.get("cache-control", "") if self.is_enabled and wanted != "off" else "no-store"
        if "no-store" in control:
            return "off"
        return "refresh" if wanted == "refresh" or "no-cache" in control else "use"

    def find(self, call: Call) -> tuple[Recording, int] | None:
        """The answer and its age in seconds."""
        key = _key(call)
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = self._clock.monotonic() - entry.stored
        if age > self.ttl_s:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.recording, int(age)

    def keep(self, call: Call, recording: Recording) -> None:
        """Keep an answer; the least used make room."""
        if len(recording.body) > self.max_bytes // _SHARE_OF_ONE:
            return
        key = _key(call)
        self._remove(key)
        self._entries[key] = _Entry(recording, self._clock.monotonic())
        self._bytes += len(recording.body)
        while self._bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.recording.body)


def _key(call: Call) -> bytes:
    about = f"{call.scope}\n{call.door.path}\n{call.head.model}\n{call.head.stream}\n{call.tag}\n{call.task}\n"
    return hashlib.sha256(about.encode() + call.body).digest()
