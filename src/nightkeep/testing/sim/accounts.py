"""The keys a simulated provider knows, and how it holds them to their limits.

Pure but for its own state; time is an argument. A minute's window and the quota's begin with the first
request in them (a fixed window: simple to reckon with in a test).
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from nightkeep.core.clock import Clock
from nightkeep.testing.sim.asked import Refusal
from nightkeep.testing.sim.scenario import Account, Limits, Quota

__all__ = ["AccountState", "Accounts"]

_PER_S = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2592000.0}


class _Window:
    """Counts in a fixed window."""

    __slots__ = ("begun_s", "length_s", "requests", "tokens")

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self.begun_s = -1e18
        self.requests = 0
        self.tokens = 0

    def roll(self, now_s: float) -> None:
        if now_s - self.begun_s >= self.length_s:
            self.begun_s = now_s
            self.requests = self.tokens = 0

    def resets_in_s(self, now_s: float) -> float:
        return max(0.0, self.begun_s + self.length_s - now_s)


class AccountState:
    """One key at work."""

    __slots__ = (
        "concurrent",
        "is_free",
        "key",
        "minute",
        "name",
        "quota",
        "refusals",
        "spec",
        "state",
        "suspend_after",
    )

    def __init__(self, name: str, spec: Account, suspend_after: int | None) -> None:
        self.name = name
        self.spec = spec
        self.key = spec.key
        self.state: str = spec.state
        self.minute = _Window(60.0)
        self.refusals = _Window(60.0)
        self.quota = _quota_window(spec.quota)
        self.concurrent = 0
        self.suspend_after = spec.suspend_after_refusals_per_minute or suspend_after
        self.is_free = spec.limits == Limits() and spec.quota is None

    def admit(self, tokens: int, model: str, now_s: float) -> Refusal | None:
        """Admit a request of ``tokens`` input tokens, or say why not. Counts refusals (W1.2)."""
        if self.state != "active":
            kind = {"suspended": "suspended", "revoked": "authentication", "no_credit": "no_credit"}[self.state]
            return self._refused(Refusal(kind=kind, model=model, key=masked(self.key)), now_s)
        if self.is_free:
            self.concurrent += 1
            return None
        refusal = self._over_limit(tokens, model, now_s) or self._over_quota(tokens, model, now_s)
        if refusal is not None:
            return self._refused(refusal, now_s)
        self.concurrent += 1
        self.minute.requests += 1
        self.minute.tokens += tokens
        if self.quota is not None:
            self.quota.requests += 1
            self.quota.tokens += tokens
        return None

    def release(self, output_tokens: int) -> None:
        """Take note of the end of an admitted request."""
        self.concurrent -= 1
        self.minute.tokens += output_tokens
        if self.quota is not None:
            self.quota.tokens += output_tokens

    def headers(self, wire: str, clock: Clock) -> list[tuple[str, str]]:
        """The vendor's headers about what is left in this minute; none where there are no limits."""
        limits = self.spec.limits
        if limits == Limits() or wire == "gemini":
            return []
        reset_s = self.minute.resets_in_s(clock.monotonic())
        out = []
        for metric, limit, used in (
            ("requests", limits.requests_per_minute, self.minute.requests),
            ("tokens", limits.tokens_per_minute, self.minute.tokens),
        ):
            if limit is None:
                continue
            left = str(max(0, limit - used))
            if wire == "anthropic_messages":
                name = f"anthropic-ratelimit-{metric}"
                reset = clock.now() + timedelta(seconds=reset_s)
                out += [(f"{name}-limit", str(limit)), (f"{name}-remaining", left)]
                out.append((f"{name}-reset", reset.strftime("%Y-%m-%dT%H:%M:%SZ")))
            else:
                out += [(f"x-ratelimit-limit-{metric}", str(limit)), (f"x-ratelimit-remaining-{metric}", left)]
                out.append((f"x-ratelimit-reset-{metric}", f"{reset_s:.3f}s"))
        return out

    def _over_limit(self, tokens: int, model: str, now_s: float) -> Refusal | None:
        limits, window = self.spec.limits, self.minute
        window.roll(now_s)
        retry = window.resets_in_s(now_s)
        if limits.concurrent is not None and self.concurrent >= limits.concurrent:
            return self._limited("rate_limited", "concurrent", limits.concurrent, 1.0, model)
        if limits.requests_per_minute is not None and window.requests >= limits.requests_per_minute:
            return self._limited("rate_limited", "requests", limits.requests_per_minute, retry, model)
        if limits.tokens_per_minute is not None and window.tokens + tokens > limits.tokens_per_minute:
            return self._limited("rate_limited", "tokens", limits.tokens_per_minute, retry, model)
        return None

    def _over_quota(self, tokens: int, model: str, now_s: float) -> Refusal | None:
        quota, window = self.spec.quota, self.quota
        if quota is None or window is None:
            return None
        is_first = window.begun_s < 0
        window.roll(now_s)
        if is_first:
            window.requests, window.tokens = (
                int((quota.requests or 0) * quota.used),
                int((quota.tokens or 0) * quota.used),
            )
        retry = window.resets_in_s(now_s)
        if quota.requests is not None and window.requests >= quota.requests:
            return self._limited("quota", "requests", quota.requests, retry, model)
        if quota.tokens is not None and window.tokens + tokens > quota.tokens:
            return self._limited("quota", "tokens", quota.tokens, retry, model)
        return None

    def _limited(self, kind: str, metric: str, limit: int, retry_s: float, model: str) -> Refusal:
        retry = round(retry_s, 3)
        return Refusal(kind=kind, metric=metric, limit=limit, retry_after_s=retry, model=model, key=masked(self.key))

    def _refused(self, refusal: Refusal, now_s: float) -> Refusal:
        self.refusals.roll(now_s)
        self.refusals.requests += 1
        if self.suspend_after is not None and self.refusals.requests > self.suspend_after and self.state == "active":
            self.state = "suspended"
        return refusal


class Accounts:
    """All keys of one provider."""

    def __init__(self, listed: dict[str, Account], any_key: bool | None, suspend_after: int | None) -> None:
        self._by_key = {spec.key: AccountState(name, spec, suspend_after) for name, spec in listed.items()}
        self._accepts_any = not listed if any_key is None else any_key
        self._suspend_after = suspend_after
        self._unknown = 0

    def find(self, key: str) -> AccountState | None:
        """The account of a key; None where the provider does not know it."""
        found = self._by_key.get(key)
        if found is None and self._accepts_any and self._unknown < 10_000:
            self._unknown += 1
            found = AccountState(label(key), Account(key=key), self._suspend_after)
            self._by_key[key] = found
        return found

    def states(self) -> list[dict[str, str | int]]:
        """Each account's name, state and requests in flight; never its key."""
        return [
            {"account": state.name, "state": state.state, "concurrent": state.concurrent}
            for state in self._by_key.values()
        ]


def label(key: str) -> str:
    """A name for a key that is not listed, which does not give it away."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:8]}" if key else "no-key"


def masked(key: str) -> str:
    """A key as OpenAI prints it in errors."""
    return f"{key[:3]}***{key[-4:]}" if len(key) > 10 else "***"


def _quota_window(quota: Quota | None) -> _Window | None:
    return None if quota is None else _Window(quota.window_s or _PER_S[quota.per])
