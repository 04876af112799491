"""Bedrock's framed streams as if they were Anthropic's server-sent events, so that the rest sees one kind."""

from __future__ import annotations

import msgspec

from nightkeep.models.event_stream import EventStreamDecoder, EventStreamFault
from nightkeep.models.wire.sse import Frame

__all__ = ["HostedFrames"]

_OVERLOADS = frozenset({"throttlingException", "serviceUnavailableException", "modelNotReadyException"})


class _Kind(msgspec.Struct):
    type: str = ""


class HostedFrames:
    """A ``FrameSource`` over AWS event-stream frames."""

    def __init__(self) -> None:
        self._decoder = EventStreamDecoder()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; give whole events in Anthropic's framing. Raises ValueError on a wrong checksum or length."""
        return [_frame(event) for event in self._decoder.feed(data)]

    def rest(self) -> bytes:
        """Not empty where a frame has begun and is not whole."""
        return b"" if self._decoder.is_between_frames else b"?"


def _frame(event: bytes | EventStreamFault) -> Frame:
    if isinstance(event, EventStreamFault):
        kind = "overloaded_error" if event.kind in _OVERLOADS else "api_error"
        message = f"{event.kind}: {event.payload.decode('utf-8', 'replace')[:300]}"
        payload = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
        return Frame(b"event: error\ndata: %b\n\n" % payload, payload)
    kind = msgspec.json.decode(event, type=_Kind).type
    return Frame(b"event: %b\ndata: %b\n\n" % (kind.encode(), event), event)
