"""A provider's own report of what it billed: one value, read from the simulated provider's JSON or from any CSV.

Reading only: bytes in, values out. Who fetches a report is ``cli.spend``; who compares it is ``models.reconcile``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, DecimalException
from typing import Annotated, Any, Final, Protocol

import msgspec

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Usage

__all__ = ["COLUMNS", "Amount", "Billed", "CsvReport", "Moment", "Name", "SimReport", "UsageReport"]


_MOST: Final = 10**15

Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since 1970, up to the year 9999."""

Amount = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
"""Micro-dollars (a billion dollars at most), tokens or requests of one line."""

Name = Annotated[str, msgspec.Meta(max_length=300)]


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider billed: for one request, or (where it names none) for some of one account and model."""

    at_ms: Moment
    account: Name  # as the provider names it
    model: Name
    usage: Usage
    micro_usd: Amount
    request_id: Name = ""  # ``x-client-request-id`` as we sent it; "" where the report has none
    line: Name = ""  # the provider's own name of the line; "" where it has none
    requests: Amount = 1

    def __post_init__(self) -> None:
        """Raises ValueError: more tokens than anybody ever used, or fewer than none."""
        usage = self.usage
        classes = (usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output)
        if not all(0 <= count <= _MOST for count in (*classes, usage.reasoning)):
            raise ValueError("the token classes of a line must be disjoint, and none below nothing")


class UsageReport(Protocol):
    """A form in which providers report."""

    def read(self, data: bytes) -> list[Billed]:
        """The lines of a report. Raises RequestError, which says what is wrong with which line."""
        ...


class _SimLine(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float
    number: int
    account: str
    model: str
    client_request_id: str
    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    micro_usd: int


class _SimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    requests: list[_SimLine]


class SimReport:
    """The simulated provider's ``GET /sim/usage/requests``."""

    def read(self, data: bytes) -> list[Billed]:
        """The lines of a report. Raises RequestError."""
        try:
            answer = msgspec.json.decode(data, type=_SimAnswer)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise RequestError(f"this is no report of the simulated provider: {error}") from error
        try:
            return _checked([_from_sim(line) for line in answer.requests])
        except ValueError as error:
            raise RequestError(f"a line of the report cannot be meant: {error}") from error


def _from_sim(line: _SimLine) -> Billed:
    usage = Usage(
        input=line.input - line.cached - line.cache_write,
        cache_read=line.cached,
        cache_write_5m=line.cache_write,
        output=line.output - line.reasoning,
        reasoning=line.reasoning,
    )
    return Billed(
        at_ms=round(line.at_s * 1000),
        account=line.account,
        model=line.model,
        usage=usage,
        micro_usd=line.micro_usd,
        request_id=line.client_request_id,
        line=f"{line.number}@{line.at_s:.3f}",
    )


COLUMNS: Final[dict[str, str]] = {
    "at": "at",
    "account": "account",
    "model": "model",
    "request_id": "client_request_id",
    "line": "request_id",
    "usd": "usd",
    "requests": "requests",
    "input": "input",
    "cache_read": "cache_read",
    "cache_write": "cache_write",
    "output": "output",
    "reasoning": "reasoning",
}
"""What a CSV report's columns are called unless it is said otherwise; ``at`` and ``usd`` must be there."""

_NEEDED: Final = ("at", "usd")


class CsvReport:
    """Any CSV with a heading. ``columns`` maps our names (``COLUMNS``) to the report's.

    ``at`` is an ISO date or time, or seconds since 1970; ``usd`` are dollars, rounded up to the micro-dollar.
    Token columns are disjoint classes; a column that is not there counts as nothing.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        """Raises RequestError where ``columns`` names something that is not in ``COLUMNS``."""
        unknown = sorted(set(columns or {}) - set(COLUMNS))
        if unknown:
            raise RequestError(f"there is no {unknown[0]!r} to map a column to; there are: {', '.join(COLUMNS)}")
        self._columns = {**COLUMNS, **(columns or {})}

    def read(self, data: bytes) -> list[Billed]:
        """The lines of a report. Raises RequestError."""
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RequestError(f"the report is not UTF-8: {error}") from error
        reader = csv.DictReader(io.StringIO(text))
        missing = [self._columns[name] for name in _NEEDED if self._columns[name] not in (reader.fieldnames or ())]
        if missing:
            raise RequestError(
                f"the report has no column {missing[0]!r}; its columns are: {', '.join(reader.fieldnames or ())}; "
                "say which is meant with --column NAME=COLUMN"
            )
        lines = []
        try:
            for row in reader:
                lines.append(self._line(row))
            return _checked(lines)
        except (ValueError, DecimalException, OverflowError, csv.Error) as error:
            raise RequestError(f"line {reader.line_num} of the report cannot be read: {error}") from error

    def _line(self, row: dict[str, Any]) -> Billed:
        def text(name: str) -> str:
            return (row.get(self._columns[name]) or "").strip()

        def count(name: str, default: int = 0) -> int:
            value = int(text(name) or default)
            if value < 0:
                raise ValueError(f"{self._columns[name]} is negative")
            return value

        dollars = Decimal(text("usd").removeprefix("$") or 0)
        if not dollars.is_finite():
            raise ValueError(f"{text('usd')!r} is no amount")
        return Billed(
            at_ms=_moment_ms(text("at")),
            account=text("account"),
            model=text("model"),
            usage=Usage(
                input=count("input"),
                cache_read=count("cache_read"),
                cache_write_5m=count("cache_write"),
                output=count("output"),
                reasoning=count("reasoning"),
            ),
            micro_usd=int((dollars * 1_000_000).to_integral_value(ROUND_CEILING)),
            request_id=text("request_id"),
            line=text("line"),
            requests=count("requests", 1),
        )


def _checked(lines: list[Billed]) -> list[Billed]:
    """The lines, held to the limits of their fields. Raises ValidationError, which is a ValueError."""
    msgspec.convert([msgspec.structs.asdict(line) for line in lines], list[Billed])
    return lines


def _moment_ms(text: str) -> int:
    try:
        return round(float(text) * 1000)
    except ValueError:
        at = datetime.fromisoformat(text)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
