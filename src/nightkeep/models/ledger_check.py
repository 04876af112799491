"""Proving the ledger: what must hold of every row and every sum, and the name of each row of which it does not.

``nightkeep ledger check`` asks; it changes nothing. Rules are queries that find violations (``RULES``), and one loop
that reckons every cost again where the version of its price is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from nightkeep.core.messages import Usage
from nightkeep.core.money import micro_usd_from_pico
from nightkeep.models.ledger_rows import CLASSES
from nightkeep.models.prices import Price, cost_pico
from nightkeep.models.spending import Reads

__all__ = ["RULES", "Checked", "PriceOf", "Rule", "Violation", "check_ledger"]

PriceOf = Callable[[str, str, str], Price | None]
"""The price of a provider's model in a version; None where that is not known (any more)."""

_PAGE: Final = 5_000
_MOST_NAMED: Final = 100  # of each rule; all are counted
_NEGATIVE: Final = " OR ".join(f"{name}_tokens < 0" for name in CLASSES)
_NET_NEGATIVE: Final = " OR ".join(f"sum({name}_tokens) < 0" for name in CLASSES)


class Rule(msgspec.Struct, frozen=True):
    """What must hold, and a query for (row, what is there instead) where it does not."""

    name: str
    holds: str
    sql: str


RULES: Final = (
    Rule(
        "no_negative_classes",
        "no attempt has fewer than no tokens, or costs less than nothing",
        f"SELECT id, 'cost ' || cost_micro_usd FROM ledger WHERE kind = 'attempt' AND ({_NEGATIVE} "
        "OR cost_micro_usd < 0 OR reserved_micro_usd < 0 OR uncached_micro_usd < 0)",
    ),
    Rule(
        "no_negative_requests",
        "no request comes to less than nothing when its adjustments are added",
        "SELECT coalesce(adjusts, id), 'cost ' || sum(cost_micro_usd) FROM ledger WHERE basis <> 'total' "
        f"GROUP BY coalesce(adjusts, id) HAVING sum(cost_micro_usd) < 0 OR {_NET_NEGATIVE}",
    ),
    Rule(
        "known_words",
        "every row has a kind and a basis of the vocabulary",
        "SELECT id, kind || ' ' || basis FROM ledger WHERE NOT ((kind = 'attempt' AND basis IN "
        "('usage', 'open', 'free', 'unpriced')) OR (kind = 'adjustment' AND basis IN ('bill', 'report', 'total')))",
    ),
    Rule(
        "estimates_are_marked",
        "what is an estimate says so, once, and for all of its cost; nothing else does",
        "SELECT id, basis || ' marked ' || is_estimate FROM ledger WHERE kind = 'attempt' AND (is_estimate <> "
        "CASE WHEN basis = 'open' THEN 1 ELSE 0 END OR estimated_micro_usd <> "
        "CASE WHEN basis = 'open' THEN cost_micro_usd ELSE 0 END)",
    ),
    Rule(
        "settled_once",
        "an estimate is settled once at most",
        "SELECT coalesce(adjusts, id), 'estimates ' || sum(is_estimate) FROM ledger WHERE basis <> 'total' "
        "GROUP BY coalesce(adjusts, id) HAVING sum(is_estimate) NOT IN (0, 1) OR sum(is_unpriced) NOT IN (0, 1) "
        "OR (sum(is_estimate) = 0 AND sum(estimated_micro_usd) <> 0)",
    ),
    Rule(
        "unpriced_and_free_cost_nothing",
        "what has no price, and what is free, is in the sums as nothing",
        "SELECT id, basis || ' ' || cost_micro_usd FROM ledger WHERE (basis IN ('unpriced', 'free') "
        "AND cost_micro_usd <> 0) OR (kind = 'attempt' AND is_unpriced <> "
        "CASE WHEN basis = 'unpriced' THEN 1 ELSE 0 END)",
    ),
    Rule(
        "named_after_its_attempt",
        "an attempt's row is named after its call and number, and so is its request",
        "SELECT id, request_id FROM ledger WHERE kind = 'attempt' AND (call_id IS NULL OR n IS NULL "
        "OR id <> call_id || '/' || n OR request_id <> call_id || '-' || n)",
    ),
    Rule(
        "no_duplicates",
        "no request is in the ledger as two attempts",
        "SELECT min(id), count(*) || ' rows of ' || request_id FROM ledger WHERE kind = 'attempt' "
        "GROUP BY request_id HAVING count(*) > 1",
    ),
    Rule(
        "adjustments_refer",
        "an adjustment refers to a row, or says why it does not",
        "SELECT id, coalesce(adjusts, 'no row') || ', ' || coalesce(note, 'no note') FROM ledger "
        "WHERE kind = 'adjustment' AND ((adjusts IS NULL AND coalesce(note, '') = '') OR (adjusts IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM ledger AS other WHERE other.id = ledger.adjusts)))",
    ),
    Rule(
        "booked_as_reconciled",
        "adjustments come to what the reconciliations say they booked",
        "SELECT 'all adjustments', 'the ledger has ' || booked || ', the reconciliations ' || said FROM (SELECT "
        "(SELECT coalesce(sum(cost_micro_usd), 0) FROM ledger WHERE kind = 'adjustment') AS booked, "
        "(SELECT coalesce(sum(booked_micro_usd), 0) FROM reconciliations) AS said) AS sums WHERE booked <> said",
    ),
    Rule(
        "calls_agree",
        "a call's attempts come to its cost in the record (where it is kept), with or without estimates",
        "SELECT calls.id, 'the record has ' || coalesce(calls.cost_micro_usd, 0) || ', the ledger ' || spent.cost "
        "FROM calls JOIN (SELECT call_id, sum(cost_micro_usd) AS cost, sum(estimated_micro_usd) AS estimated "
        "FROM ledger WHERE kind = 'attempt' GROUP BY call_id) AS spent ON spent.call_id = calls.id "
        "WHERE coalesce(calls.cost_micro_usd, 0) NOT IN (spent.cost, spent.cost - spent.estimated)",
    ),
    Rule(
        "calls_are_booked",
        "what has a cost in the record is in the ledger (what a crash interrupted, when it is reconciled)",
        "SELECT id, 'costs ' || cost_micro_usd FROM calls WHERE cost_micro_usd > 0 "
        "AND outcome NOT IN ('running', 'interrupted') "
        "AND id >= (SELECT min(call_id) FROM ledger WHERE kind = 'attempt') "
        "AND NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.id >= calls.id || '/' AND ledger.id < calls.id || '0')",
    ),
    Rule(
        "runs_agree",
        "a run's calls (where all are kept) come to what the run says",
        "SELECT runs.id, 'the run has ' || runs.cost_micro_usd || ', its calls ' || sums.cost FROM runs JOIN "
        "(SELECT run_id, count(*) AS calls, sum(coalesce(cost_micro_usd, 0)) AS cost FROM calls "
        "WHERE outcome NOT IN ('running', 'interrupted') GROUP BY run_id) AS sums ON sums.run_id = runs.id "
        "WHERE sums.calls = runs.calls AND sums.cost <> runs.cost_micro_usd",
    ),
)

COSTS_FOLLOW: Final = "costs_follow_prices"
_COSTS: Final = (
    f"SELECT id, provider, model, price, cost_micro_usd, {', '.join(f'{name}_tokens' for name in CLASSES)} FROM ledger "
    "WHERE id > ? AND kind = 'attempt' AND basis = 'usage' ORDER BY id LIMIT ?"
)


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One row, or sum, that is not as it must be."""

    rule: str
    row: str
    found: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong with it."""

    rows: int
    adjustments: int
    reckoned: int  # costs that were worked out again from their price
    unknown_prices: int  # costs whose version of a price is not known here
    rules: dict[str, int]  # each rule, and how often it is broken
    violations: list[Violation]  # a hundred of each rule at most

    @property
    def is_sound(self) -> bool:
        """Whether every rule holds."""
        return not any(self.rules.values())


async def check_ledger(ledger: Reads, price_of: PriceOf) -> Checked:
    """Look at the whole ledger. Raises StoreError."""
    broken: dict[str, int] = {}
    violations: list[Violation] = []
    for rule in RULES:
        rows = await ledger.read(rule.sql)
        broken[rule.name] = len(rows)
        violations += [Violation(rule=rule.name, row=str(row), found=str(found)) for row, found in rows[:_MOST_NAMED]]
    costs = _Costs(price_of)
    await costs.look(ledger)
    broken[COSTS_FOLLOW] = costs.broken
    counts = await ledger.read(
        "SELECT count(*), coalesce(sum(CASE WHEN kind = 'adjustment' THEN 1 END), 0) FROM ledger"
    )
    return Checked(
        rows=int(counts[0][0] or 0),
        adjustments=int(counts[0][1] or 0),
        reckoned=costs.reckoned,
        unknown_prices=costs.unknown,
        rules=broken,
        violations=violations + costs.violations,
    )


class _Costs:
    """Works every cost out again."""

    def __init__(self, price_of: PriceOf) -> None:
        self.reckoned = self.unknown = self.broken = 0
        self.violations: list[Violation] = []
        self._price_of = price_of
        self._prices: dict[tuple[str, str, str], Price | None] = {}

    async def look(self, ledger: Reads) -> None:
        after = ""
        while rows := await ledger.read(_COSTS, [after, _PAGE]):
            after = str(rows[-1][0])
            for row, provider, model, version, cost, *classes in rows:
                self._compare(str(row), (str(provider), str(model), str(version)), int(cost or 0), classes)

    def _compare(self, row: str, key: tuple[str, str, str], cost: int, classes: Sequence[object]) -> None:
        if key not in self._prices:
            self._prices[key] = self._price_of(*key) if key[2] else None
        price = self._prices[key]
        if price is None:
            self.unknown += 1
            return
        self.reckoned += 1
        usage = msgspec.convert(dict(zip(CLASSES, classes, strict=True)), Usage)
        right = micro_usd_from_pico(cost_pico(price, usage))
        if right != cost:
            self.broken += 1
            if len(self.violations) < _MOST_NAMED:
                found = f"{cost}, and {key[0]}/{key[1]} at price {key[2]} comes to {right}"
                self.violations.append(Violation(rule=COSTS_FOLLOW, row=row, found=found))
