"""Stored keys: what each change means, on every process of one database, and after a restart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.control.key_rows import find_keys
from nightkeep.control.key_store import KeyStore, KeyWish, MadeKey
from nightkeep.control.keys import KeyLimits, KeyRing, KeySpec, hash_key
from nightkeep.core.errors import AuthenticationError, ConflictError, NightkeepError, RequestError, StoreError
from nightkeep.store.port import Row, StoreHealth, Value, Work
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock

START = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
DAY = timedelta(days=1)


class Flaky:
    """A store whose reads can be made to fail."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.is_broken = False

    @property
    def health(self) -> StoreHealth:
        return self._store.health

    def write(self, work: Work[Any]) -> asyncio.Future[Any]:
        return self._store.write(work)

    def post(self, work: Work[object]) -> bool:
        return self._store.post(work)

    async def read(self, sql: str, parameters: Any = ()) -> list[Row]:
        if self.is_broken:
            raise StoreError("the disk is gone")
        values: list[Value] = list(parameters)
        return await self._store.read(sql, values)

    async def close(self) -> None:
        await self._store.close()


class World:
    """One database, and as many processes on it as a test wants."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(START)
        self.directory = directory
        self.store = Flaky(SqliteStore.open(directory, self.clock, pid=1))
        self.chance = random.Random(3)

    async def process(self, *configured: KeySpec) -> KeyStore:
        keys = KeyStore(self.store, KeyRing(configured), self.clock, self.chance, self.chance.randbytes)
        await keys.open()
        return keys

    def who(self, keys: KeyStore, made: MadeKey) -> str:
        """The name that a key opens the door with; or the first words of the refusal."""
        try:
            return keys.ring.authenticate(made.key, self.clock.now()).name
        except AuthenticationError as error:
            return "expired" if "expired" in error.message else "revoked" if "revoked" in error.message else "unknown"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


def wish(name: str = "team-a", scope: str = "acme", **more: Any) -> KeyWish:
    return KeyWish(name=name, scope=scope, **more)


async def test_a_made_key_opens_the_door_at_once_with_all_that_it_allows(world: World) -> None:
    keys = await world.process()
    limits = KeyLimits(requests_per_minute=10, micro_usd_per_day=5_000_000)
    made = await keys.create(
        wish(models=("gpt-*",), tags=("batch", "x"), default_tag="batch", limits=limits, expires_at=START + DAY), "me"
    )
    caller = keys.ring.authenticate(made.key, world.clock.now())
    assert (caller.name, caller.scope, caller.models, caller.tags) == ("team-a", "acme", ("gpt-*",), ("batch", "x"))
    assert (caller.default_tag, caller.limits, caller.expires_at) == ("batch", limits, START + DAY)
    assert keys.keys == (made.about,)


async def test_the_key_itself_is_in_no_file_and_no_row(world: World) -> None:
    keys = await world.process()
    made = await keys.create(wish(), "me")
    assert made.key not in repr(keys.keys)
    await world.store.close()
    for path in world.directory.rglob("*"):
        assert made.key.encode() not in path.read_bytes(), path


async def test_another_process_sees_each_change_at_its_next_look(world: World) -> None:
    here, there = await world.process(), await world.process()
    made = await here.create(wish(), "me")
    assert world.who(there, made) == ""  # nobody ever had a key, as far as it knows
    await there.look()
    assert world.who(there, made) == "team-a"
    await here.revoke("team-a", "me")
    assert world.who(here, made) == "revoked"
    await there.look()
    assert world.who(there, made) == "revoked"


class Noticing(KeyRing):
    """A ring that tells when it was given other keys."""

    def __init__(self) -> None:
        self.was_given = asyncio.Event()
        super().__init__()

    def take_stored(self, keys: Iterable[KeySpec]) -> None:
        super().take_stored(keys)
        self.was_given.set()


async def test_a_process_looks_by_itself(world: World) -> None:
    here, ring = await world.process(), Noticing()
    there = KeyStore(world.store, ring, world.clock, world.chance, world.chance.randbytes)
    await there.open()
    there.start()
    seen = []
    made = await here.create(wish(), "me")
    for change in (lambda: here.rotate("team-a", "me"), lambda: here.revoke("team-a", "me")):
        ring.was_given.clear()
        await change()
        async with asyncio.timeout(5):
            await ring.was_given.wait()
        seen.append(world.who(there, made))
    assert seen == ["team-a", "revoked"]
    await there.close()


async def test_a_look_without_a_change_reads_no_rows(world: World) -> None:
    keys = await world.process()
    await keys.create(wish(), "me")
    before = keys.keys
    await keys.look()
    assert keys.keys is before


async def test_a_rotated_key_stays_good_for_the_overlap_and_not_longer(world: World) -> None:
    keys = await world.process()
    old = await keys.create(wish(models=("m*",)), "me")
    new = await keys.rotate("team-a", "me", overlap=timedelta(hours=1))
    assert new.about.models == ("m*",)
    assert new.about.rotated_from == old.about.id
    world.clock.advance(3599)
    assert [world.who(keys, each) for each in (old, new)] == ["team-a", "team-a"]
    world.clock.advance(1)
    assert [world.who(keys, each) for each in (old, new)] == ["expired", "team-a"]


async def test_rotating_with_no_overlap_ends_the_old_key_at_once(world: World) -> None:
    keys = await world.process()
    old = await keys.create(wish(), "me")
    new = await keys.rotate("team-a", "me", overlap=timedelta(0))
    assert [world.who(keys, each) for each in (old, new)] == ["expired", "team-a"]


async def test_rotating_never_gives_the_old_key_a_longer_life(world: World) -> None:
    keys = await world.process()
    old = await keys.create(wish(expires_at=START + timedelta(minutes=5)), "me")
    new = await keys.rotate("team-a", "me", overlap=DAY)
    assert new.about.expires_at == START + timedelta(minutes=5)
    world.clock.advance(301)
    assert world.who(keys, old) == "expired"


async def test_revoking_a_name_ends_its_rotated_predecessor_too(world: World) -> None:
    keys = await world.process()
    old = await keys.create(wish(), "me")
    new = await keys.rotate("team-a", "me")
    assert len(await keys.revoke("team-a", "me", "leaked")) == 2
    assert [world.who(keys, each) for each in (old, new)] == ["revoked", "revoked"]
    assert await keys.revoke("team-a", "me") == []


async def test_revoking_an_id_or_a_fingerprint_ends_that_one_only(world: World) -> None:
    keys = await world.process()
    old = await keys.create(wish(), "me")
    new = await keys.rotate("team-a", "me")
    await keys.revoke(old.about.fingerprint, "me")
    assert [world.who(keys, each) for each in (old, new)] == ["revoked", "team-a"]
    await keys.revoke(new.about.id, "me")
    assert world.who(keys, new) == "revoked"


async def test_a_name_is_taken_while_its_key_is_good_and_free_again_after(world: World) -> None:
    keys = await world.process()
    await keys.create(wish(expires_at=START + DAY), "me")
    with pytest.raises(ConflictError, match="already"):
        await keys.create(wish(scope="other"), "me")
    world.clock.advance(86_400)
    await keys.create(wish(), "me")
    await keys.revoke("team-a", "me")
    assert world.who(keys, await keys.create(wish(), "me")) == "team-a"


async def test_of_two_that_make_the_same_name_at_once_one_wins(world: World) -> None:
    here, there = await world.process(), await world.process()
    results = await asyncio.gather(
        *(keys.create(wish(), "me") for keys in (here, there) * 4), return_exceptions=True
    )  # fmt: skip
    assert sum(isinstance(each, MadeKey) for each in results) == 1
    assert all(isinstance(each, MadeKey | ConflictError) for each in results)


async def test_of_two_that_rotate_at_once_one_wins(world: World) -> None:
    here, there = await world.process(), await world.process()
    await here.create(wish(), "me")
    await there.look()
    results = await asyncio.gather(*(keys.rotate("team-a", "me") for keys in (here, there)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["ConflictError", "MadeKey"]
    assert len([key for key in here.keys if key.replaced_by is None]) == 1


async def test_the_last_key_taken_away_does_not_open_the_gateway(world: World) -> None:
    keys = await world.process()
    assert keys.ring.is_open
    made = await keys.create(wish(), "me")
    await keys.revoke("team-a", "me")
    assert not keys.ring.is_open
    again = await world.process()  # after a restart
    assert not again.ring.is_open
    assert world.who(again, made) == "revoked"


async def test_a_name_of_the_settings_file_cannot_be_made_again(world: World) -> None:
    keys = await world.process(KeySpec(name="team-a", scope="acme", hash=hash_key("nk-configured")))
    with pytest.raises(ConflictError, match="settings file"):
        await keys.create(wish(), "me")


async def test_a_revoked_key_stays_revoked_when_its_hash_is_put_into_the_settings_file(world: World) -> None:
    keys = await world.process()
    made = await keys.create(wish(), "me")
    await keys.revoke("team-a", "me")
    keys.ring.configure([KeySpec(name="other", scope="/", hash=made.about.hash)])
    assert world.who(keys, made) == "revoked"


async def test_a_reload_of_the_settings_keeps_the_stored_keys(world: World) -> None:
    keys = await world.process()
    made = await keys.create(wish(), "me")
    keys.ring.configure([KeySpec(name="b", scope="beta", hash=hash_key("nk-b"))])
    assert world.who(keys, made) == "team-a"
    keys.ring.configure([])
    assert world.who(keys, made) == "team-a"


async def test_where_the_store_cannot_be_read_stored_keys_are_not_trusted_and_configured_ones_are(world: World) -> None:
    keys = await world.process(KeySpec(name="b", scope="beta", hash=hash_key("nk-b")))
    made = await keys.create(wish(), "me")
    world.store.is_broken = True
    await keys.look()
    assert world.who(keys, made) == "team-a"  # a moment's trouble refuses nobody
    world.clock.advance(10)
    await keys.look()
    with pytest.raises(StoreError, match="the disk is gone"):
        keys.ring.authenticate(made.key, world.clock.now())
    assert keys.ring.authenticate("nk-b", world.clock.now()).name == "b"
    world.store.is_broken = False
    await keys.look()
    assert world.who(keys, made) == "team-a"


async def test_a_revocation_that_cannot_be_read_back_holds_all_the_same(world: World) -> None:
    keys = await world.process()
    made = await keys.create(wish(), "me")
    world.store.is_broken = True
    await keys.revoke("team-a", "me")
    with pytest.raises(StoreError):
        keys.ring.authenticate(made.key, world.clock.now())
    world.store.is_broken = False
    await keys.look()
    assert world.who(keys, made) == "revoked"


async def test_when_a_key_was_last_used_is_written_at_most_once_a_minute(world: World) -> None:
    keys = await world.process()
    made = await keys.create(wish(), "me")
    times: list[datetime | None] = []
    for _ in range(4):
        keys.ring.authenticate(made.key, world.clock.now())
        keys.note_use()
        await world.store.write(lambda _: None)  # what was posted before it is written by then
        times.append((await world.process()).keys[0].last_used_at)
        world.clock.advance(25)
    assert times == [START, START, START, START + timedelta(seconds=75)]
    keys.ring.authenticate(made.key, world.clock.now())
    await keys.close()
    await world.store.write(lambda _: None)
    assert (await world.process()).keys[0].last_used_at == START + timedelta(seconds=100)


WRONG = [
    {"name": ""}, {"name": "../x"}, {"name": "a b"}, {"name": "x" * 81}, {"name": ".x"}, {"scope": "a//b"},
    {"scope": ".."}, {"models": ("",)}, {"models": ("a b",)}, {"models": ("x" * 201,)}, {"models": ("m",) * 101},
    {"tags": ("a/b",)}, {"tags": ("a",), "default_tag": "b"}, {"default_tag": ""}, {"expires_at": START},
    {"expires_at": datetime(2027, 1, 1)}, {"limits": KeyLimits(concurrent=0)},
    {"limits": KeyLimits(micro_usd_per_day=-1)}, {"limits": KeyLimits(tokens_per_minute=10**16)},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_key_that_cannot_be_is_refused_and_nothing_is_kept(world: World, wrong: dict[str, Any]) -> None:
    keys = await world.process()
    with pytest.raises(RequestError):
        await keys.create(msgspec.structs.replace(wish(), **wrong), "me")
    assert keys.keys == ()
    assert keys.ring.is_open


async def test_what_is_not_there_is_a_404_that_names_what_is(world: World) -> None:
    keys = await world.process()
    await keys.create(wish(), "me")
    for each in (keys.revoke("nobody", "me"), keys.rotate("nobody", "me")):
        with pytest.raises(RequestError, match="there are: team-a") as caught:
            await each
        assert caught.value.http_status == 404


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["create", "rotate", "revoke"]), st.integers(0, 1), st.sampled_from("ab")),
        st.tuples(st.just("look"), st.integers(0, 1), st.just("")),
        st.tuples(st.just("wait"), st.just(0), st.sampled_from(["600", "3600", "90000"])),
        st.tuples(st.just("restart"), st.integers(0, 1), st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(STEPS)
def test_whatever_is_done_in_whatever_order_each_key_is_good_exactly_while_it_should_be(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    """A model beside it: which keys are good until when, kept by hand."""
    asyncio.run(_play(World(tmp_path_factory.mktemp("keys")), steps))


async def _play(world: World, steps: list[tuple[str, int, str]]) -> None:  # noqa: C901 - one branch a step
    processes = [await world.process(), await world.process()]
    ends: dict[str, datetime | None] = {}  # by key; None: no end
    made: dict[str, MadeKey] = {}
    newest: dict[str, str] = {}  # by name
    for verb, which, text in steps:
        keys, now = processes[which], world.clock.now()
        try:
            if verb == "create":
                new = await keys.create(wish(text, "s", expires_at=now + timedelta(hours=2)), "me")
                assert not _is_good(ends.get(newest.get(text, ""), now), now)
            elif verb == "rotate":
                await keys.look()
                new = await keys.rotate(text, "me", overlap=timedelta(hours=1))
                old = newest[text]
                end = ends[old]
                assert end is not None
                ends[old] = min(end, now + timedelta(hours=1))
            elif verb == "revoke":
                await keys.look()
                await keys.revoke(text, "me")
                for key in find_keys(keys.keys, text):
                    if _is_good(ends[key.id], now):
                        ends[key.id] = now
                continue
            elif verb == "look":
                await keys.look()
                continue
            elif verb == "restart":
                processes[which] = await world.process()
                continue
            else:
                world.clock.advance(float(text))
                continue
            ends[new.about.id] = now + timedelta(hours=2)
            made[new.about.id] = new
            newest[text] = new.about.id
        except NightkeepError:
            continue
    for keys in processes:
        await keys.look()
        for key_id, key in made.items():
            is_served = world.who(keys, key) in ("a", "b")
            assert is_served == _is_good(ends[key_id], world.clock.now()), key_id
        assert keys.ring.is_open == (not made)
    await world.store.close()


def _is_good(end: datetime | None, now: datetime) -> bool:
    return end is None or now < end
