"""Settling what dead processes had taken of budgets, once a provider's report has completed the ledger.

A lease that was lost counts as spent in full. When the ledger has been compared, request by request, with the reports
of every provider that the process could have used, up to its death, then the ledger knows what it really spent, and
the rest goes back to the budget (``control.budget_leases.forgive``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from nightkeep.control.budget_leases import BudgetLeases, LostLease, WindowKey
from nightkeep.control.budget_specs import Spent
from nightkeep.control.budgets import Budgets
from nightkeep.models.ledger_owners import spent_of
from nightkeep.models.reconcile import OURS, Attribution
from nightkeep.models.reconciliation import Reconciliation
from nightkeep.models.usage_report import Billed
from nightkeep.store.port import Store

__all__ = ["MARK_LENGTH", "Settlement"]

log = logging.getLogger("nightkeep.budgets")

MARK_LENGTH: Final = 4
"""Letters at the end of a process's id, which the ids of its calls end with: 20 bits, of 80 random ones."""


class Settlement:
    """Carries what a comparison has proven over to the budgets."""

    def __init__(
        self, store: Store, budgets: Budgets, leases: BudgetLeases, paid_providers: Callable[[], Sequence[str]]
    ) -> None:
        """``paid_providers`` names all whose calls cost something here: a report of some of them proves nothing."""
        self._store = store
        self._budgets = budgets
        self._leases = leases
        self._paid_providers = paid_providers
        self._owners: dict[str, str] = {}
        self._grace_ms = 0

    async def prepare(self, grace_ms: int) -> None:
        """Learn which processes have died; before a comparison. Raises StoreError.

        ``grace_ms``: how long a bill may be on its way; a process that died later than that is not settled yet.
        """
        self._grace_ms = grace_ms
        self._owners = {lease.owner[-MARK_LENGTH:]: lease.owner for lease in await self._leases.lost()}

    def attribute(self, line: Billed) -> Attribution | None:
        """The process that died with a request which only the bill knows; its id ends as the process's does."""
        ours = OURS.match(line.request_id)
        owner = self._owners.get(ours[1][-MARK_LENGTH:]) if ours else None
        return Attribution(owner=owner) if owner is not None else None

    async def settle(self, done: Reconciliation) -> None:
        """Give back what is proven to be unspent, and count what was billed otherwise. Raises StoreError."""
        lost: dict[WindowKey, list[LostLease]] = {}
        for lease in await self._leases.lost():
            lost.setdefault(lease.key, []).append(lease)
        await self._correct(done, {lease.owner for group in lost.values() for lease in group})
        missing = set(self._paid_providers()) - set(done.providers)
        if lost and missing:
            log.warning("budgets of dead processes stay held: reports of %s are missing", ", ".join(sorted(missing)))
            return
        open_marks = {
            ours[1][-MARK_LENGTH:]
            for each in done.differences
            if each.kind == "in_flight" and (ours := OURS.match(each.request_id))
        }
        for key, group in lost.items():
            is_open = any(lease.owner[-MARK_LENGTH:] in open_marks for lease in group)
            if not is_open and _is_covered(key, group, done, self._grace_ms):
                spent = await _spent(self._store, key, [lease.owner for lease in group])
                await self._leases.forgive(key, spent)

    async def _correct(self, done: Reconciliation, dead: set[str]) -> None:
        """What was booked for processes that have no lost lease; theirs is settled as a whole."""
        for each in done.adjustments:
            if each.owner in dead:
                continue
            requests = 1 if each.basis == "report" else 0
            more = Spent(micro_usd=each.micro_usd, tokens=sum(each.classes), requests=requests)
            await self._budgets.correct(each.who.scope, each.who.run_id, each.at_ms / 1000, more)


def _is_covered(key: WindowKey, group: Sequence[LostLease], done: Reconciliation, grace_ms: int) -> bool:
    from_the_start = done.since_ms is None or (key.start > 0 and done.since_ms <= key.start * 1000)
    return from_the_start and done.until_ms - grace_ms >= max(lease.lost_ms for lease in group)


async def _spent(store: Store, key: WindowKey, owners: Sequence[str]) -> int:
    scope, run = key.scope, None
    if key.period.startswith("run"):
        scope, _, run = key.scope.rpartition("/")
    found = await spent_of(store, owners, scope or "/", since_ms=key.start * 1000, run=run)
    return {"usd": found.micro_usd, "tokens": found.tokens, "requests": found.requests}[key.metric]
