"""The rules of watching: what they find, when they are silent, and that they stay small."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.watch import Watch
from nightkeep.control.watch_memory import Lately
from nightkeep.control.watch_runs import kind_of_work
from nightkeep.control.watch_specs import CallBegun, CallEnded, Finding, Now, SameRequestSpec, SpendRateSpec, WatchSpec

DOLLAR = 1_000_000
HOUR = 3_600.0
MONDAY = 1_763_942_400.0  # an hour begins here


class Stage:
    """Calls at the pace of a test: monotonic and wall go together from an hour's begin."""

    def __init__(self, spec: WatchSpec | None = None) -> None:
        self.watch = Watch(spec or WatchSpec())
        self.at = 0.0

    def now(self) -> Now:
        return Now(self.at, MONDAY + self.at)

    def begin(self, mark: int = 1, scope: str = "acme/triage", model: str = "smart", times: int = 1) -> None:
        self.watch.fold(CallBegun(self.at, scope, model, mark, times), self.now())

    def end(self, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "at": self.at, "began": self.at, "scope": "acme/triage", "run": None, "model": "smart", "agent": "curl/8",
            "peer": "10.0.0.7", "stray": "", "input_tokens": 0, "tokens": 0, "cost": 0, "size": 100, "print": 1,
            "is_paid": True,
        }  # fmt: skip
        self.watch.fold(CallEnded(**{**usual, **fields}), self.now())

    def look(self, rule: str | None = None) -> list[Finding]:
        return [each for each in self.watch.look(self.now()) if rule in (None, each.rule)]

    def spend_for_hours(self, hours: int, dollars: float, scope: str = "acme/triage") -> None:
        hour = int(MONDAY // HOUR)
        self.watch.restore([(scope, hour - n, int(dollars * DOLLAR)) for n in range(1, hours + 1)])


# -- spend rate


def test_ten_times_the_usual_rate_is_critical_within_a_minute() -> None:
    stage = Stage()
    stage.spend_for_hours(24, 6.0)  # ten cents a minute
    for _ in range(6):
        stage.at += 10
        stage.end(cost=DOLLAR // 5)
    (finding,) = stage.look()
    assert (finding.rule, finding.level, finding.scope) == ("spend_rate", "critical", "acme/triage")
    assert (
        "acme/triage spends 12.0 times its usual rate: $1.20 in the last minute, where $0.1000 is usual" in finding.text
    )
    assert not finding.wants_pause


def test_twice_the_usual_rate_is_a_warning_and_the_usual_rate_is_nothing() -> None:
    stage = Stage()
    stage.spend_for_hours(24, 6.0)
    for _ in range(60):
        stage.at += 10
        stage.end(cost=DOLLAR // 60)  # ten cents a minute
        assert not stage.look()
    for _ in range(60):
        stage.at += 10
        stage.end(cost=DOLLAR // 25)
    (finding,) = stage.look()
    assert finding.level == "warning"
    stage.at += 601
    assert not stage.look()


def test_cents_and_new_scopes_do_not_alarm() -> None:
    stage = Stage()
    stage.spend_for_hours(24, 0.01)
    stage.end(cost=DOLLAR // 2)  # 300 times the usual, and fifty cents
    assert not stage.look()
    stage.end(cost=100 * DOLLAR, scope="acme/new")
    assert not [each for each in stage.look() if each.scope == "acme/new"]


def test_the_lowest_scope_that_explains_it_is_named() -> None:
    stage = Stage()
    stage.spend_for_hours(24, 1.0, "acme/triage")
    stage.spend_for_hours(24, 1.0, "acme/other")
    stage.end(cost=50 * DOLLAR)
    assert [each.scope for each in stage.look()] == ["acme/triage"]


def test_a_batch_every_night_is_usual_at_night() -> None:
    stage = Stage()
    hour = int(MONDAY // HOUR)
    quiet = [("acme/batch", hour - n, DOLLAR // 10) for n in range(1, 24)]
    nights = [("acme/batch", hour - 24 * n, 60 * DOLLAR) for n in range(1, 7)]
    stage.watch.restore([*quiet, *nights])
    for _ in range(60):
        stage.at += 30
        stage.end(cost=DOLLAR // 2, scope="acme/batch")
        assert not stage.look("spend_rate")


def test_one_runaway_hour_does_not_become_the_norm() -> None:
    stage = Stage()
    stage.spend_for_hours(24, 1.0)
    stage.watch.restore([("acme/triage", int(MONDAY // HOUR) - 2, 500 * DOLLAR)])
    stage.end(cost=5 * DOLLAR)
    assert [each.rule for each in stage.look()] == ["spend_rate"]


def test_a_pause_comes_at_the_critical_factor_only() -> None:
    stage = Stage(WatchSpec(spend_rate=SpendRateSpec(action="pause")))
    stage.spend_for_hours(24, 6.0)
    stage.end(cost=3 * DOLLAR)
    assert [each.wants_pause for each in stage.look()] == [True]
    calm = Stage(WatchSpec(spend_rate=SpendRateSpec(action="pause", critical_factor=100.0)))
    calm.spend_for_hours(24, 6.0)
    calm.end(cost=3 * DOLLAR)
    assert [(each.level, each.wants_pause) for each in calm.look()] == [("warning", False)]


@given(
    st.lists(st.tuples(st.floats(0, 4_000), st.sampled_from(["a", "a/b", "a/c", "d"]), st.integers(0, 5 * DOLLAR)),
             max_size=60)
)  # fmt: skip
def test_whatever_is_spent_a_finding_is_above_its_factor_and_its_minimum(calls: list[tuple[float, str, int]]) -> None:
    stage = Stage()
    for scope in ("a/b", "d"):
        stage.spend_for_hours(12, 2.0, scope)
    spent: list[tuple[float, str, int]] = []
    for wait, scope, cost in calls:
        stage.at += wait
        stage.end(scope=scope, cost=cost)
        spent.append((stage.at, scope, cost))
        found = stage.look("spend_rate")
        for finding in found:
            below = [
                cost for at, each, cost in spent
                if at > stage.at - 311 and (finding.scope == "/" or (each + "/").startswith(finding.scope + "/"))
            ]  # fmt: skip
            assert sum(below) >= DOLLAR
        scopes = {finding.scope for finding in found}
        assert not any(lower != upper and (lower + "/").startswith(upper + "/") for lower in scopes for upper in scopes)


# -- runs


def test_a_run_at_thirty_cents_where_three_are_usual_is_found_while_it_runs() -> None:
    stage = Stage()
    for n in range(5):
        stage.end(run=f"run_{n}", cost=30_000)
        stage.at += 200
    for n in range(10):
        stage.end(run="run_x", cost=30_000)
        assert bool(stage.look("run_cost")) == (n >= 3)  # from $0.12 on: three times $0.03, and ten cents at least
    (finding,) = stage.look("run_cost")
    assert "Run run_x of acme/triage has cost $0.30 so far and goes on: 10.0 times the average of the last 5 runs" in (
        finding.text
    )
    stage.at += 601
    assert not stage.look("run_cost")


def test_four_runs_are_no_average() -> None:
    stage = Stage()
    for n in range(4):
        stage.end(run=f"run_{n}", cost=30_000)
    stage.at += 200
    stage.end(run="run_x", cost=9 * DOLLAR)
    assert not stage.look("run_cost")


def test_the_runs_of_before_a_restart_make_the_average() -> None:
    stage = Stage()
    stage.watch.restore(runs=[("acme/triage", f"run_{n}", 30_000, -1_000.0 - n) for n in range(5, 0, -1)])
    stage.end(run="run_x", cost=300_000)
    assert len(stage.look("run_cost")) == 1


@pytest.mark.parametrize(
    ("scope", "kind"),
    [
        ("acme/triage", "acme/triage"),
        ("acme/triage/run_01J", "acme/triage"),
        ("acme/x/run_1", "acme/x"),
        ("run_1", "run_1"),
    ],
)
def test_runs_with_a_scope_of_their_own_are_compared_below_the_same_parent(scope: str, kind: str) -> None:
    assert kind_of_work(scope, "run_1") == kind


def test_a_context_that_grows_with_every_call_is_found_and_one_that_is_compacted_is_not() -> None:
    stage = Stage()
    for n in range(11):
        assert not stage.look("token_growth")
        stage.end(run="run_1", input_tokens=10_000 + 4_000 * n)
        stage.end(run="run_1", model="small", input_tokens=500)
    (finding,) = stage.look("token_growth")
    assert "from 10,000 to 50,000 tokens in 10 calls" in finding.text
    stage.end(run="run_1", input_tokens=8_000)
    assert not stage.look("token_growth")


# -- repetition


def test_the_same_request_five_times_is_a_warning_and_ten_times_critical() -> None:
    stage = Stage(WatchSpec(same_request=SameRequestSpec(action="pause")))
    levels = []
    for _ in range(47):
        stage.begin()
        stage.at += 3
        levels.append([(each.level, each.wants_pause) for each in stage.look()])
    assert levels[3] == []
    assert levels[4] == [("warning", False)]
    assert levels[9] == [("critical", True)]
    assert "47 times within 5 minutes" in stage.look()[0].text
    stage.at += 300
    assert not stage.look()


def test_different_requests_scopes_and_models_are_not_the_same() -> None:
    stage = Stage()
    for n in range(40):
        stage.begin(mark=n)
        stage.begin(mark=99, scope=f"acme/{n}")
        stage.begin(mark=99, model=f"m{n}")
    assert not stage.look()


def test_answers_that_cost_nothing_do_not_count() -> None:
    stage = Stage()
    for _ in range(50):
        stage.begin()
        stage.end(is_paid=False)
    assert not stage.look("same_request")


def test_a_thousand_different_loops_of_one_scope_are_one_finding() -> None:
    stage = Stage()
    for mark in range(1_000):
        stage.begin(mark=mark, times=6)
    assert len(stage.look()) == 1


def test_a_heartbeat_every_three_minutes_says_what_it_costs_a_day() -> None:
    stage = Stage()
    for n in range(6):
        stage.at += 180 + (5 if n % 2 else -5)
        stage.end(cost=134_375, size=9_000 + n)
    (finding,) = stage.look()
    assert finding.rule == "idle_heartbeat"
    assert "every 3" in finding.text
    assert "times a day" in finding.text
    assert "$6" in finding.text
    stage.at += 600
    assert not stage.look()


@pytest.mark.parametrize("gap", [5, 15])
def test_a_fast_loop_is_no_heartbeat(gap: int) -> None:
    stage = Stage()
    for _ in range(20):
        stage.at += gap
        stage.end(cost=DOLLAR)
    assert not stage.look("idle_heartbeat")


def test_work_between_means_that_something_happens() -> None:
    stage = Stage()
    for n in range(12):
        stage.at += 180
        stage.end(cost=DOLLAR, size=9_000)
        if n % 3 == 2:
            stage.end(cost=DOLLAR, model="other")
    assert not stage.look("idle_heartbeat")


def test_irregular_calls_and_calls_of_other_sizes_are_no_heartbeat() -> None:
    stage = Stage()
    for n in range(12):
        stage.at += 180 * (1 + n % 2)
        stage.end(cost=DOLLAR)
        stage.end(cost=DOLLAR, scope="acme/b", began=180.0 * n, size=1_000 * (1 + n))
    assert not stage.look("idle_heartbeat")


# -- strays


def test_tokens_that_nobody_is_accountable_for_are_found_with_the_program_that_used_them() -> None:
    stage = Stage()
    stage.end(stray="without a key", tokens=600, cost=5_000)
    assert not stage.look()
    stage.end(stray="without a key", tokens=600, cost=5_000)
    (finding,) = stage.look()
    assert finding.text == (
        "curl/8 at 10.0.0.7 used 1,200 tokens ($0.01) in 2 calls in the last hour without a key: "
        "nobody is accountable for them."
    )
    stage.at += 3_700
    assert not stage.look()


# -- all of them


def test_a_rule_that_is_off_finds_nothing_and_says_so() -> None:
    stage = Stage()
    stage.watch.configure(WatchSpec(same_request=SameRequestSpec(is_on=False)))
    for _ in range(50):
        stage.begin()
    assert not stage.look()
    views = {view.rule: view for view in stage.watch.view()}
    assert (views["same_request"].is_on, views["same_request"].state) == (False, "off")
    assert "$1.00" in views["spend_rate"].looks_for


def test_other_numbers_keep_what_was_learnt() -> None:
    stage = Stage()
    for _ in range(4):
        stage.begin()
    stage.watch.configure(WatchSpec(same_request=SameRequestSpec(times=3)))
    stage.begin()
    assert len(stage.look()) == 1


def test_a_flood_of_scopes_runs_and_requests_stays_in_bounded_memory() -> None:
    stage = Stage()
    for n in range(30_000):
        stage.begin(mark=n, scope=f"s{n}")
        stage.end(scope=f"s{n}", run=f"run_{n}", cost=1, input_tokens=5, tokens=5, stray="x", agent=f"a{n}")
    stage.look()
    states = {view.rule: view.state for view in stage.watch.view()}
    assert states["same_request"].startswith("20,000 ")
    assert states["spend_rate"].endswith("2000 still learning")
    assert states["token_growth"] == "5000 contexts followed"
    assert states["unattributed"].startswith("500 ")


@given(st.lists(st.integers(0, 30)), st.integers(1, 10))
def test_what_was_used_last_is_kept(keys: list[int], most: int) -> None:
    lately: Lately[int, list[int]] = Lately(most, list)
    for key in keys:
        lately.use(key).append(key)
    expected = list(dict.fromkeys(reversed(keys)))[:most]
    assert [key for key, _ in reversed(lately.items())] == expected
    assert all(entry and set(entry) == {key} for key, entry in lately.items())


ENDED = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["a", "a/run_1", "b"]),
        "run": st.sampled_from([None, "run_1", "run_2"]),
        "cost": st.integers(0, DOLLAR),
        "input_tokens": st.integers(0, 100_000),
        "tokens": st.integers(0, 100_000),
        "stray": st.sampled_from(["", "without a key"]),
        "is_paid": st.booleans(),
        "size": st.integers(0, 10_000),
    }
)


@given(st.lists(st.tuples(st.floats(0, 400), st.booleans(), ENDED), max_size=60))
def test_the_same_calls_give_the_same_findings_and_all_of_them_end(
    calls: list[tuple[float, bool, dict[str, Any]]],
) -> None:
    spec = WatchSpec(
        same_request=SameRequestSpec(times=2, critical_times=3), spend_rate=SpendRateSpec(min_hours=1, min_micro=1)
    )
    stages = [Stage(spec), Stage(spec)]
    seen: list[list[list[bytes]]] = [[], []]
    for stage, mine in zip(stages, seen, strict=True):
        stage.spend_for_hours(3, 0.1, "a")
        for wait, is_begin, fields in calls:
            stage.at += wait
            stage.begin() if is_begin else stage.end(**fields)
            findings = stage.look()
            assert len({finding.key for finding in findings}) == len(findings)
            mine.append([msgspec.json.encode(finding) for finding in findings])
        stage.at += 86_400
        assert not stage.look()
    assert seen[0] == seen[1]
