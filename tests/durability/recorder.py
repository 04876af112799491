"""A process to be killed: records calls as fast as it can and prints the id of each that is durable.

``python recorder.py DIRECTORY SEED``. What is printed has been acknowledged by the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from nightkeep.core.clock import new_id
from nightkeep.core.messages import Usage
from nightkeep.models.call_record import AttemptRecord, CallRecord
from nightkeep.models.calls import CallLog, RecordPolicy
from nightkeep.models.sessions import SessionKey, Sessions
from nightkeep.store import SqliteStore


class Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def begun(log: CallLog, sessions: Sessions, clock: Clock, chance: random.Random, body: bytes) -> CallRecord:
    now = clock.now()
    record = CallRecord(
        id=new_id("call", now, chance), scope="acme", tag=None, task=None, key="", wire="gemini", door="/d",
        operation="chat", asked="m", is_stream=False, started_at=now, request_body=body,
        run=sessions.join(SessionKey("header", "acme", "s"), "test/1", now),
    )  # fmt: skip
    record.attempts.append(AttemptRecord(n=1, provider="p", account="a", model="m", wire="gemini", started_at=now))
    log.begin(record)
    return record


async def main(directory: Path, seed: int) -> None:
    chance, clock = random.Random(), Clock()
    store = SqliteStore.open(directory, clock, pid=os.getpid())
    sessions = Sessions(1_800, chance)
    await sessions.restore(store, clock.now())
    log = CallLog(store, RecordPolicy(bodies="all"), sessions, clock, chance)
    say(f"interrupted {await log.open()}")
    lasting = [begun(log, sessions, clock, chance, b"lasting") for _ in range(3)]
    await asyncio.sleep(0.15)
    await store.write(lambda _: None)
    for record in lasting:
        say(f"running {record.id}")
    number = 0
    while True:
        done = []
        for _ in range(random.Random(seed + number).randrange(1, 40)):
            record = begun(log, sessions, clock, chance, b"%d %d " % (seed, number) * 20)
            record.outcome, record.usage = "success", Usage(input=1, output=1)
            record.attempts[0].outcome = "success"
            log.finish(record)
            done.append(record.id)
            number += 1
        while log.waiting:  # noqa: ASYNC110 - the log has no event for it
            await asyncio.sleep(0.005)
        await store.write(lambda _: None)  # behind the group: when it is durable, so is the group
        say("durable " + " ".join(done))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
