"""What the account book answers: a lease, "wait", or "exhausted"; and how accounts look from outside.

Values only; they are made in ``nightkeep.models.account_book``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from nightkeep.control.meters import MeterEntry
from nightkeep.core.errors import PoolExhaustedError
from nightkeep.models.account_live import LiveAccount
from nightkeep.models.accounts import AccountStatus
from nightkeep.models.pools import TagMeter

__all__ = ["AccountView", "BreakerView", "Exhausted", "Lease", "QuotaView", "Wait", "exhausted_error", "moment"]


class Lease(msgspec.Struct, eq=False):
    """One call may leave on one account. Ends with exactly one ``settle`` (it was sent) or ``release`` (it was not)."""

    account_id: str
    model: str
    tag: str | None
    scope: str
    tokens_reserved: int
    is_probe: bool  # it decides whether an open breaker closes
    account: LiveAccount
    entry: MeterEntry | None
    tag_entries: tuple[tuple[TagMeter, MeterEntry], ...] = ()
    is_over: bool = False


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """No account now, but soon."""

    until: float | None  # monotonic seconds, the earliest; None: when some call in flight ends
    reason: str
    states: Mapping[str, str] = {}  # account -> why not
    retry_at: float = math.inf  # monotonic seconds: when time alone may have changed the answer; inf: it does not


class Exhausted(msgspec.Struct, frozen=True, kw_only=True):
    """No account, and waiting a little does not help (Q-PROXY-01)."""

    until: float | None  # monotonic seconds; None: never by itself
    resets_at: datetime | None  # the same on the wall clock
    reason: str
    states: Mapping[str, str] = {}
    retry_at: float = math.inf  # as in ``Wait``


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """A quota window as it stands. None is no limit."""

    per: str
    window: str
    tokens: int | None
    tokens_used: int
    tokens_held: int
    requests: int | None
    requests_used: int
    resets_at: datetime | None


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker that is not at rest."""

    model: str
    state: str
    until: datetime | None


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it stands, for people and the API; no key, only its fingerprint."""

    id: str
    provider: str
    pool: str
    reserved_for: str | None
    key_fingerprint: str
    status: AccountStatus
    until: datetime | None
    since: datetime | None
    why: str
    in_flight: int
    concurrent: int | None
    requests_last_minute: int
    tokens_last_minute: int
    quotas: tuple[QuotaView, ...]
    breakers: tuple[BreakerView, ...]
    last_outcome: str | None
    last_message: str


def moment(epoch: float | None) -> datetime | None:
    """Epoch seconds as a moment in UTC; None and what is out of the calendar stay None."""
    if epoch is None or not 0.0 < epoch < 253_402_300_000.0:
        return None
    return datetime.fromtimestamp(epoch, UTC)


def exhausted_error(
    answer: Wait | Exhausted, *, pool: str | None, provider: str, model: str, now: float, offset: float
) -> PoolExhaustedError:
    """The typed, terminal error for a call that cannot be served in time."""
    until = answer.until
    data: dict[str, Any] = {
        "pool": pool,
        "provider": provider,
        "model": model,
        "reason": answer.reason,
        "resets_at": moment(until + offset) if until is not None else None,
        "retry_after_s": round(max(0.0, until - now), 3) if until is not None else None,
        "states": dict(answer.states),
    }
    where = f"pool {pool!r} ({provider})" if pool else f"provider {provider!r}"
    if data["resets_at"] is not None:
        hint = f"The earliest comes back at {data['resets_at'].isoformat(timespec='seconds')}."
    else:
        hint = "None comes back by itself: see 'nightkeep accounts list', then 'nightkeep accounts reset'."
    return PoolExhaustedError(f"no account of {where} can serve {model!r} in time: {answer.reason}. {hint}", **data)
