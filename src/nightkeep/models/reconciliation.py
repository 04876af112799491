"""Settling the ledger with a provider's report: read what the ledger knows, plan, book, tell who waits for it.

The comparing is ``models.reconcile``'s. Doing it twice changes nothing, doing it twice at once neither: an adjustment's
id follows from what it corrects, and the second of two equal ones is not written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.models.call_rows import RUNNING, epoch_ms
from nightkeep.models.ledger_rows import CLASSES, request_id, row_id
from nightkeep.models.reconcile import (
    OURS,
    Adjustment,
    Attribution,
    Difference,
    Known,
    Period,
    Plan,
    by_request,
    plan_requests,
)
from nightkeep.models.reconcile_totals import DAY_MS, KnownTotal, plan_totals
from nightkeep.models.spending import Reads
from nightkeep.models.usage_report import Billed
from nightkeep.store.port import Row, Store, Transaction, Value

__all__ = ["Attribute", "OnSettled", "Reconciliation", "find_differences", "reconcile", "summary"]

Attribute = Callable[[Billed], Attribution | None]
"""Says to whom a billed request belongs that the ledger does not know; None where it cannot. Of a request whose call is
in the record only the owner is taken from it: the process that made it."""

_CHUNK: Final = 400
_SKEW_MS: Final = 3_600_000  # between the provider's clock and ours, at most: a request's rows are read together
_TOKENS: Final = tuple(f"{name}_tokens" for name in CLASSES)
_KNOWN: Final = (
    "SELECT request_id, coalesce(min(CASE WHEN kind = 'attempt' THEN id END), min(id)), min(at), max(ended_at), "
    "min(provider), min(account), min(model), max(scope), max(owner), "
    f"{', '.join(f'sum({name})' for name in _TOKENS)}, "
    "sum(cost_micro_usd), sum(is_estimate), sum(estimated_micro_usd), sum(is_unpriced), count(*) FROM ledger"
)
_WHO: Final = (
    "SELECT id, scope, tag, task, agent, key_name, run_id, asked, alias, provider, account, served, outcome "
    "FROM calls WHERE id IN ({marks})"
)
_TRIED: Final = "SELECT call_id, n, provider, account, model, outcome FROM attempts WHERE call_id IN ({marks})"
_AMOUNTS: Final = f"{', '.join(_TOKENS)}, cost_micro_usd, is_estimate, estimated_micro_usd, is_unpriced"
_COPIED: Final = (
    "call_id, n, run_id, scope, tag, task, agent, key_name, release_name, provider, account, model, asked, alias, "
    "price, outcome, request_id, owner"
)
_CORRECT: Final = (
    f"INSERT INTO ledger (id, at, ended_at, booked_at, kind, basis, adjusts, note, {_AMOUNTS}, {_COPIED}) "
    f"SELECT ?, at, ended_at, ?, 'adjustment', 'bill', ?, ?, {', '.join('?' * 10)}, {_COPIED} FROM ledger "
    "WHERE id = ? ON CONFLICT (id) DO NOTHING RETURNING 1"
)
_NEW_COLUMNS: Final = (
    f"id, at, ended_at, booked_at, kind, basis, note, {_AMOUNTS}, call_id, n, run_id, scope, tag, task, agent, "
    "key_name, release_name, provider, account, model, asked, alias, price, outcome, request_id, owner"
)
_NEW: Final = (
    f"INSERT INTO ledger ({_NEW_COLUMNS}) VALUES ({', '.join('?' * len(_NEW_COLUMNS.split(',')))}) "
    "ON CONFLICT (id) DO NOTHING RETURNING 1"
)
_DONE: Final = (
    "INTO reconciliations (id, at, made_by, provider, account, since_at, until_at, billed_requests, billed_micro_usd, "
    "booked, booked_micro_usd, differences)"
)
_MOST_DIFFERENCES: Final = 10_000  # kept with the reconciliation; all are returned


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison has found, and what of it was booked. Money in micro-dollars."""

    providers: tuple[str, ...]
    is_by_request: bool  # False: the report names no requests, sums were compared
    is_dry_run: bool
    since_ms: int | None  # the report was complete from then (None: from its first line) until then
    until_ms: int
    billed_requests: int
    billed_micro_usd: int
    before_micro_usd: int  # of what was compared, in the ledger
    after_micro_usd: int  # the same, with what was booked (or, in a dry run, would be)
    differences: list[Difference]
    adjustments: list[Adjustment]

    @property
    def is_settled(self) -> bool:
        """Whether the ledger now says what the provider does, to the micro-dollar."""
        return self.after_micro_usd == self.billed_micro_usd


OnSettled = Callable[[Reconciliation], Awaitable[None]]
"""Is told after every comparison by request, once what it booked is durable, also when there was nothing to book:
until its end nothing of a process that died is open any more, so budgets can give back what that one had taken
(``models.ledger_owners.spent_of``). Its ``adjustments`` are those that were booked now, with their owners."""


async def find_differences(
    ledger: Reads, lines: list[Billed], providers: Sequence[str], period: Period, attribute: Attribute | None = None
) -> tuple[Plan, bool]:
    """Compare, and book nothing; also whether it was compared request by request. Raises StoreError."""
    period = msgspec.structs.replace(period, provider=period.provider or providers[0])
    if lines and not any(line.request_id for line in lines):
        period = _whole_days(period, lines)
        totals = await _totals(ledger, providers, period)
        return plan_totals(totals, lines, providers[0], period), False
    since = period.since_ms if period.since_ms is not None else min((line.at_ms for line in lines), default=None)
    known = [] if since is None else await _known(ledger, providers, since - _SKEW_MS)
    there = {entry.request_id for entry in known}
    billed = by_request(lines)
    known += await _known_by_name(ledger, [name for name in billed if name not in there])
    there = {entry.request_id for entry in known}
    who = await _attributions(ledger, [line for name, line in billed.items() if name not in there], attribute)
    return plan_requests(known, billed, who, period), True


async def reconcile(
    store: Store,
    lines: list[Billed],
    providers: Sequence[str],
    period: Period,
    clock: Clock,
    randomness: Randomness,
    *,
    made_by: str,
    attribute: Attribute | None = None,
    on_settled: OnSettled | None = None,
) -> Reconciliation:
    """Compare, book what is to be booked, and tell ``on_settled`` of it when it is durable.

    ``providers`` are those (as the configuration names them) whose bill the report is. Raises StoreError.
    """
    plan, is_by_request = await find_differences(store, lines, providers, period, attribute)
    first, booked = plan, await _book_all(store, plan, providers, period, clock, randomness, made_by)
    after = plan.ours_micro_usd + sum(each.micro_usd for each in booked)
    if len(booked) < len(plan.adjustments):  # somebody else books the same: see what is left to do
        plan, _ = await find_differences(store, lines, providers, period, attribute)
        more = await _book_all(store, plan, providers, period, clock, randomness, made_by)
        after = plan.ours_micro_usd + sum(each.micro_usd for each in more)
        booked += more
    done = summary(first, booked, providers, period, is_by_request=is_by_request, is_dry_run=False)
    done = msgspec.structs.replace(done, after_micro_usd=after)
    if is_by_request and on_settled is not None:
        await on_settled(done)
    return done


async def _book_all(
    store: Store,
    plan: Plan,
    providers: Sequence[str],
    period: Period,
    clock: Clock,
    randomness: Randomness,
    made_by: str,
) -> list[Adjustment]:
    """Book a plan, but for what is booked already; returns what was booked now."""
    if not plan.adjustments:
        return []
    now = clock.now()
    name = new_id("reconciliation", now, randomness)

    def book(transaction: Transaction) -> list[Adjustment]:
        done = [each for each in plan.adjustments if _book(transaction, each, epoch_ms(now))]
        if done:
            transaction.insert(_DONE, [_done_row(name, epoch_ms(now), made_by, providers, period, plan, done)])
        return done

    return await store.write(book)


def summary(
    plan: Plan,
    booked: list[Adjustment],
    providers: Sequence[str],
    period: Period,
    *,
    is_by_request: bool,
    is_dry_run: bool,
) -> Reconciliation:
    """A plan and what was booked of it (in a dry run: would be) as one value."""
    return Reconciliation(
        providers=tuple(providers),
        is_by_request=is_by_request,
        is_dry_run=is_dry_run,
        since_ms=period.since_ms,
        until_ms=period.until_ms,
        billed_requests=plan.billed_requests,
        billed_micro_usd=plan.billed_micro_usd,
        before_micro_usd=plan.ours_micro_usd,
        after_micro_usd=plan.ours_micro_usd + sum(each.micro_usd for each in booked),
        differences=plan.differences,
        adjustments=booked,
    )


# -- reading


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    found = list(dict.fromkeys(values))
    for at in range(0, len(found), _CHUNK):
        yield found[at : at + _CHUNK]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


async def _known(ledger: Reads, providers: Sequence[str], since_ms: int) -> list[Known]:
    sql = f"{_KNOWN} WHERE at >= ? AND request_id <> '' AND provider IN ({_marks(providers)}) GROUP BY request_id"
    return [_read_known(row) for row in await ledger.read(sql, [since_ms, *providers])]


async def _known_by_name(ledger: Reads, requests: Iterable[str]) -> list[Known]:
    """What the ledger has of certain requests, whenever they were."""
    found: list[Known] = []
    for names in _chunks(requests):
        ids = [row for name in names for row in _row_ids(name)]
        sql = f"{_KNOWN} WHERE id IN ({_marks(ids)}) OR adjusts IN ({_marks(ids)}) GROUP BY request_id"
        found += [_read_known(row) for row in await ledger.read(sql, [*ids, *ids])]
    return found


def _row_ids(request: str) -> list[str]:
    ours = OURS.match(request)
    return [f"report:{request}", *([row_id(ours[1], int(ours[2]))] if ours else [])]


def _read_known(row: Row) -> Known:
    names = ("request_id", "row", "at_ms", "ended_ms", "provider", "account", "model", "scope", "owner")
    facts = dict(zip(names, row[:9], strict=True))
    amounts = dict(zip(("micro_usd", "estimates", "estimated_micro_usd", "unpriced", "rows"), row[15:], strict=True))
    return msgspec.convert({**facts, **amounts, "classes": row[9:15]}, Known, strict=False)


async def _attributions(ledger: Reads, lines: list[Billed], attribute: Attribute | None) -> dict[str, Attribution]:
    """To whom requests belong that are in no row of the ledger: by the record of calls, else by who is asked."""
    calls = {line.request_id: ours[1] for line in lines if (ours := OURS.match(line.request_id))}
    who: dict[str, Attribution] = {}
    tried: dict[str, Row] = {}
    for names in _chunks(calls.values()):
        for row in await ledger.read(_WHO.format(marks=_marks(names)), names):
            who[str(row[0])] = _attribution(row)
        for row in await ledger.read(_TRIED.format(marks=_marks(names)), names):
            tried[request_id(str(row[0]), int(row[1] or 0))] = row
    found: dict[str, Attribution] = {}
    for line in lines:
        request = line.request_id
        known = who.get(calls.get(request, ""))
        guess = attribute(line) if attribute is not None else None
        if known is None:
            known = guess
        elif guess is not None:
            known = msgspec.structs.replace(known, owner=guess.owner)
        if known is not None and request in tried:
            provider, account, model, outcome = map(str, tried[request][2:])
            known = msgspec.structs.replace(
                known, provider=provider, account=account, model=model, outcome=outcome or known.outcome
            )
        if known is not None:
            found[request] = known
    return found


def _attribution(row: Row) -> Attribution:
    names = ("scope", "tag", "task", "agent", "key_name", "run_id", "asked", "alias", "provider", "account", "model")
    facts = dict(zip(names, row[1:12], strict=True))
    ending = {"is_running": row[12] == RUNNING, "has_ended": row[12] not in (RUNNING, "interrupted")}
    return msgspec.convert({**facts, **ending, "note": ""}, Attribution)


def _whole_days(period: Period, lines: list[Billed]) -> Period:
    """Days that a report without requests speaks of, where it was not said: from its first to its last."""
    first, last = min(line.at_ms for line in lines), max(line.at_ms for line in lines)
    since = period.since_ms if period.since_ms is not None else first
    end = last // DAY_MS * DAY_MS + DAY_MS - 1
    return msgspec.structs.replace(
        period, since_ms=since // DAY_MS * DAY_MS, until_ms=max(last, min(period.until_ms, end))
    )


async def _totals(ledger: Reads, providers: Sequence[str], period: Period) -> list[KnownTotal]:
    sql = (
        f"SELECT account, model, at / {DAY_MS}, count(*), sum(cost_micro_usd) FROM ledger WHERE at >= ? AND at <= ? "
        f"AND provider IN ({_marks(providers)}) GROUP BY account, model, at / {DAY_MS}"
    )
    rows = await ledger.read(sql, [period.since_ms or 0, period.until_ms, *providers])
    names = ("account", "model", "day", "requests", "micro_usd")
    return [msgspec.convert(dict(zip(names, row, strict=True)), KnownTotal, strict=False) for row in rows]


# -- booking


def _book(transaction: Transaction, each: Adjustment, now_ms: int) -> bool:
    """Write an adjustment; False where it is there already."""
    amounts = (*each.classes, each.micro_usd, each.estimates, each.estimated_micro_usd, each.unpriced)
    if each.adjusts is not None:
        values: tuple[Value, ...] = (each.id, now_ms, each.adjusts, each.note, *amounts, each.adjusts)
        return bool(transaction.execute(_CORRECT, values))
    who = each.who
    ours = OURS.match(each.request_id)
    call, n = (ours[1], int(ours[2])) if ours else (None, None)
    outcome = who.outcome if each.basis == "report" else ""
    values = (
        each.id, each.at_ms, each.at_ms, now_ms, "adjustment", each.basis, each.note, *amounts,
        call, n, who.run_id, who.scope, who.tag, who.task, who.agent, who.key_name, "", who.provider, who.account,
        who.model, who.asked, who.alias, "", outcome, each.request_id, each.owner,
    )  # fmt: skip
    return bool(transaction.execute(_NEW, values))


def _done_row(
    name: str, now_ms: int, made_by: str, providers: Sequence[str], period: Period, plan: Plan, done: list[Adjustment]
) -> tuple[Value, ...]:
    differences = msgspec.json.encode(plan.differences[:_MOST_DIFFERENCES]).decode()
    return (
        name, now_ms, made_by, ", ".join(providers), None, period.since_ms, period.until_ms, plan.billed_requests,
        plan.billed_micro_usd, len(done), sum(each.micro_usd for each in done), differences,
    )  # fmt: skip
