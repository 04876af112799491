"""From settings to the rules of watching."""

from __future__ import annotations

from nightkeep.config import Settings
from nightkeep.control.watch_specs import (
    HeartbeatSpec,
    RunCostSpec,
    SameRequestSpec,
    SpendRateSpec,
    TokenGrowthSpec,
    UnattributedSpec,
    WatchSpec,
)
from nightkeep.core.money import micro_usd

__all__ = ["watch_spec"]


def watch_spec(settings: Settings) -> WatchSpec:
    """The rules with their numbers."""
    watch = settings.watch
    rate, run, growth = watch.spend_rate, watch.run_cost, watch.token_growth
    same, stray, beat = watch.same_request, watch.unattributed, watch.idle_heartbeat
    return WatchSpec(
        spend_rate=SpendRateSpec(
            is_on=rate.enabled,
            action=rate.action,
            factor=rate.factor,
            critical_factor=rate.critical_factor,
            min_micro=micro_usd(rate.min_usd),
            min_hours=rate.min_hours,
        ),
        run_cost=RunCostSpec(
            is_on=run.enabled,
            action=run.action,
            factor=run.factor,
            min_micro=micro_usd(run.min_usd),
            min_runs=run.min_runs,
        ),
        token_growth=TokenGrowthSpec(
            is_on=growth.enabled, action=growth.action, tokens=growth.tokens, calls=growth.calls
        ),
        same_request=SameRequestSpec(
            is_on=same.enabled,
            action=same.action,
            times=same.times,
            critical_times=same.critical_times,
            window_s=same.window_s,
        ),
        unattributed=UnattributedSpec(is_on=stray.enabled, action=stray.action, tokens=stray.tokens),
        idle_heartbeat=HeartbeatSpec(
            is_on=beat.enabled,
            action=beat.action,
            calls=beat.calls,
            jitter=beat.jitter,
            min_micro=micro_usd(beat.min_usd_per_day),
        ),
    )
