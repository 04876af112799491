"""What the vendors' statuses, codes and words mean: data for ``nightkeep.models.classify``.

A status limits which outcomes are possible; within them a machine-readable code decides; words decide only
where the code says nothing or is known to be used for several things. Sources: platform.openai.com/docs/guides/
error-codes, docs.anthropic.com/en/api/errors, ai.google.dev/gemini-api/docs/troubleshooting, docs.aws.amazon.com/
bedrock/latest/APIReference/CommonErrors.html, openrouter.ai/docs/api-reference/errors, api-docs.deepseek.com/
quick_start/error_codes, learn.microsoft.com/azure/ai-services/openai, console.groq.com/docs/errors, docs.x.ai.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from nightkeep.core.outcome import Outcome
from nightkeep.models.wire.base import Wire

__all__ = [
    "CODES",
    "CODES_AT",
    "CODE_STATUS",
    "GENERIC_CODES",
    "TEXTS",
    "TextRule",
    "fallback_outcome",
    "possible_outcomes",
]

_INVALID = Outcome.INVALID_REQUEST
_QUOTA = Outcome.QUOTA_EXHAUSTED

CODES: Final[Mapping[str, Outcome]] = MappingProxyType(
    {
        # OpenAI, and those that copy its codes (Azure, Groq, Together, Fireworks, DeepSeek, vLLM)
        "invalid_api_key": Outcome.AUTH_FAILED,
        "incorrect_api_key": Outcome.AUTH_FAILED,
        "invalid_authentication": Outcome.AUTH_FAILED,
        "invalid_organization": Outcome.AUTH_FAILED,
        "mismatched_organization": Outcome.AUTH_FAILED,
        "ip_not_authorized": Outcome.AUTH_FAILED,
        "missing_scope": Outcome.AUTH_FAILED,
        "token_expired": Outcome.AUTH_FAILED,
        "account_deactivated": Outcome.SUSPENDED,
        "access_terminated": Outcome.SUSPENDED,
        "organization_restricted": Outcome.SUSPENDED,
        "organization_deactivated": Outcome.SUSPENDED,
        "unsupported_country_region_territory": Outcome.NOT_FOUND,  # the place is wrong, not the content
        "unsupported_country": Outcome.NOT_FOUND,
        "insufficient_quota": _QUOTA,
        "billing_hard_limit_reached": _QUOTA,
        "billing_not_active": _QUOTA,
        "insufficient_balance": _QUOTA,
        "insufficient_funds": _QUOTA,
        "credits_exhausted": _QUOTA,
        "payment_required": _QUOTA,
        "spend_limit_reached": _QUOTA,
        "rate_limit_exceeded": Outcome.RATE_LIMITED,
        "rate_limited": Outcome.RATE_LIMITED,
        "requests": Outcome.RATE_LIMITED,  # OpenAI's type of a 429: which limit was met
        "tokens": Outcome.RATE_LIMITED,
        "too_many_requests": Outcome.RATE_LIMITED,
        "toomanyrequests": Outcome.RATE_LIMITED,
        "rate_limit": Outcome.RATE_LIMITED,
        "slow_down": Outcome.OVERLOADED,
        "engine_overloaded": Outcome.OVERLOADED,
        "model_overloaded": Outcome.OVERLOADED,
        "overloaded": Outcome.OVERLOADED,
        "no_capacity": Outcome.OVERLOADED,
        "nocapacity": Outcome.OVERLOADED,
        "capacity_exceeded": Outcome.OVERLOADED,
        "flex_tier_capacity_exceeded": Outcome.OVERLOADED,
        "content_policy_violation": Outcome.REFUSED,
        "content_filter": Outcome.REFUSED,
        "content_filtered": Outcome.REFUSED,
        "moderation_blocked": Outcome.REFUSED,
        "responsibleaipolicyviolation": Outcome.REFUSED,
        "cyber_policy_violation": Outcome.REFUSED,
        "invalid_prompt": Outcome.REFUSED,  # Responses: reasoning models' usage policy
        "image_content_policy_violation": Outcome.REFUSED,
        "context_length_exceeded": _INVALID,
        "string_above_max_length": _INVALID,
        "unsupported_parameter": _INVALID,
        "unsupported_value": _INVALID,
        "invalid_value": _INVALID,
        "missing_required_parameter": _INVALID,
        "unknown_parameter": _INVALID,
        "json_validate_failed": _INVALID,  # Groq
        "tool_use_failed": _INVALID,  # Groq
        "model_not_found": Outcome.NOT_FOUND,
        "model_not_active": Outcome.NOT_FOUND,
        "model_decommissioned": Outcome.NOT_FOUND,
        "model_terms_required": Outcome.NOT_FOUND,
        "invalid_model": Outcome.NOT_FOUND,  # Mistral
        "model_not_available": Outcome.NOT_FOUND,
        "deploymentnotfound": Outcome.NOT_FOUND,  # Azure
        "deployment_not_found": Outcome.NOT_FOUND,
        "operationnotsupported": Outcome.NOT_FOUND,
        "permissiondenied": Outcome.AUTH_FAILED,
        "server_error": Outcome.UNAVAILABLE,
        "internal_error": Outcome.UNAVAILABLE,
        "internal_server_error": Outcome.UNAVAILABLE,
        "server_is_overloaded": Outcome.OVERLOADED,
        "service_unavailable": Outcome.UNAVAILABLE,
        "vector_store_timeout": Outcome.TIMED_OUT,
        # Anthropic
        "authentication_error": Outcome.AUTH_FAILED,
        "permission_error": Outcome.AUTH_FAILED,
        "billing_error": _QUOTA,
        "rate_limit_error": Outcome.RATE_LIMITED,
        "overloaded_error": Outcome.OVERLOADED,
        "api_error": Outcome.UNAVAILABLE,
        "timeout_error": Outcome.TIMED_OUT,
        "not_found_error": Outcome.NOT_FOUND,
        "request_too_large": _INVALID,
        "invalid_request_error": _INVALID,
        # Google: ErrorInfo.reason, then google.rpc.Code
        "api_key_invalid": Outcome.AUTH_FAILED,
        "api_key_expired": Outcome.AUTH_FAILED,
        "api_key_service_blocked": Outcome.AUTH_FAILED,
        "api_key_http_referrer_blocked": Outcome.AUTH_FAILED,
        "api_key_ip_address_blocked": Outcome.AUTH_FAILED,
        "access_token_expired": Outcome.AUTH_FAILED,
        "access_token_type_unsupported": Outcome.AUTH_FAILED,
        "account_state_invalid": Outcome.AUTH_FAILED,
        "credentials_missing": Outcome.AUTH_FAILED,
        "service_disabled": Outcome.AUTH_FAILED,
        "iam_permission_denied": Outcome.AUTH_FAILED,
        "consumer_invalid": Outcome.AUTH_FAILED,
        "consumer_suspended": Outcome.SUSPENDED,
        "user_project_denied": Outcome.AUTH_FAILED,
        "billing_disabled": _QUOTA,
        "resource_quota_exceeded": _QUOTA,
        "location_unsupported": Outcome.NOT_FOUND,
        "unauthenticated": Outcome.AUTH_FAILED,
        "permission_denied": Outcome.AUTH_FAILED,
        "resource_exhausted": Outcome.RATE_LIMITED,
        "unavailable": Outcome.UNAVAILABLE,
        "internal": Outcome.UNAVAILABLE,
        "unknown": Outcome.UNAVAILABLE,
        "aborted": Outcome.UNAVAILABLE,
        "deadline_exceeded": Outcome.TIMED_OUT,
        "not_found": Outcome.NOT_FOUND,
        "invalid_argument": _INVALID,
        "failed_precondition": _INVALID,
        "out_of_range": _INVALID,
        # Amazon
        "throttlingexception": Outcome.RATE_LIMITED,
        "throttledexception": Outcome.RATE_LIMITED,
        "toomanyrequestsexception": Outcome.RATE_LIMITED,
        "servicequotaexceededexception": _QUOTA,
        "accessdeniedexception": Outcome.AUTH_FAILED,
        "accessdenied": Outcome.AUTH_FAILED,
        "unrecognizedclientexception": Outcome.AUTH_FAILED,
        "invalidsignatureexception": Outcome.AUTH_FAILED,
        "incompletesignature": Outcome.AUTH_FAILED,
        "expiredtokenexception": Outcome.AUTH_FAILED,
        "missingauthenticationtokenexception": Outcome.AUTH_FAILED,
        "optinrequired": Outcome.AUTH_FAILED,
        "resourcenotfoundexception": Outcome.NOT_FOUND,
        "validationexception": _INVALID,
        "modelnotreadyexception": Outcome.OVERLOADED,
        "modeltimeoutexception": Outcome.TIMED_OUT,
        "modelerrorexception": Outcome.UNAVAILABLE,
        "modelstreamerrorexception": Outcome.UNAVAILABLE,
        "internalserverexception": Outcome.UNAVAILABLE,
        "serviceunavailableexception": Outcome.UNAVAILABLE,
    }
)
"""Codes, types, reasons and exception names, lower-case."""

GENERIC_CODES: Final = frozenset(
    {
        "invalid_request_error", "api_error", "permission_error", "permission_denied", "permissiondenied",
        "invalid_argument", "failed_precondition", "unavailable", "internal", "unknown", "server_error",
        "internal_error", "internal_server_error", "service_unavailable", "serviceunavailableexception",
        "not_found", "accessdeniedexception", "accessdenied", "validationexception", "invalid_value",
    }
)  # fmt: skip
"""Codes that vendors use for several things, so that the words are asked before them."""

CODES_AT: Final[Mapping[tuple[int, str], Outcome]] = MappingProxyType(
    {
        # Groq: the request alone is over the account's tokens per minute; it will not fit later either.
        (413, "rate_limit_exceeded"): _INVALID,
        (413, "tokens"): _INVALID,
        (504, "unavailable"): Outcome.TIMED_OUT,
    }
)

CODE_STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_api_key": 401, "authentication_error": 401, "unauthenticated": 401,
        "permission_error": 403, "permission_denied": 403, "account_deactivated": 403, "consumer_suspended": 403,
        "billing_error": 402, "insufficient_balance": 402, "payment_required": 402,
        "insufficient_quota": 429, "rate_limit_exceeded": 429, "rate_limit_error": 429, "resource_exhausted": 429,
        "throttlingexception": 429, "too_many_requests": 429, "requests": 429, "tokens": 429,
        "billing_hard_limit_reached": 429, "rate_limited": 429, "rate_limit": 429,
        "invalid_request_error": 400, "invalid_argument": 400, "invalid_prompt": 400, "context_length_exceeded": 400,
        "content_filter": 400, "content_policy_violation": 400, "validationexception": 400,
        "failed_precondition": 400, "cyber_policy_violation": 400,
        "not_found_error": 404, "model_not_found": 404, "not_found": 404, "request_too_large": 413,
        "overloaded_error": 529, "overloaded": 503, "server_is_overloaded": 503, "slow_down": 503,
        "unavailable": 503, "deadline_exceeded": 504, "timeout_error": 504,
    }
)  # fmt: skip
"""Which status an error inside a 200 (or inside a stream) would have had."""

_ANY_4XX = frozenset(
    {
        _INVALID, _QUOTA, Outcome.AUTH_FAILED, Outcome.SUSPENDED, Outcome.REFUSED, Outcome.NOT_FOUND,
        Outcome.RATE_LIMITED, Outcome.OVERLOADED,
    }
)  # fmt: skip
_ANY_5XX = frozenset({Outcome.UNAVAILABLE, Outcome.OVERLOADED, Outcome.TIMED_OUT, Outcome.RATE_LIMITED, _QUOTA})

_POSSIBLE: Final[Mapping[int, frozenset[Outcome]]] = MappingProxyType(
    {
        401: frozenset({Outcome.AUTH_FAILED, Outcome.SUSPENDED, _QUOTA, Outcome.NOT_FOUND}),
        402: frozenset({_QUOTA, Outcome.SUSPENDED}),
        408: frozenset({Outcome.TIMED_OUT}),
        413: frozenset({_INVALID}),
        422: frozenset({_INVALID, Outcome.REFUSED, Outcome.NOT_FOUND}),
        424: frozenset({Outcome.UNAVAILABLE}),
        429: frozenset({Outcome.RATE_LIMITED, _QUOTA, Outcome.OVERLOADED, Outcome.SUSPENDED}),
        451: frozenset({Outcome.REFUSED}),
    }
)


def possible_outcomes(status: int) -> frozenset[Outcome]:
    """What a status can mean at all, whatever the body says: a 500 is never the client's fault."""
    known = _POSSIBLE.get(status)
    if known is not None:
        return known
    return _ANY_4XX if 400 <= status < 500 else _ANY_5XX


_FALLBACKS: Final[Mapping[int, Outcome]] = MappingProxyType(
    {
        401: Outcome.AUTH_FAILED,
        402: _QUOTA,
        403: Outcome.AUTH_FAILED,
        404: Outcome.NOT_FOUND,
        407: Outcome.UNAVAILABLE,  # a proxy between us and the provider
        408: Outcome.TIMED_OUT,
        410: Outcome.NOT_FOUND,
        421: Outcome.UNAVAILABLE,
        424: Outcome.UNAVAILABLE,
        425: Outcome.UNAVAILABLE,
        429: Outcome.RATE_LIMITED,
        451: Outcome.REFUSED,
        498: Outcome.OVERLOADED,  # Groq: flex tier
        499: Outcome.UNAVAILABLE,  # the provider's own front hung up on its back
        504: Outcome.TIMED_OUT,
        522: Outcome.TIMED_OUT,  # Cloudflare
        524: Outcome.TIMED_OUT,
        529: Outcome.OVERLOADED,
    }
)


def fallback_outcome(status: int) -> Outcome:
    """What a status means when nothing else is known."""
    known = _FALLBACKS.get(status)
    if known is not None:
        return known
    return _INVALID if 400 <= status < 500 else Outcome.UNAVAILABLE


class TextRule(msgspec.Struct, frozen=True, kw_only=True):
    """Words that decide an outcome. ``refines``: only where a code said that; None: only where no code speaks."""

    outcome: Outcome
    words: tuple[str, ...]  # lower-case; any of them
    statuses: tuple[int, ...] = ()  # empty: any
    wires: tuple[Wire, ...] = ()  # empty: any
    refines: Outcome | None = None


TEXTS: Final[tuple[TextRule, ...]] = (
    TextRule(
        outcome=Outcome.SUSPENDED,
        statuses=(400, 401, 403, 429),
        words=(
            "organization has been disabled",
            "account has been disabled",
            "account has been deactivated",
            "has been suspended",
            "account is suspended",
            "account was suspended",
            "account_deactivated",
            "account has been terminated",
            "has been banned",
            "deactivated",
        ),
    ),
    TextRule(
        outcome=Outcome.SUSPENDED,
        statuses=(401, 403),
        refines=Outcome.AUTH_FAILED,
        words=("deactivated", "has been disabled", "has been suspended", "has been terminated"),
    ),
    TextRule(
        outcome=_QUOTA,
        statuses=(400, 401, 402, 403, 429),
        words=(
            "credit balance is too low",
            "reached your specified api usage limits",
            "insufficient balance",
            "insufficient credits",
            "used all available credits",
            "monthly spending limit",
            "exceeded your current quota",
            "exceeded your monthly",
            "requires billing to be enabled",
            "credit limit exceeded",
            "out of credits",
            "doesn't have any credits",
            "spend limit",
            "spending limit",
            "prepayment credits are depleted",
        ),
    ),
    # Google says "exceeded your current quota" for every limit; the quota ids tell (classify_times.quota_reset).
    TextRule(
        outcome=_QUOTA,
        statuses=(429,),
        wires=(Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES, Wire.ANTHROPIC_MESSAGES),
        refines=Outcome.RATE_LIMITED,
        words=("exceeded your current quota", "monthly spending limit", "used all available credits", "credit limit"),
    ),
    TextRule(
        outcome=Outcome.OVERLOADED, statuses=(429,), refines=Outcome.RATE_LIMITED, words=("overloaded", "at capacity")
    ),
    TextRule(
        outcome=Outcome.AUTH_FAILED,
        statuses=(400, 403),
        words=(
            "incorrect api key",
            "api key not valid",
            "invalid api key",
            "api key expired",
            "api key was reported as leaked",
            "security token included in the request is invalid",
            "missing authentication",
            "no auth credentials",
        ),
    ),
    TextRule(
        outcome=Outcome.NOT_FOUND,
        statuses=(400, 401, 403, 404),
        words=(
            "does not have access to model",
            "don't have access to the model",
            "is not supported in your region",
            "do not have access to the model",
            "user location is not supported",
            "model is not available in your",
            "is not found for api version",
            "no allowed providers are available",
            "not a valid model id",
            "model not found",
            "model does not exist",
            "model identifier is invalid",
            "tuned model",
        ),
    ),
    # A file of another project: the request names what this account cannot see; the key is fine.
    TextRule(
        outcome=_INVALID, statuses=(403,), words=("permission to access the file", "cached content", "cachedcontent")
    ),
    TextRule(
        outcome=Outcome.REFUSED,
        statuses=(400, 403, 422),
        words=(
            "flagged for",
            "input was flagged",
            "content filtering policy",
            "content management policy",
            "violates our usage policies",
            "safety system",
            "content violates",
            "prohibited content",
            "was blocked by",
            "content exists risk",
            "output blocked by content",
        ),
    ),
    TextRule(
        outcome=Outcome.OVERLOADED,
        statuses=(500, 502, 503, 504, 529),
        words=("overloaded", "no capacity", "at capacity", "over capacity", "slow down", "high demand"),
    ),
    TextRule(outcome=Outcome.RATE_LIMITED, statuses=(400, 500, 502, 503), words=("rate limit", "too many requests")),
)
"""The words, in the order they are asked."""
