"""How many notifications a channel takes: at most so many an hour, a quarter of them kept for what is critical.

Pure: seconds that never go back come in as arguments.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

__all__ = ["Admission", "RateGate"]

Admission = Literal["send", "last", "hold"]
"""``last``: it goes out, and what comes after it waits."""

_HOUR_S: Final = 3_600.0


class RateGate:
    """Admits messages over a sliding hour."""

    def __init__(self, per_hour: int) -> None:
        self.per_hour = per_hour
        self._sent: deque[float] = deque()

    @property
    def _kept(self) -> int:
        return self.per_hour // 4

    def admit(self, now_s: float, *, is_critical: bool) -> Admission:
        """Take a place, if there is one. A storm of warnings does not take the places of critical alerts."""
        self._forget(now_s)
        room = self._room(is_critical)
        if room <= 0:
            return "hold"
        self._sent.append(now_s)
        return "last" if room == 1 else "send"

    def free_in_s(self, now_s: float, *, is_critical: bool) -> float:
        """Seconds until there is a place; 0 where there is one now."""
        self._forget(now_s)
        missing = 1 - self._room(is_critical)
        if missing <= 0 or not self._sent:
            return 0.0
        return max(0.0, self._sent[min(missing, len(self._sent)) - 1] + _HOUR_S - now_s)

    def _room(self, is_critical: bool) -> int:
        return self.per_hour - (0 if is_critical else self._kept) - len(self._sent)

    def _forget(self, now_s: float) -> None:
        while self._sent and self._sent[0] + _HOUR_S <= now_s:
            self._sent.popleft()
