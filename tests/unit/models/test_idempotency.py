"""One key, one answer: any order of twins, other bodies, failures, hang-ups and restarts."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.control.keys import Caller
from nightkeep.core.errors import IdempotencyError
from nightkeep.models.gateway.call import Call, Door
from nightkeep.models.gateway.idempotency import Idempotency
from nightkeep.models.gateway.tape import Tape
from nightkeep.models.wire.base import Head, Operation, Wire
from nightkeep.store import SqliteStore
from nightkeep.testing.clock import FakeClock

DOOR = Door(Wire.OPENAI_CHAT, Operation.CHAT, "/v1/chat/completions")


def call(body: bytes = b"one", key: str = "k", scope: str = "acme", **headers: str) -> Call:
    known: dict[str, Any] = {"tag": None, "task": None, "priority": 1, "started": 0.0, "deadline": 9e9, "run": None}
    known = {name: value for name, value in known.items() if name in Call.__struct_fields__}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(
        id="call_1", door=DOOR, head=Head("m"), body=body, peer="", caller=Caller(name="", scope=scope), scope=scope,
        headers={"idempotency-key": key, **more}, answer=Tape(), **known,
    )  # fmt: skip


class Provider:
    """Answers calls, in three pieces; the first so many of a body fail."""

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()
        self.failing: Counter[bytes] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, call: Call) -> bool:
        self.asked[call.body] += 1
        await asyncio.sleep(0)
        if self.failing[call.body]:
            self.failing[call.body] -= 1
            call.answer.respond(500, [], b"broken")
            return False
        call.answer.start(200, [])
        for piece in (b"answer ", b"to ", call.body):
            call.answer.send(piece)
            await self.gate.wait()
        call.answer.finish()
        return True


def heard(call: Call) -> tuple[int, bytes]:
    assert isinstance(call.answer, Tape)
    recording = call.answer.recording()
    return recording.status, recording.body


async def ask(keyed: Idempotency, provider: Provider, **about: Any) -> tuple[str, tuple[int, bytes], Call]:
    one = call(**about)
    how = await keyed.serve(one, provider.serve)
    return how, heard(one), one


def open_store(path: Path) -> SqliteStore:
    return SqliteStore.open(path, FakeClock(), pid=os.getpid())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([b"one", b"two"]), st.booleans()), max_size=12))
@settings(max_examples=40)
def test_whatever_comes_in_whatever_order_is_paid_once_and_answered_alike(
    requests: list[tuple[str, bytes, bool]],
) -> None:
    asyncio.run(_whatever_comes(requests))


async def _whatever_comes(requests: list[tuple[str, bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Path(directory))
        keyed, provider = Idempotency(store, FakeClock(), ttl_s=60), Provider()
        tasks = []
        for key, body, is_waited_for in requests:
            tasks.append(asyncio.ensure_future(ask(keyed, provider, key=key, body=body)))
            if is_waited_for:
                await asyncio.gather(*tasks, return_exceptions=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        first = {key: body for key, body, _ in reversed(requests)}
        for (key, body, _), result in zip(requests, results, strict=True):
            if body == first[key]:
                assert not isinstance(result, BaseException)
                assert result[1] == (200, b"answer to " + body)
            else:
                assert isinstance(result, IdempotencyError)
        assert sum(provider.asked.values()) == len(first)
        await store.close()


async def test_after_a_failure_the_same_request_is_simply_made_again(tmp_path: Path) -> None:
    store, provider = open_store(tmp_path), Provider()
    keyed = Idempotency(store, FakeClock(), ttl_s=60)
    provider.failing[b"one"] = 2
    assert [(await ask(keyed, provider))[:2] for _ in range(4)] == [
        ("run", (500, b"broken")),
        ("run", (500, b"broken")),
        ("run", (200, b"answer to one")),
        ("replayed", (200, b"answer to one")),
    ]
    await store.close()


async def test_after_a_failure_the_key_may_be_used_for_another_request(tmp_path: Path) -> None:
    store, provider = open_store(tmp_path), Provider()
    keyed = Idempotency(store, FakeClock(), ttl_s=60)
    provider.failing[b"one"] = 1
    await ask(keyed, provider)
    assert (await ask(keyed, provider, body=b"two"))[:2] == ("run", (200, b"answer to two"))
    await store.close()


@pytest.mark.parametrize("start", [0, 3, 7, 9, 13, 50])
async def test_a_stream_is_joined_at_any_byte_while_it_runs_and_after(tmp_path: Path, start: int) -> None:
    store, provider = open_store(tmp_path), Provider()
    keyed = Idempotency(store, FakeClock(), ttl_s=60)
    provider.gate.clear()
    first = asyncio.ensure_future(ask(keyed, provider))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(ask(keyed, provider, x_nightkeep_resume_from=str(start)))
    await asyncio.sleep(0.01)
    provider.gate.set()
    assert (await first)[1] == (200, b"answer to one")
    assert (await second)[:2] == ("joined", (200, b"answer to one"[start:]))
    late = await ask(keyed, provider, x_nightkeep_resume_from=str(start))
    assert late[:2] == ("replayed", (200, b"answer to one"[start:]))
    assert provider.asked[b"one"] == 1
    await store.close()


async def test_an_answer_is_forgotten_when_its_time_is_over_and_counted_once_when_it_comes_again(
    tmp_path: Path,
) -> None:
    store, provider, clock = open_store(tmp_path), Provider(), FakeClock()
    keyed = Idempotency(store, clock, ttl_s=60)
    for _ in range(3):
        assert (await ask(keyed, provider))[0] == "run"
        assert (await ask(keyed, provider))[0] == "replayed"
        clock.advance(61)
    assert provider.asked[b"one"] == 3
    await store.close()


async def test_what_was_running_when_the_process_died_is_made_again_and_says_so(tmp_path: Path) -> None:
    store, provider = open_store(tmp_path), Provider()
    keyed = Idempotency(store, FakeClock(), ttl_s=60)
    provider.gate.clear()
    lost = asyncio.ensure_future(ask(keyed, provider))
    await asyncio.sleep(0.01)
    await store.close()  # as far as the disk knows, the process ends here
    again = open_store(tmp_path)
    provider.gate.set()
    how, answer, one = await ask(Idempotency(again, FakeClock(), ttl_s=60), provider)
    assert (how, answer) == ("rerun", (200, b"answer to one"))
    assert isinstance(one.answer, Tape)
    assert ("x-nightkeep-idempotency", "interrupted-rerun") in one.answer.headers
    await asyncio.gather(lost, return_exceptions=True)
    await again.close()


async def test_a_key_that_several_processes_share_can_be_used_again_when_its_time_is_over(tmp_path: Path) -> None:
    store, provider, clock = open_store(tmp_path), Provider(), FakeClock()
    keyed = Idempotency(store, clock, ttl_s=60, is_shared=True)
    assert (await ask(keyed, provider))[0] == "run"
    clock.advance(61)
    another = msgspec.structs.replace(call(), id="call_2")
    async with asyncio.timeout(5):
        elsewhere = Idempotency(store, clock, ttl_s=60, is_shared=True)
        assert await elsewhere.serve(another, provider.serve) == "run"
    assert provider.asked[b"one"] == 2
    await store.close()
