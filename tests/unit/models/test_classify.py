"""What vendors really answer, and what it means: real bodies (shortened), one row each."""

# ruff: noqa: E501 - one vendor answer a row reads better than one over five lines
from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.classify import MOST_MESSAGE_CHARACTERS, classify, classify_fault, redacted
from nightkeep.models.classify_times import MOST_WAIT_S, duration_s
from nightkeep.models.transport import Fault
from nightkeep.models.wire.base import Wire

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CHAT, RESPONSES, MESSAGES, GEMINI = (
    Wire.OPENAI_CHAT,
    Wire.OPENAI_RESPONSES,
    Wire.ANTHROPIC_MESSAGES,
    Wire.GEMINI,
)


def said(wire: Wire, status: int, body: Any, headers: dict[str, str] | None = None) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(wire, status, headers or {}, raw, NOW)


def openai(message: str, kind: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def reason(text: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": text, "domain": "googleapis.com"}


def quota(*ids: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": each} for each in ids]}


def delay(text: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": text}


HTML = b"<!DOCTYPE html>\n<html><head><title>api.example.com | 520: Web server is returning an unknown error</title></head>"

CASES: list[tuple[str, Wire, int, Any, Outcome]] = [
    # OpenAI
    ("wrong key", CHAT, 401, openai("Incorrect API key provided: sk-proj-****abcd.", "invalid_request_error", "invalid_api_key"), Outcome.AUTH_FAILED),
    ("no key", CHAT, 401, openai("You didn't provide an API key.", "invalid_request_error"), Outcome.AUTH_FAILED),
    ("wrong organization", CHAT, 401, openai("No such organization: org-x.", "invalid_request_error", "invalid_organization"), Outcome.AUTH_FAILED),
    ("missing scope", CHAT, 401, openai("You have insufficient permissions for this operation. Missing scopes: model.request", "invalid_request_error", "missing_scope"), Outcome.AUTH_FAILED),
    ("deactivated 403", CHAT, 403, openai("Your account has been deactivated.", "invalid_request_error", "account_deactivated"), Outcome.SUSPENDED),
    ("deactivated 401", CHAT, 401, openai("The OpenAI account associated with this API key has been deactivated.", "invalid_request_error", "account_deactivated"), Outcome.SUSPENDED),
    ("deactivated by words", CHAT, 403, openai("This organization has been deactivated", "invalid_request_error"), Outcome.SUSPENDED),
    ("terminated", CHAT, 429, openai("Your access was terminated due to violation of our policies", "access_terminated", "access_terminated"), Outcome.SUSPENDED),
    ("country", CHAT, 403, openai("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"), Outcome.NOT_FOUND),
    ("no quota", CHAT, 429, openai("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"), Outcome.QUOTA_EXHAUSTED),
    ("hard limit", CHAT, 400, openai("Billing hard limit has been reached.", "billing_limit_user_error", "billing_hard_limit_reached"), Outcome.QUOTA_EXHAUSTED),
    ("billing not active", CHAT, 429, openai("Your account is not active, please check your billing details.", "billing_not_active", "billing_not_active"), Outcome.QUOTA_EXHAUSTED),
    ("requests per minute", CHAT, 429, openai("Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3. Please try again in 20s.", "requests", "rate_limit_exceeded"), Outcome.RATE_LIMITED),
    ("tokens per minute", CHAT, 429, openai("Rate limit reached for gpt-4o on tokens per min (TPM). Please try again in 6m0s.", "tokens", "rate_limit_exceeded"), Outcome.RATE_LIMITED),
    ("requests per day", CHAT, 429, openai("Rate limit reached on requests per day (RPD): Limit 200. Please try again in 7m12s.", "requests", "rate_limit_exceeded"), Outcome.QUOTA_EXHAUSTED),
    ("content policy", CHAT, 400, openai("Your request was rejected as a result of our safety system.", "invalid_request_error", "content_policy_violation"), Outcome.REFUSED),
    ("usage policy", RESPONSES, 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_request_error", "invalid_prompt"), Outcome.REFUSED),
    ("context", CHAT, 400, openai("This model's maximum context length is 128000 tokens.", "invalid_request_error", "context_length_exceeded"), Outcome.INVALID_REQUEST),
    ("unknown parameter", CHAT, 400, openai("Unrecognized request argument supplied: foo", "invalid_request_error"), Outcome.INVALID_REQUEST),
    ("unsupported value", CHAT, 400, openai("Unsupported value: 'temperature' does not support 0.2", "invalid_request_error", "unsupported_value"), Outcome.INVALID_REQUEST),
    ("no model", CHAT, 404, openai("The model `gpt-9` does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"), Outcome.NOT_FOUND),
    ("no access to model", CHAT, 403, openai("Project `proj_x` does not have access to model `o3`", "invalid_request_error", "model_not_found"), Outcome.NOT_FOUND),
    ("server error", CHAT, 500, openai("The server had an error while processing your request. Sorry about that!", "server_error"), Outcome.UNAVAILABLE),
    ("bad gateway", CHAT, 502, b"Bad Gateway", Outcome.UNAVAILABLE),
    ("overloaded", CHAT, 503, openai("That model is currently overloaded with other requests.", "server_error"), Outcome.OVERLOADED),
    ("slow down", CHAT, 503, openai("Slow Down", "service_unavailable", "slow_down"), Outcome.OVERLOADED),
    ("unavailable", CHAT, 503, openai("The service is unavailable", "service_unavailable"), Outcome.UNAVAILABLE),
    ("a 500 that blames the client", CHAT, 500, openai("oops", "invalid_request_error", "invalid_value"), Outcome.UNAVAILABLE),
    # Anthropic
    ("a. wrong key", MESSAGES, 401, anthropic("authentication_error", "invalid x-api-key"), Outcome.AUTH_FAILED),
    ("a. permission", MESSAGES, 403, anthropic("permission_error", "Your API key does not have permission to use the specified resource."), Outcome.AUTH_FAILED),
    ("a. disabled 403", MESSAGES, 403, anthropic("permission_error", "This organization has been disabled."), Outcome.SUSPENDED),
    ("a. disabled 400", MESSAGES, 400, anthropic("invalid_request_error", "This organization has been disabled."), Outcome.SUSPENDED),
    ("a. credit", MESSAGES, 400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."), Outcome.QUOTA_EXHAUSTED),
    ("a. billing", MESSAGES, 402, anthropic("billing_error", "There's an issue with your billing or payment information."), Outcome.QUOTA_EXHAUSTED),
    ("a. usage limit", MESSAGES, 400, anthropic("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."), Outcome.QUOTA_EXHAUSTED),
    ("a. rate limit", MESSAGES, 429, anthropic("rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute"), Outcome.RATE_LIMITED),
    ("a. overloaded", MESSAGES, 529, anthropic("overloaded_error", "Overloaded"), Outcome.OVERLOADED),
    ("a. too large", MESSAGES, 413, anthropic("request_too_large", "Request exceeds the maximum size"), Outcome.INVALID_REQUEST),
    ("a. invalid", MESSAGES, 400, anthropic("invalid_request_error", "max_tokens: Field required"), Outcome.INVALID_REQUEST),
    ("a. too long", MESSAGES, 400, anthropic("invalid_request_error", "prompt is too long: 213462 tokens > 200000 maximum"), Outcome.INVALID_REQUEST),
    ("a. filter", MESSAGES, 400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), Outcome.REFUSED),
    ("a. no model", MESSAGES, 404, anthropic("not_found_error", "model: claude-3-opus-20240229"), Outcome.NOT_FOUND),
    ("a. internal", MESSAGES, 500, anthropic("api_error", "Internal server error"), Outcome.UNAVAILABLE),
    ("a. timeout", MESSAGES, 504, anthropic("timeout_error", "Request timed out"), Outcome.TIMED_OUT),
    # Gemini
    ("g. wrong key", GEMINI, 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", reason("API_KEY_INVALID")), Outcome.AUTH_FAILED),
    ("g. leaked key", GEMINI, 403, google(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key."), Outcome.AUTH_FAILED),
    ("g. suspended", GEMINI, 403, google(403, "PERMISSION_DENIED", "Permission denied: Consumer 'api_key:AIzaSyA1234567890' has been suspended.", reason("CONSUMER_SUSPENDED")), Outcome.SUSPENDED),
    ("g. API is off", GEMINI, 403, google(403, "PERMISSION_DENIED", "Generative Language API has not been used in project 1 before or it is disabled.", reason("SERVICE_DISABLED")), Outcome.AUTH_FAILED),
    ("g. billing off", GEMINI, 403, google(403, "PERMISSION_DENIED", "This API method requires billing to be enabled.", reason("BILLING_DISABLED")), Outcome.QUOTA_EXHAUSTED),
    ("g. file of another", GEMINI, 403, google(403, "PERMISSION_DENIED", "You do not have permission to access the File abc or it may not exist."), Outcome.INVALID_REQUEST),
    ("g. per day", GEMINI, 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), delay("34.07s")), Outcome.QUOTA_EXHAUSTED),
    ("g. per minute", GEMINI, 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", quota("GenerateContentInputTokensPerModelPerMinute-FreeTier"), delay("34.07s")), Outcome.RATE_LIMITED),
    ("g. exhausted", GEMINI, 429, google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."), Outcome.RATE_LIMITED),
    ("g. overloaded", GEMINI, 503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), Outcome.OVERLOADED),
    ("g. high demand", GEMINI, 503, google(503, "UNAVAILABLE", "This model is currently experiencing high demand."), Outcome.OVERLOADED),
    ("g. internal", GEMINI, 500, google(500, "INTERNAL", "An internal error has occurred."), Outcome.UNAVAILABLE),
    ("g. deadline", GEMINI, 504, google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."), Outcome.TIMED_OUT),
    ("g. no model", GEMINI, 404, google(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"), Outcome.NOT_FOUND),
    ("g. region", GEMINI, 400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), Outcome.NOT_FOUND),
    ("g. parameter (W3.3)", GEMINI, 400, google(400, "INVALID_ARGUMENT", 'Unknown name "reasoning_effort": Cannot find field.'), Outcome.INVALID_REQUEST),
    ("g. in a list", GEMINI, 429, [google(429, "RESOURCE_EXHAUSTED", "quota")], Outcome.RATE_LIMITED),
    ("vertex expired token", GEMINI, 401, google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", reason("ACCESS_TOKEN_EXPIRED")), Outcome.AUTH_FAILED),
    # the others
    ("openrouter no credits", CHAT, 402, {"error": {"code": 402, "message": "Insufficient credits. Add more using https://openrouter.ai/credits"}}, Outcome.QUOTA_EXHAUSTED),
    ("openrouter moderation", CHAT, 403, {"error": {"code": 403, "message": "openai/gpt-4o requires moderation. Your input was flagged for \"violence\"", "metadata": {"reasons": ["violence"]}}}, Outcome.REFUSED),
    ("openrouter upstream", CHAT, 429, {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "x is temporarily rate-limited upstream", "provider_name": "Y"}}}, Outcome.RATE_LIMITED),
    ("openrouter no model", CHAT, 400, {"error": {"code": 400, "message": "openai/gpt-9 is not a valid model ID"}}, Outcome.NOT_FOUND),
    ("openrouter 200 with an error", CHAT, 200, {"error": {"code": 502, "message": "Upstream error"}}, Outcome.UNAVAILABLE),
    ("deepseek", CHAT, 402, openai("Insufficient Balance", "unknown_error", "invalid_request_error"), Outcome.QUOTA_EXHAUSTED),
    ("deepseek content", CHAT, 400, openai("Content Exists Risk", "invalid_request_error", "invalid_request_error"), Outcome.REFUSED),
    ("azure filter", CHAT, 400, {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "type": None, "code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Outcome.REFUSED),
    ("azure rate", CHAT, 429, {"error": {"code": "429", "message": "Requests have exceeded call rate limit. Please retry after 6 seconds."}}, Outcome.RATE_LIMITED),
    ("azure deployment", CHAT, 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, Outcome.NOT_FOUND),
    ("azure key", CHAT, 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}}, Outcome.AUTH_FAILED),
    ("bedrock throttled", MESSAGES, 429, {"__type": "com.amazon.coral#ThrottlingException", "message": "Too many requests, please wait before trying again."}, Outcome.RATE_LIMITED),
    ("bedrock per day", MESSAGES, 429, {"__type": "ThrottlingException", "message": "Too many tokens per day, please wait before trying again."}, Outcome.QUOTA_EXHAUSTED),
    ("bedrock old throttled", MESSAGES, 400, {"__type": "ThrottlingException", "message": "Too many tokens"}, Outcome.RATE_LIMITED),
    ("bedrock service quota", MESSAGES, 400, {"__type": "ServiceQuotaExceededException", "message": "Your request exceeds the service quota for your account."}, Outcome.QUOTA_EXHAUSTED),
    ("bedrock no access", MESSAGES, 403, {"__type": "AccessDeniedException", "message": "You don't have access to the model with the specified model ID."}, Outcome.NOT_FOUND),
    ("bedrock not allowed", MESSAGES, 403, {"__type": "AccessDeniedException", "message": "User is not authorized to perform: bedrock:InvokeModel"}, Outcome.AUTH_FAILED),
    ("bedrock token", MESSAGES, 403, {"message": "The security token included in the request is invalid."}, Outcome.AUTH_FAILED),
    ("bedrock validation", MESSAGES, 400, {"__type": "ValidationException", "message": "messages: final assistant content cannot end with whitespace"}, Outcome.INVALID_REQUEST),
    ("bedrock not ready", MESSAGES, 429, {"__type": "ModelNotReadyException", "message": "Model is not ready"}, Outcome.OVERLOADED),
    ("groq tokens per day", CHAT, 429, openai("Rate limit reached for model on tokens per day (TPD): Limit 100000. Please try again in 1h2m3.5s.", "tokens", "rate_limit_exceeded"), Outcome.QUOTA_EXHAUSTED),
    ("groq request over the limit", CHAT, 413, openai("Request too large for model on tokens per minute (TPM): Limit 6000, Requested 9000", "tokens", "rate_limit_exceeded"), Outcome.INVALID_REQUEST),
    ("groq flex", CHAT, 498, openai("Flex tier capacity exceeded", "capacity", "flex_tier_capacity_exceeded"), Outcome.OVERLOADED),
    ("groq restricted", CHAT, 400, openai("Organization has been restricted.", "invalid_request_error", "organization_restricted"), Outcome.SUSPENDED),
    ("mistral key", CHAT, 401, {"detail": "Unauthorized"}, Outcome.AUTH_FAILED),
    ("mistral rate", CHAT, 429, {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}, Outcome.RATE_LIMITED),
    ("mistral model", CHAT, 400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}, Outcome.NOT_FOUND),
    ("mistral shape", CHAT, 422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}]}, Outcome.INVALID_REQUEST),
    ("together model", CHAT, 404, openai("Unable to access model x.", "invalid_request_error", "model_not_available"), Outcome.NOT_FOUND),
    ("together credit", CHAT, 402, openai("Credit limit exceeded, please add credits", "credit_limit"), Outcome.QUOTA_EXHAUSTED),
    ("fireworks suspended", CHAT, 412, {"error": {"message": "Account x is suspended, possibly due to reaching the monthly spending limit", "code": "precondition"}}, Outcome.INVALID_REQUEST),
    ("xai wrong key", CHAT, 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***bc."}, Outcome.AUTH_FAILED),
    ("xai no credits", CHAT, 429, {"code": "Some resource has been exhausted", "error": "Your team has either used all available credits or reached its monthly spending limit."}, Outcome.QUOTA_EXHAUSTED),
    ("xai no model", CHAT, 404, {"code": "Some requested entity was not found", "error": "The model grok-9 does not exist"}, Outcome.NOT_FOUND),
    ("vllm too long", CHAT, 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "type": "BadRequestError", "code": 400}, Outcome.INVALID_REQUEST),
    ("ollama no model", CHAT, 404, {"error": {"message": "model 'x' not found", "type": "api_error"}}, Outcome.NOT_FOUND),
    ("cloudflare 520", CHAT, 520, HTML, Outcome.UNAVAILABLE),
    ("cloudflare 524", CHAT, 524, HTML, Outcome.TIMED_OUT),
    ("a firewall's 403", MESSAGES, 403, b"<html><head><title>Attention Required! | Cloudflare</title></head></html>", Outcome.UNAVAILABLE),
    ("html with 200", CHAT, 200, b"<html><title>Sign in</title></html>", Outcome.UNAVAILABLE),
    ("a redirect", CHAT, 307, b"", Outcome.UNAVAILABLE),
    ("error inside of 200", CHAT, 200, openai("Rate limit reached", "requests", "rate_limit_exceeded"), Outcome.RATE_LIMITED),
    ("responses failed", RESPONSES, 200, {"type": "response.failed", "response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}}, Outcome.RATE_LIMITED),
    ("anthropic error event", MESSAGES, 200, anthropic("overloaded_error", "Overloaded"), Outcome.OVERLOADED),
    ("success", CHAT, 200, {"id": "x", "choices": []}, Outcome.SUCCESS),
    ("responses success", RESPONSES, 200, {"id": "resp_1", "error": None, "output": []}, Outcome.SUCCESS),
    ("created", CHAT, 201, b"", Outcome.SUCCESS),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "status", "body", "outcome"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_an_answer_means_what_its_vendor_means(wire: Wire, status: int, body: Any, outcome: Outcome) -> None:
    verdict = said(wire, status, body)
    assert verdict.outcome is outcome, verdict
    assert verdict.status == status
    assert len(verdict.message) <= MOST_MESSAGE_CHARACTERS


def test_there_are_sixty_cases_at_least() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "999999999"}, MOST_WAIT_S),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-tokens": "1s"}, 360.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"anthropic-ratelimit-requests-reset": "2026-03-01T12:00:42Z", "anthropic-ratelimit-requests-remaining": "0"}, 42.0),
        ({"x-ratelimit-reset": "1772366460000", "x-ratelimit-remaining": "0"}, 60.0),
        ({}, None),
    ],
)  # fmt: skip
def test_a_wait_is_read_from_headers_and_kept_within_bounds(headers: dict[str, str], seconds: float | None) -> None:
    verdict = said(CHAT, 429, openai("slow", "requests", "rate_limit_exceeded"), headers)
    assert verdict.retry_after_s == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("1s", 1),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("34.07s", 34.07),
        ("2d", 172800),
        ("x", None),
        ("", None),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (pytest.approx(seconds) if seconds is not None else None)


def test_a_wait_is_read_from_the_sentence_where_no_header_has_it() -> None:
    verdict = said(
        CHAT, 429, openai("Rate limit reached on requests per min. Please try again in 1m30s. Visit", "requests")
    )
    assert verdict.retry_after_s == 90.0
    assert said(CHAT, 429, openai("Please retry after 6 seconds.")).retry_after_s == 6.0


def test_a_daily_quota_of_google_ends_at_midnight_in_california() -> None:
    body = google(429, "RESOURCE_EXHAUSTED", "quota", quota("GenerateRequestsPerDayPerProject-FreeTier"), delay("20s"))
    assert said(GEMINI, 429, body).resets_at == datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def test_a_per_minute_quota_of_google_waits_as_long_as_it_says() -> None:
    body = google(429, "RESOURCE_EXHAUSTED", "quota", quota("RequestsPerMinutePerProject"), delay("34.07s"))
    verdict = said(GEMINI, 429, body)
    assert (verdict.outcome, verdict.retry_after_s) == (Outcome.RATE_LIMITED, pytest.approx(34.07))


def test_a_spend_limit_of_anthropic_ends_when_it_says() -> None:
    message = "You have reached your specified API usage limits. You will regain access on 2026-03-05 at 00:00 UTC."
    verdict = said(MESSAGES, 400, anthropic("invalid_request_error", message))
    assert verdict.resets_at == datetime(2026, 3, 5, tzinfo=UTC)


def test_a_used_up_subscription_is_a_quota_with_its_reset() -> None:
    headers = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": "1772380800"}
    verdict = said(MESSAGES, 429, anthropic("rate_limit_error", "usage limit reached"), headers)
    assert verdict.outcome is Outcome.QUOTA_EXHAUSTED
    assert verdict.resets_at == datetime(2026, 3, 1, 16, 0, tzinfo=UTC)


def test_a_quota_that_only_payment_reopens_has_no_reset() -> None:
    verdict = said(CHAT, 429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"))
    assert verdict.resets_at is None
    assert verdict.provider_code == "insufficient_quota"


def test_the_code_is_kept_for_the_caller() -> None:
    verdict = said(CHAT, 400, openai("too long", "invalid_request_error", "context_length_exceeded"))
    assert verdict.provider_code == "context_length_exceeded"


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop1234", "sk-ant-api03-AbCdEf_123-456", "AIzaSyA1234567890abcdefghijk", "gsk_abcdefghij123456",
        "xai-abcdefghijk12345", "AKIAIOSFODNN7EXAMPLE", "0123456789abcdef0123456789abcdef", "tgp_v1_abcdefgh12345",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "ya29.a0AfH6SMBxxxxxxxxxxxxx",
    ],
)  # fmt: skip
def test_nothing_that_looks_like_a_key_is_passed_on(key: str) -> None:
    verdict = said(CHAT, 401, openai(f"Incorrect API key provided: {key}. You can find", code="invalid_api_key"))
    assert key not in verdict.message
    assert key not in said(CHAT, 500, f"trace: {key}".encode()).message


def test_what_people_need_is_not_redacted() -> None:
    text = "model claude-sonnet-4-5-20250929 at req_011CSHoEeqs5C35K2UUqR7Fy in org-abc: see https://example.com/docs"
    assert redacted(text) == text


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_below_http_has_an_outcome(fault: Fault) -> None:
    verdict = classify_fault(fault, "detail")
    assert verdict.outcome in {Outcome.UNAVAILABLE, Outcome.TIMED_OUT, Outcome.CUT_STREAM}
    assert verdict.message.endswith("detail")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "message",
                    "code",
                    "type",
                    "details",
                    "violations",
                    "status",
                    "metadata",
                    "response",
                    "errors",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode())
header_names = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-unified-reset",
        "x-amzn-errortype",
    ]
)


@given(
    wire=st.sampled_from(list(Wire)),
    status=st.integers(0, 999),
    headers=st.dictionaries(header_names, st.text(max_size=40) | st.integers().map(str), max_size=3),
    body=bodies,
)
def test_any_bytes_are_classified_without_raising(
    wire: Wire, status: int, headers: dict[str, str], body: bytes
) -> None:
    verdict = classify(wire, status, headers, body, NOW)
    assert len(verdict.message) <= MOST_MESSAGE_CHARACTERS
    assert verdict.retry_after_s is None or 0 <= verdict.retry_after_s <= MOST_WAIT_S
    assert verdict.resets_at is None or verdict.resets_at >= NOW
    if status >= 500:
        assert verdict.outcome not in {Outcome.INVALID_REQUEST, Outcome.AUTH_FAILED, Outcome.REFUSED, Outcome.SUCCESS}
    if 300 <= status < 500:
        assert verdict.outcome is not Outcome.SUCCESS
