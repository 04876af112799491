"""Server-sent events, as bytes: cutting a stream into events without losing or changing a byte.

Source: WHATWG HTML, "Server-sent events". Fields other than ``data`` and ``event`` are passed over,
since no model provider uses them; a frame keeps its raw bytes, so that it can be passed on as it came.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Frame", "FrameReader", "FrameTooLargeError"]

_MAX_FRAME_BYTES = 32 << 20
"""A frame may hold a whole image as base64; beyond this it is a fault, not an event."""


class FrameTooLargeError(ValueError):
    """A single event grew over the limit."""


class Frame(NamedTuple):
    """One event: ``raw`` as it came, blank line included, and the joined ``data`` lines (None for a comment)."""

    raw: bytes
    data: bytes | None


class FrameReader:
    """Takes bytes as they arrive, in pieces of any size, and gives whole events."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; give the events that are now whole.

        Raises:
            FrameTooLargeError: an event is over 32 MiB.
        """
        buffer = self._rest + data if self._rest else data
        if b"\r" in buffer:
            return self._feed_any(buffer)
        frames = []
        start = 0
        while (end := buffer.find(b"\n\n", start)) >= 0:
            raw = buffer[start : end + 2]
            frames.append(Frame(raw, _payload(raw)))
            start = end + 2
        self._keep(buffer[start:])
        return frames

    def _feed_any(self, buffer: bytes) -> list[Frame]:
        """The slow path: lines may end in CRLF or CR as well."""
        frames = []
        start = position = 0
        while True:
            line_end = _line_end(buffer, position)
            if line_end is None:
                break
            content_end, next_line = line_end
            if content_end == position:
                raw = buffer[start:next_line]
                frames.append(Frame(raw, _payload(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))))
                start = next_line
            position = next_line
        self._keep(buffer[start:])
        return frames

    def _keep(self, rest: bytes) -> None:
        if len(rest) > _MAX_FRAME_BYTES:
            raise FrameTooLargeError(f"a single event is over {_MAX_FRAME_BYTES} bytes")
        self._rest = rest

    def rest(self) -> bytes:
        """What stands after the last whole event: not empty at the end of a stream that was cut (or is not SSE)."""
        return self._rest


def _line_end(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Where the line from ``start`` ends and where the next begins; None while that is not known."""
    newline = buffer.find(b"\n", start)
    carriage = buffer.find(b"\r", start, newline if newline >= 0 else len(buffer))
    if carriage < 0:
        return None if newline < 0 else (newline, newline + 1)
    if carriage + 1 == len(buffer):
        return None  # a LF may follow
    return carriage, carriage + (2 if buffer[carriage + 1 : carriage + 2] == b"\n" else 1)


def _payload(raw: bytes) -> bytes | None:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return raw[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in raw.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
