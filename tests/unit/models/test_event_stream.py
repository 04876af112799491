"""AWS's event-stream frames: the published examples, cut anywhere, and damaged anywhere."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.event_stream import EventStreamDecoder, EventStreamFault, encode_frame

# Published with AWS's SDKs' encoders: a frame without headers, and one with a content type.
PLAIN = bytes([0, 0, 0, 30, 0, 0, 0, 0, 186, 242, 246, 138]) + b'{"foo": "bar"}' + bytes([174, 114, 88, 228])
CHUNK = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def chunk(text: str) -> bytes:
    payload = msgspec.json.encode({"bytes": base64.b64encode(text.encode()).decode(), "p": "abcd"})
    return encode_frame(CHUNK, payload)


def test_reads_and_writes_the_published_frame() -> None:
    assert encode_frame({}, b'{"foo": "bar"}') == PLAIN
    assert EventStreamDecoder().frames(PLAIN)[0].payload == b'{"foo": "bar"}'


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 40))
def test_gives_the_same_payloads_however_the_bytes_arrive(texts: list[str], size: int) -> None:
    data = b"".join(chunk(text) for text in texts)
    decoder = EventStreamDecoder()
    events = [event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])]
    assert events == [text.encode() for text in texts]
    assert decoder.is_between_frames


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_damaged_byte_passes_as_content(place: int, change: int) -> None:
    data = bytearray(chunk('{"type":"message_start"}'))
    data[place % len(data)] ^= change
    decoder = EventStreamDecoder()
    with pytest.raises(ValueError, match="event stream"):
        decoder.feed(bytes(data))


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_an_unfinished_frame(data: bytes) -> None:
    decoder = EventStreamDecoder()
    try:
        assert decoder.feed(data) == []
    except ValueError:
        return
    assert len(data) < 12 or not decoder.is_between_frames


def test_an_exception_in_the_stream_is_told_with_its_type() -> None:
    frame = encode_frame(
        {":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow"}'
    )
    assert EventStreamDecoder().feed(frame) == [
        EventStreamFault(kind="throttlingException", payload=b'{"message":"slow"}')
    ]


def test_a_stream_cut_inside_a_frame_is_seen() -> None:
    decoder = EventStreamDecoder()
    decoder.feed(chunk("x")[:-1])
    assert not decoder.is_between_frames
