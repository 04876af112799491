"""From the settings to the controls of money: budgets, and the counter of tokens. ``bootstrap`` opens them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from nightkeep.config_models import Budget, Settings
from nightkeep.control.budget_leases import BudgetLeases
from nightkeep.control.budget_specs import DEFAULT_THRESHOLDS, BudgetSpec, Metric, Threshold, ThresholdReached
from nightkeep.control.budgets import Budgets
from nightkeep.core.clock import Clock
from nightkeep.core.errors import StoreError
from nightkeep.core.money import micro_usd
from nightkeep.models.calibration import Calibrations
from nightkeep.models.gateway.spending import Spending
from nightkeep.store.port import Store

__all__ = ["MoneyControls", "budget_specs", "open_money"]

log = logging.getLogger("nightkeep.budgets")

_SAVE_S = 0.5  # what is learnt matters most at the start; a write is made only where something was


def budget_specs(settings: Settings) -> list[BudgetSpec]:
    """The configured budgets."""
    return [_budget(budget) for budget in settings.budgets]


def _budget(budget: Budget) -> BudgetSpec:
    limits: dict[Metric, int] = {}
    if budget.usd is not None:
        limits["usd"] = micro_usd(budget.usd)
    if budget.tokens is not None:
        limits["tokens"] = budget.tokens
    if budget.requests is not None:
        limits["requests"] = budget.requests
    thresholds: tuple[Threshold, ...] = DEFAULT_THRESHOLDS
    if budget.thresholds is not None:
        thresholds = tuple(Threshold(at=each.at, do=each.do, to=each.to) for each in budget.thresholds)
    return BudgetSpec(
        scope=budget.scope,
        per=budget.per,
        limits=limits,
        is_hard=budget.hard,
        resets_at=budget.resets_at,
        resets_on=budget.resets_on,
        thresholds=thresholds,
        reserve={tag: micro_usd(amount) for tag, amount in budget.reserve.items()},
        is_strict=budget.strict,
    )


class MoneyControls:
    """Budgets and the counter of tokens, running."""

    def __init__(self, store: Store, budgets: Budgets, leases: BudgetLeases, clock: Clock, *, is_alone: bool) -> None:
        self._is_alone = is_alone
        self.budgets = budgets
        self.leases = leases
        self.calibrations = Calibrations()
        self.spending = Spending(budgets, self.calibrations, clock)
        self._store = store
        self._clock = clock
        self._saving: asyncio.Task[None] | None = None

    async def open(self, *, marks_lost: bool) -> None:
        """Take up what earlier processes have left. Raises StoreError: without budgets nothing may be served."""
        if marks_lost:
            lost = await self.leases.mark_lost()
            if lost:
                log.warning(
                    "%d budgets are held by processes that died; what they held counts as spent until "
                    "'nightkeep spend reconcile' has compared it with the provider's report",
                    lost,
                )
        await self.calibrations.restore(self._store)
        self.budgets.start()
        self._saving = asyncio.ensure_future(self._save_on())

    async def _save_on(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._save()
            if not self._is_alone:
                try:
                    await self.calibrations.restore(self._store)
                except StoreError as error:
                    log.warning("what other workers have learnt of tokens cannot be read: %s", error)

    def _save(self) -> None:
        work = self.calibrations.save(int(self._clock.now().timestamp() * 1000))
        if work is not None:
            self._store.post(work)

    async def close(self) -> None:
        """Give back what was not spent."""
        if self._saving is not None:
            self._saving.cancel()
        self._save()
        try:
            await self.budgets.close()
        except StoreError as error:
            log.error("budgets are not given back: %s", error)


def open_money(
    store: Store,
    settings: Settings,
    owner: str,
    clock: Clock,
    on_threshold: Callable[[ThresholdReached], None],
    *,
    is_alone: bool,
) -> MoneyControls:
    """Make the controls of money; ``open`` starts them."""
    leases = BudgetLeases(store, owner, clock)
    budgets = Budgets(budget_specs(settings), leases, clock, on_threshold=on_threshold, is_alone=is_alone)
    return MoneyControls(store, budgets, leases, clock, is_alone=is_alone)
