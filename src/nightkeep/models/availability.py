"""Why a call finds no account, and when it may: the answers of the account book to those it cannot serve.

Looks at live accounts and changes nothing; asked only when nothing is free, so it may be thorough.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nightkeep.models.account_live import Block
from nightkeep.models.leases import Exhausted, Wait, moment
from nightkeep.models.pools import Group
from nightkeep.models.quota import NEVER

__all__ = ["refusal", "why_not"]

_FREE: Final = Block("available", 0.0, NEVER)
_LASTING: Final = frozenset({"quota_exhausted", "suspended", "auth_failed", "disabled", "quota"})


def why_not(
    group: Group,
    model: str,
    tokens: int,
    exclude: frozenset[str],
    *,
    now: float,
    offset: float,
    waiter: object | None = None,
    reason: str = "",
) -> Wait | Exhausted:
    """Say why none of a group's accounts takes a call (``now`` is monotonic, ``offset`` leads to the wall clock)."""
    epoch = now + offset
    earliest = retry_at = NEVER
    states: dict[str, str] = {}
    is_lasting = True
    for account in group.members:
        if account.spec.id in exclude:
            states[account.spec.id] = "tried already"
            continue
        blocks = account.blocks(model, tokens, now, epoch, waiter)
        worst = max(blocks, key=lambda block: block.at, default=_FREE)
        states[account.spec.id] = worst.reason
        earliest = min(earliest, max(now, worst.at))
        by_time = [block.retry_at for block in blocks if block.retry_at != NEVER]
        if by_time and worst.at != NEVER:
            retry_at = min(retry_at, max(by_time))
        elif not blocks:
            retry_at = now
        is_lasting = is_lasting and (worst.reason in _LASTING or worst.at == NEVER)
    if earliest == NEVER or (is_lasting and earliest > now):
        until = None if earliest == NEVER else earliest
        return Exhausted(
            until=until,
            resets_at=moment(until + offset) if until is not None else None,
            reason=_summary(states),
            states=states,
            retry_at=retry_at,
        )
    for meter in group.tag_meters:
        if meter.in_flight >= meter.most_concurrent:
            reason = reason or f"tag {'/'.join(meter.spec.tags)} has its {meter.most_concurrent} calls in flight"
        elif not meter.is_ready(tokens, now):
            reason = reason or f"tag {'/'.join(meter.spec.tags)} has used its minute"
            earliest = max(earliest, meter.meter.earliest(tokens, now))
            retry_at = max(retry_at, meter.meter.latest(tokens, now))
    return Wait(
        until=earliest if earliest > now else None,
        reason=reason or _summary(states),
        states=states,
        retry_at=retry_at if retry_at > now else NEVER,
    )


def refusal(answer: Wait | Exhausted, deadline: float, now: float) -> Wait | Exhausted | None:
    """Say why waiting until ``deadline`` makes no sense, or no more sense; None while it does."""
    if isinstance(answer, Exhausted) and answer.until is None:
        return answer
    if deadline <= now:
        return msgspec.structs.replace(answer, reason=f"waited to the deadline ({answer.reason})")
    return answer if answer.until is not None and answer.until > deadline else None


def _summary(states: dict[str, str]) -> str:
    """Say how many accounts are in which state, the most frequent first."""
    if not states:
        return "no account is configured for it"
    counts: dict[str, int] = {}
    for state in states.values():
        counts[state] = counts.get(state, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {state}" for state, count in ordered)
