"""Budgets and quotes at the API: what is spent, held and left, and what a call would cost."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nightkeep.control.budget_specs import BudgetView
from nightkeep.control.budgets import Budgets
from nightkeep.core.scope import ROOT, is_within, parse_scope
from nightkeep.models.calibration import Calibrations
from nightkeep.models.gateway.quote import Quote, QuoteAsk, make_quote
from nightkeep.models.routing import Route as ModelRoute
from nightkeep.server.api import Route
from nightkeep.server.operators import Asker

__all__ = ["BudgetList", "budget_operations"]


class BudgetList(msgspec.Struct, frozen=True, kw_only=True):
    """Budgets in their present windows. Amounts are micro-dollars, tokens or requests, as ``metric`` says."""

    budgets: list[BudgetView]


class BudgetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which budgets: those above a scope and below it."""

    scope: str = ROOT


def budget_operations(
    budgets: Budgets, calibrations: Calibrations, plan: Callable[[QuoteAsk], ModelRoute]
) -> list[Route]:
    """The operations on budgets."""
    api = _Endpoints(budgets, calibrations, plan)
    return [
        Route(
            method="GET",
            path="/api/budgets",
            summary="Every budget: what is spent, held and left",
            handler=api.list_budgets,
            gives=BudgetList,
            query=BudgetQuery,
        ),
        Route(
            method="GET",
            path="/api/me/budgets",
            summary="The budgets above you, and below",
            handler=api.my_budgets,
            gives=BudgetList,
            needs="key",
            takes_asker=True,
        ),
        Route(
            method="POST",
            path="/api/quote",
            summary="What a call would cost, who would serve it, and whether budgets have room",
            handler=api.quote,
            gives=Quote,
            takes=QuoteAsk,
            needs="key",
            takes_asker=True,
        ),
    ]


class _Endpoints:
    def __init__(self, budgets: Budgets, calibrations: Calibrations, plan: Callable[[QuoteAsk], ModelRoute]) -> None:
        self._budgets = budgets
        self._calibrations = calibrations
        self._plan = plan

    async def list_budgets(self, query: BudgetQuery) -> BudgetList:
        return BudgetList(budgets=await self._budgets.views(parse_scope(query.scope)))

    async def my_budgets(self, asker: Asker) -> BudgetList:
        scope = asker.caller.scope if asker.caller is not None else ROOT
        return BudgetList(budgets=_own(await self._budgets.views(scope), asker))

    async def quote(self, body: QuoteAsk, asker: Asker) -> Quote:
        scope = parse_scope(body.scope)
        if asker.caller is not None:
            scope = asker.caller.narrowed(body.scope)
            asker.caller.check(body.model, body.tag)
        views = [view for view in await self._budgets.views(scope) if is_within(scope, view.scope)]
        quote = make_quote(body, self._plan(body), views, self._calibrations)
        if asker.may_view:
            return quote
        why = quote.why_not and "a budget above this scope has no room"
        return msgspec.structs.replace(quote, budgets=tuple(_own(views, asker)), why_not=why)


def _own(views: list[BudgetView], asker: Asker) -> list[BudgetView]:
    """What a caller may see: not what others have spent above it (law 10)."""
    if asker.may_view or asker.caller is None:
        return views
    return [view for view in views if is_within(view.scope, asker.caller.scope)]
