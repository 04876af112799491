"""How calls read on a terminal: times, sizes, money and outcomes in plain words; one call as a page.

Text only, from the values of ``nightkeep.models.call_queries``; ``nightkeep.cli.calls`` fetches and prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from nightkeep.cli.tables import styled
from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd, format_usd
from nightkeep.models.call_queries import AttemptView, CallView

__all__ = ["HEADINGS", "call_page", "call_row", "money", "outcome_word", "plural", "span", "total_line"]

HEADINGS: Final = ("TIME", "CALL", "ASKED", "TARGET", "ACCOUNT", "OUTCOME", "TOOK", "TOKENS", "COST", "SCOPE")
_SHORT: Final = 10  # characters of an id that are shown in a list: its random end tells calls apart
_WIDEST: Final = 34
_WORDS: Final = {"success": "ok", "cut_stream": "stream cut", "cancelled": "client hung up"}
_COLOURS: Final = {"success": "green", "running": "cyan", "cancelled": "yellow", "interrupted": "yellow"}
_WHY: Final = {
    "success": "answered",
    "rate_limited": "was told to slow down",
    "quota_exhausted": "the account's quota is used up",
    "suspended": "the provider has suspended the account",
    "auth_failed": "the provider does not accept the account's key",
    "invalid_request": "the provider says that the request is wrong",
    "not_found": "the provider does not serve this model to this account",
    "overloaded": "the provider is overloaded",
    "unavailable": "the provider could not be reached, or failed",
    "timed_out": "the provider was silent, or too slow",
    "cut_stream": "the answer began and did not end",
    "refused": "the provider refuses this content",
    "cancelled": "the client hung up",
    "": "was under way when this was written",
}


def plural(count: int, noun: str) -> str:
    """``1 call``, ``2,100 calls``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def span(ms: float | None) -> str:
    """A duration, in the unit that suits it: ``4 ms``, ``1.84 s``, ``2 min 5 s``."""
    if ms is None:
        return ""
    if ms < 999.5:
        return f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"
    if ms < 59_995:
        return f"{ms / 1000:.2f} s" if ms < 9_995 else f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def money(micro_usd: int | None, none: str = "unpriced") -> str:
    """Dollars: four decimals, all six below a cent."""
    if micro_usd is None:
        return none
    return f"${format_usd(MicroUsd(micro_usd), places=4 if abs(micro_usd) >= 10_000 or not micro_usd else 6)}"


def outcome_word(outcome: str) -> str:
    """An outcome as people say it, coloured by what it means."""
    return styled(_WORDS.get(outcome, outcome.replace("_", " ")), _COLOURS.get(outcome, "red"))


def clock_time(at: datetime, now: datetime) -> str:
    """A moment in the reader's time zone; with the day where that is not today."""
    local, today = at.astimezone(), now.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == today.date() else "%b %d %H:%M:%S")


def call_row(call: CallView, now: datetime) -> tuple[str, ...]:
    """A call as a line under ``HEADINGS``."""
    served = f"{call.provider}/{call.served}" if call.provider else ""
    if call.cache == "hit" or call.idempotency in ("replayed", "joined"):
        served = "cache" if call.cache == "hit" else f"{call.idempotency} answer"
    usage = call.usage
    tokens = f"{usage.total_input:,} → {usage.total_output:,}" if usage else ""
    cost = money(call.cost_micro_usd, "unpriced" if call.outcome == "success" else "")
    return (
        clock_time(call.started_at, now),
        call.id[-_SHORT:],
        _cut(call.asked),
        _cut(served) + (styled(" !", "yellow") if call.degraded else ""),
        _cut(call.account),
        outcome_word(call.outcome),
        span(call.duration_ms) if call.outcome != "running" else "",
        tokens,
        cost,
        call.scope,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def total_line(shown: int, totals: Sequence[int], about: str) -> str:
    """What all the calls of a filter come to: ``3 of 120 calls in the last hour: 2 failed, …``."""
    calls, failed, tokens, cost, unpriced = totals
    head = plural(calls, "call") if shown >= calls else f"{shown:,} of {plural(calls, 'call')}"
    parts = [f"{failed:,} failed" if failed else "none failed", plural(tokens, "token"), money(cost)]
    if unpriced:
        parts.append(f"{unpriced:,} unpriced")
    return styled(f"{head}{about}: {', '.join(parts)}", "bright_black")


def call_page(call: CallView, attempts: Sequence[AttemptView]) -> Iterator[str]:
    """Everything about one call, line by line: what was asked, what served, and how each attempt ended."""
    yield styled(call.id, bold=True) + "  " + _headline(call)
    for name, text in _facts(call):
        yield f"{styled(f'{name:<11}', 'bright_black')}{text}"
    yield ""
    yield from _timeline(call, attempts)


def _headline(call: CallView) -> str:
    parts = [outcome_word(call.outcome)]
    if call.outcome not in ("running", "interrupted"):
        parts.append(f"after {span(call.duration_ms)}")
    if call.usage is not None or call.cost_micro_usd is not None:
        parts.append(money(call.cost_micro_usd))
    return ", ".join(parts)


def _facts(call: CallView) -> Iterator[tuple[str, str]]:
    form = "stream" if call.is_stream else "whole answer"
    yield "asked", f"{call.asked} at {call.door} ({call.wire}, {form}, {call.bytes_out:,} bytes)"
    yield "at", f"{call.started_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    yield "by", ", ".join(part for part in (call.agent, call.peer, call.key_name and f"key {call.key_name}") if part)
    labels = [("scope", call.scope), ("tag", call.tag), ("task", call.task)]
    yield "for", ", ".join(f"{name} {value}" for name, value in labels if value)
    if call.run_id:
        yield "run", call.run_id
    if call.rule or call.alias:
        yield "route", ", ".join(part for part in (call.alias and f"alias {call.alias}", call.rule) if part)
    if call.provider:
        did = "served by" if call.outcome == "success" else "last tried"
        yield did, f"{call.provider}/{call.served} on account {call.account}"
    yield from _remarks(call)
    if call.usage is not None:
        yield "tokens", _tokens(call.usage)


def _remarks(call: CallView) -> Iterator[tuple[str, str]]:
    if call.degraded:
        yield "degraded", styled(call.degraded, "yellow")
    for item in (call.stripped or "").splitlines():
        if item:
            yield "stripped", item
    if call.cache:
        yield "cache", call.cache
    if call.idempotency:
        yield "key", f"idempotency key: {call.idempotency}"
    if call.error_message or call.error_code:
        yield "error", styled(": ".join(part for part in (call.error_code, call.error_message) if part), "red")


def _tokens(usage: Usage) -> str:
    details = [
        (usage.cache_read, "from cache"),
        (usage.cache_write_5m + usage.cache_write_1h, "written to cache"),
    ]
    cached = ", ".join(f"{count:,} {name}" for count, name in details if count)
    thought = f" ({usage.reasoning:,} reasoning)" if usage.reasoning else ""
    return f"{usage.total_input:,} in{f' ({cached})' if cached else ''}, {usage.total_output:,} out{thought}"


def _timeline(call: CallView, attempts: Sequence[AttemptView]) -> Iterator[str]:
    for attempt in attempts:
        offset = (attempt.started_at - call.started_at).total_seconds() * 1000
        where = f"{attempt.provider}/{attempt.model} on {attempt.account}"
        yield f"{_at(offset)}  attempt {attempt.n}  {styled(where, bold=True)}"
        yield f"{'':>10}  {_ending(attempt)}"
        if attempt.message:
            yield f"{'':>10}  {styled(f'“{attempt.message}”', 'bright_black')}"
    if not attempts and call.outcome not in ("running", "interrupted"):
        yield f"{_at(0)}  no provider was asked"
    yield f"{_at(call.duration_ms if call.outcome not in ('running', 'interrupted') else None)}  {_last(call)}"


def _at(ms: float | None) -> str:
    return styled(f"{span(max(0.0, ms)) if ms is not None else '':>10}", "bright_black")


def _ending(attempt: AttemptView) -> str:
    if not attempt.outcome:
        return _WHY[""]
    colour = _COLOURS.get(attempt.outcome, "red")
    words = [styled(_WHY.get(attempt.outcome, attempt.outcome.replace("_", " ")), colour)]
    if attempt.outcome != "success":
        words.append(_proof(attempt))
    if attempt.first_byte_ms is not None and attempt.outcome in ("success", "cut_stream"):
        words.append(f"first byte after {span(max(0.0, attempt.first_byte_ms))}")
    words.append(f"took {span(attempt.duration_ms)}")
    if attempt.retry_after_s is not None:
        words.append(f"may be asked again in {span(attempt.retry_after_s * 1000)}")
    if attempt.usage is not None:
        words.append(_tokens(attempt.usage))
        words.append(money(attempt.cost_micro_usd))
    return " · ".join(word for word in words if word)


def _proof(attempt: AttemptView) -> str:
    if not attempt.status:
        return attempt.provider_code or "no answer"
    return f"status {attempt.status}" + (f" {attempt.provider_code}" if attempt.provider_code else "")


def _last(call: CallView) -> str:
    if call.outcome == "running":
        return styled("still running", "cyan")
    if call.outcome == "interrupted":
        return styled("the gateway ended here; whether the provider answered, and billed, is not known", "yellow")
    if call.outcome == "cancelled":
        return styled("the client hung up; the request to the provider was stopped", "yellow")
    answer = f"the client was answered with status {call.status or 0}"
    if call.outcome == "cut_stream":
        return styled(f"{answer}, then told that the text is incomplete", "red")
    return answer + (f", {call.bytes_in:,} bytes from the provider" if call.bytes_in else "")
