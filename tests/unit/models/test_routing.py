"""From a name to targets: order, refusals with reasons, and what no setting can talk a critical task into."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.errors import RequestError, UnknownModelError
from nightkeep.core.money import MicroUsd, micro_usd
from nightkeep.models.catalog import load_catalog
from nightkeep.models.policies import TaskPolicy, TaskType, load_policies, parse_task
from nightkeep.models.prices import PriceBook, PriceSpec
from nightkeep.models.provider_spec import custom_provider
from nightkeep.models.providers import PROVIDERS
from nightkeep.models.routing import AliasSpec, Needs, Route, RouteRule, RouteTable
from nightkeep.models.wire.base import Operation, Wire

LAB = custom_provider("lab", Wire.OPENAI_CHAT, "http://127.0.0.1:9/v1")
ALL = {"anthropic": ("production",), "openai": ("production", "spare"), "gemini": ("cheap",), "deepseek": ("cheap",)}


def table(pools: dict[str, tuple[str, ...]] | None = None, **more: Any) -> RouteTable:
    providers = {
        **PROVIDERS,
        "lab": LAB,
        "sim": custom_provider("sim", Wire.OPENAI_CHAT, "http://x", more_wires=tuple(Wire), is_free=True),
    }
    prices = PriceBook(
        load_catalog(),
        (PriceSpec(target="lab/big", input=Decimal(5), output=Decimal(25)),),
        frozenset({"sim", "ollama"}),
    )
    return RouteTable.from_specs(providers=providers, pools=ALL if pools is None else pools, prices=prices, **more)


def targets(route: Route) -> list[str]:
    return [each.target for each in route.candidates]


def test_an_alias_gives_its_targets_in_order() -> None:
    route = table(aliases=[AliasSpec(name="smart", targets=("openai/gpt-5", "anthropic/claude-opus-4-6"))]).plan(
        "smart"
    )
    assert targets(route) == ["openai/gpt-5", "anthropic/claude-opus-4-6"]
    assert (route.alias, route.rule, route.failover) == ("smart", "alias smart", "ordered")


def test_failover_none_keeps_the_first_target_only_and_says_so() -> None:
    alias = AliasSpec(name="critical", targets=("anthropic/claude-opus-4-6", "openai/gpt-5"), failover="none")
    route = table(aliases=[alias]).plan("critical")
    assert targets(route) == ["anthropic/claude-opus-4-6"]
    assert [each.why for each in route.rejected] == ["failover_none"]


def test_failover_none_fails_rather_than_take_the_second_target() -> None:
    alias = AliasSpec(name="critical", targets=("anthropic/claude-opus-4-6", "openai/gpt-5"), failover="none")
    with pytest.raises(UnknownModelError, match="anthropic has no account"):
        table({"openai": ("p",)}, aliases=[alias]).plan("critical")


def test_a_provider_and_model_needs_no_alias() -> None:
    assert targets(table().plan("openai/gpt-4o")) == ["openai/gpt-4o"]


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("gpt-4o", "openai/gpt-4o"),
        ("gpt-4o-2024-08-06", "openai/gpt-4o-2024-08-06"),
        ("claude-sonnet-4-6", "anthropic/claude-sonnet-4-6"),
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5-20250929"),
        ("claude-opus-4-6[1m]", "anthropic/claude-opus-4-6"),
        ("claude-3-5-haiku-latest", "anthropic/claude-3-5-haiku-latest"),
        ("gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("gemini-2.5-flash-001", "gemini/gemini-2.5-flash-001"),
    ],
)
def test_a_known_name_goes_to_who_makes_it(asked: str, target: str) -> None:
    route = table().plan(asked)
    assert targets(route) == [target]
    assert route.candidates[0].price is not None


def test_an_alias_catches_the_dated_name_too() -> None:
    aliases = [AliasSpec(name="claude-sonnet-4-5", targets=("lab/big",))]
    assert targets(table({"lab": ("p",)}, aliases=aliases).plan("claude-sonnet-4-5-20250929")) == ["lab/big"]


def test_a_known_model_is_not_guessed_to_be_at_a_reseller() -> None:
    with pytest.raises(UnknownModelError) as caught:
        table({"openrouter": ("p",)}).plan("gpt-4o")
    assert "openai has no account" in caught.value.message
    assert "openrouter" in caught.value.message


def test_an_unknown_name_lists_what_is_near_and_what_is_configured() -> None:
    with pytest.raises(UnknownModelError) as caught:
        table(aliases=[AliasSpec(name="smart", targets=("openai/gpt-5",))]).plan("claude-sonet-4-6")
    assert "claude-sonnet-4-6" in caught.value.data["near"]
    assert "aliases smart" in caught.value.message


def test_a_model_without_a_price_is_refused_with_the_fix_unless_allowed() -> None:
    with pytest.raises(UnknownModelError, match=r'\[prices."lab/small"\]'):
        table({"lab": ("p",)}).plan("lab/small")
    assert targets(table({"lab": ("p",)}, refuses_unpriced=False).plan("lab/small")) == ["lab/small"]


def test_a_new_model_of_a_known_family_goes_to_its_maker_but_has_no_price_of_its_own() -> None:
    with pytest.raises(UnknownModelError, match="no price is known"):
        table().plan("gpt-99")
    assert targets(table(refuses_unpriced=False).plan("gpt-99")) == ["openai/gpt-99"]


def test_what_is_too_small_falls_out_with_the_reason() -> None:
    route = table(aliases=[AliasSpec(name="a", targets=("openai/gpt-4o", "openai/gpt-4.1"))]).plan(
        "a", needs=Needs(context_tokens=200_000)
    )
    assert targets(route) == ["openai/gpt-4.1"]
    assert route.rejected[0].target == "openai/gpt-4o" and "128000" in route.rejected[0].reason
    assert route.degraded_from == "openai/gpt-4o"


def test_an_estimate_that_may_be_too_high_does_not_refuse_the_only_target() -> None:
    assert targets(table().plan("gpt-4o", needs=Needs(context_tokens=150_000))) == ["openai/gpt-4o"]
    with pytest.raises(RequestError, match="no target of 'gpt-4o' holds"):
        table().plan("gpt-4o", needs=Needs(context_tokens=500_000))


def test_what_cannot_do_what_is_needed_falls_out() -> None:
    alias = AliasSpec(name="a", targets=("deepseek/deepseek-chat", "openai/gpt-4o"))
    route = table(aliases=[alias]).plan("a", needs=Needs(images=True, structured=True))
    assert targets(route) == ["openai/gpt-4o"]
    assert route.rejected[0].reason == "it cannot do structured_output, vision"
    with pytest.raises(RequestError):
        table().plan("deepseek-chat", needs=Needs(images=True))


def test_what_is_not_known_of_a_model_is_not_held_against_it() -> None:
    routes = table({"xai": ("p",), "lab": ("p",)}, refuses_unpriced=False)
    everything = Needs(tools=True, images=True, structured=True, context_tokens=10_000_000)
    assert targets(routes.plan("grok-4", needs=everything)) == ["xai/grok-4"]
    assert targets(routes.plan("lab/big", needs=everything)) == ["lab/big"]


def test_an_alias_can_require_more_than_the_request_shows() -> None:
    alias = AliasSpec(name="a", targets=("openai/gpt-4o", "openai/gpt-5"), requires=frozenset({"reasoning"}))
    assert targets(table(aliases=[alias]).plan("a")) == ["openai/gpt-5"]


@pytest.mark.parametrize("tag", ["health_check", "monitoring"])
@pytest.mark.parametrize("asked", ["claude-opus-4-6", "gpt-5", "no-such-model"])
def test_a_monitoring_tag_takes_the_cheapest_whatever_was_asked(tag: str, asked: str) -> None:
    route = table({"gemini": ("p",), "anthropic": ("p",)}).plan(asked, tag=tag)
    assert targets(route)[0] == "gemini/gemini-2.5-flash-lite"
    assert route.degraded_from == asked
    assert len(route.candidates) <= 3


def test_the_cheapest_must_be_able_to_do_it() -> None:
    route = table({"deepseek": ("p",), "openai": ("p",)}).plan("x", tag="health_check", needs=Needs(images=True))
    assert "deepseek/deepseek-chat" not in targets(route)


def test_the_first_matching_rule_wins_and_all_that_it_names_must_hold() -> None:
    rules = [
        RouteRule(
            name="infra", model_prefix="claude-opus", tags=frozenset({"security"}), pool="production", failover="none"
        ),
        RouteRule(name="content", tags=frozenset({"content"}), model="gemini-2.5-flash"),
        RouteRule(name="rest", pool="spare"),
    ]
    routes = table(rules=rules)
    infra = routes.plan("claude-opus-4-6", tag="security")
    assert (infra.rule_name, infra.failover, infra.candidates[0].pool) == ("infra", "none", "production")
    content = routes.plan("gpt-5", tag="content")
    assert (targets(content), content.degraded_from) == (["gemini/gemini-2.5-flash"], "gpt-5")
    assert routes.plan("gpt-5").candidates[0].pool == "spare"
    with pytest.raises(UnknownModelError, match="no account in pool spare"):
        routes.plan("claude-opus-4-6")


def test_without_a_rule_the_providers_first_pool_is_taken() -> None:
    assert table().plan("gpt-5").candidates[0].pool == "production"


def test_the_client_keeps_its_wire_where_the_provider_speaks_it() -> None:
    assert table().plan("gpt-5", wire=Wire.OPENAI_RESPONSES).candidates[0].wire is Wire.OPENAI_RESPONSES
    assert table().plan("claude-opus-4-6", wire=Wire.OPENAI_CHAT).candidates[0].wire is Wire.ANTHROPIC_MESSAGES


def test_a_target_without_the_operation_falls_out() -> None:
    with pytest.raises(UnknownModelError, match="does not offer embed"):
        table().plan("claude-opus-4-6", operation=Operation.EMBED)


def test_with_no_key_everything_goes_to_the_simulated_provider() -> None:
    routes = table(
        {"sim": ("sim",)}, simulated="sim", aliases=[AliasSpec(name="smart", targets=("anthropic/claude-opus-4-6",))]
    )
    assert targets(routes.plan("smart")) == ["sim/claude-opus-4-6"]
    for asked in ("gpt-4o", "openai/gpt-4o", "models/anything"):
        route = routes.plan(asked, tag="health_check")
        assert route.candidates[0].provider == "sim"
    for task in TaskType:
        assert routes.plan("x", task=task).candidates[0].provider == "sim"


# --- tasks -----------------------------------------------------------------------------------------------------


def test_every_task_type_has_a_policy_and_a_reason() -> None:
    policies = load_policies()
    assert set(policies.tasks) == set(TaskType) and len(TaskType) == 16
    assert all(policy.why for policy in policies.tasks.values())
    assert all(policy.allowed in policies.classes for policy in policies.tasks.values() if policy.allowed)


def test_every_policy_names_models_that_are_known_and_priced() -> None:
    for policy in load_policies().tasks.values():
        for name in filter(None, (policy.primary, policy.fallback, policy.fast)):
            row = load_catalog().find(name)
            assert row is not None and row.price is not None and not row.is_retired, name


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("infrastructure_debug", ["anthropic/claude-opus-4-6"]),
        ("security-analysis", ["anthropic/claude-opus-4-6"]),
        ("ARCHITECTURE_PLANNING", ["anthropic/claude-opus-4-6", "anthropic/claude-sonnet-4-6"]),
        ("code_generation", ["anthropic/claude-sonnet-4-6", "openai/gpt-4.1"]),
        ("task_routing", ["anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash"]),
        ("metadata_extraction", ["gemini/gemini-2.5-flash", "deepseek/deepseek-chat"]),
    ],
)
def test_a_task_is_served_by_its_policy(task: str, expected: list[str]) -> None:
    assert targets(table().plan("whatever", task=task)) == expected


def test_a_low_budget_takes_the_fallback_only_where_there_is_one() -> None:
    low = micro_usd("0.49")
    route = table().plan("x", task="code_generation", budget_remaining=low)
    assert (targets(route), route.degraded_from) == (["openai/gpt-4.1"], "claude-sonnet-4-6")
    assert targets(table().plan("x", task="security_analysis", budget_remaining=low)) == ["anthropic/claude-opus-4-6"]
    assert targets(table().plan("x", task="code_generation", budget_remaining=micro_usd("0.50")))[0].startswith(
        "anthropic/"
    )


def test_speed_is_preferred_only_where_the_task_allows_it() -> None:
    allowed = {task for task in TaskType if table().plan("x", task=task, prefer_fast=True).degraded_from}
    assert allowed == {"content_writing", "format_conversion", "translation", "summarization_simple"}


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="task_routing"):
        parse_task("paint_the_fence")


def test_a_configured_task_replaces_a_row_and_keeps_its_strictness() -> None:
    rows = {TaskType.SECURITY_ANALYSIS: TaskPolicy(primary="lab/big", fallback="openai/gpt-4o")}
    routes = table({"lab": ("p",), "openai": ("p",)}, tasks=rows)
    assert targets(routes.plan("x", task="security_analysis")) == ["lab/big"]


CRITICAL = [task for task, policy in load_policies().tasks.items() if policy.is_critical]
TAGS = [None, "health_check", "monitoring", "batch", "security"]
POOLS: list[dict[str, tuple[str, ...]]] = [
    ALL,
    {"openai": ("production",), "gemini": ("cheap",)},
    {"anthropic": ("production",)},
    {"deepseek": ("cheap",)},
]
HIJACKED = AliasSpec(name="claude-opus-4-6", targets=("deepseek/deepseek-chat", "gemini/gemini-2.5-flash"))
RULES: list[list[RouteRule]] = [
    [],
    [RouteRule(name="all", model="gemini-2.5-flash-lite")],
    [RouteRule(name="all", failover="ordered", pool="production")],
    [RouteRule(name="tagged", tags=frozenset({"batch", "security"}), model="deepseek-chat")],
]


@pytest.mark.parametrize("task", CRITICAL)
def test_a_critical_task_never_leaves_its_class_whatever_is_configured(task: TaskType) -> None:
    """Q-MODEL-01: every tag, budget, speed, set of accounts, alias and rule."""
    policies = load_policies()
    allowed = policies.classes[policies.tasks[task].allowed]
    seen = 0
    for pools, aliases, rules in itertools.product(POOLS, ([], [HIJACKED]), RULES):
        routes = table(pools, aliases=aliases, rules=rules)
        for tag, left, fast, asked in itertools.product(
            TAGS, (None, MicroUsd(0)), (False, True), ("gemini-2.5-flash", "claude-opus-4-6", "gpt-4o")
        ):
            try:
                route = routes.plan(asked, tag=tag, task=task, budget_remaining=left, prefer_fast=fast)
            except RequestError:
                continue
            seen += 1
            for each in route.candidates:
                row = load_catalog().find(each.model)
                assert row is not None and row.klass in allowed, (each.target, tag, left, fast, asked)
    assert seen


def test_infrastructure_and_security_have_no_second_target_at_all() -> None:
    for task in (TaskType.INFRASTRUCTURE_DEBUG, TaskType.SECURITY_ANALYSIS):
        route = table(rules=[RouteRule(name="all", failover="ordered")]).plan("x", task=task)
        assert (len(route.candidates), route.failover) == (1, "none")


# --- properties ------------------------------------------------------------------------------------------------


@given(
    asked=st.text(max_size=40) | st.sampled_from(["gpt-4o", "smart", "openai/gpt-5", "claude-opus-4-6[1m]"]),
    tag=st.none() | st.sampled_from(["health_check", "batch", "x"]),
    tokens=st.integers(0, 3_000_000),
    tools=st.booleans(),
)
def test_the_same_question_has_the_same_answer(asked: str, tag: str | None, tokens: int, tools: bool) -> None:
    aliases = [AliasSpec(name="smart", targets=("openai/gpt-4o", "anthropic/claude-opus-4-6"))]
    needs = Needs(tools=tools, context_tokens=tokens)

    def ask(routes: RouteTable) -> Any:
        try:
            return routes.plan(asked, tag=tag, needs=needs)
        except RequestError as error:
            return type(error), error.message

    routes = table(aliases=aliases)
    first = ask(routes)
    assert first == ask(routes) == ask(table(aliases=aliases))
    if isinstance(first, Route):
        assert first.candidates


def test_names_from_clients_do_not_fill_the_memory() -> None:
    routes = table(refuses_unpriced=False)
    for number in range(10_000):
        routes.plan(f"openai/made-up-{number}")
    assert len(routes._plans) <= 4096
