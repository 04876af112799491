"""Time, ids and randomness as ports: nothing below ``bootstrap`` asks the machine for them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

__all__ = ["Clock", "Randomness", "new_id"]

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """The wall clock: aware, in UTC. For records and windows; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back. For deadlines and durations."""
        ...


class Randomness(Protocol):
    """Where jitter and ids come from; ``random.Random`` fits."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


def new_id(prefix: str, now: datetime, randomness: Randomness) -> str:
    """Make an id such as ``call_01JD8X…``: a ULID (48 bits of ms, 80 random bits), sortable by time."""
    value = (int(now.timestamp() * 1000) << 80) | randomness.getrandbits(80)
    return prefix + "_" + "".join([_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5)])
