"""What an answer does to the state of an account."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.accounts import AccountState, AccountStatus, disable, enable, evolve, lapse, spend

NOW = 1_800_000_000.0
VERDICTS = st.builds(
    Verdict,
    outcome=st.sampled_from(list(Outcome)),
    retry_after_s=st.none() | st.floats(allow_nan=True, allow_infinity=True),
    resets_at=st.none() | st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)),
)


def after(*outcomes: Outcome, **verdict: object) -> AccountState:
    state = AccountState()
    for outcome in outcomes:
        state = lapse(state, NOW + 10**9)
        state = evolve(state, Verdict(outcome=outcome, **verdict), NOW)  # type: ignore[arg-type]
    return state


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.SUCCESS,
        Outcome.INVALID_REQUEST,
        Outcome.NOT_FOUND,
        Outcome.REFUSED,
        Outcome.CANCELLED,
        Outcome.UNAVAILABLE,
        Outcome.TIMED_OUT,
        Outcome.CUT_STREAM,
        Outcome.OVERLOADED,
    ],
)
def test_what_does_not_concern_the_account_leaves_it_available(outcome: Outcome) -> None:
    assert after(outcome) is not None
    assert after(outcome).status is AccountStatus.AVAILABLE


def test_a_rate_limit_cools_for_as_long_as_the_provider_says() -> None:
    state = after(Outcome.RATE_LIMITED, retry_after_s=7.0)
    assert (state.status, state.until) == (AccountStatus.COOLING, NOW + 7.0)


def test_rate_limits_without_a_time_cool_longer_and_longer_up_to_a_minute() -> None:
    spans = [(after(*[Outcome.RATE_LIMITED] * n).until or 0.0) - NOW for n in range(1, 10)]
    assert spans == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@given(jitter=st.floats(0, 1))
def test_jitter_spreads_a_guessed_cooling_over_its_upper_half(jitter: float) -> None:
    state = evolve(AccountState(), Verdict(outcome=Outcome.RATE_LIMITED), NOW, jitter=jitter)
    assert state.until is not None
    assert NOW + 0.5 <= state.until <= NOW + 1.0


def test_many_rate_limits_at_the_same_moment_are_one_piece_of_news() -> None:
    state = AccountState()
    for _ in range(20):
        state = evolve(state, Verdict(outcome=Outcome.RATE_LIMITED), NOW)
    assert state.until == NOW + 1.0


def test_a_success_begins_the_backoff_anew() -> None:
    assert after(Outcome.RATE_LIMITED, Outcome.RATE_LIMITED, Outcome.SUCCESS, Outcome.RATE_LIMITED).until == NOW + 1.0


def test_a_success_of_an_earlier_call_does_not_end_a_cooling() -> None:
    state = evolve(AccountState(), Verdict(outcome=Outcome.RATE_LIMITED, retry_after_s=9.0), NOW)
    assert evolve(state, Verdict(outcome=Outcome.SUCCESS), NOW + 1).until == NOW + 9.0


def test_overload_cools_only_when_the_provider_says_for_how_long() -> None:
    assert after(Outcome.OVERLOADED, retry_after_s=5.0).status is AccountStatus.COOLING


def test_an_exhausted_quota_waits_for_the_providers_reset_then_its_own_then_a_guess() -> None:
    said = datetime.fromtimestamp(NOW + 5_000, UTC)
    assert after(Outcome.QUOTA_EXHAUSTED, resets_at=said).until == NOW + 5_000
    exhausted = Verdict(outcome=Outcome.QUOTA_EXHAUSTED)
    assert evolve(AccountState(), exhausted, NOW, own_reset=NOW + 800).until == NOW + 800
    spans = [(after(*[Outcome.QUOTA_EXHAUSTED] * n).until or 0.0) - NOW for n in range(1, 7)]
    assert spans == [300.0, 600.0, 1_200.0, 2_400.0, 3_600.0, 3_600.0]


@pytest.mark.parametrize("outcome", [Outcome.SUSPENDED, Outcome.AUTH_FAILED])
@given(verdicts=st.lists(VERDICTS, max_size=10), seconds=st.floats(0, 10**9))
def test_a_closed_account_never_comes_back_by_itself(outcome: Outcome, verdicts: list[Verdict], seconds: float) -> None:
    state = after(outcome)
    for verdict in verdicts:
        state = lapse(evolve(state, verdict, NOW + seconds), NOW + 2 * seconds)
    assert state.status == outcome.value


@given(verdicts=st.lists(VERDICTS, max_size=20))
def test_every_state_that_passes_says_when_and_no_odd_answer_blocks_for_years(verdicts: list[Verdict]) -> None:
    state = AccountState()
    for verdict in verdicts:
        state = evolve(state, verdict, NOW)
        passes = state.health in (AccountStatus.COOLING, AccountStatus.QUOTA_EXHAUSTED)
        assert (state.until is not None) == passes
        if state.until is not None:
            assert NOW <= state.until <= NOW + 41 * 86_400
            assert lapse(state, state.until).status is AccountStatus.AVAILABLE


def test_enabling_takes_back_only_the_disabling() -> None:
    state = disable(after(Outcome.SUSPENDED), "for the audit")
    assert state.status is AccountStatus.DISABLED
    assert enable(state).status is AccountStatus.SUSPENDED


def test_a_window_of_its_own_that_is_used_up_exhausts_it_until_its_reset() -> None:
    state = spend(AccountState(), NOW + 60, "per day", NOW)
    assert (state.status, state.until, state.is_own_count) == (AccountStatus.QUOTA_EXHAUSTED, NOW + 60, True)
    assert spend(after(Outcome.SUSPENDED), NOW + 60, "per day", NOW).status is AccountStatus.SUSPENDED
