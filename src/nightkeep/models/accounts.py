"""Accounts and their states, as values: what an account is, what an answer does to it, and each way back.

::

    available ──rate limited──────> cooling           back by itself: Retry-After, else 1 s … 60 s
              ──quota exhausted───> quota_exhausted   back by itself: the provider's reset, else the account's own
              ──suspended─────────> suspended         back only by reset, or with another key (Q-PROXY-05)
              ──auth failed───────> auth_failed       back only by reset, or with another key
              ──operator──────────> disabled          back only by the operator; lies over the states above

``evolve`` is the whole table. It is pure: times are epoch seconds, randomness is an argument. The counters and
breakers of an account are in ``nightkeep.models.account_live``, the book of all accounts in
``nightkeep.models.account_book``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from nightkeep.control.meters import Limits
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.quota import Quota

__all__ = [
    "COOLING_BASE_S",
    "COOLING_CAP_S",
    "QUOTA_UNKNOWN_CAP_S",
    "QUOTA_UNKNOWN_S",
    "TERMINAL",
    "AccountChange",
    "AccountSpec",
    "AccountState",
    "AccountStatus",
    "disable",
    "enable",
    "evolve",
    "lapse",
    "spend",
]

COOLING_BASE_S: Final = 1.0
"""First cooling after a 429 that does not say how long (F33)."""
COOLING_CAP_S: Final = 60.0
"""Longest cooling of that kind (F33; S14.11: 60 s for an unknown fault)."""
QUOTA_UNKNOWN_S: Final = 300.0
"""First pause after "quota exhausted" with no reset said and no window configured (S12.2, S14.11); it doubles."""
QUOTA_UNKNOWN_CAP_S: Final = 3_600.0
"""Longest pause of that kind (S12.2). Not midnight: somebody may pay, and a wrong guess would lose a day."""
MOST_PAUSE_S: Final = 40 * 86_400.0
"""No pause is longer, whatever an answer says: longer than any month, and no typo blocks an account for years."""
_STREAK_CAP: Final = 30


class AccountStatus(StrEnum):
    """Whether an account may be used."""

    AVAILABLE = "available"
    COOLING = "cooling"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SUSPENDED = "suspended"
    AUTH_FAILED = "auth_failed"
    DISABLED = "disabled"


TERMINAL: Final = frozenset({AccountStatus.SUSPENDED, AccountStatus.AUTH_FAILED, AccountStatus.DISABLED})
"""These end only when somebody acts."""


class AccountSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An account as configured. It holds no key, only the key's fingerprint."""

    id: str
    provider: str
    pool: str = "default"
    key_fingerprint: str = ""
    limits: Limits | None = None
    quota: tuple[Quota, ...] = ()
    enabled: bool = True
    weight: int = 1  # its share of the turns, and of the load, beside the others of its pool


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an account. ``until`` and ``since`` are epoch seconds."""

    health: AccountStatus = AccountStatus.AVAILABLE  # what the provider's answers say; never DISABLED
    until: float | None = None  # when it comes back by itself; None where it does not, or need not
    since: float = 0.0
    why: str = ""
    rate_streak: int = 0  # rate limits in a row with no time given
    quota_streak: int = 0  # quota answers in a row with a guessed end; while not 0, one call at a time is let through
    is_own_count: bool = False  # exhausted by our own counters, not by an answer
    disabled_why: str | None = None  # not None: an operator, or the configuration, has taken it out

    @property
    def status(self) -> AccountStatus:
        """What counts: the operator's word over the provider's."""
        return AccountStatus.DISABLED if self.disabled_why is not None else self.health


class AccountChange(msgspec.Struct, frozen=True, kw_only=True, tag="account_changed"):
    """An account passed from one status to another."""

    account: str
    pool: str
    before: AccountStatus
    after: AccountStatus
    at: float  # epoch seconds
    until: float | None
    why: str
    outcome: Outcome | None = None  # what caused it; None: time, an operator, a new configuration


_RANK: Final = {
    AccountStatus.AVAILABLE: 0,
    AccountStatus.COOLING: 1,
    AccountStatus.QUOTA_EXHAUSTED: 2,
    AccountStatus.SUSPENDED: 3,
    AccountStatus.AUTH_FAILED: 3,
}


def evolve(
    state: AccountState, verdict: Verdict, now: float, *, jitter: float = 1.0, own_reset: float | None = None
) -> AccountState:
    """Return the state after an answer.

    Args:
        state: the state before; its ``until`` may have passed.
        verdict: the classified answer.
        now: epoch seconds.
        jitter: a number in [0, 1] that spreads guessed coolings over their upper half.
        own_reset: when the account's own quota window ends (epoch seconds), where one is configured.
    """
    match verdict.outcome:
        case Outcome.SUCCESS:
            return _succeed(state)
        case Outcome.RATE_LIMITED:
            return _cool(state, verdict, now, jitter)
        case Outcome.OVERLOADED if verdict.retry_after_s is not None:
            return _cool(state, verdict, now, jitter)
        case Outcome.QUOTA_EXHAUSTED:
            return _exhaust(state, verdict, now, own_reset)
        case Outcome.SUSPENDED:
            return _close(state, AccountStatus.SUSPENDED, verdict, now)
        case Outcome.AUTH_FAILED:
            return _close(state, AccountStatus.AUTH_FAILED, verdict, now)
        case _:
            return state


def lapse(state: AccountState, now: float) -> AccountState:
    """Return the state with what has passed taken back; the streaks stay until a success."""
    if state.until is None or now < state.until:
        return state
    return _available(state, now, "its time has come")


def spend(state: AccountState, resets_at: float, window: str, now: float) -> AccountState:
    """The account's own quota window is used up: exhausted until it resets, before the provider has to say so."""
    if _RANK[state.health] >= _RANK[AccountStatus.QUOTA_EXHAUSTED]:
        return state
    return msgspec.structs.replace(
        state,
        health=AccountStatus.QUOTA_EXHAUSTED,
        until=resets_at,
        since=now,
        why=f"its configured quota is used up ({window})",
        is_own_count=True,
    )


def disable(state: AccountState, why: str) -> AccountState:
    """Take an account out; what the provider said of it is kept beneath."""
    return msgspec.structs.replace(state, disabled_why=why)


def enable(state: AccountState) -> AccountState:
    """Take back ``disable``, and only that: a suspended account stays suspended."""
    return msgspec.structs.replace(state, disabled_why=None)


def _succeed(state: AccountState) -> AccountState:
    if state.health is not AccountStatus.AVAILABLE or not (state.rate_streak or state.quota_streak):
        return state  # a call that left before the pause began proves nothing about it
    return msgspec.structs.replace(state, rate_streak=0, quota_streak=0)


def _available(state: AccountState, now: float, why: str) -> AccountState:
    return msgspec.structs.replace(
        state, health=AccountStatus.AVAILABLE, until=None, since=now, why=why, is_own_count=False
    )


def _cool(state: AccountState, verdict: Verdict, now: float, jitter: float) -> AccountState:
    if _RANK[state.health] > _RANK[AccountStatus.COOLING]:
        return state
    is_echo = state.health is AccountStatus.COOLING and state.until is not None and now < state.until
    streak = state.rate_streak
    if verdict.retry_after_s is not None:
        until = now + _bounded(verdict.retry_after_s)
    elif verdict.resets_at is not None:
        until = now + _bounded(verdict.resets_at.timestamp() - now)
    elif is_echo:  # calls that were in flight when the first 429 came: the same news
        return state
    else:
        until = now + min(COOLING_BASE_S * 2.0**streak, COOLING_CAP_S) * (0.5 + 0.5 * jitter)
        streak = min(streak + 1, _STREAK_CAP)
    if is_echo and state.until is not None and until <= state.until:
        return state
    return msgspec.structs.replace(
        state,
        health=AccountStatus.COOLING,
        until=until,
        since=state.since if is_echo else now,
        why=_words(verdict, "the provider said: slow down"),
        rate_streak=streak,
    )


def _exhaust(state: AccountState, verdict: Verdict, now: float, own_reset: float | None) -> AccountState:
    if _RANK[state.health] > _RANK[AccountStatus.QUOTA_EXHAUSTED]:
        return state
    is_echo = state.health is AccountStatus.QUOTA_EXHAUSTED and state.until is not None and now < state.until
    streak = 0
    if verdict.resets_at is not None:
        until = now + _bounded(verdict.resets_at.timestamp() - now)
    elif verdict.retry_after_s is not None:
        until = now + _bounded(verdict.retry_after_s)
    elif is_echo:
        return state
    elif own_reset is not None:
        until = now + _bounded(own_reset - now)
        streak = state.quota_streak + 1
    else:
        until = now + min(QUOTA_UNKNOWN_S * 2.0**state.quota_streak, QUOTA_UNKNOWN_CAP_S)
        streak = state.quota_streak + 1
    if is_echo and state.until is not None and until <= state.until:
        return state
    return msgspec.structs.replace(
        state,
        health=AccountStatus.QUOTA_EXHAUSTED,
        until=until,
        since=state.since if is_echo else now,
        why=_words(verdict, "the provider said: quota exhausted"),
        quota_streak=min(streak, _STREAK_CAP),
        is_own_count=False,
    )


def _close(state: AccountState, status: AccountStatus, verdict: Verdict, now: float) -> AccountState:
    if _RANK[state.health] >= _RANK[status]:
        return state
    return msgspec.structs.replace(
        state, health=status, until=None, since=now, why=_words(verdict, f"the provider said: {status}")
    )


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MOST_PAUSE_S) if seconds == seconds else COOLING_CAP_S  # NaN is not equal to itself


def _words(verdict: Verdict, otherwise: str) -> str:
    return verdict.message[:300] or otherwise
