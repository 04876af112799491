"""From the settings to the limits on scopes."""

from __future__ import annotations

from nightkeep.bootstrap_pools import Share
from nightkeep.config_controls import Limit
from nightkeep.config_models import Settings
from nightkeep.control.limit_nodes import LimitSpec
from nightkeep.control.meters import Limits

__all__ = ["limit_specs"]


def limit_specs(settings: Settings, share: Share) -> list[LimitSpec]:
    """The configured limits, as far as they are this process's: the shares add up to the limit."""
    return [_limit(limit, share) for limit in settings.limits]


def _limit(limit: Limit, share: Share) -> LimitSpec:
    return LimitSpec(
        name=limit.title,
        scope=limit.scope,
        tags=frozenset(limit.tags),
        limits=Limits(
            requests_per_minute=share.of(limit.requests_per_minute),
            tokens_per_minute=share.of(limit.tokens_per_minute),
            concurrent=share.of(limit.concurrent),
        ),
    )
