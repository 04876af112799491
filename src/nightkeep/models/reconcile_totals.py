"""Comparing sums: for a provider whose report names no requests, by account, model and day.

Pure, beside ``models.reconcile``, which compares request by request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from nightkeep.models.reconcile import NO_TOKENS, Adjustment, Attribution, Difference, Period, Plan
from nightkeep.models.usage_report import Billed

__all__ = ["DAY_MS", "KnownTotal", "plan_totals"]

DAY_MS: Final = 86_400_000
_Key = tuple[str, str, int]


class KnownTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows of an account, a model and a day (UTC)."""

    account: str
    model: str
    day: int  # since 1970
    requests: int
    micro_usd: int


def plan_totals(known: Iterable[KnownTotal], lines: Iterable[Billed], provider: str, period: Period) -> Plan:
    """Compare the sums of each account, model and day (UTC); book the differences only where the period says so.

    A report that names no accounts (or models) is compared over all of ours.
    """
    billed = list(lines)
    ours, theirs = _ours(known, billed), _theirs(billed)
    adjustments, differences = [], []
    for key in sorted(ours.keys() | theirs.keys()):
        if ours[key] != theirs[key]:
            differences.append(_difference(key, ours[key], theirs[key], is_booked=period.books_all))
            if period.books_all:
                adjustments.append(_adjustment(key, ours[key], theirs[key], provider))
    return Plan(
        adjustments=adjustments,
        differences=differences,
        billed_requests=sum(line.requests for line in billed),
        billed_micro_usd=sum(theirs.values()),
        ours_micro_usd=sum(ours.values()),
    )


def _ours(known: Iterable[KnownTotal], billed: list[Billed]) -> Counter[_Key]:
    """Our sums, by what the report tells apart."""
    has_account, has_model = (any(getattr(line, name) for line in billed) for name in ("account", "model"))
    sums: Counter[_Key] = Counter()
    for total in known:
        sums[total.account if has_account else "", total.model if has_model else "", total.day] += total.micro_usd
    return sums


def _theirs(billed: list[Billed]) -> Counter[_Key]:
    sums: Counter[_Key] = Counter()
    for line in billed:
        sums[line.account, line.model, line.at_ms // DAY_MS] += line.micro_usd
    return sums


def _difference(key: _Key, ours: int, billed: int, *, is_booked: bool) -> Difference:
    account, model, day = key
    return Difference(
        kind="total",
        request_id="",
        account=account,
        model=model,
        scope="/",
        ours_micro_usd=ours,
        billed_micro_usd=billed,
        is_booked=is_booked,
        note=f"the sum of {_date(day)}",
    )


def _adjustment(key: _Key, ours: int, billed: int, provider: str) -> Adjustment:
    """Its id says what it was made of, so that the same is never booked twice."""
    account, model, day = key
    return Adjustment(
        id=f"total:{provider}:{account}:{model}:{_date(day)}:{ours}:{billed}",
        basis="total",
        adjusts=None,
        request_id="",
        at_ms=day * DAY_MS,
        owner="",
        who=Attribution(provider=provider, account=account, model=model),
        classes=NO_TOKENS,
        micro_usd=billed - ours,
        note=f"differs from the sum of {_date(day)}",
    )


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
