"""The settings of watching (``[watch]``): each rule on or off, its numbers, and what it may do."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["IdleHeartbeat", "RunCost", "SameRequest", "SpendRate", "TokenGrowth", "Unattributed", "Watch"]


def _as_decimal(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Decimal(str(value)) if is_number else value


Usd = Annotated[Decimal, BeforeValidator(_as_decimal), Field(ge=0, le=10**9, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=1, le=1e6, allow_inf_nan=False)]
Times = Annotated[int, Field(ge=2, le=1_000)]
Tokens = Annotated[int, Field(ge=1, le=10**12)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), defer_build=True)


class _Rule(_Section):
    enabled: bool = True
    action: Literal["alert", "pause"] = "alert"


class SpendRate(_Rule):
    """Spending against its own baseline."""

    factor: Factor = 2.0
    critical_factor: Factor = 10.0
    min_usd: Usd = Decimal(1)
    min_hours: Annotated[int, Field(ge=1, le=168)] = 6


class RunCost(_Rule):
    """A run against the runs before it."""

    factor: Factor = 3.0
    min_usd: Usd = Decimal("0.10")
    min_runs: Annotated[int, Field(ge=1, le=20)] = 5


class TokenGrowth(_Rule):
    """Context that grows with each call."""

    tokens: Tokens = 2_000
    calls: Times = 10


class SameRequest(_Rule):
    """The same request again and again."""

    times: Times = 5
    critical_times: Times = 10
    window_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 300.0


class Unattributed(_Rule):
    """Tokens that nobody is accountable for."""

    tokens: Tokens = 1_000


class IdleHeartbeat(_Rule):
    """The same call like a clock."""

    calls: Annotated[int, Field(ge=3, le=100)] = 6
    jitter: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.1
    min_usd_per_day: Usd = Decimal("0.10")


class Watch(_Section):
    """What is watched."""

    spend_rate: SpendRate = SpendRate.model_construct()
    run_cost: RunCost = RunCost.model_construct()
    token_growth: TokenGrowth = TokenGrowth.model_construct()
    same_request: SameRequest = SameRequest.model_construct()
    unattributed: Unattributed = Unattributed.model_construct()
    idle_heartbeat: IdleHeartbeat = IdleHeartbeat.model_construct()
