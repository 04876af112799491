"""One account at work: its state, what is in flight, its meters, quota windows and breakers, in one place.

Asked by ``nightkeep.models.pools`` whether it can take a call; told by ``nightkeep.models.account_book`` what
became of it. ``now`` is monotonic seconds, ``epoch`` the same moment on the wall clock.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nightkeep.control.meters import NO_LIMIT, Limits, Meter, MeterEntry
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.accounts import AccountSpec, AccountState, AccountStatus
from nightkeep.models.breaker import Breaker
from nightkeep.models.quota import NEVER, QuotaWindow, make_window

__all__ = ["Block", "LiveAccount"]

_NO_LIMITS: Final = Limits()
_ROUNDING_S: Final = 0.001  # wall-clock times lose microseconds on their way to the monotonic clock
_MOST_BREAKERS: Final = 256  # model names may come from clients


class Block(msgspec.Struct, frozen=True):
    """Why an account cannot take a call, and when (monotonic seconds) that ends."""

    reason: str
    at: float  # at the earliest. NEVER: only by somebody's act; not after now: perhaps when a call in flight ends
    retry_at: float  # by the passing of time alone; NEVER: time alone does not end it


class LiveAccount:
    """An account's live counters. Changes of ``state`` go through the book, which reports them."""

    __slots__ = (
        "blocked_until",
        "breakers",
        "in_flight",
        "last_verdict",
        "meter",
        "most_concurrent",
        "quotas",
        "saved_for",
        "spec",
        "state",
    )

    def __init__(self, spec: AccountSpec) -> None:
        self.state = AccountState()
        self.blocked_until = 0.0  # monotonic; the hot path's view of the state
        self.in_flight = 0
        self.breakers: dict[str, Breaker] = {}
        self.last_verdict: Verdict | None = None
        self.saved_for: object | None = None  # the waiter for whose large request it is kept free
        self.meter: Meter | None = None
        self.quotas: list[QuotaWindow] = []
        self.set_spec(spec)

    def set_spec(self, spec: AccountSpec) -> None:
        """Take a new configuration and keep every counter that still has a meaning."""
        self.spec = spec
        limits = spec.limits or _NO_LIMITS
        self.most_concurrent = NO_LIMIT if limits.concurrent is None else limits.concurrent
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            self.meter = None
        elif self.meter is None:
            self.meter = Meter(limits)
        else:
            self.meter.set_limits(limits)
        known = {window.quota.key: window for window in self.quotas}
        self.quotas = []
        for quota in spec.quota:
            window = known.pop(quota.key, None) or make_window(quota)
            window.set_quota(quota)
            self.quotas.append(window)

    def is_ready(self, model: str, tokens: int, now: float, epoch: float, waiter: object | None) -> bool:
        """Whether it can take a call now."""
        if now < self.blocked_until or self.in_flight >= self.most_concurrent:
            return False
        if self.saved_for is not None and self.saved_for is not waiter:
            return False
        if self.state.quota_streak and self.in_flight:
            return False
        if self.meter is not None and not self.meter.is_ready(tokens, now):
            return False
        for window in self.quotas:
            if not window.is_ready(tokens, epoch):
                return False
        if self.breakers:
            breaker = self.breakers.get(model)
            return breaker is None or breaker.is_ready(now)
        return True

    def blocks(self, model: str, tokens: int, now: float, epoch: float, waiter: object | None) -> list[Block]:
        """Every reason why it cannot take a call; empty exactly when ``is_ready``."""
        found: list[Block] = []
        if now < self.blocked_until:
            found.append(Block(str(self.state.status), self.blocked_until, self.blocked_until))
        if self.in_flight >= self.most_concurrent or (self.state.quota_streak and self.in_flight):
            found.append(Block("busy", now, NEVER))
        if self.saved_for is not None and self.saved_for is not waiter:
            found.append(Block("saved for a larger request", now, NEVER))
        if self.meter is not None and not self.meter.is_ready(tokens, now):
            found.append(Block("limit per minute", self.meter.earliest(tokens, now), self.meter.latest(tokens, now)))
        for window in self.quotas:
            if not window.is_ready(tokens, epoch):
                at = window.earliest(tokens, epoch)
                reason = f"larger than its quota per {window.quota.per}" if at == NEVER else "quota"
                retry_at = at if at > epoch else window.resets_at(epoch)
                found.append(
                    Block(reason, _on_monotonic(at, now, epoch), max(now, _on_monotonic(retry_at, now, epoch)))
                )
        breaker = self.breakers.get(model)
        if breaker is not None and not breaker.is_ready(now):
            found.append(
                Block("breaker open", max(now, breaker.until), breaker.until if breaker.until > now else NEVER)
            )
        return found

    def take(self, model: str, tokens: int, now: float, epoch: float) -> tuple[MeterEntry | None, bool]:
        """Count a call as in flight (after ``is_ready``); return its meter entry and whether it is a probe."""
        self.in_flight += 1
        entry = self.meter.take(tokens, now) if self.meter is not None else None
        for window in self.quotas:
            window.take(tokens, epoch)
        if self.breakers:
            breaker = self.breakers.get(model)
            return entry, breaker is not None and breaker.admit()
        return entry, False

    def settle(self, entry: MeterEntry | None, reserved: int, used: int, now: float, epoch: float) -> None:
        """A call has ended: correct what was estimated."""
        self.in_flight -= 1
        if self.meter is not None and entry is not None:
            self.meter.correct(entry, used, now)
        for window in self.quotas:
            window.settle(reserved, used, epoch)

    def undo(self, model: str, entry: MeterEntry | None, reserved: int, epoch: float, *, is_probe: bool) -> None:
        """A call was never sent: give back all that it took."""
        self.in_flight -= 1
        if self.meter is not None and entry is not None:
            self.meter.undo(entry)
        for window in self.quotas:
            window.undo(reserved, epoch)
        if is_probe and model in self.breakers:
            self.breakers[model].forget_probe()

    def record(self, model: str, outcome: Outcome, now: float, *, is_probe: bool) -> bool:
        """Tell the model's breaker; whether it changed its state."""
        breaker = self.breakers.get(model)
        if breaker is None:
            if len(self.breakers) >= _MOST_BREAKERS:
                self.breakers = {name: known for name, known in self.breakers.items() if not known.is_idle}
            breaker = self.breakers[model] = Breaker()
        has_changed = breaker.record(outcome, now, is_probe=is_probe)
        if breaker.is_idle:
            del self.breakers[model]
        return has_changed

    def set_state(self, state: AccountState, offset: float) -> None:
        """Set the state; ``offset`` is wall minus monotonic time."""
        self.state = state
        if state.status is AccountStatus.AVAILABLE:
            self.blocked_until = 0.0
        elif state.disabled_why is not None or state.until is None:
            self.blocked_until = NEVER
        else:
            self.blocked_until = state.until - offset

    def spent_window(self, epoch: float) -> QuotaWindow | None:
        """The used-up quota window that resets last."""
        spent = [window for window in self.quotas if window.is_spent(epoch)]
        return max(spent, key=lambda window: window.resets_at(epoch)) if spent else None

    def own_reset(self, epoch: float) -> float | None:
        """When the configured window that is nearest to its limit resets; None without windows."""
        if not self.quotas:
            return None
        return max(self.quotas, key=lambda window: window.share_used(epoch)).resets_at(epoch)

    def dump(self) -> dict[str, Any]:
        """All that must survive a restart, as plain values."""
        return {
            "account": self.spec.id,
            "key_fingerprint": self.spec.key_fingerprint,
            "state": msgspec.to_builtins(self.state),
            "quotas": [window.dump() for window in self.quotas],
        }

    def load(self, row: dict[str, Any], epoch: float) -> AccountState:
        """Take over the counters of a dump and return its state; a disabling by configuration is not taken over."""
        for window in self.quotas:
            for saved in row.get("quotas", ()):
                if saved.get("key") == window.quota.key:
                    window.load(saved, epoch)
        return msgspec.convert(row.get("state", {}), AccountState)


def _on_monotonic(at: float, now: float, epoch: float) -> float:
    return now + (at - epoch) + _ROUNDING_S if at > epoch else now
