"""Errors on their way to the client: from what Nightkeep raises, or a provider said, to the client's own wire."""

from __future__ import annotations

from nightkeep.core.errors import (
    AuthenticationError,
    BudgetError,
    DeadlineError,
    DeniedError,
    IdempotencyError,
    LimitError,
    NightkeepError,
    PoolExhaustedError,
    ProviderError,
    RequestError,
    RequestTooLargeError,
    UnknownModelError,
)
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.wire.base import WireError

__all__ = ["provider_failure", "retry_headers", "wire_error"]

_KINDS: tuple[tuple[type[NightkeepError], str], ...] = (
    (RequestTooLargeError, "too_large"),
    (UnknownModelError, "not_found"),
    (IdempotencyError, "conflict"),
    (RequestError, "invalid_request"),
    (AuthenticationError, "authentication"),
    (DeniedError, "permission"),
    (DeadlineError, "timeout"),
    (BudgetError, "quota"),
    (LimitError, "rate_limited"),
)

_BY_OUTCOME: dict[Outcome, tuple[str, int]] = {
    Outcome.RATE_LIMITED: ("rate_limited", 429),
    Outcome.QUOTA_EXHAUSTED: ("quota", 429),
    # The client's own key is fine: a provider account's trouble is the gateway's, so no 401 or 403.
    Outcome.SUSPENDED: ("api_error", 502),
    Outcome.AUTH_FAILED: ("api_error", 502),
    Outcome.INVALID_REQUEST: ("invalid_request", 400),
    Outcome.NOT_FOUND: ("not_found", 404),
    Outcome.OVERLOADED: ("overloaded", 503),
    Outcome.UNAVAILABLE: ("api_error", 502),
    Outcome.TIMED_OUT: ("timeout", 504),
    Outcome.CUT_STREAM: ("api_error", 502),
    Outcome.REFUSED: ("refused", 400),
}
"""What each ending looks like to a client: the kind of error, and the status where the provider gave none that fits."""

_WAYS_OUT: dict[Outcome, str] = {
    Outcome.RATE_LIMITED: "Slow down, or add an account to the pool.",
    Outcome.QUOTA_EXHAUSTED: "Wait for the reset, or add an account to the pool.",
    Outcome.SUSPENDED: "The provider has closed the account; appeal there, then 'nightkeep accounts reset'.",
    Outcome.AUTH_FAILED: "Run 'nightkeep accounts test' to see what is wrong with the key.",
    Outcome.INVALID_REQUEST: "Change the request; sending it again will not help.",
    Outcome.NOT_FOUND: "Run 'nightkeep route explain' to see what serves this model.",
    Outcome.REFUSED: "The provider will not answer this content.",
    Outcome.OVERLOADED: "Try again later, or add a target at another provider.",
    Outcome.UNAVAILABLE: "Try again later, or add a target at another provider.",
    Outcome.TIMED_OUT: "Try again later, or raise gateway.first_byte_s.",
    Outcome.CUT_STREAM: "Send the request again.",
}


def provider_failure(
    verdict: Verdict, *, asked: str, served: str, provider: str, account: str, attempts: int, why_final: str = ""
) -> ProviderError:
    """The error for a client when a provider's fault is final. Names what was asked, what served and the way out."""
    kind, status = _BY_OUTCOME.get(verdict.outcome, ("api_error", 502))
    if verdict.outcome is Outcome.INVALID_REQUEST and verdict.status in (413, 415, 422):
        status = verdict.status
    said = f": {verdict.message}" if verdict.message else ""
    message = (
        f"{provider} answered {verdict.outcome}{f' (HTTP {verdict.status})' if verdict.status else ''} to model "
        f"{served!r}, asked as {asked!r}{said} [{attempts} attempt{'s' if attempts != 1 else ''}; "
        f"account {account}]. {_WAYS_OUT.get(verdict.outcome, '')}"
    )
    return ProviderError(
        message.rstrip(),
        status=status,
        kind=kind,
        outcome=str(verdict.outcome),
        provider=provider,
        account=account,
        asked=asked,
        served=served,
        attempts=attempts,
        why_final=why_final or None,
        provider_code=verdict.provider_code or None,
        provider_message=verdict.message or None,
        retry_after_s=verdict.retry_after_s,
    )


def wire_error(error: NightkeepError) -> WireError:
    """Say an error of ours in neutral words, for a codec to write."""
    kind = error.data.get("kind") or next((kind for known, kind in _KINDS if isinstance(error, known)), "api_error")
    if isinstance(error, PoolExhaustedError):
        kind = "rate_limited"
    facts = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in error.data.items()
        if name not in ("status", "kind") and value is not None
    }
    return WireError(
        status=error.http_status,
        code=str(error.data.get("provider_code") or error.code),
        message=error.message,
        kind=kind,
        parameter=error.data.get("parameter"),
        retry_after_s=error.retry_after_s,
        data={"code": error.code, **facts},
    )


def retry_headers(error: WireError) -> list[tuple[str, str]]:
    """``Retry-After`` where waiting helps; ``x-should-retry: false`` where an SDK would retry in vain.

    The OpenAI and Anthropic SDKs retry 408, 409, 429 and 5xx on their own, unless told not to
    (``x-should-retry``). A pool that is exhausted must see no storm of them (Q-PROXY-01).
    """
    headers = []
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, round(error.retry_after_s)))))
    is_soon = error.retry_after_s is not None and error.retry_after_s <= 5
    if error.status >= 400 and not is_soon:
        headers.append(("x-should-retry", "false"))
    return headers
