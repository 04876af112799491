"""What a stop covers: names in every spelling, scopes with all that is below them, and nothing else."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.stops import KINDS, Stop, StopIndex, Target, clipped, make_target, refusal
from nightkeep.control.stops_in_force import StopsInForce
from nightkeep.core.errors import RequestError
from nightkeep.core.scope import is_within

NOW = datetime(2026, 11, 20, 3, 12, tzinfo=UTC)


def stop(kind: str, name: str, **more: Any) -> Stop:
    target = make_target(kind, name)
    given: dict[str, Any] = {"id": f"{kind}:{name}", "why": "", "by": "dana@ops", "since": NOW, "source": "command"}
    return Stop(kind=target.kind, name=target.name, **{**given, **more})


def found(index: StopIndex, **action: Any) -> str | None:
    given: dict[str, Any] = {"scope": "acme/triage", "tag": None, "models": (), "account": None, "tool": None}
    stop = index.find(**{**given, **action})
    return None if stop is None else stop.id


@pytest.mark.parametrize(
    ("stopped", "scope", "is_stopped"),
    [
        ("/", "default", True),
        ("/", "/", True),
        ("acme", "acme", True),
        ("acme", "acme/triage/run_1", True),
        ("acme/", "acme/triage", True),
        ("/acme//", "acme", True),
        ("acme", "/acme/triage/", True),
        ("acme", "acme//triage", True),
        ("acme", "acme/../other", True),
        ("acme", "acme-2", False),
        ("acme", "acmes/triage", False),
        ("acme", "ACME", False),
        ("acme/triage", "acme", False),
        ("acme/triage", "acme/triage-2", False),
        ("acme", "/", False),
    ],
)
def test_a_stopped_scope_stops_what_is_below_it_and_nothing_beside_it(
    stopped: str, scope: str, *, is_stopped: bool
) -> None:
    assert (found(StopIndex([stop("scope", stopped)]), scope=scope) is not None) == is_stopped


@pytest.mark.parametrize(
    "name",
    ["acme%2Ftriage", "acme/../other", "..", "acme/./x", "acme//x", "acme\\x", "acmé", "a\x00b", "a\nb", "a/" * 9, "",
     "   ", "acme ", "a" * 300, "／", "acme／triage", "\ud800"],
)  # fmt: skip
def test_a_scope_that_cannot_be_is_refused_rather_than_stopped_beside_the_mark(name: str) -> None:
    with pytest.raises(RequestError):
        make_target("scope", name)


@pytest.mark.parametrize("kind", ["model", "account", "tag", "tool"])
@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "a\nb", "\x1b[2J", "\ud800", "x" * 201, "\u202e"])
def test_a_name_that_cannot_be_is_refused(kind: str, name: str) -> None:
    with pytest.raises(RequestError):
        make_target(kind, name)


def test_only_what_can_be_stopped_can_be_named() -> None:
    with pytest.raises(RequestError, match="these can: scope, model"):
        make_target("universe", "x")


@pytest.mark.parametrize(
    ("stopped", "models", "is_stopped"),
    [
        ("smart", ("smart", "openai/gpt-4.1"), True),
        ("gpt-4.1", ("smart", "openai/gpt-4.1"), True),
        ("openai/gpt-4.1", ("smart", "openai/gpt-4.1"), True),
        ("openai/*", ("smart", "openai/gpt-4.1"), True),
        ("gpt-*", ("smart", "openai/gpt-4.1"), True),
        ("*", ("anything",), True),
        ("GPT-4.1", ("gpt-4.1",), True),
        ("gpt-4.1", ("GPT-4.1 ",), True),
        ("gpt-4.1", ("ｇｐｔ-4.1",), True),
        ("meta/llama", ("openrouter/meta/llama",), True),
        ("claude[1m]", ("claude[1m]",), True),
        ("openai/*", ("anthropic/claude",), False),
        ("gpt-4", ("gpt-4.1",), False),
        ("openai", ("openai/gpt-4.1",), False),
        ("gpt-4.1", (), False),
    ],
)
def test_a_model_is_stopped_by_its_alias_or_its_target(
    stopped: str, models: tuple[str, ...], *, is_stopped: bool
) -> None:
    assert (found(StopIndex([stop("model", stopped)]), models=models) is not None) == is_stopped


@pytest.mark.parametrize("kind", ["account", "tag", "tool"])
def test_accounts_tags_and_tools_are_stopped_by_name_and_by_glob(kind: str) -> None:
    index = StopIndex([stop(kind, "batch-*"), stop(kind, "Straße")])
    assert found(index, **{kind: "batch-2"})
    assert found(index, **{kind: "BATCH-2"})
    assert found(index, **{kind: "STRASSE"})
    assert not found(index, **{kind: "interactive"})
    assert not found(index, **{kind: None})
    other = {"account": "tag", "tag": "tool", "tool": "account"}[kind]
    assert not found(index, **{other: "batch-2"})


def test_of_two_stops_the_one_that_cuts_is_found_first() -> None:
    drains = stop("scope", "/", id="drains", drain=True, source="file")
    cuts = stop("scope", "/", id="cuts", since=NOW + timedelta(hours=1))
    assert found(StopIndex([drains, cuts])) == "cuts"


@pytest.mark.parametrize(
    ("drains", "cuts"),
    [
        (("scope", "/"), ("scope", "acme")),
        (("scope", "acme"), ("tag", "batch")),
        (("model", "m"), ("model", "m*")),
        (("model", "m*"), ("model", "m")),
        (("tag", "batch"), ("account", "a")),
    ],
)
def test_a_stop_that_cuts_is_not_hidden_by_one_that_drains(drains: tuple[str, str], cuts: tuple[str, str]) -> None:
    index = StopIndex([stop(*drains, drain=True), stop(*cuts, since=NOW + timedelta(hours=1))])
    assert found(index, tag="batch", models=("m",), account="a") == f"{cuts[0]}:{cuts[1]}"


def test_the_refusal_says_who_what_why_since_when_and_the_way_out() -> None:
    error = refusal(stop("scope", "acme/triage", why="it mails everybody"))
    assert error.message == (
        "scope acme/triage was stopped by dana@ops at 2026-11-20 03:12:00 UTC: it mails everybody; "
        "resume with: nightkeep resume acme/triage"
    )
    assert error.http_status == 403
    assert error.data == {
        "rule": "switch.scope",
        "stop": "scope acme/triage",
        "why": "it mails everybody",
        "by": "dana@ops",
        "since": "2026-11-20T03:12:00+00:00",
    }
    assert "nightkeep resume --model gpt-4.1" in refusal(stop("model", "gpt-4.1")).message
    assert refusal(stop("scope", "/", source="rule:loop")).data["rule"] == "rule:loop"


def test_what_people_send_becomes_one_printable_line() -> None:
    assert clipped("a\r\nx-evil: 1\x1b[2J\u202eb", 100) == "a x-evil: 1 [2J b"
    assert clipped("x" * 10_000_000, 500) == "x" * 499 + "…"
    assert clipped("  ", 5) == ""


def test_without_a_stop_a_check_looks_at_one_field() -> None:
    class Untouchable(str):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    StopsInForce().check(scope=Untouchable(), tag=Untouchable(), models=(Untouchable(),))


SEGMENT = st.text("abAB.-", min_size=1, max_size=2).filter(lambda text: text[0] not in ".-")
SCOPE = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join) | st.just("/")


@given(st.lists(SCOPE, max_size=4), SCOPE)
def test_a_scope_is_stopped_exactly_where_it_is_within_a_stopped_one(stopped: list[str], scope: str) -> None:
    index = StopIndex(stop("scope", name) for name in stopped)
    assert (found(index, scope=scope) is not None) == any(is_within(scope, name) for name in stopped)


@given(st.sampled_from(KINDS), st.text(max_size=20), st.sampled_from([str.upper, str.lower, str.title]))
def test_a_name_is_kept_in_a_form_that_finds_itself(kind: str, name: str, spelled: Any) -> None:
    try:
        target = make_target(kind, name)
    except RequestError:
        return
    assert make_target(kind, target.name) == target
    index = StopIndex([Stop(id="x", kind=target.kind, name=target.name, why="", by="", since=NOW, source="api")])
    if target.kind == "scope":
        assert found(index, scope=target.name)
    else:
        action = {"models": (name,)} if kind == "model" else {kind: name}
        assert found(index, **action)


def test_a_target_is_named_as_the_command_line_takes_it() -> None:
    words = [Target("scope", "/").words, Target("tag", "batch").words, Target("model", "gpt-*").words]
    assert words == ["/", "--tag batch", "--model 'gpt-*'"]
    assert str(Target("scope", "/")) == "everything"


@given(st.lists(st.text("ab*?[]!-", min_size=1, max_size=5), min_size=1, max_size=4), st.text("ab-", max_size=4))
def test_of_many_globs_each_finds_what_it_finds_alone(globs: list[str], name: str) -> None:
    stops = [stop("model", glob) for glob in globs]
    alone = [each.id for each in stops if found(StopIndex([each]), models=(name,))]
    together = found(StopIndex(stops), models=(name,))
    assert (together in alone) if alone else (together is None)


def test_finding_among_many_stops_gives_the_same_in_any_order() -> None:
    stops = [stop("tag", f"t{n}") for n in range(50)] + [stop("model", f"m{n}-*") for n in range(50)]
    random.Random(1).shuffle(stops)
    assert found(StopIndex(stops), models=("m7-x",)) == "model:m7-*"
