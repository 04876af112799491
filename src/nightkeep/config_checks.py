"""Rules between settings: what names what, what contradicts what, and what a version does not do.

Each check takes valid settings and yields findings; ``nightkeep.config`` turns them into problems with lines. An
error stops the loading, a doubt is a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nightkeep.config_messages import suggest
from nightkeep.config_models import DEFAULT_POOL, Account, Budget, Settings
from nightkeep.models.catalog import load_catalog
from nightkeep.models.policies import TaskType
from nightkeep.models.providers import PROVIDERS

__all__ = ["Finding", "Names", "check"]


class Finding(NamedTuple):
    """What a check found, by the path of the setting."""

    path: tuple[str | int, ...]
    what: str
    fix: str
    is_error: bool = True


class Names(NamedTuple):
    """The names that the file defines, those in entries with faults of their own included."""

    providers: frozenset[str]
    pools: frozenset[str]
    aliases: frozenset[str]

    @classmethod
    def of(cls, raw: Mapping[str, object], settings: Settings) -> Names:
        """Gather them from the raw file and the settings (which may have discovered accounts)."""
        pools = _keys(raw, "pools") | {account.pool for account in settings.accounts.values()} | {DEFAULT_POOL}
        accounts = raw.get("accounts")
        for account in accounts.values() if isinstance(accounts, Mapping) else ():
            if isinstance(account, Mapping) and isinstance(account.get("pool"), str):
                pools.add(account["pool"])
        return cls(
            providers=frozenset(
                _keys(raw, "providers") | set(PROVIDERS) | ({"sim"} if "accounts" not in raw else set())
            ),
            pools=frozenset(pools),
            aliases=frozenset(_keys(raw, "models") | set(settings.models)),
        )


def _keys(raw: Mapping[str, object], section: str) -> set[str]:
    table = raw.get(section)
    return {str(key) for key in table} if isinstance(table, Mapping) else set()


def check(settings: Settings, names: Names) -> list[Finding]:
    """Everything that is wrong between the settings."""
    return [
        *_providers(settings),
        *_accounts(settings, names),
        *_pools(settings),
        *_models(settings, names),
        *_cycles(settings),
        *_routes(settings, names),
        *_tasks(settings, names),
        *_prices(settings, names),
        *_keys_twice(settings),
        *_gateway(settings),
        *_budgets(settings),
        *_limits(settings),
    ]


def _providers(settings: Settings) -> Iterator[Finding]:
    for name, provider in settings.providers.items():
        is_new = name not in PROVIDERS
        if is_new and provider.wire is None:
            yield Finding(("providers", name), "wire is missing", 'add wire = "openai_chat" (or another wire)')
        if is_new and provider.base_url is None:
            yield Finding(("providers", name), "base_url is missing", 'add base_url = "https://…"')
        if not is_new and (provider.wire or provider.wires):
            yield Finding(
                ("providers", name, "wire" if provider.wire else "wires"),
                f"{name} is built in, with its own wires",
                "leave the wires out, or give the provider another name",
            )
        if is_new and (provider.wire or "").startswith("openai") and (provider.base_url or "").count("/") == 2:
            yield Finding(
                ("providers", name, "base_url"),
                "has no path; OpenAI's wires are usually below /v1",
                f'did you mean "{provider.base_url}/v1"?',
                is_error=False,
            )


def _accounts(settings: Settings, names: Names) -> Iterator[Finding]:
    for name, account in settings.accounts.items():
        path = ("accounts", name)
        if account.provider not in names.providers:
            meant = suggest(account.provider, names.providers)
            fix = (
                f"did you mean {meant}?"
                if meant
                else f"define [providers.{account.provider}] with its wire and base_url"
            )
            yield Finding((*path, "provider"), f"there is no provider {account.provider!r}", fix)
            continue
        yield from _account_settings(path, account)
        for number, quota in enumerate(account.quota):
            if quota.tokens is None and quota.requests is None:
                yield Finding((*path, "quota", number), "limits nothing", "add tokens = … or requests = …")
            if quota.resets_on is not None and quota.per != "week":
                yield Finding((*path, "quota", number, "resets_on"), "is for weekly windows only", 'use per = "week"')
            if quota.window == "rolling" and (quota.resets_at or quota.resets_on):
                yield Finding(
                    (*path, "quota", number), "a rolling window has no reset time", "remove it, or the window"
                )


def _account_settings(path: tuple[str, str], account: Account) -> Iterator[Finding]:
    spec = PROVIDERS.get(account.provider)
    if spec is None:
        return
    if account.key is None and spec.needs_key:
        yield Finding(path, "key is missing", f'add key = "env:{spec.key_env[0]}" (or file:PATH, cmd:COMMAND)')
    for setting in spec.settings:
        if getattr(account, setting) is None:
            yield Finding(path, f"{setting} is missing", f"{spec.title} needs it: add {setting} = …")


def _pools(settings: Settings) -> Iterator[Finding]:
    sizes = Counter(account.pool for account in settings.accounts.values())
    for name, pool in settings.pools.items():
        size = sizes[name]
        reserved = sum(pool.reserve.values())
        if reserved > size:
            yield Finding(
                ("pools", name, "reserve"),
                f"reserves {reserved} accounts of a pool of {size}",
                f"reserve at most {size}, or add accounts with pool = {name!r}" if size else "add accounts to the pool",
            )
        elif reserved and reserved == size:
            yield Finding(
                ("pools", name, "reserve"),
                f"reserves all {size} accounts: work with any other tag will never be served",
                "reserve fewer, or add accounts",
                is_error=False,
            )
        elif size == 0:
            yield Finding(("pools", name), "has no accounts", f"add an account with pool = {name!r}", is_error=False)


def _target(name: str, names: Names, known: frozenset[str] | set[str]) -> tuple[str, str] | None:
    """What is wrong with a target or alias; None if nothing is."""
    provider, slash, model = name.partition("/")
    if name in known or (slash and model and provider in names.providers):
        return None
    if not slash and load_catalog().find(name) is not None:
        return None
    if slash and provider:
        meant = suggest(provider, names.providers)
        fix = f"did you mean {meant}/{model}?" if meant else f"define [providers.{provider}] with its wire and base_url"
        return f"there is no provider {provider!r}", fix
    meant = suggest(name, known)
    fix = f"did you mean {meant}?" if meant else 'write "provider/model", or define the alias under [models]'
    return f"{name[:60]!r} is no alias, no known model, and names no provider", fix


def _models(settings: Settings, names: Names) -> Iterator[Finding]:
    for name, alias in settings.models.items():
        for number, target in enumerate(alias.targets):
            wrong = _target(target, names, names.aliases)
            if wrong:
                yield Finding(("models", name, "targets", number), *wrong)
        for target in {each for each in alias.targets if alias.targets.count(each) > 1}:
            yield Finding(("models", name, "targets"), f"names {target!r} twice", "remove one", is_error=False)


def _cycles(settings: Settings) -> Iterator[Finding]:
    done: set[str] = set()
    for start in settings.models:
        for cycle in _walk(start, settings, done):
            yield Finding(
                ("models", cycle[0], "targets"),
                f"goes round in a circle: {' -> '.join(cycle)}",
                "end it with a target such as provider/model",
            )


def _walk(start: str, settings: Settings, done: set[str]) -> Iterator[list[str]]:
    """Every circle that is reached from a name, each name looked at once; with a stack, since chains may be long."""
    trail: dict[str, None] = {}  # in order
    stack: list[tuple[str, bool]] = [(start, False)]
    while stack:
        name, is_leaving = stack.pop()
        if is_leaving:
            del trail[name]
            done.add(name)
        elif name in trail:
            names = list(trail)
            yield [*names[names.index(name) :], name]
        elif name in settings.models and name not in done:
            trail[name] = None
            stack.append((name, True))
            stack.extend((each, False) for each in settings.models[name].targets)


def _routes(settings: Settings, names: Names) -> Iterator[Finding]:
    catch_all: int | None = None
    for number, route in enumerate(settings.routes):
        path = ("routes", number)
        if catch_all is not None:
            yield Finding(
                path, f"is never reached: route {catch_all + 1} matches everything", "put it first", is_error=False
            )
        elif route.match.model_prefix is None and not route.match.tags:
            catch_all = number
        if route.pool is not None and route.pool not in names.pools:
            yield _no_pool((*path, "pool"), route.pool, names)
        wrong = _target(route.model, names, names.aliases) if route.model is not None else None
        if wrong:
            yield Finding((*path, "model"), *wrong)
        limits = route.limits
        if route.model is None and route.pool is None and route.failover is None and not limits.model_fields_set:
            yield Finding(path, "changes nothing", "give it a model, a pool, a failover or limits", is_error=False)


def _no_pool(path: tuple[str | int, ...], pool: str, names: Names) -> Finding:
    meant = suggest(pool, names.pools)
    fix = f"did you mean {meant}?" if meant else f"add accounts with pool = {pool!r}"
    return Finding(path, f"there is no pool {pool!r}", fix)


def _tasks(settings: Settings, names: Names) -> Iterator[Finding]:
    kinds = [str(kind) for kind in TaskType]
    for name, task in settings.tasks.items():
        if name.lower().replace("-", "_") not in kinds:
            meant = suggest(name, kinds)
            fix = f"did you mean {meant}?" if meant else f"use one of {', '.join(kinds)}"
            yield Finding(("tasks", name), "there is no such task type", fix)
        for setting, value in (("primary", task.primary), ("fallback", task.fallback)):
            if value is None or (setting == "fallback" and value == "none"):
                continue
            wrong = _target(value, names, names.aliases)
            if wrong:
                yield Finding(("tasks", name, setting), *wrong)


def _prices(settings: Settings, names: Names) -> Iterator[Finding]:
    for target in settings.prices:
        provider = target.partition("/")[0]
        if provider not in names.providers:
            yield Finding(
                ("prices", target), f"there is no provider {provider!r}", "write the price's name as provider/model"
            )
    if settings.gateway.unpriced == "allow":
        return
    for target, path in _targets(settings):
        if _is_priced(target, settings):
            continue
        yield Finding(
            path,
            f"{target} has no price, and requests for a model without one are refused",
            f'add [prices."{target}"] with input and output, free = true to the provider, '
            'or gateway.unpriced = "allow"',
            is_error=False,
        )


def _is_priced(target: str, settings: Settings) -> bool:
    """By the file, by the catalog, or because it costs nothing; what has no provider is another check's."""
    provider, slash, model = target.partition("/")
    custom, spec = settings.providers.get(provider), PROVIDERS.get(provider)
    if not slash or target in settings.prices or (custom is None and spec is None):
        return True
    if (custom is not None and custom.free) or (spec is not None and spec.is_free):
        return True
    row = load_catalog().find(model)
    return row is not None and row.price is not None


def _targets(settings: Settings) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    for name, alias in settings.models.items():
        for number, target in enumerate(alias.targets):
            yield target, ("models", name, "targets", number)


def _keys_twice(settings: Settings) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for name, account in settings.accounts.items():
        if account.key is None:
            continue
        other = first.setdefault(f"{account.provider} {account.base_url} {account.key}", name)
        if other != name:
            yield Finding(
                ("accounts", name, "key"),
                f"is the key of {other} too: both share one quota at the provider",
                "give each account its own key, or remove one",
                is_error=False,
            )
    hashes: dict[str, str] = {}
    for name, key in settings.keys.items():
        other = hashes.setdefault(key.hash, name)
        if other != name:
            yield Finding(("keys", name, "hash"), f"is the hash of {other} too", "make another key")
        if key.default_tag and key.tags and key.default_tag not in key.tags:
            yield Finding(
                ("keys", name, "default_tag"),
                "is not among the tags that the key may claim",
                f"add it to keys.{name}.tags",
            )


def _gateway(settings: Settings) -> Iterator[Finding]:
    deadlines = settings.gateway.deadlines
    for setting in ("connect_s", "first_byte_s", "idle_s"):
        if getattr(deadlines, setting) > deadlines.total_s:
            yield Finding(
                ("gateway", "deadlines", setting),
                f"is over total_s ({deadlines.total_s:g})",
                "raise total_s, or lower it",
            )
    if settings.gateway.require_key == "always" and not settings.keys:
        yield Finding(
            ("gateway", "require_key"),
            "asks for keys and there are none in the file",
            "see nightkeep keys create",
            is_error=False,
        )
    if settings.gateway.require_key == "never" and settings.gateway.host not in {"127.0.0.1", "::1", "localhost"}:
        yield Finding(
            ("gateway", "require_key"),
            f"lets everybody who reaches {settings.gateway.host} spend your money",
            'use "auto", and [keys]',
            is_error=False,
        )
    if settings.record.model_fields_set >= {"sample_rate"} and settings.record.bodies != "sampled":
        yield Finding(
            ("record", "sample_rate"), 'has an effect with bodies = "sampled" only', "set that too", is_error=False
        )


def _budgets(settings: Settings) -> Iterator[Finding]:
    seen: dict[tuple[object, ...], int] = {}
    for number, budget in enumerate(settings.budgets):
        path = ("budgets", number)
        amounts = {"usd": budget.usd, "tokens": budget.tokens, "requests": budget.requests}
        given = [name for name, amount in amounts.items() if amount is not None]
        if not given:
            yield Finding(path, "it limits nothing", "add usd, tokens or requests")
        if budget.reserve and (budget.usd is None or sum(budget.reserve.values()) > budget.usd):
            yield Finding((*path, "reserve"), "more is reserved than there is", "reserve less than usd")
        if budget.per in ("run", "once") and (budget.resets_at or budget.resets_on):
            yield Finding((*path, "per"), f"a budget per {budget.per} never resets", "leave resets_at out")
        if budget.resets_on and budget.per != "week":
            yield Finding((*path, "resets_on"), "only a week begins on a weekday", 'write per = "week"')
        for name in given:
            place = (budget.scope, budget.per, budget.resets_at, budget.resets_on, name)
            if place in seen:
                other = seen[place] + 1
                yield Finding(path, f"budget {other} limits {name} of the same scope and window", "keep one of them")
            seen[place] = number
        yield from _thresholds(path, budget)


def _limits(settings: Settings) -> Iterator[Finding]:
    seen: dict[tuple[str, frozenset[str]], int] = {}
    for number, limit in enumerate(settings.limits):
        path = ("limits", number)
        if limit.requests_per_minute is None and limit.tokens_per_minute is None and limit.concurrent is None:
            yield Finding(path, "it limits nothing", "add requests_per_minute, tokens_per_minute or concurrent")
        place = (limit.scope, frozenset(limit.tags))
        if place in seen:
            yield Finding(path, f"limit {seen[place] + 1} is for the same scope and tags", "make them one")
        seen[place] = number


def _thresholds(path: tuple[str | int, ...], budget: Budget) -> Iterator[Finding]:
    for at, threshold in enumerate(budget.thresholds or ()):
        where = (*path, "thresholds", at)
        if threshold.do == "degrade" and not threshold.to:
            yield Finding(where, "it does not say to which model", 'add to = "a cheaper alias"')
        elif threshold.to and threshold.do != "degrade":
            yield Finding(where, f"{threshold.do} goes to no other model", "leave to out")
