"""Watching at the API: the rules, and what they see now."""

from __future__ import annotations

import msgspec

from nightkeep.control.watch import RuleView
from nightkeep.ops.watching import Watching
from nightkeep.server.api import Route

__all__ = ["Watched", "watch_routes"]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """The rules and what they see now."""

    rules: list[RuleView]
    lost: int  # calls that were not looked at, because too many came at once


def watch_routes(watching: Watching) -> list[Route]:
    """The operation on watching."""

    async def show_watch() -> Watched:
        return Watched(rules=watching.view(), lost=watching.lost)

    return [
        Route(method="GET", path="/api/watch", summary="The rules that watch spending, and what they see now",
              handler=show_watch, gives=Watched),
    ]  # fmt: skip
