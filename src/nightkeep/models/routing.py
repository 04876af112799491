"""From the model that was asked to the targets that may serve it: pure, deterministic, explainable (Q-PROXY-08).

The order of rules: a critical task's class, configured routes, the monitoring tags, the task table, aliases,
"provider/model", the catalog. The first that speaks decides; nothing is guessed. Values stand in
``nightkeep.models.routing_specs``, the choosing among targets in ``nightkeep.models.routing_choice``; which account
serves is ``nightkeep.models.pools``, what follows a failure ``nightkeep.models.retry``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from nightkeep.core.errors import RequestError, UnknownModelError
from nightkeep.core.money import MicroUsd
from nightkeep.models.catalog import Catalog, canonical, load_catalog, upstream_name
from nightkeep.models.policies import TaskPolicies, TaskPolicy, TaskType, load_policies, parse_task
from nightkeep.models.prices import PriceBook
from nightkeep.models.provider_spec import ProviderSpec
from nightkeep.models.routing_choice import Chooser, Picked, Target
from nightkeep.models.routing_specs import (
    AliasSpec,
    Candidate,
    Failover,
    Needs,
    Rejected,
    Route,
    RouteLimits,
    RouteRule,
    Why,
)
from nightkeep.models.wire.base import Operation, Wire

__all__ = ["AliasSpec", "Candidate", "Needs", "Rejected", "Route", "RouteLimits", "RouteRule", "RouteTable"]

_MOST_PLANS: Final = 4096
_SURE: Final = 0.7
"""Token estimates may be this much too high (``nightkeep.models.estimate``): between this share of an estimate and the
whole of it a target is doubtful, and taken only where none is sure."""


class _Ask(NamedTuple):
    """What decides a plan, but for the size of the request; the key of remembered plans."""

    model: str
    tag: str | None
    task: str | None
    wire: Wire
    operation: Operation
    tools: bool
    parallel_tools: bool
    images: bool
    documents: bool
    audio: bool
    structured: bool
    is_budget_low: bool
    is_fast: bool


class _Plan(NamedTuple):
    """What a rule proposes before targets are looked at."""

    rule: str
    targets: tuple[Target, ...]
    alias: str | None = None
    failover: Failover = "ordered"
    pool: str | None = None
    degraded_from: str | None = None
    rule_name: str | None = None
    limits: RouteLimits = RouteLimits()
    max_output_tokens: int | None = None
    temperature: float | None = None
    rejected: tuple[Rejected, ...] = ()
    requires: frozenset[str] = frozenset()
    classes: frozenset[str] | None = None  # allowed classes of models; None: any
    most: int | None = None  # candidates kept


class RouteTable:
    """Every rule there is. Immutable once built; a reload makes another."""

    def __init__(
        self,
        chooser: Chooser,
        *,
        aliases: Iterable[AliasSpec] = (),
        rules: Iterable[RouteRule] = (),
        policies: TaskPolicies | None = None,
    ) -> None:
        self._chooser = chooser
        self._aliases = {alias.name: alias for alias in aliases}
        self._alias_of = {canonical(name): alias for name, alias in self._aliases.items()}
        self._rules = tuple(rules)
        self._policies = policies or load_policies()
        self._plans: dict[_Ask, tuple[Route, int]] = {}

    @classmethod
    def from_specs(
        cls,
        *,
        providers: Mapping[str, ProviderSpec],
        pools: Mapping[str, tuple[str, ...]],
        prices: PriceBook | None = None,
        catalog: Catalog | None = None,
        aliases: Iterable[AliasSpec] = (),
        rules: Iterable[RouteRule] = (),
        tasks: Mapping[TaskType, TaskPolicy] | None = None,
        simulated: str | None = None,
        refuses_unpriced: bool = True,
    ) -> RouteTable:
        """Build the table.

        Args:
            providers: every provider, built in or configured, by id.
            pools: for each provider the pools in which it has accounts, in the order of the configuration. A
                request that no rule gives a pool takes accounts from the first.
            prices: the price book; the catalog's own prices where there is none.
            tasks: rows of the configuration, in place of the built-in ones.
            simulated: the id of the simulated provider, when it serves everything.
            refuses_unpriced: a target without a price is refused (``gateway.unpriced``).
        """
        known = catalog or load_catalog()
        free = frozenset(name for name, spec in providers.items() if spec.is_free)
        chooser = Chooser(
            catalog=known,
            prices=prices or PriceBook(known, free_providers=free),
            providers=providers,
            pools=pools,
            simulated=simulated,
            refuses_unpriced=refuses_unpriced,
        )
        policies = load_policies().with_rows(tasks) if tasks else None
        return cls(chooser, aliases=aliases, rules=rules, policies=policies)

    @property
    def aliases(self) -> Mapping[str, AliasSpec]:
        """The configured aliases, by name."""
        return self._aliases

    def plan(
        self,
        asked: str,
        *,
        tag: str | None = None,
        task: str | None = None,
        wire: Wire = Wire.OPENAI_CHAT,
        needs: Needs = Needs(),  # noqa: B008 - frozen
        operation: Operation = Operation.CHAT,
        budget_remaining: MicroUsd | None = None,
        prefer_fast: bool = False,
    ) -> Route:
        """Say what may serve a request; the same question always has the same answer.

        Raises:
            UnknownModelError: nothing that is configured serves the model; ``data["rejected"]`` says why each
                target fell out, ``data["near"]`` which names are near.
            RequestError: the task type is unknown, or the request does not fit into any target.
        """
        is_low = budget_remaining is not None and budget_remaining < self._policies.low_budget
        ask = _Ask(
            asked, tag, task, wire, operation, needs.tools, needs.parallel_tools, needs.images, needs.documents,
            needs.audio, needs.structured, is_low, prefer_fast,
        )  # fmt: skip
        known = self._plans.get(ask)
        if known is None:
            known = self._remember(ask)
        route, fits_tokens = known
        if needs.context_tokens <= fits_tokens:
            return route
        return self._fitted(route, needs.context_tokens)

    def _remember(self, ask: _Ask) -> tuple[Route, int]:
        route = self._decide(ask)
        windows = [candidate.context_window for candidate in route.candidates if candidate.context_window is not None]
        if len(self._plans) >= _MOST_PLANS:  # names and tags come from clients: never more than so many
            self._plans.clear()
        entry = self._plans[ask] = (route, min(windows, default=1 << 62))
        return entry

    def _decide(self, ask: _Ask) -> Route:
        plan = self._propose(ask)
        picked = self._chooser.choose(ask.wire, ask.operation, _wants(ask, plan), plan)
        rejected = (*plan.rejected, *picked.rejected)
        candidates = picked.candidates
        if plan.failover == "none":
            candidates, rejected = _only_first(plan, picked, rejected)
        elif plan.most is not None:
            candidates = candidates[: plan.most]
        if not candidates:
            raise self._unserved(ask, plan, rejected)
        return Route(
            rule=plan.rule,
            asked=ask.model,
            alias=plan.alias,
            candidates=candidates,
            rejected=rejected,
            failover=plan.failover,
            degraded_from=plan.degraded_from,
            rule_name=plan.rule_name,
            limits=plan.limits,
            max_output_tokens=plan.max_output_tokens,
            temperature=plan.temperature,
        )

    def _propose(self, ask: _Ask) -> _Plan:
        task = parse_task(ask.task) if ask.task is not None else None
        policy = self._policies.tasks[task] if task is not None else None
        rule = next((rule for rule in self._rules if _matches(rule, ask)), None)
        if task is not None and policy is not None and policy.is_critical:
            return _under_rule(self._by_task(ask, task, policy), rule, keeps_model=True)
        if rule is not None:
            if rule.model is not None:
                plan = self._by_name(rule.model, f"route {rule.name}: model {rule.model}")
                changed = ask.model if canonical(rule.model) != canonical(ask.model) else None
                return _under_rule(plan._replace(degraded_from=changed), rule)
            return _under_rule(self._default(ask, task, policy), rule)
        return self._default(ask, task, policy)

    def _default(self, ask: _Ask, task: TaskType | None, policy: TaskPolicy | None) -> _Plan:
        if ask.tag in self._policies.cheapest_tags and ask.operation is Operation.CHAT and not self._is_simulated:
            plan = self._cheapest(ask)
            if plan is not None:
                return plan
        if task is not None and policy is not None:
            return self._by_task(ask, task, policy)
        return self._by_name(ask.model)

    @property
    def _is_simulated(self) -> bool:
        return self._chooser.simulated is not None

    def _cheapest(self, ask: _Ask) -> _Plan | None:
        """Q-PROXY-18: whatever was asked, the cheapest that can do it, with the next two behind it."""
        extra = [target for alias in self._aliases.values() for target in self._targets(alias.targets)]
        targets = self._chooser.cheapest(extra)
        if not targets:
            return None
        return _Plan(
            rule=f"tag {ask.tag}: the cheapest model that can do it, whatever is asked",
            targets=targets,
            degraded_from=ask.model,
            most=3,
        )

    def _by_task(self, ask: _Ask, task: TaskType, policy: TaskPolicy) -> _Plan:
        names = [policy.primary] + ([policy.fallback] if policy.fallback else [])
        rule = f"task {task}"
        rejected: tuple[Rejected, ...] = ()
        degraded_from = None
        if ask.is_budget_low and policy.fallback:
            rule += f": the budget is low, so its fallback {policy.fallback}"
            rejected = (Rejected(policy.primary, "the budget that is left is low", Why.BUDGET),)
            names, degraded_from = [policy.fallback], policy.primary
        elif ask.is_fast and policy.fast:
            rule += f": speed is preferred, so {policy.fast}"
            names, degraded_from = [policy.fast, *names], policy.primary
        targets = tuple(target for name in names for target in self._by_name(name).targets)
        classes = None
        if policy.allowed and not policy.is_configured:
            classes = self._policies.classes[policy.allowed]
        failover: Failover = "none" if policy.allowed and policy.fallback is None and len(targets) == 1 else "ordered"
        return _Plan(
            rule=rule,
            targets=targets,
            failover=failover,
            degraded_from=degraded_from,
            rejected=rejected,
            classes=classes,
            max_output_tokens=policy.max_output_tokens,
            temperature=policy.temperature,
        )

    def _by_name(self, name: str, rule: str | None = None) -> _Plan:
        alias = self._aliases.get(name) or self._aliases.get(upstream_name(name)) or self._alias_of.get(canonical(name))
        if alias is not None:
            return _Plan(
                rule=rule or f"alias {alias.name}",
                targets=self._targets(alias.targets),
                alias=alias.name,
                failover=alias.failover,
                max_output_tokens=alias.max_output_tokens,
                requires=alias.requires,
            )
        targets = self._targets((name,))
        return _Plan(rule=rule or (targets[0].how if targets else "no rule"), targets=targets)

    def _targets(self, names: Iterable[str]) -> tuple[Target, ...]:
        return tuple(target for name in names for target in self._chooser.targets_of(name))

    def _fitted(self, route: Route, tokens: int) -> Route:
        """The route without the targets that are too small."""
        sure = [each for each in route.candidates if each.context_window is None or tokens <= each.context_window]
        doubtful = [
            each
            for each in route.candidates
            if each.context_window is not None and tokens * _SURE <= each.context_window
        ]
        kept = sure or doubtful
        gone = tuple(
            Rejected(each.target, f"about {tokens} tokens do not fit into {each.context_window}", Why.CONTEXT)
            for each in route.candidates
            if each not in kept
        )
        if not kept:
            raise RequestError(
                f"the request has about {tokens} tokens, and no target of {route.asked!r} holds that many: "
                + "; ".join(f"{item.target} ({item.reason})" for item in gone),
                code="context_length_exceeded",
                rejected=[msgspec.to_builtins(item) for item in gone],
            )
        first = route.candidates[0].target
        return msgspec.structs.replace(
            route,
            candidates=tuple(kept),
            rejected=(*route.rejected, *gone),
            degraded_from=route.degraded_from or (first if kept[0].target != first else None),
        )

    def _unserved(self, ask: _Ask, plan: _Plan, rejected: tuple[Rejected, ...]) -> RequestError:
        reasons = "; ".join(f"{item.target}: {item.reason}" for item in rejected)
        near = self._chooser.near(ask.model, self._aliases)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        message = (
            f"no target serves model {ask.model!r} ({plan.rule})"
            + (f": {reasons}." if reasons else ".")
            + hint
            + f" Configured: {self._chooser.configured(self._aliases)}."
        )
        only = {item.why for item in rejected}
        kind = RequestError if only and only <= {Why.CAPABILITY, Why.CONTEXT, Why.FAILOVER_NONE} else UnknownModelError
        return kind(
            message, model=ask.model, near=list(near), rejected=[msgspec.to_builtins(item) for item in rejected]
        )


def _matches(rule: RouteRule, ask: _Ask) -> bool:
    if rule.tags and ask.tag not in rule.tags:
        return False
    prefix = rule.model_prefix
    return prefix is None or ask.model.startswith(prefix) or canonical(ask.model).startswith(prefix)


def _under_rule(plan: _Plan, rule: RouteRule | None, *, keeps_model: bool = False) -> _Plan:
    """Apply what a configured rule says beside the model; it may make failover stricter for a critical task only."""
    if rule is None:
        return plan
    failover: Failover = rule.failover or plan.failover
    if keeps_model and plan.failover == "none":
        failover = "none"
    name = plan.rule if plan.rule.startswith("route ") else f"route {rule.name}, then {plan.rule}"
    return plan._replace(rule=name, pool=rule.pool, failover=failover, rule_name=rule.name, limits=rule.limits)


def _wants(ask: _Ask, plan: _Plan) -> frozenset[str]:
    wanted = {
        "tools": ask.tools,
        "parallel_tools": ask.parallel_tools,
        "vision": ask.images,
        "documents": ask.documents,
        "audio": ask.audio,
        "structured_output": ask.structured,
    }
    return plan.requires | {name for name, is_wanted in wanted.items() if is_wanted}


def _only_first(
    plan: _Plan, picked: Picked, rejected: tuple[Rejected, ...]
) -> tuple[tuple[Candidate, ...], tuple[Rejected, ...]]:
    """Q-PROXY-17: the first target or none; what stands behind it is named as not allowed."""
    first = plan.targets[0].name if plan.targets else ""
    kept = tuple(each for each in picked.candidates if each.target == first)[:1]
    others = tuple(
        Rejected(each.target, "failover is 'none': only the first target may serve", Why.FAILOVER_NONE)
        for each in picked.candidates
        if each not in kept
    )
    return kept, (*rejected, *others)
