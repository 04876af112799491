"""AWS's event-stream frames, in which Bedrock streams: bytes in, the payloads of server-sent events out. No I/O.

A frame is: total length, headers length, CRC of those two, headers, payload, CRC of all (big-endian; "Event stream
encoding" in AWS's documentation). Each of Bedrock's chunks holds ``{"bytes": BASE64}``, whose content is the very
JSON that Anthropic would send as the data of one event, so that ``nightkeep.models.wire`` reads it as ever.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Final

import msgspec

__all__ = ["EventStreamDecoder", "EventStreamFault", "Frame", "encode_frame"]

_PRELUDE: Final = struct.Struct(">III")
_U32: Final = struct.Struct(">I")
_U16: Final = struct.Struct(">H")
_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value by its type
_STRING: Final = 7
_BYTES: Final = 6
_MOST_BYTES: Final = 16 << 20  # AWS's own limit for one message
_OVERHEAD: Final = 16


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One message; of its headers only those that are texts."""

    headers: dict[str, str]
    payload: bytes


class EventStreamFault(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that the provider sent instead of a chunk."""

    kind: str  # its exception type, e.g. "throttlingException"
    payload: bytes  # its JSON


class _Chunk(msgspec.Struct):
    bytes: str


class EventStreamDecoder:
    """Reads one stream. Raises ValueError on what is no frame; nothing can be read after that."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_between_frames(self) -> bool:
        """No frame has begun: a stream may end here and nowhere else."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes | EventStreamFault]:
        """Take what arrived; give the payloads that are whole now: JSON as a server-sent event would carry it.

        Raises:
            ValueError: a checksum or a length is wrong, or a chunk does not hold what it must.
        """
        return [event for frame in self.frames(data) if (event := _event(frame)) is not None]

    def frames(self, data: bytes) -> list[Frame]:
        """The same, as raw frames."""
        buffer = self._buffer
        buffer += data
        frames = []
        at = 0
        while len(buffer) - at >= _PRELUDE.size:
            total, header_bytes, checksum = _PRELUDE.unpack_from(buffer, at)
            if zlib.crc32(buffer[at : at + 8]) != checksum:
                raise ValueError("event stream: the checksum of a frame's head is wrong")
            if not _OVERHEAD + header_bytes <= total <= _MOST_BYTES:
                raise ValueError(f"event stream: a frame of {total} bytes with {header_bytes} bytes of headers")
            if len(buffer) - at < total:
                break
            frames.append(_read_frame(bytes(buffer[at : at + total]), header_bytes))
            at += total
        del buffer[:at]
        return frames


def _read_frame(data: bytes, header_bytes: int) -> Frame:
    if zlib.crc32(data[:-4]) != _U32.unpack_from(data, len(data) - 4)[0]:
        raise ValueError("event stream: the checksum of a frame is wrong")
    end = _PRELUDE.size + header_bytes
    return Frame(headers=_read_headers(data[_PRELUDE.size : end]), payload=data[end:-4])


def _read_headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            start = at + 1
            at = start + data[at]
            name = data[start:at].decode()
            kind = data[at]
            at += 1
            if kind in (_STRING, _BYTES):
                size = _U16.unpack_from(data, at)[0]
                at += 2
                if kind == _STRING:
                    headers[name] = data[at : at + size].decode()
            else:
                size = _SIZES[kind]
            at += size
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError("event stream: a frame's headers are broken") from error
    if at != len(data):
        raise ValueError("event stream: a frame's headers are cut")
    return headers


def _event(frame: Frame) -> bytes | EventStreamFault | None:
    kind = frame.headers.get(":message-type", "event")
    if kind == "exception":
        return EventStreamFault(kind=frame.headers.get(":exception-type", "exception"), payload=frame.payload)
    if kind == "error":
        message = {"message": frame.headers.get(":error-message", "")}
        return EventStreamFault(kind=frame.headers.get(":error-code", "error"), payload=msgspec.json.encode(message))
    if frame.headers.get(":event-type") != "chunk":
        return None
    try:
        return base64.b64decode(msgspec.json.decode(frame.payload, type=_Chunk).bytes, validate=True)
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise ValueError("event stream: a chunk does not hold what it must") from error


def encode_frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Write a frame: what the simulated provider and the tests speak."""
    encoded = b""
    for name, value in headers.items():
        raw_name, raw_value = name.encode(), value.encode()
        encoded += bytes([len(raw_name)]) + raw_name + bytes([_STRING]) + _U16.pack(len(raw_value)) + raw_value
    lengths = struct.pack(">II", _OVERHEAD + len(encoded) + len(payload), len(encoded))
    whole = lengths + _U32.pack(zlib.crc32(lengths)) + encoded + payload
    return whole + _U32.pack(zlib.crc32(whole))
