"""What a process has really spent, by the ledger: what its leases of budgets are settled to when it died.

An estimate still counts as spent. A request that only the bill knows, and that could not be tied to a process or a
scope, counts against every process and scope that is asked about: a budget is never settled to less than was billed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from nightkeep.core.scope import ROOT
from nightkeep.models.ledger_rows import CLASSES
from nightkeep.models.spending import Reads
from nightkeep.store.port import Value

__all__ = ["OwnedSpend", "spent_of"]

_TOKENS: Final = " + ".join(f"{name}_tokens" for name in CLASSES)
_NOBODYS: Final = "(basis = 'report' AND owner = '')"
_NOWHERE: Final = f"(basis = 'report' AND scope = '{ROOT}')"


class OwnedSpend(msgspec.Struct, frozen=True, kw_only=True):
    """What some processes have spent together."""

    micro_usd: int
    tokens: int
    requests: int
    estimates: int  # requests of which it is still not known what was billed


async def spent_of(
    ledger: Reads,
    owners: Sequence[str],
    scope: str,
    since_ms: int = 0,
    until_ms: int | None = None,
    run: str | None = None,
) -> OwnedSpend:
    """What ``owners`` have spent in a scope and below it (in one ``run``), from ``since_ms`` up to ``until_ms``.

    Complete for processes that have died once their time is reconciled. Raises StoreError.
    """
    whose = f"(owner IN ({', '.join('?' * len(owners))}) OR {_NOBODYS})" if owners else _NOBODYS
    parts: list[tuple[str, list[Value]]] = [("at >= ?", [since_ms]), (whose, [*owners])]
    if run is not None:
        parts.append((f"(run_id = ? OR {_NOWHERE})", [run]))
    if until_ms is not None:
        parts.append(("at < ?", [until_ms]))
    if scope != ROOT:
        below = f"{scope}/"
        where = f"(scope = ? OR substr(scope, 1, ?) = ? OR {_NOWHERE})"
        parts.append((where, [scope, len(below), below]))
    sql = (
        f"SELECT coalesce(sum(cost_micro_usd), 0), coalesce(sum({_TOKENS}), 0), "
        "coalesce(sum(CASE WHEN kind = 'attempt' OR basis = 'report' THEN 1 ELSE 0 END), 0), "
        "coalesce(sum(is_estimate), 0) FROM ledger WHERE " + " AND ".join(part for part, _ in parts)
    )
    (row,) = await ledger.read(sql, [value for _, values in parts for value in values])
    cost, tokens, requests, estimates = (int(value or 0) for value in row)
    return OwnedSpend(micro_usd=cost, tokens=tokens, requests=requests, estimates=estimates)
