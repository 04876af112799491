"""A provider's streamed reply while it arrives: frames for passing on, events for knowing what they say.

It reads; it does not decide. What is done with a cut or an error depends on whether content was
already sent to the client, which ``attempt`` (before) and ``relay`` (after) know.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from nightkeep.core.events import Ended, Event, Failed, Finished, PartDelta, PartStarted, Started, UsageReported
from nightkeep.core.messages import Usage
from nightkeep.models.transport import Fault, TransportError, Upstream
from nightkeep.models.wire.base import Decoder
from nightkeep.models.wire.sse import Frame, FrameReader

__all__ = ["FrameSource", "Piece", "ReplyStream"]

_AFTER_END_S = 2.0
"""How long a provider may keep the connection open after its end mark (some send usage last)."""

_MOST_KEPT_CHARACTERS = 1 << 20


class FrameSource(Protocol):
    """Cuts a body into events: server-sent ones, or Amazon's event stream (``models.signing``)."""

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; give the events that are now whole. Raises ValueError on garbage."""
        ...

    def rest(self) -> bytes:
        """What stands after the last whole event."""
        ...


class Piece(NamedTuple):
    """One event of the provider's: its bytes, and what they mean."""

    raw: bytes
    events: list[Event]


class ReplyStream:
    """Reads one streamed reply and remembers what a record of it needs."""

    __slots__ = (
        "_decoder",
        "_kept_characters",
        "_reader",
        "_upstream",
        "bytes_in",
        "failure",
        "has_content",
        "is_ended",
        "is_finished",
        "is_over",
        "model",
        "text_bytes",
        "texts",
        "usage",
    )

    def __init__(self, upstream: Upstream, decoder: Decoder, reader: FrameSource | None = None) -> None:
        self._upstream = upstream
        self._decoder = decoder
        self._reader: FrameSource = reader or FrameReader()
        self._kept_characters = 0
        self.bytes_in = 0
        self.failure: Failed | None = None  # an error that the provider reported inside the stream
        self.has_content = False
        self.is_finished = False  # the model said why it stopped
        self.is_ended = False  # the wire's end mark was seen
        self.is_over = False  # no more bytes will come
        self.model = ""
        self.text_bytes = 0  # of all deltas: what can be seen of the output's length
        self.texts: list[str] = []  # what arrived, for the record of an incomplete answer; bounded
        self.usage: Usage | None = None

    async def pull(self, idle_s: float) -> list[Piece]:
        """The next whole events; an empty list when bytes came that do not make one yet, or at the end.

        Raises:
            TransportError: the connection was cut, is silent for ``idle_s``, or the events are malformed.
        """
        try:
            data = await self._upstream.next_chunk(min(idle_s, _AFTER_END_S) if self.is_ended else idle_s)
        except TransportError as error:
            if self.is_ended:  # all was said; how the connection ends does not matter any more
                self.is_over = True
                return []
            raise error
        if not data:
            self.is_over = True
            return self._close()
        self.bytes_in += len(data)
        try:
            pieces = [Piece(frame.raw, self._read(frame)) for frame in self._reader.feed(data)]
        except (ValueError, RecursionError) as error:
            self._upstream.close()
            raise TransportError(Fault.MALFORMED, str(error), was_sent=True) from error
        return pieces

    def _read(self, frame: Frame) -> list[Event]:
        if frame.data is None:
            return []
        events = self._decoder.feed(frame.data)
        for event in events:
            self._note(event)
        return events

    def _close(self) -> list[Piece]:
        events = self._decoder.close()
        for event in events:
            self._note(event)
        return [Piece(b"", events)] if events else []

    def _note(self, event: Event) -> None:
        kind = type(event)
        if kind is PartDelta:
            self.has_content = True
            text: str = event.text  # type: ignore[union-attr]
            self.text_bytes += len(text) if text.isascii() else 2 * len(text)
            self._keep(text)
        elif kind is PartStarted:
            # An empty text part is a preamble; a part that is there from its start is content.
            self.has_content = self.has_content or event.kind not in ("text", "reasoning")  # type: ignore[union-attr]
        elif isinstance(event, UsageReported):
            self.usage = event.usage
        elif isinstance(event, Finished):
            self.is_finished = self.has_content = True
        elif isinstance(event, Ended):
            self.is_ended = True
        elif isinstance(event, Failed):
            self.failure = event
        elif isinstance(event, Started):
            self.model = event.model

    def _keep(self, text: str) -> None:
        if self._kept_characters < _MOST_KEPT_CHARACTERS:
            self._kept_characters += len(text)
            self.texts.append(text)

    def close(self) -> None:
        """Give the stream up; the provider's connection is cut unless the reply was whole."""
        self._upstream.close()
