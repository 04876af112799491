"""Switches at the doors: new actions are refused at once, what is under way is ended and told, restarts keep it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from integration.money_world import World, money_world, read
from nightkeep.models.transport import Upstream

SLOW = """
delivery = { chunk_delay_ms = 40, chunks = 2_000 }
[[turns]]
reply = { text = "The quick brown fox jumps over the lazy dog, again and again and again." }
"""
QUICK = """
[[turns]]
reply = { text = "Done." }
"""
SPARE = """
[accounts.lab-2]
provider = "lab"
key = "env:K"
[models.two]
targets = ["lab/m", "lab/spare"]
[prices."lab/spare"]
input = 3.0
"""


async def open_streams(world: World, count: int, **headers: str) -> list[Upstream]:
    streams = await asyncio.gather(*(world.ask(f"s{n}", stream=True, **headers) for n in range(count)))
    assert {stream.status for stream in streams} == {200}
    for stream in streams:
        await stream.next_chunk(20)
    return list(streams)


async def stop(world: World, kind: str, name: str, **more: object) -> dict[str, object]:
    wish = {"kind": kind, "name": name, "why": "a test", **more}
    answer: dict[str, object] = await world.api("/api/switches/stop", wish)
    return answer


async def test_stopping_everything_ends_five_hundred_streams_and_nothing_starts_until_resumed(tmp_path: Path) -> None:
    async with money_world(tmp_path, "", SLOW) as world:
        streams = await open_streams(world, 500)
        done = await stop(world, "scope", "/")
        assert done["ended"] == 500
        bodies = await asyncio.gather(*(read(stream) for stream in streams))
        assert all(b"the answer is INCOMPLETE" in body and b'"stopped"' in body for body in bodies)
        refused = await world.ask()
        assert refused.status == 403
        assert b"a test" in await read(refused)
        await world.restart()
        assert (await world.ask()).status == 403
        await world.api("/api/switches/resume", {"kind": "scope", "name": "/"})
        assert (await world.ask(fields={"max_tokens": 4})).status == 200


async def test_a_stop_that_drains_lets_streams_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    scenario = SLOW.replace("2_000", "10")
    async with money_world(tmp_path, "", scenario) as world:
        streams = await open_streams(world, 3)
        done = await stop(world, "scope", "/", drain=True)
        assert done["ended"] == 0
        assert all(b"[DONE]" in body for body in [await read(stream) for stream in streams])
        assert (await world.ask()).status == 403


async def test_a_whole_reply_under_way_is_ended_with_the_reason(tmp_path: Path) -> None:
    async with money_world(tmp_path, "", "delivery = { first_byte_ms = 20_000 }\n" + QUICK) as world:
        asking = asyncio.ensure_future(world.ask())
        while not world.sim.book.total:  # noqa: ASYNC110  (the provider has it: nothing tells us when)
            await asyncio.sleep(0.01)
        await stop(world, "scope", "default")
        answer = await asyncio.wait_for(asking, 5)
        error = json.loads(await read(answer))["error"]
        assert (answer.status, error["code"]) == (403, "stopped")


async def test_only_what_is_stopped_is_refused(tmp_path: Path) -> None:
    async with money_world(tmp_path, SPARE, QUICK) as world:
        await stop(world, "tag", "batch")
        await stop(world, "scope", "acme/triage")
        assert (await world.ask(x_nightkeep_tag="batch")).status == 403
        assert (await world.ask(x_nightkeep_scope="acme/triage/run_1")).status == 403
        assert (await world.ask(x_nightkeep_scope="acme/other")).status == 200


async def test_a_stopped_account_is_left_out_and_a_stopped_target_is_failed_over(tmp_path: Path) -> None:
    async with money_world(tmp_path, SPARE, QUICK) as world:
        await stop(world, "account", "lab-1")
        served = {(await world.ask()).headers["x-nightkeep-account"] for _ in range(4)}
        assert served == {"lab-2"}
        await stop(world, "model", "lab/m")
        assert (await world.ask()).status == 403
        answer = await world.ask(fields={"model": "two"})
        assert (answer.status, answer.headers["x-nightkeep-model"]) == (200, "spare")
