"""``nightkeep calls tail`` beside a gateway that records: calls appear as they end, each once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nightkeep.core.clock import new_id
from nightkeep.models.call_record import CallRecord
from nightkeep.models.calls import CallLog, RecordPolicy
from nightkeep.models.sessions import Sessions
from nightkeep.store import SqliteStore
from nightkeep.testing.clock import FakeClock

CHANCE = random.Random(5)
SOURCE = Path(__file__).resolve().parents[2] / "src"


def make(name: str) -> CallRecord:
    now = datetime.now(UTC)
    return CallRecord(
        id=new_id("call", now, CHANCE), scope="acme", tag=None, task=None, key="", wire="gemini", door="/d",
        operation="chat", asked=name, is_stream=False, started_at=now,
    )  # fmt: skip


def end(log: CallLog, record: CallRecord) -> None:
    record.outcome = "success"
    record.duration_ms = (datetime.now(UTC) - record.started_at).total_seconds() * 1000
    log.finish(record)


@pytest.mark.alone
async def test_calls_appear_as_they_end_also_those_that_overlap(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore.open(tmp_path, clock, pid=os.getpid())
    log = CallLog(store, RecordPolicy(bodies="none"), Sessions(1, CHANCE), clock, CHANCE)
    before = make("before")
    log.begin(before)
    end(log, before)
    lasting = make("lasting")
    log.begin(lasting)
    clock.advance(1)
    while await store.read("SELECT count(*) FROM calls") != [(2,)]:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)
    tail = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nightkeep", "calls", "tail", "--data", str(tmp_path), "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert tail.stdout is not None
    assert tail.stderr is not None
    await asyncio.wait_for(tail.stderr.readline(), 20)  # it waits for calls
    end(log, lasting)
    new = make("new")
    log.begin(new)
    end(log, new)
    seen = [json.loads(await asyncio.wait_for(tail.stdout.readline(), 30))["asked"] for _ in range(2)]
    assert seen == ["lasting", "new"]
    tail.terminate()
    await tail.wait()
    log.close()
    await store.close()
