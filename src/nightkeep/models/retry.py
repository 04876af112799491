"""What comes after a failed attempt: wait and try again, another account, another target, or give up.

Pure: the facts of one call in, one step out; randomness and time are arguments. The vendors' words are read in
``nightkeep.models.classify``, the accounts' states kept in ``nightkeep.models.accounts``, and the step is taken
by ``nightkeep.models.gateway``. Rules: F33, Q-PROXY-01, -10, -17.

How many requests one client request can make is bounded by ``RetryRules.max_attempts``, whatever happens; how
many retries a provider can see in all is bounded by its ``RetryBudget``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal

import msgspec

from nightkeep.core.outcome import FAILOVER_OUTCOMES, RETRYABLE_OUTCOMES, Outcome, Verdict

__all__ = [
    "GiveUp",
    "GiveUpReason",
    "NextAccount",
    "NextTarget",
    "Options",
    "RetryBudget",
    "RetryRules",
    "RetrySame",
    "Step",
    "Tried",
    "plan_next",
]

Failover = Literal["ordered", "none"]

_ACCOUNT_FAULTS: Final = frozenset({Outcome.AUTH_FAILED, Outcome.SUSPENDED, Outcome.QUOTA_EXHAUSTED})
"""The account is done for; it leaves its pool, so that going on to the next needs no patience."""


class Tried(msgspec.Struct, frozen=True):
    """One attempt that was made."""

    target: str  # "provider/model"
    account: str
    outcome: Outcome


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is there to go to at this moment."""

    has_other_account: bool  # of the same target: free now, and not tried for this call
    has_next_target: bool  # a further candidate of the route
    has_budget: bool = True  # the provider's retry budget has a token (``RetryBudget.has_token``)


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers. Jitter: "full jitter" over a window that doubles (0.1 to 0.5 s, 0.2 to 1 s, …)."""

    max_attempts: int = 4
    least_delay_s: float = 0.1
    most_delay_s: float = 0.5
    factor: float = 2.0
    cap_s: float = 10.0


class RetrySame(msgspec.Struct, frozen=True, tag="retry_same"):
    """Wait, then try the same target again; the pool picks the account."""

    delay_s: float


class NextAccount(msgspec.Struct, frozen=True, tag="next_account"):
    """Try another account of the same target at once. No degradation: the same model answers."""


class NextTarget(msgspec.Struct, frozen=True, tag="next_target"):
    """Try the route's next target at once."""


class GiveUpReason(StrEnum):
    """Why there is no further attempt."""

    COMMITTED = "committed"  # content was already sent; a second answer cannot be joined to it
    FINAL = "final"  # the same request would fail anywhere
    CANCELLED = "cancelled"
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    NOTHING_LEFT = "nothing_left"
    BUDGET = "budget"


class GiveUp(msgspec.Struct, frozen=True, tag="give_up"):
    """The failure is final for this call."""

    reason: GiveUpReason
    message: str


Step = RetrySame | NextAccount | NextTarget | GiveUp


def plan_next(
    history: Sequence[Tried],
    verdict: Verdict,
    options: Options,
    *,
    remaining_s: float,
    jitter: float,
    failover: Failover = "ordered",
    is_committed: bool = False,
    rules: RetryRules = RetryRules(),  # noqa: B008 - frozen
) -> Step:
    """Say what comes after an attempt that ended with ``verdict``.

    Args:
        history: every attempt of this call so far, the one that just ended last.
        verdict: how it ended.
        options: what could be tried now.
        remaining_s: until the caller's deadline.
        jitter: a random number in [0, 1).
        failover: ``none``: never another target (another account of the same target still is one and the same
            model, so it is allowed).
        is_committed: content has been sent to the client.
    """
    stop = _stop(history, verdict, remaining_s, is_committed, rules)
    if stop is not None:
        return stop
    outcome = verdict.outcome
    may_fail_over = options.has_next_target and failover != "none"
    if outcome in _ACCOUNT_FAULTS:
        if options.has_other_account:
            return NextAccount()
        return NextTarget() if may_fail_over else _nothing_left(verdict, options, failover)
    has_account = options.has_other_account and options.has_budget
    if has_account and (outcome is Outcome.RATE_LIMITED or _tries_here(history) == 1):
        return NextAccount()
    if may_fail_over:
        return NextTarget()
    if outcome is Outcome.NOT_FOUND:
        return _nothing_left(verdict, options, failover)
    if not options.has_budget:
        return GiveUp(GiveUpReason.BUDGET, "the provider's retry budget is spent: too many of its requests fail")
    return _wait(history, verdict, remaining_s, jitter, rules)


def _stop(
    history: Sequence[Tried], verdict: Verdict, remaining_s: float, is_committed: bool, rules: RetryRules
) -> GiveUp | None:
    """The reasons that hold whatever could be tried."""
    outcome = verdict.outcome
    if outcome is Outcome.CANCELLED:
        return GiveUp(GiveUpReason.CANCELLED, "the client is gone")
    if is_committed:
        return GiveUp(GiveUpReason.COMMITTED, "part of the answer was already sent")
    if outcome not in FAILOVER_OUTCOMES:  # INVALID_REQUEST, REFUSED (and SUCCESS, which asks for no next step)
        return GiveUp(GiveUpReason.FINAL, f"{outcome}: the same request would end the same way")
    if len(history) >= rules.max_attempts:
        return GiveUp(GiveUpReason.ATTEMPTS, f"{len(history)} attempts were made, the most that are allowed")
    if remaining_s <= 0:
        return GiveUp(GiveUpReason.DEADLINE, "the deadline has passed")
    return None


def _tries_here(history: Sequence[Tried]) -> int:
    """Attempts at the present target that failed for reasons that pass."""
    here = history[-1].target if history else ""
    passing = RETRYABLE_OUTCOMES | {Outcome.NOT_FOUND}
    return max(1, sum(1 for tried in history if tried.target == here and tried.outcome in passing))


def _wait(
    history: Sequence[Tried], verdict: Verdict, remaining_s: float, jitter: float, rules: RetryRules
) -> RetrySame | GiveUp:
    scale = rules.factor ** (_tries_here(history) - 1)
    low, high = rules.least_delay_s * scale, rules.most_delay_s * scale
    delay_s = min(low + (high - low) * jitter, rules.cap_s)
    if verdict.retry_after_s is not None:
        # Never before the time the provider named; a little after it, so that not all come at once.
        delay_s = verdict.retry_after_s + min(delay_s, 0.1 * verdict.retry_after_s + rules.least_delay_s)
    if delay_s >= remaining_s:
        return GiveUp(
            GiveUpReason.DEADLINE,
            f"the next try would be in {delay_s:.1f} s, and the deadline is in {remaining_s:.1f} s",
        )
    return RetrySame(delay_s)


def _nothing_left(verdict: Verdict, options: Options, failover: Failover) -> GiveUp:
    if options.has_next_target and failover == "none":
        return GiveUp(
            GiveUpReason.NOTHING_LEFT,
            f"{verdict.outcome}, and failover is 'none': the route fails rather than answer with another model",
        )
    return GiveUp(GiveUpReason.NOTHING_LEFT, f"{verdict.outcome}, and no other account or target is left")


class RetryBudget:
    """Bounds the retries that one provider sees: a share of its requests, and a small steady allowance.

    A token bucket (after Finagle's and Linkerd's): every first attempt puts in ``ratio`` of a token, time puts in
    ``least`` tokens per ``window_s``, a retry takes one out, and it never holds more than ``least`` plus what one
    window of requests could put in (``most``). So in any stretch of t seconds with n requests there are at most
    ``most + ratio * n + least * t / window_s`` retries, and an outage is not answered with a storm (F33).
    """

    __slots__ = ("_least", "_least_per_s", "_most", "_ratio", "_tokens", "_updated")

    def __init__(
        self, now: float, *, ratio: float = 0.2, least: float = 10.0, window_s: float = 10.0, most: float = 100.0
    ) -> None:
        """``now`` and all times: monotonic seconds."""
        self._ratio = ratio
        self._least = least
        self._least_per_s = least / window_s
        self._most = most
        self._tokens = least
        self._updated = now

    def note_request(self, now: float) -> None:
        """A first attempt leaves for this provider."""
        self._refill(now)
        self._tokens = min(self._tokens + self._ratio, self._most)

    def has_token(self, now: float) -> bool:
        """Whether a retry is allowed now."""
        self._refill(now)
        return self._tokens >= 1

    def take(self, now: float) -> bool:
        """Take a token for a retry; False when there is none."""
        if not self.has_token(now):
            return False
        self._tokens -= 1
        return True

    def _refill(self, now: float) -> None:
        elapsed = now - self._updated
        if elapsed > 0:
            # Time alone refills only up to the steady allowance; more must be earned by requests.
            ceiling = max(self._tokens, self._least)
            self._tokens = min(self._tokens + elapsed * self._least_per_s, ceiling)
            self._updated = now
