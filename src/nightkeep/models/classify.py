"""From a provider's answer to an outcome: by status first, then by machine-readable code, by text last.

Pure: bytes and headers in, a ``Verdict`` out, and it never raises. The vendors' words are data
(``nightkeep.models.classify_rules``), times and waits are read in ``nightkeep.models.classify_times``.
What an outcome does to the account is ``nightkeep.models.accounts``, to the next attempt
``nightkeep.models.retry``; how an error looks to the client is each codec's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.classify_rules import (
    CODE_STATUS,
    CODES,
    CODES_AT,
    GENERIC_CODES,
    TEXTS,
    fallback_outcome,
    possible_outcomes,
)
from nightkeep.models.classify_times import longest_wait, quota_reset
from nightkeep.models.transport import Fault
from nightkeep.models.wire.base import Wire

__all__ = ["MOST_MESSAGE_CHARACTERS", "classify", "classify_fault", "redacted", "shortened"]

MOST_MESSAGE_CHARACTERS: Final = 300
_MOST_PARSED_BYTES: Final = 1 << 20
_MOST_WALKED: Final = 64  # items looked at in any list a provider sends

_KEYS: Final = re.compile(
    r"""(?ix)
      \b(?:sk|pk|rk|sess|key|fw|gsk|xai|tgp|hf|r8|pplx|nvapi|csk|ABSK|nk)[-_][A-Za-z0-9*_.\-]{6,}
    | \bAIza[A-Za-z0-9_\-]{10,} | \bAQ\.[A-Za-z0-9_\-]{20,} | \bya29\.[A-Za-z0-9_\-.]{10,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,} | \bABSK[A-Za-z0-9+/=]{16,}
    | \beyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]+)*
    | (?<=bearer\s)[A-Za-z0-9._~+/=\-]{8,}
    | (?<=api_key=)[^\s"'&]{6,} | (?<=[?&]key=)[^\s"'&]{6,}
    | (?<![A-Za-z0-9_/])[A-Za-z0-9]{32,}
    """
)
_TITLE: Final = re.compile(rb"<(title|h1)[^>]*>(.{1,200}?)</", re.I | re.S)
_HTML: Final = "html"
_TAG: Final = re.compile(r"<[^>]{0,200}>")

_FAULTS: Final[Mapping[Fault, tuple[Outcome, str]]] = {
    Fault.REFUSED: (Outcome.UNAVAILABLE, "cannot connect"),
    Fault.TLS: (Outcome.UNAVAILABLE, "the TLS handshake failed"),
    Fault.RESET: (Outcome.UNAVAILABLE, "the connection was closed before an answer came"),
    Fault.CUT: (Outcome.CUT_STREAM, "the connection was closed in the middle of the answer"),
    Fault.MALFORMED: (Outcome.UNAVAILABLE, "the answer is malformed"),
    Fault.CONNECT_TIMEOUT: (Outcome.TIMED_OUT, "connecting took too long"),
    Fault.FIRST_BYTE_TIMEOUT: (Outcome.TIMED_OUT, "no answer came in time"),
    Fault.IDLE_TIMEOUT: (Outcome.TIMED_OUT, "the answer fell silent"),
    Fault.TOO_LARGE: (Outcome.UNAVAILABLE, "the answer is too large"),
}


class _Said(msgspec.Struct):
    """What stands in an error body, whatever its shape."""

    codes: list[str]  # lower-case, most telling first
    message: str = ""
    status: int = 0  # where the body itself names one
    is_error: bool = False
    violations: list[str] = []  # Gemini's quota ids
    delay: str | None = None  # Gemini's retryDelay


def classify(wire: Wire, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Verdict:
    """Say how an answer ended; header names lower-case, ``now`` aware. A 2xx without an error inside is success.

    ``retry_after_s`` is between 0 and seven days (``longest_wait``): nonsense from a provider neither makes
    us hammer it nor parks an account for ever.
    """
    said = _said(status, headers, body)
    if 200 <= status < 300:
        if not said.is_error:
            return Verdict(outcome=Outcome.SUCCESS, status=status)
        effective = _status_inside(said)
    else:
        effective = status
    outcome, code = _outcome(wire, effective, said)
    retry_after_s = longest_wait(headers, said.message, said.delay, now)
    resets_at = quota_reset(outcome, headers, said.message, said.violations, retry_after_s, now)
    if outcome is Outcome.RATE_LIMITED and resets_at is not None:
        outcome = Outcome.QUOTA_EXHAUSTED
    return Verdict(
        outcome=outcome,
        status=status,
        message=shortened(said.message) or f"HTTP {status} without a message",
        provider_code=redacted(code)[:80],
        retry_after_s=None if outcome is Outcome.QUOTA_EXHAUSTED and resets_at is None else retry_after_s,
        resets_at=resets_at if outcome is Outcome.QUOTA_EXHAUSTED else None,
    )


def classify_fault(fault: Fault, detail: str = "") -> Verdict:
    """Say how an attempt ended that failed below HTTP."""
    outcome, words = _FAULTS[fault]
    message = f"{words}: {detail}" if detail else words
    return Verdict(outcome=outcome, message=shortened(message), provider_code=str(fault))


def redacted(text: str) -> str:
    """The text without anything that looks like a key."""
    return _KEYS.sub("[redacted]", text)


def shortened(text: str) -> str:
    """The text on one line, without keys, at most 300 characters."""
    line = redacted(" ".join(text[:4000].split()))
    return line if len(line) <= MOST_MESSAGE_CHARACTERS else line[: MOST_MESSAGE_CHARACTERS - 1] + "…"


def _outcome(wire: Wire, status: int, said: _Said) -> tuple[Outcome, str]:
    """Apply the tables in their order; the second value is the code that is reported."""
    shown = said.codes[0] if said.codes else ""
    if shown == _HTML:
        # It comes from something in front of the provider, so a 401 or 403 says nothing about the key.
        return Outcome.UNAVAILABLE if status in (400, 401, 403) else fallback_outcome(status), shown
    allowed = possible_outcomes(status)
    known = [(code, outcome) for code in said.codes if (outcome := _meaning(status, code)) in allowed]
    for code, outcome in known:
        if code not in GENERIC_CODES and outcome is not None:
            return _by_text(wire, status, said.message, outcome, allowed) or outcome, code
    outcome = _by_text(wire, status, said.message, None, allowed)
    return outcome or (known[0][1] if known else None) or fallback_outcome(status), shown


def _meaning(status: int, code: str) -> Outcome | None:
    return CODES_AT.get((status, code)) or CODES.get(code)


def _by_text(
    wire: Wire, status: int, message: str, coded: Outcome | None, allowed: frozenset[Outcome]
) -> Outcome | None:
    """What the words say where no code speaks (``coded`` None), or where they may refine what the code says."""
    lowered = message[:2000].lower()
    for rule in TEXTS:
        if rule.refines is not coded or rule.outcome not in allowed:
            continue
        if (rule.statuses and status not in rule.statuses) or (rule.wires and wire not in rule.wires):
            continue
        if any(words in lowered for words in rule.words):
            return rule.outcome
    return None


def _status_inside(said: _Said) -> int:
    """The status that an error inside a 2xx answer stands for; 502 where it does not say."""
    if 400 <= said.status <= 599:
        return said.status
    return next((CODE_STATUS[code] for code in said.codes if code in CODE_STATUS), 502)


def _said(status: int, headers: Mapping[str, str], body: bytes) -> _Said:
    said = _Said(codes=[])
    amazon = headers.get("x-amzn-errortype")
    if amazon:
        _add_code(said, amazon.split(":")[0])
    if len(body) > _MOST_PARSED_BYTES and 200 <= status < 300:
        return said
    begin = body[:512].lstrip().lower()
    if begin.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        said.message = _page(body)
        said.is_error = True
        said.codes.insert(0, _HTML)
        return said
    try:
        value = msgspec.json.decode(body[:_MOST_PARSED_BYTES])
    except (msgspec.DecodeError, ValueError, RecursionError):
        said.message = body[:4000].decode("utf-8", "replace").strip()
        return said
    if isinstance(value, list):
        value = next((item for item in value[:_MOST_WALKED] if isinstance(item, dict)), {})
    if isinstance(value, dict):
        _read_object(said, value, is_good_status=200 <= status < 300)
    elif isinstance(value, str):
        said.message = value
    return said


def _read_object(said: _Said, value: dict[str, Any], *, is_good_status: bool) -> None:
    """Find the error in an answer's object: every vendor puts it somewhere else."""
    inside = value.get("response")
    if "error" not in value and isinstance(inside, dict):  # Responses: {"type": "response.failed", "response": …}
        value = inside
    error = value.get("error")
    if error is None and isinstance(value.get("errors"), list | dict | str) and value["errors"]:
        errors = value["errors"]
        error = errors[0] if isinstance(errors, list) else errors
    if isinstance(error, str) and error:
        # {"error": "text"}, xAI's {"code": "…", "error": "text"}, OAuth's {"error": "code", "error_description": …}
        said.is_error = True
        said.message = _text(value.get("error_description")) or _text(value.get("message")) or error
        _add_code(said, value.get("code"))
        _add_code(said, error if " " not in error else None)
        return
    if isinstance(error, dict):
        said.is_error = True
        _read_error(said, error)
        return
    if is_good_status and value.get("object") != "error" and value.get("type") != "error":
        return
    if not is_good_status or "message" in value:  # Mistral, vLLM, Bedrock: the error is the object itself
        said.is_error = True
        _read_error(said, value)
        if not said.message:
            said.message = _detail(value.get("detail"))


def _read_error(said: _Said, error: dict[str, Any]) -> None:
    said.message = (
        _text(error.get("message"))
        or _text(error.get("Message"))
        or _text(error.get("msg"))
        or _text(error.get("detail"))
    )
    code = error.get("code")
    said.status = code if isinstance(code, int) and not isinstance(code, bool) else 0
    _read_details(said, error.get("details"))
    inner = error.get("innererror") or error.get("inner_error")
    if isinstance(inner, dict):
        _add_code(said, inner.get("code"))
    for name in ("code", "__type", "status", "type", "reason"):
        _add_code(said, error.get(name))
    metadata = error.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter: the words of the provider behind it
        _add_code(said, metadata.get("error_type"))
        raw = metadata.get("raw")
        if isinstance(raw, str) and raw:
            said.message = f"{said.message}: {raw}" if said.message else raw


def _read_details(said: _Said, details: object) -> None:
    """Google's error details: ErrorInfo, QuotaFailure, RetryInfo."""
    if not isinstance(details, list):
        return
    for detail in details[:_MOST_WALKED]:
        if not isinstance(detail, dict):
            continue
        _add_code(said, detail.get("reason"))
        delay = detail.get("retryDelay")
        if isinstance(delay, str):
            said.delay = delay
        violations = detail.get("violations")
        for violation in violations[:_MOST_WALKED] if isinstance(violations, list) else ():
            if isinstance(violation, dict):
                said.violations.append(f"{violation.get('quotaId', '')} {violation.get('quotaMetric', '')}")


def _add_code(said: _Said, value: object) -> None:
    if isinstance(value, str) and value:
        code = value.rpartition("#")[2].strip().lower()[:80]
        if code and code not in said.codes:
            said.codes.append(code)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _detail(value: object) -> str:
    """FastAPI's ``detail``: a text, or a list of what is wrong where."""
    if isinstance(value, list):
        return "; ".join(_text(item.get("msg")) for item in value[:5] if isinstance(item, dict))
    return _text(value)


def _page(body: bytes) -> str:
    """What an HTML page says: its title."""
    match = _TITLE.search(body[:20_000])
    title = _TAG.sub("", match[2].decode("utf-8", "replace")) if match else ""
    return (
        f"an HTML page instead of an answer: {title.strip()}" if title.strip() else "an HTML page instead of an answer"
    )
