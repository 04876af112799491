"""The calls of one session form one run, and nobody else's."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.messages import Usage
from nightkeep.core.money import MicroUsd
from nightkeep.models.sessions import Sessions, agent_name, session_key
from nightkeep.store import SqliteStore
from nightkeep.testing.clock import FakeClock

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
GAP_S = 1_800.0
CLAUDE = {"user-agent": "claude-cli/2.1.0 (external, cli)"}


def sessions() -> Sessions:
    return Sessions(GAP_S, random.Random(1))


def join(
    book: Sessions,
    at: datetime = NOW,
    *,
    scope: str = "acme",
    headers: dict[str, str] = CLAUDE,
    body: str | None = None,
    key: str = "team",
    peer: str = "10.0.0.1",
) -> str:
    return book.join(session_key(scope, headers, body, key, peer), agent_name(headers), at)


def test_our_header_comes_before_the_clients_own_session_and_that_before_the_idle_gap() -> None:
    headers = {"x-nightkeep-session": "ours", "session_id": "codex"}
    assert session_key("s", headers, "claude", "k", "p").name == "ours"
    assert session_key("s", {"session_id": "codex"}, "claude", "k", "p").name == "claude"
    assert session_key("s", {"session_id": "codex"}, None, "k", "p").name == "codex"
    assert session_key("s", {"conversation_id": "c"}, None, "k", "p").name == "c"
    assert session_key("s", {}, None, "k", "p").source == "idle_gap"


def test_a_named_session_is_one_run_however_long_it_pauses() -> None:
    book = sessions()
    assert join(book, body="s1") == join(book, NOW + timedelta(days=3), body="s1", peer="10.9.9.9")


def test_the_same_session_name_in_another_scope_is_another_run() -> None:
    book = sessions()
    assert join(book, body="s1", scope="acme") != join(book, body="s1", scope="evil")


def test_a_header_cannot_pose_as_a_clients_own_session() -> None:
    book = sessions()
    assert join(book, body="s1") != join(book, headers={"x-nightkeep-session": "s1"})


def test_calls_without_a_name_are_told_apart_by_key_peer_and_program() -> None:
    book = sessions()
    runs = {join(book), join(book, key="other"), join(book, peer="10.0.0.2"), join(book, headers={"user-agent": "x/1"})}
    assert len(runs) == 4


@given(st.lists(st.floats(0, 4_000), min_size=1, max_size=30))
def test_a_new_run_begins_exactly_where_the_pause_is_longer_than_the_gap(pauses: list[float]) -> None:
    book, at = sessions(), NOW
    last = join(book, at)
    for pause in pauses:
        before, at = at, at + timedelta(seconds=pause)
        run = join(book, at)
        assert (run != last) == ((at - before).total_seconds() > GAP_S)
        last = run


def test_the_agent_is_the_first_word_of_its_user_agent() -> None:
    assert agent_name(CLAUDE) == "claude-cli/2.1.0"
    assert agent_name({}) == ""
    assert len(agent_name({"user-agent": "x" * 500})) == 60


def test_the_number_of_runs_in_memory_is_bounded() -> None:
    book = sessions()
    first = join(book, body="first")
    for n in range(20_000):
        join(book, body=f"s{n}")
    assert join(book, body="s19999") == join(book, body="s19999")
    assert join(book, body="first") != first


def test_counts_are_written_once_per_change_and_again_when_given_back() -> None:
    book = sessions()
    run = join(book, body="s")
    book.note(run, is_failure=True, usage=Usage(input=3, output=4), cost=None)
    book.note(run, is_failure=False, usage=None, cost=MicroUsd(5))
    (row,) = book.take_changed()
    assert row[0] == run
    assert row[7:] == (2, 1, 7, 5, 1)
    assert book.take_changed() == []
    book.give_back([row])
    assert book.take_changed() == [row]


async def test_runs_go_on_after_a_restart(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1)
    book = sessions()
    run = join(book)
    book.note(run, is_failure=False, usage=Usage(input=1), cost=None)
    rows = book.take_changed()
    await store.write(lambda transaction: transaction.insert(Sessions.INTO, rows, Sessions.AFTER))
    again = Sessions(GAP_S, random.Random(2))
    await again.restore(store, NOW)
    assert join(again, NOW + timedelta(seconds=60)) == run
    again.note(run, is_failure=False, usage=Usage(input=1), cost=None)
    more = again.take_changed()
    await store.write(lambda transaction: transaction.insert(Sessions.INTO, more, Sessions.AFTER))
    assert await store.read("SELECT calls FROM runs") == [(2,)]
    await store.close()


async def test_several_processes_count_in_one_run_of_a_session_with_a_name(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1)
    key = session_key("acme", {"x-nightkeep-session": "s"}, None, "", "")
    for seed in (1, 2):
        book = Sessions(GAP_S, random.Random(seed), is_shared=True)
        for _ in range(3):
            book.note(book.join(key, "", NOW), is_failure=True, usage=None, cost=None)
        rows = book.take_changed()
        book.give_back(rows)  # the store was busy
        again = book.take_changed()
        assert again == rows
        await store.write(lambda transaction, rows=again: transaction.insert(Sessions.INTO, rows, Sessions.AFTER))
    assert await store.read("SELECT calls, failures, unpriced_calls FROM runs") == [(6, 6, 6)]
    await store.close()
