"""OpenAI's error objects, read and written: ``{"error": {"message", "type", "code", "param"}}``, for both its wires.

Which status makes which outcome for an account is ``nightkeep.models.classify``'s business, not ours.
Statuses and types: platform.openai.com/docs/guides/error-codes, ``openai._client._make_status_error``;
dialects: OpenRouter's numeric ``code``, vLLM's error without the outer object, FastAPI's ``detail``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.events import Failed
from nightkeep.models.wire.base import WireError
from nightkeep.models.wire.shape import encode_json

__all__ = ["error_object", "failed", "read_error", "write_error"]

_KIND_BY_STATUS = {
    400: "invalid_request",
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_KIND_BY_CODE = {
    "content_filter": "refused",
    "content_policy_violation": "refused",
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "invalid_api_key": "authentication",
    "model_not_found": "not_found",
    "rate_limit_exceeded": "rate_limited",
    "server_overloaded": "overloaded",
    "engine_overloaded": "overloaded",
    "overloaded_error": "overloaded",
}
_TYPE_BY_KIND = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "invalid_request_error",
    "conflict": "invalid_request_error",
    "too_large": "invalid_request_error",
    "rate_limited": "rate_limit_error",
    "quota": "insufficient_quota",
    "overloaded": "service_unavailable_error",
    "timeout": "timeout_error",
    "refused": "invalid_request_error",
    "api_error": "server_error",
}
_STATUS_BY_CODE = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "server_overloaded": 503,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
}


def read_error(status: int, body: bytes) -> WireError:
    """Read an error answer; what is not understood is kept as the message."""
    fallback = _KIND_BY_STATUS.get(status, "invalid_request" if 400 <= status < 500 else "api_error")
    error = _error_of(body)
    if error is None:
        text = body[:2000].decode(errors="replace").strip()
        return WireError(status=status, code=fallback, message=text or f"HTTP {status} without a body", kind=fallback)
    code, kind_word, parameter = error.get("code"), error.get("type"), error.get("param")
    word = str(code) if isinstance(code, str) and code else str(kind_word or code or fallback)
    kind = _KIND_BY_CODE.get(word) or _KIND_BY_CODE.get(str(kind_word)) or fallback
    return WireError(
        status=status,
        code=word,
        message=str(error.get("message") or error.get("detail") or f"HTTP {status}"),
        kind=kind,
        parameter=parameter if isinstance(parameter, str) else None,
    )


def _error_of(body: bytes) -> dict[str, Any] | None:
    """The object that says what went wrong, wherever the dialect puts it."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(document, list) and document:  # Gemini's OpenAI-compatible door
        document = document[0]
    if not isinstance(document, dict):
        return None
    error = document.get("error", document)
    if isinstance(error, str):
        return {"message": error, "code": document.get("code"), "type": document.get("type")}
    if not isinstance(error, dict) or not (error.get("message") or error.get("detail")):
        return None
    return error


def failed(error: dict[str, Any] | str) -> Failed:
    """An error told inside a stream, as an event."""
    if isinstance(error, str):
        return Failed("server_error", error)
    code, kind = error.get("code"), error.get("type")
    word = code if isinstance(code, str) and code else str(kind or code or "server_error")
    status = code if isinstance(code, int) else _STATUS_BY_CODE.get(word, _STATUS_BY_CODE.get(str(kind)))
    return Failed(word, str(error.get("message") or ""), status)


def error_object(error: WireError) -> dict[str, Any]:
    """The vendor's error object, with our facts under ``nightkeep`` inside it."""
    facts: dict[str, Any] = {"code": error.code, **error.data}
    if error.retry_after_s is not None:
        facts["retry_after_s"] = error.retry_after_s
    return {
        "message": error.message,
        "type": _TYPE_BY_KIND.get(error.kind, "server_error"),
        "param": error.parameter,
        "code": error.code,
        "nightkeep": facts,
    }


def write_error(error: WireError) -> tuple[int, bytes]:
    """The status and body from which the vendor's SDK raises its typed error (503 for overloaded, never 529)."""
    status = 503 if error.status == 529 else error.status
    return status, encode_json({"error": error_object(error)})
