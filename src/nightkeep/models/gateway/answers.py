"""What the client is told beside the answer: the ``x-nightkeep-*`` headers (law 3: the gateway never lies)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.models.wire.base import Stripped

__all__ = ["FORWARDED_HEADERS", "answer_headers", "forwarded"]

FORWARDED_HEADERS = (
    "request-id",
    "x-request-id",
    "openai-processing-ms",
    "openai-organization",
    "openai-version",
    "anthropic-organization-id",
)
"""Provider headers that clients use for support tickets. Rate-limit headers are not passed on: they speak of one
account of a pool, not of what the client may do."""

_MOST_STRIPPED = 2000  # characters; the record has all of it


def answer_headers(
    *,
    call_id: str,
    model: str,
    account: str,
    attempts: int,
    stripped: Sequence[Stripped] = (),
    degraded: str | None = None,
    cost: MicroUsd | None = None,
    cache: str | None = None,
    is_simulated: bool = False,
) -> list[tuple[str, str]]:
    """The headers of an answer (design.md §6). A stream's cost is not known when its headers leave."""
    headers = [
        ("x-nightkeep-call", call_id),
        ("x-nightkeep-model", _safe(model)),
        ("x-nightkeep-account", _safe(account)),
        ("x-nightkeep-attempts", str(attempts)),
    ]
    if cost is not None:
        headers.append(("x-nightkeep-cost-usd", format_usd(cost)))
    if stripped:
        names = ", ".join(item.name for item in stripped)
        headers.append(("x-nightkeep-stripped", _safe(names)[:_MOST_STRIPPED]))
    if degraded:
        headers.append(("x-nightkeep-degraded", _safe(degraded)))
    if cache:
        headers.append(("x-nightkeep-cache", cache))
    if is_simulated:
        headers.append(("x-nightkeep-simulated", "1"))
    return headers


def forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of a provider's headers that are passed on."""
    return [(name, _safe(headers[name])) for name in FORWARDED_HEADERS if name in headers]


def _safe(text: str) -> str:
    """Text fit for a header: what is not printable ASCII becomes ``?`` (no header can be smuggled in)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
