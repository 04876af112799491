"""Bedrock's frames are seen as Anthropic's server-sent events, whole and in any pieces."""

from __future__ import annotations

import base64

import msgspec
import pytest

from nightkeep.models.event_stream import encode_frame
from nightkeep.models.gateway.hosted import HostedFrames


def chunk(payload: bytes) -> bytes:
    body = msgspec.json.encode({"bytes": base64.b64encode(payload).decode()})
    return encode_frame({":message-type": "event", ":event-type": "chunk"}, body)


def test_chunks_become_events_whatever_pieces_they_arrive_in() -> None:
    data = chunk(b'{"type":"message_start"}') + chunk(b'{"type":"message_stop"}')
    frames = HostedFrames()
    found = [frame for index in range(len(data)) for frame in frames.feed(data[index : index + 1])]
    assert [frame.data for frame in found] == [b'{"type":"message_start"}', b'{"type":"message_stop"}']
    assert found[0].raw == b'event: message_start\ndata: {"type":"message_start"}\n\n'
    assert frames.rest() == b""


def test_an_exception_frame_becomes_an_error_event() -> None:
    fault = encode_frame({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"x"}')
    (frame,) = HostedFrames().feed(fault)
    assert frame.data is not None
    assert msgspec.json.decode(frame.data)["error"]["type"] == "overloaded_error"


def test_a_wrong_checksum_is_an_error() -> None:
    data = bytearray(chunk(b'{"type":"ping"}'))
    data[-1] ^= 1
    with pytest.raises(ValueError, match="event stream"):
        HostedFrames().feed(bytes(data))
