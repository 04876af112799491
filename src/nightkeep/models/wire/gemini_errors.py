"""Google's error objects, read and written: ``{"error": {"code", "message", "status", "details": []}}``.

Details are typed (google.rpc): ``RetryInfo`` says when to come back, ``QuotaFailure`` which quota is used up,
``ErrorInfo`` why. Source: cloud.google.com/apis/design/errors, google/rpc/error_details.proto.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.models.wire.base import WireError
from nightkeep.models.wire.shape import encode_json

__all__ = ["error_object", "read_error", "read_error_object", "write_error"]

_KIND_BY_STATUS_WORD: dict[str, str] = {
    "INVALID_ARGUMENT": "invalid_request",
    "FAILED_PRECONDITION": "invalid_request",
    "OUT_OF_RANGE": "invalid_request",
    "UNAUTHENTICATED": "authentication",
    "PERMISSION_DENIED": "permission",
    "NOT_FOUND": "not_found",
    "ALREADY_EXISTS": "conflict",
    "ABORTED": "conflict",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "UNAVAILABLE": "overloaded",
    "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "api_error",
    "UNKNOWN": "api_error",
}
_STATUS_WORD_BY_KIND: dict[str, str] = {
    "invalid_request": "INVALID_ARGUMENT",
    "authentication": "UNAUTHENTICATED",
    "permission": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "conflict": "ABORTED",
    "too_large": "INVALID_ARGUMENT",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "quota": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "refused": "INVALID_ARGUMENT",
    "api_error": "INTERNAL",
}
_KIND_BY_HTTP: dict[int, str] = {
    400: "invalid_request",
    401: "authentication",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
}
_TYPE = "type.googleapis.com/google.rpc."


def read_error(status: int, body: bytes) -> WireError:
    """Read an error answer (an array with one too); what is not understood is kept as the message."""
    try:
        document: Any = msgspec.json.decode(body)
        if isinstance(document, list):
            document = document[0]
        error = document["error"]
        if isinstance(error, dict):
            return read_error_object(error, status)
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        pass
    kind = _KIND_BY_HTTP.get(status, "invalid_request" if 400 <= status < 500 else "api_error")
    text = body[:2000].decode(errors="replace").strip()
    return WireError(status=status, code=kind, message=text or f"HTTP {status} without a body", kind=kind)


def read_error_object(error: dict[str, Any], status: int | None = None) -> WireError:
    """Read what stands under ``error``; its own code counts where no HTTP status is given (inside a stream)."""
    code = error.get("code")
    http = status or (code if isinstance(code, int) else 500)
    word = error.get("status")
    word = word if isinstance(word, str) else ""
    kind = _KIND_BY_STATUS_WORD.get(word) or _KIND_BY_HTTP.get(http, "api_error")
    retry_after_s: float | None = None
    facts: dict[str, Any] = {}
    for detail in error.get("details") or ():
        if not isinstance(detail, dict):
            continue
        name = str(detail.get("@type", "")).rpartition(".")[2]
        if name == "RetryInfo":
            retry_after_s = _seconds(detail.get("retryDelay"))
        elif name == "ErrorInfo":
            facts["reason"] = detail.get("reason")
        elif name == "QuotaFailure":
            facts["quota"] = [item.get("quotaId") or item.get("subject") for item in _objects(detail, "violations")]
    if facts.get("reason") in ("API_KEY_INVALID", "API_KEY_EXPIRED"):
        kind = "authentication"
    if kind == "rate_limited" and any("PerDay" in str(quota) for quota in facts.get("quota", ())):
        kind = "quota"
    return WireError(
        status=http,
        code=facts.get("reason") or word or kind,
        message=str(error.get("message") or ""),
        kind=kind,
        retry_after_s=retry_after_s,
        data={name: value for name, value in facts.items() if value},
    )


def _objects(detail: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = detail.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _seconds(delay: object) -> float | None:
    """A protobuf duration such as ``17s`` or ``0.5s``."""
    try:
        return float(str(delay).removesuffix("s"))
    except ValueError:
        return None


def error_object(error: WireError) -> dict[str, Any]:
    """Google's error object, with our facts as an ``ErrorInfo`` of domain ``nightkeep``."""
    facts = dict(error.data)
    if error.parameter is not None:
        facts["parameter"] = error.parameter
    metadata = {name: _as_text(value) for name, value in facts.items() if value is not None}
    info = {"@type": _TYPE + "ErrorInfo", "reason": error.code.upper(), "domain": "nightkeep", "metadata": metadata}
    details: list[dict[str, Any]] = [info]
    if error.retry_after_s is not None:
        details.append({"@type": _TYPE + "RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"})
    word = _STATUS_WORD_BY_KIND.get(error.kind, "INTERNAL")
    return {"error": {"code": error.status, "message": error.message, "status": word, "details": details}}


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()


def write_error(error: WireError) -> tuple[int, bytes]:
    """The status and body from which the vendor's SDK raises its typed error."""
    return error.status, encode_json(error_object(error))
