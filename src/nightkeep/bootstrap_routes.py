"""From the settings to the route table: the only place that knows both.

Kept apart from ``nightkeep.bootstrap`` so that ``nightkeep route explain`` loads no server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from nightkeep.config import Settings, provider_specs
from nightkeep.config_models import ModelAlias, Price, Route, Task
from nightkeep.core.errors import ConfigError, NightkeepError
from nightkeep.models.catalog import LongRates, load_catalog
from nightkeep.models.policies import TaskPolicy, TaskType, parse_task
from nightkeep.models.prices import PriceBook, PriceSpec
from nightkeep.models.provider_spec import ProviderSpec, custom_provider
from nightkeep.models.routing import AliasSpec, RouteLimits, RouteRule, RouteTable
from nightkeep.models.wire.base import Wire

__all__ = ["SIMULATED", "price_book", "route_table", "simulated_provider"]

SIMULATED: Final = "sim"
"""The id of the simulated provider and of its pool."""


def _today() -> date:
    return datetime.now(UTC).date()


def simulated_provider(base_url: str = "http://127.0.0.1") -> ProviderSpec:
    """The built-in simulated provider: every wire, no price."""
    return custom_provider(SIMULATED, Wire.OPENAI_CHAT, base_url, more_wires=tuple(Wire), is_free=True)


def route_table(settings: Settings, more_providers: Mapping[str, ProviderSpec] | None = None) -> RouteTable:
    """Build the table of routes from settings.

    Raises:
        ConfigError: a task is not one of the sixteen.
    """
    providers = {**provider_specs(settings), **(more_providers or {})}
    if settings.is_simulated:
        providers.setdefault(SIMULATED, simulated_provider())
    return RouteTable.from_specs(
        providers=providers,
        pools=_pools(settings),
        prices=price_book(settings, providers),
        aliases=[_alias(name, alias) for name, alias in settings.models.items()],
        rules=[_rule(number, route) for number, route in enumerate(settings.routes, 1)],
        tasks=_tasks(settings.tasks),
        simulated=SIMULATED if settings.is_simulated else None,
        refuses_unpriced=settings.gateway.unpriced == "refuse",
    )


def price_book(
    settings: Settings, providers: Mapping[str, ProviderSpec], today: Callable[[], date] = _today
) -> PriceBook:
    """The configured prices over the catalog's."""
    specs = tuple(_price(target, price) for target, prices in settings.prices.items() for price in prices)
    free = frozenset(name for name, spec in providers.items() if spec.is_free)
    return PriceBook(load_catalog(), specs, free, today)


def _price(target: str, price: Price) -> PriceSpec:
    long = price.long
    return PriceSpec(
        target=target,
        input=price.input,
        output=price.output,
        cached_input=price.cached_input,
        cache_write=price.cache_write,
        cache_write_1h=price.cache_write_1h,
        reasoning=price.reasoning,
        batch=None if price.batch_discount is None else 1 - Decimal(str(price.batch_discount)),
        credit_eligible=price.credit_eligible,
        long=LongRates(above=long.above, input=long.input, output=long.output, marginal=long.marginal)
        if long is not None
        else None,
        since=price.since,
    )


def _pools(settings: Settings) -> dict[str, tuple[str, ...]]:
    """For each provider its pools, in the order of the file. A disabled account still says what is configured."""
    if settings.is_simulated:
        return {SIMULATED: (SIMULATED,)}
    found: dict[str, dict[str, None]] = {}
    for account in settings.accounts.values():
        found.setdefault(account.provider, {}).setdefault(account.pool)
    return {provider: tuple(pools) for provider, pools in found.items()}


def _alias(name: str, alias: ModelAlias) -> AliasSpec:
    return AliasSpec(
        name=name,
        targets=alias.targets,
        failover=alias.failover,
        max_output_tokens=alias.max_output_tokens,
        requires=frozenset(alias.requires),
    )


def _rule(number: int, route: Route) -> RouteRule:
    return RouteRule(
        name=route.name or f"#{number}",
        model_prefix=route.match.model_prefix,
        tags=frozenset(route.match.tags),
        model=route.model,
        pool=route.pool,
        failover=route.failover,
        limits=RouteLimits(requests_per_minute=route.limits.requests_per_minute, concurrent=route.limits.concurrent),
    )


def _tasks(tasks: Mapping[str, Task]) -> dict[TaskType, TaskPolicy]:
    found = {}
    for name, task in tasks.items():
        try:
            kind = parse_task(name)
        except NightkeepError as error:
            raise ConfigError(f"[tasks.{name}]: {error.message}", setting=f"tasks.{name}") from error
        fallback = None if task.fallback == "none" else task.fallback
        found[kind] = TaskPolicy(
            primary=task.primary,
            fallback=fallback,
            max_output_tokens=task.max_output_tokens,
            temperature=task.temperature,
            why="configuration",
        )
    return found
