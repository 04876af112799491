"""Episodes: opened once, counted while they last, ended once; bounded whatever comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from nightkeep.ops.alert_episodes import Alert, Episodes, Level
from nightkeep.ops.alert_rates import RateGate
from nightkeep.ops.alert_rows import episode_of, row_of

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)


def alert(key: str = "pool:a", level: Level = "warning", **more: object) -> Alert:
    return Alert(key=key, text=f"{key} is bad.", level=level, kind="test", **more)  # type: ignore[arg-type]


class Ids:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> str:
        self.n += 1
        return f"alert_{self.n}"


def test_an_episode_is_opened_once_and_counted_while_it_lasts() -> None:
    episodes, ids = Episodes(), Ids()
    steps = [episodes.raise_(alert(), NOW + timedelta(seconds=n), ids)[0] for n in range(5)]
    assert steps == ["opened", "counted", "counted", "counted", "counted"]
    assert ids.n == 1
    ended = episodes.resolve("pool:a", NOW + timedelta(minutes=1))
    assert ended is not None
    assert (ended.count, ended.state, ended.last_at) == (5, "resolved", NOW + timedelta(seconds=4))
    assert episodes.resolve("pool:a", NOW) is None
    assert episodes.raise_(alert(), NOW, ids)[0] == "opened"


def test_what_becomes_worse_is_news_again_even_when_it_was_acknowledged() -> None:
    episodes = Episodes()
    _, episode = episodes.raise_(alert(), NOW, Ids())
    episodes.acknowledge(episode.id, NOW, "operator", "seen")
    assert episodes.raise_(alert(), NOW, Ids())[0] == "counted"
    assert episode.state == "acked"
    assert episodes.raise_(alert(level="critical"), NOW, Ids())[0] == "risen"
    assert episode.state == "open"
    assert episodes.raise_(alert(level="warning"), NOW, Ids())[0] == "counted"


def test_episodes_end_by_themselves_where_they_say_so() -> None:
    episodes = Episodes()
    episodes.raise_(alert("a", lasts_s=60.0), NOW, Ids())
    episodes.raise_(alert("b", ends_at=NOW + timedelta(seconds=30)), NOW, Ids())
    episodes.raise_(alert("c"), NOW, Ids())
    assert [each.alert.key for each in episodes.expire(NOW + timedelta(seconds=30))] == ["b"]
    episodes.raise_(alert("a", lasts_s=60.0), NOW + timedelta(seconds=40), Ids())
    assert not episodes.expire(NOW + timedelta(seconds=70))
    assert [each.alert.key for each in episodes.expire(NOW + timedelta(seconds=100))] == ["a"]
    assert len(episodes) == 1


def test_a_storm_of_different_keys_ends_in_one_episode_that_counts_the_rest() -> None:
    episodes, ids = Episodes(most_open=100), Ids()
    for n in range(10_000):
        episodes.raise_(alert(f"run:{n}"), NOW, ids)
    assert len(episodes) == 101
    overflow = episodes.get("alerts:overflow")
    assert overflow is not None
    assert overflow.count == 9_900
    assert overflow.alert.level == "critical"


def test_texts_and_keys_of_any_length_are_cut() -> None:
    episodes = Episodes()
    _, episode = episodes.raise_(alert("k" * 100_000), NOW, Ids())
    assert len(episode.alert.key) <= 400
    assert len(episode.alert.text) <= 2_000
    assert episodes.resolve("k" * 100_000, NOW) is episode


KEYS = st.sampled_from(["a", "b", "c"])
LEVELS = st.sampled_from(["info", "warning", "critical"])
ACTS = st.lists(st.tuples(st.sampled_from(["raise", "resolve", "ack"]), KEYS, LEVELS), max_size=60)


@given(ACTS)
def test_whatever_happens_each_episode_is_opened_once_and_ended_at_most_once(
    acts: list[tuple[str, str, Level]],
) -> None:
    episodes, ids = Episodes(), Ids()
    opened: list[str] = []
    ended: list[str] = []
    raised = 0
    for n, (act, key, level) in enumerate(acts):
        now = NOW + timedelta(seconds=n)
        found = episodes.get(key)
        if act == "raise":
            step, episode = episodes.raise_(alert(key, level), now, ids)
            raised += 1
            assert (step == "opened") == (found is None)
            opened += [episode.id] if step == "opened" else []
        elif act == "resolve":
            episode_or_none = episodes.resolve(key, now)
            assert (episode_or_none is None) == (found is None)
            ended += [episode_or_none.id] if episode_or_none else []
        elif found is not None:
            episodes.acknowledge(found.id, now, "operator", "")
    assert len(set(opened)) == len(opened)
    assert len(set(ended)) == len(ended)
    assert set(opened) - set(ended) == {each.id for each in episodes.all()}


@given(KEYS, LEVELS, st.integers(1, 10**9), st.dictionaries(KEYS, st.text(max_size=20)), st.none() | st.floats(0, 1e6))
def test_an_episode_comes_back_from_its_row_as_it_was(
    key: str, level: Level, count: int, deliveries: dict[str, str], lasts_s: float | None
) -> None:
    _, episode = Episodes().raise_(alert(key, level, lasts_s=lasts_s, ends_at=NOW, scope="acme"), NOW, Ids())
    episode.count, episode.deliveries = count, deliveries
    assert episode_of(row_of(episode)) == episode


@given(st.integers(1, 40), st.lists(st.tuples(st.floats(0, 900), st.booleans()), max_size=300))
def test_no_hour_has_more_messages_than_the_limit(limit: int, offers: list[tuple[float, bool]]) -> None:
    gate = RateGate(limit)
    now, sent = 0.0, []
    for wait, is_critical in offers:
        now += wait
        if gate.admit(now, is_critical=is_critical) != "hold":
            sent.append(now)
            continue
        free_s = gate.free_in_s(now, is_critical=is_critical)
        assert free_s > 0
    for n, at in enumerate(sent):
        assert sum(1 for each in sent[n:] if each < at + 3_600) <= limit


def test_warnings_leave_room_for_what_is_critical() -> None:
    gate = RateGate(20)
    warnings = [gate.admit(0, is_critical=False) for _ in range(100)]
    assert (warnings.count("send"), warnings.count("last")) == (14, 1)
    criticals = [gate.admit(1, is_critical=True) for _ in range(100)]
    assert (criticals.count("send"), criticals.count("last")) == (4, 1)
    assert gate.free_in_s(2, is_critical=True) == 3_598
    assert gate.admit(3_601, is_critical=True) == "send"
