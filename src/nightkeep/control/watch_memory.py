"""Memory with an end: what was used last is kept, so that no flood of scopes or runs fills the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Lately"]

K = TypeVar("K")
V = TypeVar("V")


class Lately(Generic[K, V]):
    """The entries that were used last."""

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self._most = most
        self._make = make
        self._entries: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def use(self, key: K) -> V:
        """The entry of a key, made where there is none; the one that was not used for longest makes room."""
        entry = self._entries.pop(key, None)
        if entry is None:
            entry = self._make()
            if len(self._entries) >= self._most:
                del self._entries[next(iter(self._entries))]
        self._entries[key] = entry
        return entry

    def peek(self, key: K) -> V | None:
        """The entry of a key, if there is one."""
        return self._entries.get(key)

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """All of it, what was used last at the end."""
        return list(self._entries.items())
