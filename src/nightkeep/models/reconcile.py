"""Comparing the ledger with what a provider billed: which corrections to book, and every difference by name.

Pure: what the ledger knows and what was billed in, a plan out; ``models.reconciliation`` reads and books it. Planning
again after a plan was booked finds nothing: what is compared is the sum of a request's rows, corrections included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from nightkeep.models.usage_report import Billed

__all__ = [
    "NOBODY",
    "NO_TOKENS",
    "OURS",
    "Adjustment",
    "Attribution",
    "Difference",
    "Known",
    "Period",
    "Plan",
    "by_request",
    "plan_requests",
]

Kind = Literal["settled", "corrected", "lost", "foreign", "unbilled", "in_flight", "tokens", "total"]
"""What a difference is.

settled    nobody had said what it cost; now the bill has (or that it was not billed at all)
corrected  we had another amount than the bill
lost       billed, and the ledger knew nothing of it: a crash came before it was written, or it had seemed unbilled
foreign    billed to our account, but never sent by us (it bears no name of ours)
unbilled   in the ledger with its usage, and not in the bill
in_flight  its call is still running, or it has only just ended: looked at the next time
tokens     the amounts agree, the token counts do not
total      an account, model and day whose sums differ (reports that name no requests)
"""

OURS: Final = re.compile(r"(call_[0-9A-Z]{26})-(\d{1,4})\Z")
"""The id that goes with each attempt (``ledger_rows.request_id``)."""

Classes = tuple[int, int, int, int, int, int]
NO_TOKENS: Final[Classes] = (0, 0, 0, 0, 0, 0)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows of one request: the sum of its rows."""

    request_id: str
    row: str  # id of the attempt's row; of the report's row where there is no attempt
    at_ms: int
    ended_ms: int
    provider: str
    account: str
    model: str
    scope: str
    owner: str
    classes: Classes
    micro_usd: int
    estimates: int  # 1 while its cost is an estimate
    estimated_micro_usd: int
    unpriced: int
    rows: int  # that it consists of


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """To whom a request belongs that only the bill knows."""

    scope: str = "/"
    tag: str | None = None
    task: str | None = None
    agent: str = ""
    key_name: str = ""
    run_id: str | None = None
    asked: str = ""
    alias: str | None = None
    provider: str = ""
    account: str = ""
    model: str = ""
    owner: str = ""
    outcome: str = "interrupted"  # of the attempt
    is_running: bool = False
    has_ended: bool = False  # the record has its call, and how that ended: no crash took it
    note: str = "unattributed"


NOBODY: Final = Attribution()


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """A row to book. Amounts are differences, but for basis "report", where they are the whole request."""

    id: str
    basis: Literal["bill", "report", "total"]
    adjusts: str | None
    request_id: str
    at_ms: int
    owner: str
    who: Attribution  # of "bill": scope, provider, account and model only; the rest is copied from the row
    classes: Classes
    micro_usd: int
    estimates: int = 0
    estimated_micro_usd: int = 0
    unpriced: int = 0
    note: str = ""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference, with both numbers (micro-dollars; None: not there)."""

    kind: Kind
    request_id: str
    account: str
    model: str
    scope: str
    ours_micro_usd: int | None
    billed_micro_usd: int | None
    is_booked: bool
    note: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison has found."""

    adjustments: list[Adjustment]
    differences: list[Difference]
    billed_requests: int
    billed_micro_usd: int
    ours_micro_usd: int  # of everything compared, before anything is booked


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """For which time a report is complete, and how it is held against a ledger that may still be written."""

    since_ms: int | None  # None: from the first line of the report
    until_ms: int
    grace_ms: int = 0  # what ended, or was billed, less long ago may be on its way
    is_live: bool = False  # a gateway writes the ledger now
    provider: str = ""  # to whom a request is booked of which only its bill is known
    books_all: bool = False  # book also what cannot be tied to a request of ours


def plan_requests(
    known: Iterable[Known], billed: Mapping[str, Billed], who: Mapping[str, Attribution], period: Period
) -> Plan:
    """Compare request by request, by the id that we sent with each.

    ``known`` is what the ledger has of the provider in the period, and of every request in the report; ``billed`` is
    ``by_request``'s; ``who`` says to whom requests belong that are in no row of the ledger, by request id.
    """
    ledger = {entry.request_id: entry for entry in known}
    found = _Found()
    names = _account_names(ledger, billed)
    for request, line in billed.items():
        entry = ledger.get(request)
        if entry is not None:
            found.compare(entry, line)
        elif OURS.match(request):
            found.lose(line, who.get(request, NOBODY), names, period)
        else:
            found.meet_foreigner(line, period)
    begin = (
        period.since_ms if period.since_ms is not None else min((line.at_ms for line in billed.values()), default=None)
    )
    compared = [entry for request, entry in ledger.items() if request in billed]
    for request, entry in ledger.items():
        if request not in billed and begin is not None and begin <= entry.at_ms <= period.until_ms:
            compared.append(entry)
            found.miss(entry, period)
    return found.plan(billed.values(), compared)


def by_request(lines: Iterable[Billed]) -> dict[str, Billed]:
    """One line a request, by its id (else by the provider's own); a request that is billed in several is their sum."""
    billed: dict[str, Billed] = {}
    for line in lines:
        name = line.request_id or f"line {line.line or line.at_ms}"
        other = billed.get(name)
        billed[name] = msgspec.structs.replace(line, request_id=name) if other is None else _joined(other, line)
    return billed


def _joined(first: Billed, second: Billed) -> Billed:
    sums = {
        name: getattr(first.usage, name) + getattr(second.usage, name) for name in type(first.usage).__struct_fields__
    }
    usage = type(first.usage)(**sums)
    return msgspec.structs.replace(first, usage=usage, micro_usd=first.micro_usd + second.micro_usd)


def _account_names(ledger: Mapping[str, Known], billed: Mapping[str, Billed]) -> dict[str, tuple[str, str]]:
    """What we call the provider's accounts (provider, account), learned from the requests that both sides know."""
    seen: dict[str, Counter[tuple[str, str]]] = {}
    for request, line in billed.items():
        entry = ledger.get(request)
        if entry is not None:
            seen.setdefault(line.account, Counter())[entry.provider, entry.account] += 1
    return {name: counter.most_common(1)[0][0] for name, counter in seen.items()}


def _classes(line: Billed) -> Classes:
    usage = line.usage
    return (
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
    )


class _Found:
    """Collects what a comparison finds."""

    def __init__(self) -> None:
        self.adjustments: list[Adjustment] = []
        self.differences: list[Difference] = []

    def compare(self, entry: Known, line: Billed) -> None:
        """Both know it: what was only estimated, or is not what was billed, becomes what was billed."""
        classes = _classes(line)
        if entry.micro_usd == line.micro_usd and not entry.estimates:
            if entry.classes != classes and any(classes):
                note = f"tokens: {_counts(entry.classes)} here, {_counts(classes)} in the bill"
                self._tell("tokens", entry, line.micro_usd, is_booked=False, note=note)
            return
        note = "the provider's report says what it cost" if entry.estimates else "billed otherwise than it was reckoned"
        kind: Kind = "settled" if entry.estimates else "corrected"
        self._correct(entry, line.micro_usd, classes if any(classes) else entry.classes, note)
        self._tell(kind, entry, line.micro_usd, is_booked=True, note=note)

    def miss(self, entry: Known, period: Period) -> None:
        """The bill does not know it. What was only an estimate becomes nothing; what was reported to us stays."""
        if not (entry.micro_usd or entry.estimates):
            return
        if entry.ended_ms > period.until_ms - period.grace_ms:
            self._tell("in_flight", entry, None, is_booked=False, note="it has only just ended; its bill may come")
        elif entry.estimates:
            note = "the provider has not billed it"
            self._correct(entry, 0, NO_TOKENS, note)
            self._tell("settled", entry, None, is_booked=True, note=note)
        else:
            self._tell("unbilled", entry, None, is_booked=False, note="not in the provider's report; nothing is booked")

    def lose(self, line: Billed, who: Attribution, names: Mapping[str, tuple[str, str]], period: Period) -> None:
        """Only the bill knows it: a crash came before it was written."""
        is_young = period.is_live and line.at_ms > period.until_ms - period.grace_ms
        who = _named(who, line, names, period.provider)
        if (who.is_running and period.is_live) or is_young:
            self._name_line("in_flight", line, who, is_booked=False, note="its call has not ended, or only just has")
            return
        why = f"billed, though it had ended as {who.outcome}" if who.has_ended else "lost by a crash"
        note = f"{why}; {who.note}" if who.note else why
        self._report(line, who, note)
        self._name_line("lost", line, who, is_booked=True, note=note)

    def meet_foreigner(self, line: Billed, period: Period) -> None:
        """Billed to our account, and never sent by us."""
        who = _named(NOBODY, line, {}, period.provider)
        if period.books_all:
            self._report(line, who, "billed to this account, and not sent by this gateway")
        self._name_line("foreign", line, who, is_booked=period.books_all, note="it bears no name of ours")

    def plan(self, billed: Iterable[Billed], known: Iterable[Known]) -> Plan:
        """What was found."""
        lines = list(billed)
        return Plan(
            adjustments=self.adjustments,
            differences=self.differences,
            billed_requests=len(lines),
            billed_micro_usd=sum(line.micro_usd for line in lines),
            ours_micro_usd=sum(entry.micro_usd for entry in known),
        )

    def _correct(self, entry: Known, micro_usd: int, classes: Classes, note: str) -> None:
        difference = tuple(new - old for new, old in zip(classes, entry.classes, strict=True))
        self.adjustments.append(
            Adjustment(
                id=f"{entry.row}+{entry.rows}",
                basis="bill",
                adjusts=entry.row,
                request_id=entry.request_id,
                at_ms=entry.at_ms,
                owner=entry.owner,
                who=Attribution(scope=entry.scope, provider=entry.provider, account=entry.account, model=entry.model),
                classes=msgspec.convert(difference, Classes),
                micro_usd=micro_usd - entry.micro_usd,
                estimates=-entry.estimates,
                estimated_micro_usd=-entry.estimated_micro_usd,
                unpriced=-entry.unpriced,
                note=note,
            )
        )

    def _report(self, line: Billed, who: Attribution, note: str) -> None:
        self.adjustments.append(
            Adjustment(
                id=f"report:{line.request_id}",
                basis="report",
                adjusts=None,
                request_id=line.request_id,
                at_ms=line.at_ms,
                owner=who.owner,
                who=who,
                classes=_classes(line),
                micro_usd=line.micro_usd,
                note=note,
            )
        )

    def _tell(self, kind: Kind, entry: Known, billed: int | None, *, is_booked: bool, note: str) -> None:
        self.differences.append(
            Difference(
                kind=kind,
                request_id=entry.request_id,
                account=entry.account,
                model=entry.model,
                scope=entry.scope,
                ours_micro_usd=entry.micro_usd,
                billed_micro_usd=billed,
                is_booked=is_booked,
                note=note,
            )
        )

    def _name_line(self, kind: Kind, line: Billed, who: Attribution, *, is_booked: bool, note: str) -> None:
        self.differences.append(
            Difference(
                kind=kind,
                request_id=line.request_id,
                account=who.account or line.account,
                model=who.model or line.model,
                scope=who.scope,
                ours_micro_usd=None,
                billed_micro_usd=line.micro_usd,
                is_booked=is_booked,
                note=note,
            )
        )


def _named(who: Attribution, line: Billed, names: Mapping[str, tuple[str, str]], provider: str) -> Attribution:
    provider, account = names.get(line.account, (provider, line.account))
    return msgspec.structs.replace(
        who, provider=who.provider or provider, account=who.account or account, model=who.model or line.model
    )


def _counts(classes: Classes) -> str:
    return f"{sum(classes[:4]):,} in and {sum(classes[4:]):,} out"
