"""What comes after a failed attempt, and that it always ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.outcome import FAILOVER_OUTCOMES, Outcome, Verdict
from nightkeep.models.retry import (
    GiveUp,
    GiveUpReason,
    NextAccount,
    NextTarget,
    Options,
    RetryBudget,
    RetryRules,
    RetrySame,
    Step,
    Tried,
    plan_next,
)

FAULTS = [outcome for outcome in Outcome if outcome is not Outcome.SUCCESS]


def step(
    outcome: Outcome,
    *,
    other: bool = False,
    target: bool = False,
    budget: bool = True,
    tried: int = 1,
    remaining_s: float = 60.0,
    retry_after_s: float | None = None,
    failover: str = "ordered",
    jitter: float = 0.5,
    committed: bool = False,
) -> Step:
    return plan_next(
        [Tried("lab/m", f"a{n}", outcome) for n in range(tried)],
        Verdict(outcome=outcome, retry_after_s=retry_after_s),
        Options(has_other_account=other, has_next_target=target, has_budget=budget),
        remaining_s=remaining_s,
        jitter=jitter,
        failover=failover,  # type: ignore[arg-type]
        is_committed=committed,
    )


@pytest.mark.parametrize("outcome", [Outcome.INVALID_REQUEST, Outcome.REFUSED])
def test_a_bad_or_refused_request_is_never_tried_again_anywhere(outcome: Outcome) -> None:
    answer = step(outcome, other=True, target=True)
    assert isinstance(answer, GiveUp) and answer.reason is GiveUpReason.FINAL


@pytest.mark.parametrize("outcome", [Outcome.AUTH_FAILED, Outcome.SUSPENDED, Outcome.QUOTA_EXHAUSTED])
def test_a_lost_account_is_left_at_once_for_the_next(outcome: Outcome) -> None:
    assert step(outcome, other=True, target=True, tried=3) == NextAccount()
    assert step(outcome, target=True) == NextTarget()
    assert isinstance(step(outcome), GiveUp)


def test_a_lost_account_costs_no_retry_budget() -> None:
    assert step(Outcome.QUOTA_EXHAUSTED, other=True, budget=False) == NextAccount()


@pytest.mark.parametrize(
    "outcome", [Outcome.RATE_LIMITED, Outcome.UNAVAILABLE, Outcome.OVERLOADED, Outcome.TIMED_OUT, Outcome.CUT_STREAM]
)
def test_another_account_or_target_is_tried_without_waiting(outcome: Outcome) -> None:
    assert step(outcome, other=True, target=True, retry_after_s=30) == NextAccount()
    assert step(outcome, target=True, retry_after_s=30) == NextTarget()


def test_an_outage_is_tried_on_one_other_account_only_before_the_next_target() -> None:
    assert step(Outcome.UNAVAILABLE, other=True, target=True, tried=2) == NextTarget()


def test_retry_after_is_never_undercut() -> None:
    for jitter in (0.0, 0.5, 0.999):
        answer = step(Outcome.RATE_LIMITED, retry_after_s=5, jitter=jitter)
        assert isinstance(answer, RetrySame) and 5 <= answer.delay_s < 6


def test_a_wait_that_does_not_fit_before_the_deadline_is_not_begun() -> None:
    answer = step(Outcome.RATE_LIMITED, retry_after_s=30, remaining_s=10)
    assert isinstance(answer, GiveUp) and answer.reason is GiveUpReason.DEADLINE
    assert isinstance(step(Outcome.UNAVAILABLE, remaining_s=0), GiveUp)


def test_waits_double_and_are_spread() -> None:
    first = [step(Outcome.UNAVAILABLE, jitter=jitter) for jitter in (0.0, 1.0)]
    second = [step(Outcome.UNAVAILABLE, jitter=jitter, tried=2) for jitter in (0.0, 1.0)]
    assert first == [RetrySame(0.1), RetrySame(0.5)]
    assert second == [RetrySame(0.2), RetrySame(1.0)]


def test_failover_none_keeps_to_the_target_but_may_take_another_account() -> None:
    assert step(Outcome.UNAVAILABLE, other=True, target=True, failover="none") == NextAccount()
    assert isinstance(step(Outcome.UNAVAILABLE, target=True, failover="none"), RetrySame)
    answer = step(Outcome.QUOTA_EXHAUSTED, target=True, failover="none")
    assert isinstance(answer, GiveUp) and "failover is 'none'" in answer.message


def test_a_model_that_is_not_there_is_not_waited_for() -> None:
    assert step(Outcome.NOT_FOUND, other=True, target=True) == NextAccount()
    assert step(Outcome.NOT_FOUND, other=True, target=True, tried=2) == NextTarget()
    assert isinstance(step(Outcome.NOT_FOUND), GiveUp)


def test_nothing_follows_once_content_was_sent() -> None:
    for outcome in FAULTS:
        assert isinstance(step(outcome, other=True, target=True, committed=True), GiveUp)


def test_an_empty_retry_budget_leaves_only_other_targets() -> None:
    assert step(Outcome.UNAVAILABLE, other=True, target=True, budget=False) == NextTarget()
    answer = step(Outcome.UNAVAILABLE, other=True, budget=False)
    assert isinstance(answer, GiveUp) and answer.reason is GiveUpReason.BUDGET


@given(
    outcomes=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=40),
    others=st.lists(st.booleans(), min_size=40, max_size=40),
    targets=st.lists(st.booleans(), min_size=40, max_size=40),
    waits=st.lists(st.none() | st.floats(0, 100), min_size=40, max_size=40),
    most=st.integers(1, 8),
    deadline_s=st.floats(0.001, 300),
    jitter=st.floats(0, 0.999),
    failover=st.sampled_from(["ordered", "none"]),
)
def test_a_call_never_makes_more_requests_than_allowed_nor_outlives_its_deadline(
    outcomes: list[Outcome],
    others: list[bool],
    targets: list[bool],
    waits: list[float | None],
    most: int,
    deadline_s: float,
    jitter: float,
    failover: str,
) -> None:
    history: list[Tried] = []
    clock, at = 0.0, 0
    for number, outcome in enumerate(outcomes):
        history.append(Tried(f"lab/{at}", f"a{number}", outcome))
        answer = plan_next(
            history,
            Verdict(outcome=outcome, retry_after_s=waits[number]),
            Options(has_other_account=others[number], has_next_target=targets[number]),
            remaining_s=deadline_s - clock,
            jitter=jitter,
            failover=failover,  # type: ignore[arg-type]
            rules=RetryRules(max_attempts=most),
        )
        if outcome not in FAILOVER_OUTCOMES or isinstance(answer, GiveUp):
            assert isinstance(answer, GiveUp)
            break
        if isinstance(answer, RetrySame):
            clock += answer.delay_s
        if isinstance(answer, NextTarget):
            assert failover == "ordered"
            at += 1
        assert clock < deadline_s
    assert len(history) <= most


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
def test_a_provider_never_sees_more_retries_than_its_budget(steps: list[tuple[float, bool]]) -> None:
    budget = RetryBudget(0.0)
    now, requests, retries = 0.0, 0, 0
    for wait, is_request in steps:
        now += wait
        if is_request:
            budget.note_request(now)
            requests += 1
        elif budget.take(now):
            retries += 1
    assert retries <= 10 + 0.2 * requests + now + 1e-6


def test_a_steady_outage_is_answered_with_a_fifth_of_its_requests() -> None:
    budget = RetryBudget(0.0)
    taken = 0
    for number in range(10_000):  # 1,000 requests a second, every one of them fails
        budget.note_request(number / 1000)
        taken += budget.take(number / 1000)
    assert taken <= 0.2 * 10_000 + 10 + 10
