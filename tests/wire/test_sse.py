"""The reader of server-sent events: no byte is lost or changed, whatever the pieces and line ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.wire.sse import FrameReader, FrameTooLargeError

EVENTS = [
    b"data: one\n\n",
    b"event: x\ndata: two\n\n",
    b": comment\n\n",
    b"data: a\ndata: b\n\n",
    b"id: 1\n\n",
    b"data:\n\n",
]
PAYLOADS = [b"one", b"two", None, b"a\nb", None, b""]


@given(st.lists(st.integers(1, 20), max_size=30), st.sampled_from([b"\n", b"\r\n"]))
def test_pieces_of_any_size_give_the_same_events_and_every_byte(sizes: list[int], line_end: bytes) -> None:
    data = b"".join(EVENTS).replace(b"\n", line_end)
    reader = FrameReader()
    frames = []
    position = 0
    for size in [*sizes, len(data)]:
        frames += reader.feed(data[position : position + size])
        position += size
    assert [frame.data for frame in frames] == PAYLOADS
    assert b"".join(frame.raw for frame in frames) == data
    assert reader.rest() == b""


def test_what_is_not_ended_is_kept_back() -> None:
    reader = FrameReader()
    assert reader.feed(b"data: half\n") == []
    assert reader.rest() == b"data: half\n"


def test_an_event_that_never_ends_is_refused() -> None:
    reader = FrameReader()
    with pytest.raises(FrameTooLargeError):
        for _ in range(9):
            reader.feed(b"a" * (4 << 20))
