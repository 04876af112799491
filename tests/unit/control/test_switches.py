"""The switchboard: durable before it answers, the same on every process of one database, and closed when in doubt."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.control.stop_file import STOP_NAME
from nightkeep.control.stops import Target
from nightkeep.control.switches import Switchboard
from nightkeep.core.errors import RequestError, StoppedError, StoreError
from nightkeep.store.port import Row, StoreHealth, Work
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock


class Flaky:
    """A store whose reads and writes can be made to fail, or to hang."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.reads: str = "work"
        self.writes: str = "work"
        self.gate = asyncio.Event()

    @property
    def health(self) -> StoreHealth:
        return self.store.health

    def write(self, work: Work[Any]) -> asyncio.Future[Any]:
        if self.writes == "fail":
            future = asyncio.get_running_loop().create_future()
            future.set_exception(StoreError("the disk is full", is_outage=True))
            return future
        return self.store.write(work)

    def post(self, work: Work[object]) -> bool:
        return self.store.post(work)

    async def read(self, sql: str, parameters: Any = ()) -> list[Row]:
        return await self.store.read(sql, list(parameters))

    async def look(self, sql: str, parameters: Any = ()) -> list[Row]:
        if self.reads == "hang":
            await self.gate.wait()
        if self.reads == "fail":
            raise StoreError("the disk is gone")
        return await self.store.look(sql, list(parameters))

    async def close(self) -> None:
        await self.store.close()


class Slow(Flaky):
    """A store whose answers are on their way for a while, so that they are old when they arrive."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.chance = random.Random(5)

    async def look(self, sql: str, parameters: Any = ()) -> list[Row]:
        rows = await self.store.look(sql, list(parameters))
        for _ in range(self.chance.randrange(30)):
            await asyncio.sleep(0)
        return rows


class World:
    """One data directory, and as many processes on it as a test wants."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.directory = directory
        self.store = Flaky(SqliteStore.open(directory, self.clock, pid=1))
        self.chance = random.Random(3)

    async def process(self, **options: Any) -> Switchboard:
        board = Switchboard(self.store, self.directory, self.clock, self.chance, **options)
        await board.restore()
        return board

    async def look(self, board: Switchboard, *, after_s: float = 0.2) -> None:
        self.clock.advance(after_s)
        await board.look()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


def allows(board: Switchboard, scope: str = "acme/triage", **action: Any) -> bool:
    try:
        board.check(scope=scope, **{"tag": None, **action})
    except StoppedError:
        return False
    return True


async def test_a_stop_holds_until_it_is_resumed_and_each_use_is_noted(world: World) -> None:
    board = await world.process()
    assert allows(board)
    done = await board.stop("scope", "acme", by="dana@ops", why="it loops", source="command")
    assert done.is_new
    assert not allows(board)
    assert allows(board, scope="other")
    (ended,) = await board.resume("scope", "acme/", by="kim@ops", why="fixed", source="command")
    assert ended == done.stop
    assert allows(board)
    assert board.stops == ()
    newest, first = await board.history()
    assert (first.verb, first.kind, first.name, first.by, first.why) == (
        "stopped",
        "scope",
        "acme",
        "dana@ops",
        "it loops",
    )
    assert (newest.verb, newest.by, newest.why, newest.source) == ("resumed", "kim@ops", "fixed", "command")


async def test_stopping_what_is_stopped_keeps_the_first_and_says_so(world: World) -> None:
    board = await world.process()
    first = await board.stop("model", "GPT-4.1", by="dana", why="first")
    world.clock.advance(60)
    second = await board.stop("model", "gpt-4.1", by="kim", why="second")
    assert (second.is_new, second.stop) == (False, first.stop)
    assert board.stops == (first.stop,)
    assert [use.verb for use in await board.history()] == ["stopped again", "stopped"]


async def test_a_stop_that_cuts_makes_a_draining_one_cut(world: World) -> None:
    board = await world.process()
    first = (await board.stop("scope", "/", by="dana", drain=True)).stop
    seen: list[tuple[str, bool]] = []
    board.listeners.append(lambda: seen.append((board.stops[0].id, board.stops[0].drain)))
    harder = await board.stop("scope", "/", by="dana")
    assert (harder.verb, harder.stop.id, harder.stop.drain) == ("cut", first.id, False)
    assert seen == [(first.id, False)]
    softer = await board.stop("scope", "/", by="dana", drain=True)
    assert (softer.verb, softer.stop.drain) == ("stopped again", False)


async def test_resuming_what_is_not_stopped_changes_nothing_and_is_noted(world: World) -> None:
    board = await world.process()
    assert await board.resume("tag", "batch", by="dana") == ()
    assert board.generation == 0
    assert [use.verb for use in await board.history()] == ["was not stopped"]


async def test_resuming_a_scope_leaves_what_is_stopped_above_and_below(world: World) -> None:
    board = await world.process()
    for name in ("/", "acme", "acme/triage"):
        await board.stop("scope", name, by="dana")
    await board.resume("scope", "acme", by="dana")
    assert [stop.name for stop in board.stops] == ["/", "acme/triage"]
    over = board.over(Target("scope", "acme"))
    assert over is not None
    assert over.name == "/"
    assert len(await board.resume_all(by="dana")) == 2
    assert allows(board)


async def test_listeners_hear_of_each_change_once_and_a_broken_one_stops_nothing(world: World) -> None:
    board = await world.process()
    heard: list[int] = []

    def broken() -> None:
        raise ValueError("a listener's fault")

    board.listeners += [broken, lambda: heard.append(board.generation)]
    await board.stop("scope", "/", by="dana")
    await board.stop("scope", "/", by="dana")
    await world.look(board)
    await board.resume("scope", "/", by="dana")
    assert heard == [1, 2]


async def test_a_restart_keeps_every_stop_as_it_was(world: World) -> None:
    board = await world.process()
    await board.stop("scope", "acme", by="dana@ops", why="ünïcode\n and a second line", source="command")
    await board.stop("tool", "mail.*", by="kim", drain=True, source="rule:loop")
    await world.store.close()
    world.store = Flaky(SqliteStore.open(world.directory, world.clock, pid=2))
    again = await world.process()
    assert again.stops == board.stops
    assert not allows(again)
    assert not allows(again, scope="other", tool="mail.send")


async def test_two_processes_on_one_database_see_what_the_other_does(world: World) -> None:
    one, other = await world.process(), await world.process()
    await one.stop("scope", "/", by="dana")
    assert allows(other)
    await world.look(other)
    assert not allows(other)
    await other.resume("scope", "/", by="kim")
    await world.look(one)
    assert allows(one)
    assert (await one.stop("scope", "acme", by="dana")).is_new
    assert not (await other.stop("scope", "acme", by="kim")).is_new
    assert one.stops == other.stops


async def test_a_look_reads_no_rows_while_nothing_has_changed(world: World) -> None:
    board = await world.process()
    asked: list[str] = []
    look = world.store.look

    async def counted(sql: str, parameters: Any = ()) -> list[Row]:
        asked.append(sql)
        return await look(sql, parameters)

    world.store.look = counted  # type: ignore[method-assign]
    await world.look(board)
    assert asked == ["SELECT MAX(n) FROM switch_log"]


@pytest.mark.parametrize("content", ["", "the bill\nis too high", "\x00\xff\x1b[2J", "x" * 1_000_000])
async def test_a_file_stops_everything_and_its_content_is_the_why(world: World, content: str) -> None:
    board = await world.process()
    (world.directory / STOP_NAME).write_text(content, encoding="latin-1")
    await world.look(board)
    assert not allows(board)
    (stop,) = board.stops
    assert stop.source == "file"
    assert stop.why.isprintable()
    assert len(stop.why) <= 500
    if content.startswith("the bill"):
        assert stop.why == "the bill is too high"
    (world.directory / STOP_NAME).unlink()
    await world.look(board)
    assert allows(board)
    await world.store.write(lambda _: None)  # what was posted before is written
    assert [use.source for use in await board.history()] == ["file", "file"]


@pytest.mark.parametrize("kind", ["directory", "dangling link", "link to a secret", "pipe"])
async def test_anything_that_is_called_stop_stops_and_is_not_followed(world: World, kind: str) -> None:
    path = world.directory / STOP_NAME
    secret = world.directory / "secret"
    secret.write_text("sk-very-secret")
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to(secret if kind == "link to a secret" else "nowhere")
    board = await world.process()
    assert not allows(board)
    assert "secret" not in board.stops[0].why


async def test_a_file_that_was_there_before_the_start_stops_from_the_first_call(world: World) -> None:
    (world.directory / STOP_NAME).touch()
    assert not allows(await world.process())


async def test_removing_the_file_resumes_only_what_the_file_stopped(world: World) -> None:
    board = await world.process()
    (world.directory / STOP_NAME).touch()
    await world.look(board)
    assert (await board.stop("scope", "/", by="dana")).is_new
    (world.directory / STOP_NAME).unlink()
    await world.look(board)
    assert [stop.by for stop in board.stops] == ["dana"]


async def test_resuming_everything_takes_the_file_away(world: World) -> None:
    board = await world.process()
    (world.directory / STOP_NAME).touch()
    await world.look(board)
    await board.resume("scope", "acme", by="dana")
    assert not allows(board)
    (ended,) = await board.resume("scope", "/", by="dana")
    assert ended.source == "file"
    assert not (world.directory / STOP_NAME).exists()
    assert allows(board)
    await world.look(board)
    assert allows(board)


async def test_a_file_that_cannot_be_removed_goes_on_stopping_and_is_named(world: World) -> None:
    (world.directory / STOP_NAME).mkdir()
    board = await world.process()
    with pytest.raises(StoreError, match="STOP cannot be removed"):
        await board.resume("scope", "/", by="dana")
    assert not allows(board)


async def test_a_signal_stops_at_once_and_another_resumes_only_that(world: World) -> None:
    board, other = await world.process(), await world.process()
    board.signal_stop()
    assert not allows(board)
    await board.close()
    await world.look(other)
    assert not allows(other)
    await board.stop("scope", "/", by="dana")
    board.signal_resume()
    await board.close()
    assert [stop.source for stop in board.stops] == ["api"]
    await board.resume("scope", "/", by="dana")
    board.signal_stop()
    board.signal_resume()
    await board.close()
    assert allows(board)
    assert [use.verb for use in await board.history(2)] == ["resumed", "stopped"]


async def test_a_stop_that_cannot_be_written_holds_here_and_is_written_later(world: World) -> None:
    board, other = await world.process(), await world.process()
    world.store.writes = "fail"
    with pytest.raises(StoreError, match="is stopped in this process, but"):
        await board.stop("scope", "/", by="dana")
    board.signal_stop()
    await world.look(board)
    await board.close()
    assert not allows(board)
    world.store.writes = "work"
    await world.look(board)
    await board.close()
    await world.look(other)
    assert not allows(other)
    assert sorted(stop.source for stop in other.stops) == ["api", "signal"]
    await board.resume("scope", "/", by="dana")
    await world.look(board)
    await board.close()
    assert allows(board)


async def test_a_resume_that_cannot_be_written_changes_nothing(world: World) -> None:
    board = await world.process()
    await board.stop("scope", "/", by="dana")
    world.store.writes = "fail"
    with pytest.raises(StoreError):
        await board.resume("scope", "/", by="dana")
    await world.look(board)
    assert not allows(board)


async def test_a_store_that_cannot_be_read_for_two_seconds_closes_the_board(world: World) -> None:
    board = await world.process()
    world.store.reads = "fail"
    for _ in range(9):
        await world.look(board)
    assert allows(board)
    await world.look(board)
    await world.look(board)
    with pytest.raises(StoppedError) as caught:
        board.check(scope="acme", tag=None)
    assert (caught.value.data["rule"], caught.value.http_status) == ("store", 503)
    assert "the disk is gone" in caught.value.message
    assert board.stops[0].drain
    world.store.reads = "work"
    await world.look(board)
    assert allows(board)


async def test_a_process_that_slept_looks_again_before_it_refuses(world: World) -> None:
    board = await world.process()
    world.store.reads = "fail"
    await world.look(board, after_s=3_600)
    assert allows(board)


async def test_a_store_that_does_not_answer_is_as_bad_as_one_that_fails(world: World) -> None:
    board = await world.process(look_s=0.001)
    world.store.reads = "hang"
    closed = asyncio.Event()
    board.listeners.append(closed.set)
    board.start()
    world.clock.advance(2.5)
    await asyncio.wait_for(closed.wait(), 10)
    assert not allows(board)
    closed.clear()
    world.store.reads = "work"
    world.store.gate.set()
    await asyncio.wait_for(closed.wait(), 10)
    assert allows(board)
    await board.close()


async def test_an_old_answer_of_the_store_never_undoes_what_was_just_done(world: World) -> None:
    world.store = Slow(world.store.store)
    board = await world.process(look_s=0.0)
    board.start()
    asking = [asyncio.ensure_future(_look_on(board)) for _ in range(3)]
    try:
        for n in range(60):
            await board.stop("scope", "acme", by="dana", drain=bool(n % 3))
            for _ in range(20):
                assert not allows(board)
                await asyncio.sleep(0)
            await board.resume("scope", "acme", by="dana")
            for _ in range(20):
                assert allows(board)
                await asyncio.sleep(0)
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await board.close()


async def _look_on(board: Switchboard) -> None:
    while True:
        await board.look()


async def test_long_queries_do_not_close_the_board(world: World) -> None:
    board = await world.process()
    count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000000) SELECT COUNT(*) FROM c"
    long = [asyncio.ensure_future(world.store.read(count)) for _ in range(6)]
    await asyncio.sleep(0)
    for _ in range(12):
        await world.look(board)
        assert allows(board)
    assert not all(each.done() for each in long)
    await asyncio.gather(*long)


async def test_without_its_store_nothing_starts(world: World) -> None:
    world.store.reads = "fail"
    with pytest.raises(StoreError):
        await world.process()


async def test_a_row_that_cannot_be_understood_closes_rather_than_opens(world: World) -> None:
    board = await world.process()
    await board.stop("scope", "acme", by="dana")
    await world.store.write(lambda t: t.execute("UPDATE switches SET kind = 'planet'"))
    with pytest.raises(StoreError, match="cannot be understood"):
        await world.process()
    await world.store.write(lambda t: t.execute("UPDATE switch_log SET n = n + 1"))
    for _ in range(12):
        await world.look(board)
    assert not allows(board, scope="other")


async def test_who_asks_and_hangs_up_has_stopped_all_the_same(world: World) -> None:
    board, other = await world.process(), await world.process()
    asking = asyncio.ensure_future(board.stop("scope", "/", by="dana"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await board.close()
    await world.look(other)
    assert not allows(board)
    assert not allows(other)


@pytest.mark.parametrize("kind", ["planet", "", "SCOPE", "scope; DROP TABLE switches"])
async def test_what_cannot_be_stopped_leaves_no_trace(world: World, kind: str) -> None:
    board = await world.process()
    with pytest.raises(RequestError):
        await board.stop(kind, "x", by="dana")
    assert board.generation == 0
    assert await board.history() == []


async def test_a_rule_lets_go_of_its_own_stop_only(world: World) -> None:
    board = await world.process()
    await board.stop("scope", "acme", by="rule", source="rule:spend-rate")
    await board.stop("scope", "acme", by="dana")
    await board.release("scope", "acme", by="rule", source="rule:spend-rate")
    assert [stop.by for stop in board.stops] == ["dana"]


NAMES = [("scope", "/"), ("scope", "acme"), ("scope", "acme/triage"), ("model", "gpt-*"), ("tag", "batch")]
STEP = st.tuples(st.sampled_from(["stop", "drain", "resume", "look", "restart"]), st.sampled_from(NAMES), st.booleans())


@settings(max_examples=40)
@given(st.lists(STEP, max_size=12))
def test_in_any_order_two_processes_agree_and_resuming_all_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, tuple[str, str], bool]]
) -> None:
    async def play() -> None:
        world = World(tmp_path_factory.mktemp("board"))
        boards = [await world.process(), await world.process()]
        model: set[tuple[str, str]] = set()
        for verb, (kind, name), is_second in steps:
            board = boards[is_second]
            match verb:
                case "look":
                    await world.look(board)
                case "restart":
                    boards[is_second] = await world.process()
                case "resume":
                    await board.resume(kind, name, by="x")
                    model.discard((kind, name))
                case _:
                    before = board.generation
                    done = await board.stop(kind, name, by="x", drain=verb == "drain")
                    assert done.is_new == ((kind, name) not in model)
                    assert board.generation >= before
                    model.add((kind, name))
            world.clock.advance(1)
        for board in boards:
            await world.look(board)
            assert {(stop.kind, stop.name) for stop in board.stops} == model
        await boards[0].resume_all(by="x")
        await world.look(boards[1])
        assert boards[0].stops == boards[1].stops == ()
        await world.store.close()

    asyncio.run(play())
