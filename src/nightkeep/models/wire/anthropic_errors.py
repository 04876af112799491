"""Anthropic's error objects, read and written: ``{"type": "error", "error": {"type", "message"}}``.

Which status makes which outcome for an account is ``nightkeep.models.classify``'s business, not ours.
Types: the vendor's SDK, ``anthropic.types.shared.error_type``; statuses: docs.anthropic.com/en/api/errors.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.models.wire.base import WireError
from nightkeep.models.wire.shape import encode_json

__all__ = ["STATUS_BY_TYPE", "error_object", "read_error", "write_error"]

STATUS_BY_TYPE: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that each error type goes with; inside a stream only the type is told."""

_KIND_BY_TYPE: dict[str, str] = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "authentication",
    "billing_error": "quota",
    "permission_error": "permission",
    "not_found_error": "not_found",
    "conflict_error": "conflict",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limited",
    "api_error": "api_error",
    "timeout_error": "timeout",
    "overloaded_error": "overloaded",
}
_TYPE_BY_KIND = {kind: name for name, kind in _KIND_BY_TYPE.items()} | {"refused": "invalid_request_error"}
_KIND_BY_STATUS = {status: _KIND_BY_TYPE[name] for name, status in STATUS_BY_TYPE.items()} | {
    408: "timeout",
    503: "overloaded",
}


def read_error(status: int, body: bytes) -> WireError:
    """Read an error answer; what is not understood is kept as the message."""
    fallback = _KIND_BY_STATUS.get(status, "invalid_request" if 400 <= status < 500 else "api_error")
    try:
        document: Any = msgspec.json.decode(body)
        error = document["error"]
        kind, message = error.get("type"), error.get("message")
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        text = body[:2000].decode(errors="replace").strip()
        return WireError(status=status, code=fallback, message=text or f"HTTP {status} without a body", kind=fallback)
    word = kind if isinstance(kind, str) else ""
    message = message if isinstance(message, str) else ""
    neutral = _KIND_BY_TYPE.get(word, fallback)
    if "credit balance is too low" in message:
        neutral = "quota"
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return WireError(status=status, code=code or word or fallback, message=message, kind=neutral)


def error_object(error: WireError) -> dict[str, Any]:
    """The vendor's error object, with our facts under ``nightkeep`` inside it."""
    facts: dict[str, Any] = {"code": error.code, **error.data}
    if error.parameter is not None:
        facts["parameter"] = error.parameter
    if error.retry_after_s is not None:
        facts["retry_after_s"] = error.retry_after_s
    inner = {"type": _TYPE_BY_KIND.get(error.kind, "api_error"), "message": error.message, "nightkeep": facts}
    return {"type": "error", "error": inner}


def write_error(error: WireError) -> tuple[int, bytes]:
    """The status and body from which the vendor's SDK raises its typed error (529 for overloaded)."""
    status = 529 if error.kind == "overloaded" else error.status
    return status, encode_json(error_object(error))
