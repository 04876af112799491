"""Spending at the API: what was spent and saved, to each caller within its scope; reconciling, for the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

import msgspec

from nightkeep.core.errors import DeniedError
from nightkeep.core.scope import is_within, parse_scope
from nightkeep.models.ledger_savings import Ablation
from nightkeep.models.reconcile import Period
from nightkeep.models.reconciliation import Reconciliation
from nightkeep.models.spending import Reads, Spending, SpendQuery, read_ablation, read_spending
from nightkeep.models.usage_report import Billed, Moment, Name
from nightkeep.server.api import Route
from nightkeep.server.operators import Asker

__all__ = ["ReportedBill", "Settle", "spend_routes"]


class ReportedBill(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's report, as the command line has read it."""

    providers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=100)]  # as the settings name them
    lines: list[Billed]
    since_ms: Moment | None = None  # None: from the first line on
    until_ms: Moment  # complete until then
    grace_ms: Moment = 5_000
    books_all: bool = False
    is_dry_run: bool = False

    def period(self) -> Period:
        """For which time it speaks, to a ledger that is written meanwhile."""
        return Period(
            since_ms=self.since_ms,
            until_ms=self.until_ms,
            grace_ms=self.grace_ms,
            is_live=True,
            books_all=self.books_all,
        )


Settle = Callable[[ReportedBill], Awaitable[Reconciliation]]
"""Compares a report with the ledger and books what is to be booked. Raises StoreError."""


def spend_routes(ledger: Reads, settle: Settle, now: Callable[[], datetime]) -> list[Route]:
    """The operations on spending."""
    api = _Endpoints(ledger, settle, now)
    return [
        Route(method="GET", path="/api/spend", summary="What was spent, and by whom", handler=api.show_spending,
              gives=Spending, query=SpendQuery, needs="key", takes_asker=True),
        Route(method="GET", path="/api/spend/ablation", summary="What caching and routing have saved",
              handler=api.show_ablation, gives=Ablation, query=SpendQuery, needs="key", takes_asker=True),
        Route(method="POST", path="/api/spend/reconcile", summary="Settle the ledger with a provider's report",
              handler=api.reconcile_spending, gives=Reconciliation, takes=ReportedBill, needs="operator"),
    ]  # fmt: skip


class _Endpoints:
    """One method for each operation."""

    def __init__(self, ledger: Reads, settle: Settle, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._settle = settle
        self._now = now

    async def show_spending(self, query: SpendQuery, asker: Asker) -> Spending:
        return await read_spending(self._ledger, _own(query, asker), self._now())

    async def show_ablation(self, query: SpendQuery, asker: Asker) -> Ablation:
        return await read_ablation(self._ledger, _own(query, asker), self._now())

    async def reconcile_spending(self, body: ReportedBill) -> Reconciliation:
        return await self._settle(body)


def _own(query: SpendQuery, asker: Asker) -> SpendQuery:
    """The question, within the asker's own scope (law 10). Raises DeniedError, RequestError."""
    caller = asker.caller
    if asker.may_view:
        return query
    if caller is None:
        raise DeniedError("this needs a key, or the operator's token", rule="api.scope")
    scope = parse_scope(query.scope)
    if scope == "/":
        return msgspec.structs.replace(query, scope=caller.scope)
    if not is_within(scope, caller.scope):
        raise DeniedError(f"key {caller.name!r} sees what is below {caller.scope!r}", rule="api.scope")
    return query
