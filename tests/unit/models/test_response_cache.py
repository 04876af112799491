"""The cache of exact matches: bounded, in time, and never across scopes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.keys import Caller
from nightkeep.core.errors import RequestError
from nightkeep.models.gateway.cache import ResponseCache
from nightkeep.models.gateway.call import Call, Door
from nightkeep.models.gateway.tape import Recording, Tape
from nightkeep.models.wire.base import Head, Operation, Wire
from nightkeep.testing.clock import FakeClock

DOOR = Door(Wire.OPENAI_CHAT, Operation.CHAT, "/v1/chat/completions")


def call(scope: str = "acme", body: bytes = b"{}", **headers: str) -> Call:
    known: dict[str, Any] = {"tag": None, "task": None, "priority": 1, "started": 0.0, "deadline": 9e9, "run": None}
    known = {name: value for name, value in known.items() if name in Call.__struct_fields__}
    return Call(
        id="call_1", door=DOOR, head=Head("m"), body=body, peer="", caller=Caller(name="", scope=scope), scope=scope,
        headers={name.replace("_", "-"): value for name, value in headers.items()}, answer=Tape(), **known,
    )  # fmt: skip


def answer(body: bytes = b"answer") -> Recording:
    return Recording(200, [], body, False)


def make(clock: FakeClock | None = None, *, is_enabled: bool = True, max_bytes: int = 8_000) -> ResponseCache:
    return ResponseCache(clock or FakeClock(), is_enabled=is_enabled, ttl_s=60.0, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ({}, "off"),
        ({"x_nightkeep_cache": "use"}, "use"),
        ({"x_nightkeep_cache": "refresh"}, "refresh"),
        ({"x_nightkeep_cache": "off"}, "off"),
        ({"x_nightkeep_cache": "use", "cache_control": "no-store"}, "off"),
        ({"x_nightkeep_cache": "use", "cache_control": "no-cache"}, "refresh"),
        ({"cache_control": "no-cache"}, "off"),
    ],
)
def test_the_request_must_allow_it(headers: dict[str, str], mode: str) -> None:
    assert make().mode(call(**headers)) == mode
    assert make(is_enabled=False).mode(call(**headers)) == "off"


def test_an_unknown_word_is_a_clear_refusal() -> None:
    with pytest.raises(RequestError, match="'use', 'refresh' or 'off'"):
        make().mode(call(x_nightkeep_cache="yes"))


def test_an_answer_serves_the_same_request_until_its_time_is_over() -> None:
    clock = FakeClock()
    cache = make(clock)
    cache.keep(call(), answer())
    clock.advance(59)
    assert cache.find(call()) == (answer(), 59)
    clock.advance(2)
    assert cache.find(call()) is None


def test_no_other_scope_and_no_other_body_gets_it() -> None:
    cache = make()
    cache.keep(call(), answer())
    assert cache.find(call(scope="evil")) is None
    assert cache.find(call(body=b"{ }")) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1_200)), max_size=60))
def test_it_never_holds_more_bytes_than_it_may_and_what_it_gives_is_the_last_that_was_kept(
    kept: list[tuple[int, int]],
) -> None:
    cache = make(max_bytes=4_000)
    last: dict[int, int] = {}
    for number, size in kept:
        cache.keep(call(body=b"%d" % number), answer(bytes(size)))
        if size <= 500:
            last[number] = size
        sizes = {}
        for each, known in last.items():
            found = cache.find(call(body=b"%d" % each))
            if found is not None:
                sizes[each] = len(found[0].body)
                assert sizes[each] == known
        assert sum(sizes.values()) <= 4_000
