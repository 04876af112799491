"""How an attempt at a call ended, as a closed vocabulary, and what each ending means for what comes next.

The classification itself (status and body to outcome) is vendor knowledge and stands in
``nightkeep.models.classify``; the effect on accounts in ``nightkeep.models.accounts``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

__all__ = ["FAILOVER_OUTCOMES", "RETRYABLE_OUTCOMES", "Outcome", "Verdict"]


class Outcome(StrEnum):
    """The endings of an attempt (design.md §6, F32)."""

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"  # slow down; the account is fine (has a reset, seconds away)
    QUOTA_EXHAUSTED = "quota_exhausted"  # nothing left until the window's reset, or until somebody pays
    SUSPENDED = "suspended"  # the provider closed the account; never retried by itself (Q-PROXY-05)
    AUTH_FAILED = "auth_failed"  # the key is wrong or revoked; never retried by itself
    INVALID_REQUEST = "invalid_request"  # never retried, never failed over (Q-PROXY-10)
    NOT_FOUND = "not_found"  # this provider or account does not serve the model; another target may
    OVERLOADED = "overloaded"  # 529, 503 with "overloaded": the provider is up and has no room
    UNAVAILABLE = "unavailable"  # 5xx, refused, reset, DNS, malformed answer
    TIMED_OUT = "timed_out"  # no first byte, an idle stream, or under the minimum throughput
    CUT_STREAM = "cut_stream"  # it began and did not end
    REFUSED = "refused"  # the provider will not answer this content; never retried
    CANCELLED = "cancelled"  # the client hung up, or the deadline of the caller passed


RETRYABLE_OUTCOMES = frozenset(
    {Outcome.RATE_LIMITED, Outcome.OVERLOADED, Outcome.UNAVAILABLE, Outcome.TIMED_OUT, Outcome.CUT_STREAM}
)
"""Another attempt on the same target may succeed (while nothing has been committed to the client)."""

FAILOVER_OUTCOMES = RETRYABLE_OUTCOMES | {
    Outcome.QUOTA_EXHAUSTED,
    Outcome.SUSPENDED,
    Outcome.AUTH_FAILED,
    Outcome.NOT_FOUND,
}
"""Another account, or another target, may succeed."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a classified answer says."""

    outcome: Outcome
    status: int = 0  # HTTP status; 0 where no answer arrived
    message: str = ""  # the provider's own words, shortened
    provider_code: str = ""  # its machine-readable code or type, e.g. "insufficient_quota"
    retry_after_s: float | None = None  # from Retry-After or a reset header
    resets_at: datetime | None = None  # when a quota window opens again, where the provider says so
