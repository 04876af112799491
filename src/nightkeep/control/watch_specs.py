"""What watching sees, what it is told to look for, and what it finds: plain values.

The rules are ``control.watch_spend``, ``watch_runs``, ``watch_repeats`` and ``watch_strays``; ``control.watch`` puts
them together. Seconds ``at`` never go back (a monotonic clock); hours of the day come from the wall clock beside them.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

__all__ = [
    "Action",
    "CallBegun",
    "CallEnded",
    "Finding",
    "HeartbeatSpec",
    "Now",
    "Rule",
    "RuleName",
    "RunCostSpec",
    "SameRequestSpec",
    "SpendRateSpec",
    "TokenGrowthSpec",
    "UnattributedSpec",
    "WatchSpec",
]

Action = Literal["alert", "pause"]
RuleName = Literal["spend_rate", "run_cost", "token_growth", "same_request", "unattributed", "idle_heartbeat"]
_MICRO: Final = 1_000_000


class Now(msgspec.Struct, frozen=True):
    """The moment, on both clocks."""

    at: float  # monotonic seconds
    wall: float  # seconds since 1970


class CallBegun(msgspec.Struct, frozen=True, gc=False):
    """A call was taken."""

    at: float
    scope: str
    model: str
    print: int  # of its body: equal bodies have equal prints
    times: int = 1  # 2 where an earlier one, whose print was not taken, looked the same


class CallEnded(msgspec.Struct, frozen=True, gc=False):
    """A call is over."""

    at: float
    began: float
    scope: str
    run: str | None
    model: str
    agent: str
    peer: str
    stray: str  # why nobody is accountable for it; empty where somebody is
    input_tokens: int  # everything that was sent, cached or not
    tokens: int
    cost: int  # micro-dollars; what was reserved, where nobody said
    size: int  # of the request, in tokens; in bytes, where nobody counted them
    print: int
    is_paid: bool  # False: answered from a cache, or as another call's twin


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule sees now. The same key means the same episode."""

    rule: RuleName
    key: str
    scope: str
    level: Literal["warning", "critical"]
    text: str  # a whole sentence with the numbers
    wants_pause: bool = False


class Rule(Protocol):
    """One rule: facts in, findings out. No clock, no I/O, no model."""

    name: RuleName

    def ended(self, call: CallEnded, now: Now) -> None:
        """Take note of a call that is over."""
        ...

    def look(self, now: Now) -> list[Finding]:
        """Everything that is found now."""
        ...

    def state(self) -> str:
        """What the rule knows, in a few words."""
        ...


class SpendRateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Spending against its own baseline (A11-R2)."""

    is_on: bool = True
    action: Action = "alert"
    factor: float = 2.0
    critical_factor: float = 10.0
    min_micro: int = _MICRO  # in five minutes (for critical: in one)
    min_hours: int = 6  # hours with spending before there is a baseline


class RunCostSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A run against the average of the runs before it (A9-R5)."""

    is_on: bool = True
    action: Action = "alert"
    factor: float = 3.0
    min_micro: int = _MICRO // 10
    min_runs: int = 5


class TokenGrowthSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Context that grows with each call of a run."""

    is_on: bool = True
    action: Action = "alert"
    tokens: int = 2_000  # a call
    calls: int = 10  # in a row


class SameRequestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The same request again and again (A11-R3)."""

    is_on: bool = True
    action: Action = "alert"
    times: int = 5
    critical_times: int = 10
    window_s: float = 300.0


class UnattributedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that nobody is accountable for (Q-SESS-05)."""

    is_on: bool = True
    action: Action = "alert"
    tokens: int = 1_000  # in an hour


class HeartbeatSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The same call at the same interval, with nothing else going on (W2.1, W5.2)."""

    is_on: bool = True
    action: Action = "alert"
    calls: int = 6
    jitter: float = 0.1  # of the interval
    min_micro: int = _MICRO // 10  # a day


class WatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched."""

    spend_rate: SpendRateSpec = SpendRateSpec()
    run_cost: RunCostSpec = RunCostSpec()
    token_growth: TokenGrowthSpec = TokenGrowthSpec()
    same_request: SameRequestSpec = SameRequestSpec()
    unattributed: UnattributedSpec = UnattributedSpec()
    idle_heartbeat: HeartbeatSpec = HeartbeatSpec()

    def requests_only(self) -> WatchSpec:
        """What each of several processes watches for itself; the rest is for the one that sees what all spend."""
        return WatchSpec(
            spend_rate=SpendRateSpec(is_on=False),
            run_cost=RunCostSpec(is_on=False),
            token_growth=TokenGrowthSpec(is_on=False),
            same_request=self.same_request,
            unattributed=UnattributedSpec(is_on=False),
            idle_heartbeat=HeartbeatSpec(is_on=False),
        )
