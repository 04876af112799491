"""The operations on spending of a running gateway, from its store; a part of ``bootstrap``."""

from __future__ import annotations

from nightkeep.core.clock import Clock, Randomness
from nightkeep.models.budget_settlement import Settlement
from nightkeep.models.reconciliation import Reconciliation, find_differences, reconcile, summary
from nightkeep.server.api import Route
from nightkeep.server.api_spend import ReportedBill, spend_routes
from nightkeep.store.port import Store

__all__ = ["spend_operations"]


def spend_operations(
    store: Store,
    clock: Clock,
    randomness: Randomness,
    *,
    settlement: Settlement,
) -> list[Route]:
    """The operations; ``settlement`` hears of every comparison, once what it booked is durable."""

    async def settle(bill: ReportedBill) -> Reconciliation:
        period = bill.period()
        await settlement.prepare(period.grace_ms)
        if bill.is_dry_run:
            plan, by_request = await find_differences(store, bill.lines, bill.providers, period, settlement.attribute)
            return summary(plan, plan.adjustments, bill.providers, period, is_by_request=by_request, is_dry_run=True)
        return await reconcile(
            store,
            bill.lines,
            bill.providers,
            period,
            clock,
            randomness,
            made_by="the API",
            attribute=settlement.attribute,
            on_settled=settlement.settle,
        )

    return spend_routes(store, settle, clock.now)
