"""How a live account is shown: the one place that turns its counters into a view."""

from __future__ import annotations

from nightkeep.control.meters import NO_LIMIT
from nightkeep.models.account_live import LiveAccount
from nightkeep.models.leases import AccountView, BreakerView, QuotaView, moment

__all__ = ["view_account"]


def view_account(account: LiveAccount, reserved_for: str | None, now: float, offset: float) -> AccountView:
    """Show an account at ``now`` (monotonic seconds; ``offset`` to the wall clock)."""
    epoch = now + offset
    spec, state, verdict = account.spec, account.state, account.last_verdict
    requests, tokens = account.meter.used(now) if account.meter is not None else (0, 0)
    quotas = []
    for window in account.quotas:
        window.roll(epoch)
        quotas.append(
            QuotaView(
                per=window.quota.per,
                window=window.quota.window,
                tokens=window.quota.tokens,
                tokens_used=window.used_tokens,
                tokens_held=window.held_tokens,
                requests=window.quota.requests,
                requests_used=window.used_requests,
                resets_at=moment(window.resets_at(epoch)),
            )
        )
    return AccountView(
        id=spec.id,
        provider=spec.provider,
        pool=spec.pool,
        reserved_for=reserved_for,
        key_fingerprint=spec.key_fingerprint,
        status=state.status,
        until=moment(state.until) if state.disabled_why is None else None,
        since=moment(state.since),
        why=state.disabled_why or state.why,
        in_flight=account.in_flight,
        concurrent=None if account.most_concurrent == NO_LIMIT else account.most_concurrent,
        requests_last_minute=requests,
        tokens_last_minute=tokens,
        quotas=tuple(quotas),
        breakers=tuple(
            BreakerView(model=model, state=str(breaker.state(now)), until=moment(breaker.until + offset))
            for model, breaker in account.breakers.items()
            if breaker.until
        ),
        last_outcome=str(verdict.outcome) if verdict is not None else None,
        last_message=verdict.message if verdict is not None else "",
    )
