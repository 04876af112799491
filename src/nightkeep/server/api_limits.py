"""Limits on scopes at the API: what is used of them now, and who waits. For whoever may see all tenants."""

from __future__ import annotations

import msgspec

from nightkeep.control.limit_nodes import LimitView
from nightkeep.control.limits import ScopeLimits
from nightkeep.server.api import Route

__all__ = ["LimitList", "limit_routes"]

_MOST_LIMITS = 1_000


class LimitList(msgspec.Struct, frozen=True, kw_only=True):
    """Limits as they stand in the process that answers; with several, each enforces its share of them."""

    limits: list[LimitView]  # the fullest, by scope
    waiting: int  # calls that wait for any of them
    left_out: int  # how many more scopes there are


def limit_routes(limits: ScopeLimits) -> list[Route]:
    """The operations on limits."""

    async def list_limits() -> LimitList:
        views = limits.snapshot()
        shown = views
        if len(views) > _MOST_LIMITS:
            fullest = sorted(views, key=_fullness, reverse=True)[:_MOST_LIMITS]
            shown = sorted(fullest, key=lambda view: (view.scope, view.name))
        return LimitList(limits=shown, waiting=limits.waiting, left_out=len(views) - len(shown))

    return [
        Route(
            method="GET",
            path="/api/limits",
            summary="What is used of the limits on scopes, and who waits",
            handler=list_limits,
            gives=LimitList,
            needs="view",
        )
    ]


def _fullness(view: LimitView) -> float:
    """How much of the tightest limit is used."""
    pairs = (
        (view.requests_used, view.requests_per_minute),
        (view.tokens_used, view.tokens_per_minute),
        (view.in_flight, view.concurrent),
    )
    return view.waiting + max(used / limit for used, limit in pairs if limit)
