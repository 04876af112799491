"""Everything that Nightkeep raises on purpose.

::

    NightkeepError(message, code, retryable, data)
    ├── ConfigError            a setting is wrong; names the setting, the file, the line and the fix
    ├── RequestError           the caller's request is wrong (400); sending it again will not help
    │   ├── UntranslatableError    it cannot be said on the target's wire without changing its meaning
    │   ├── RequestTooLargeError   its body is over the limit (413)
    │   ├── UnknownModelError      no alias, provider or price for the model asked (404)
    │   └── IdempotencyError       another body under the same idempotency key (409)
    ├── AuthenticationError    the caller's key is missing, unknown, revoked or expired (401)
    ├── DeniedError            the caller's key does not allow this (403)
    │   └── StoppedError           a person, or a rule, has stopped this scope, model, account, tag or tool (403)
    ├── BudgetError            a hard budget has no room for this call (402); terminal until its window ends
    ├── LimitError             a scope's own rate or concurrency limit leaves no room before the deadline (429)
    ├── PoolExhaustedError     no account can serve before the deadline; terminal, with the earliest reset (429)
    ├── ProviderError          a provider answered with a fault and nothing is left to try
    │   └── StreamCutError     the answer began and did not end; the text is incomplete
    ├── DeadlineError          the caller's deadline passed (504)
    └── StoreError             the store cannot be read or written; what depends on it fails closed
        └── ConflictError      somebody else wrote first

Each carries what an HTTP door needs to answer in the client's own wire: a status, a machine-readable
``code`` that is never renamed, and ``data`` with the facts behind the sentence. The message says what
happened, to what, and the way out.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AuthenticationError",
    "BudgetError",
    "ConfigError",
    "ConflictError",
    "DeadlineError",
    "DeniedError",
    "IdempotencyError",
    "LimitError",
    "NightkeepError",
    "PoolExhaustedError",
    "ProviderError",
    "RequestError",
    "RequestTooLargeError",
    "StoppedError",
    "StoreError",
    "StreamCutError",
    "UnknownModelError",
    "UntranslatableError",
]


class NightkeepError(Exception):
    """The root: ``code`` for machines, the message for people, ``data`` for both."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = data

    @property
    def http_status(self) -> int:
        """The status that a door answers with (a provider's own, where there is one)."""
        status = self.data.get("status")
        return status if isinstance(status, int) else self.status

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which a retry makes sense; None where it does not, or is not known."""
        value = self.data.get("retry_after_s")
        return float(value) if value is not None else None


class ConfigError(NightkeepError):
    """A setting is wrong. ``data``: setting, file, line, fix (each optional)."""

    code = "config_invalid"


class RequestError(NightkeepError):
    """The caller's request is wrong; the same request will always be refused."""

    code = "invalid_request"
    status = 400


class UntranslatableError(RequestError):
    """The request cannot be said on the target's wire without changing its meaning. ``data``: parameter."""

    code = "untranslatable"


class RequestTooLargeError(RequestError):
    """The body is over the limit. ``data``: limit_bytes."""

    code = "request_too_large"
    status = 413


class UnknownModelError(RequestError):
    """No alias, provider, account or price serves the model that was asked. ``data``: model."""

    code = "model_not_found"
    status = 404


class IdempotencyError(RequestError):
    """The idempotency key was used before with another body."""

    code = "idempotency_key_reused"
    status = 409


class AuthenticationError(NightkeepError):
    """The caller is not known. ``data``: fingerprint of the key presented (never the key; Q-PROXY-13)."""

    code = "authentication_failed"
    status = 401


class DeniedError(NightkeepError):
    """The caller is known and may not do this. ``data``: rule."""

    code = "denied"
    status = 403


class StoppedError(DeniedError):
    """A switch is thrown (``nightkeep stop``). ``data``: rule, stop (what was stopped), why, by, since."""

    code = "stopped"


class BudgetError(NightkeepError):
    """A hard budget has no room for this call. ``data``: scope, budget, limit, spent, held, needed, resets_at."""

    code = "budget_exceeded"
    status = 402


class LimitError(NightkeepError):
    """A limit that is set on a scope leaves no room in time. ``data``: scope, limit, retry_after_s."""

    code = "scope_limited"
    status = 429


class PoolExhaustedError(NightkeepError):
    """No account can serve the call in time. ``data``: pool, resets_at, retry_after_s, states (Q-PROXY-01)."""

    code = "pool_exhausted"
    status = 429


class ProviderError(NightkeepError):
    """A provider answered with a fault and nothing is left to try.

    ``data``: outcome, status, provider, account, asked, served, provider_message, attempts.
    """

    code = "provider_error"
    status = 502


class StreamCutError(ProviderError):
    """The answer began and did not end: what the client has is incomplete."""

    code = "stream_cut"


class DeadlineError(NightkeepError):
    """The caller's deadline passed before an answer was whole."""

    code = "deadline_exceeded"
    status = 504
    retryable = True


class StoreError(NightkeepError):
    """The store cannot be read or written."""

    code = "store_unavailable"
    status = 503
    retryable = True


class ConflictError(StoreError):
    """Somebody else wrote first, or owns what was to be written."""

    code = "conflict"
    status = 409
