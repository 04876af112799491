"""One attempt: send a request to one account, and read its answer as far as it can still be taken back.

A whole answer is read to its end. A stream is read up to its first content: a preamble binds nobody,
so that everything before content can be retried and failed over (design.md §6). What happens next is
decided in ``gateway.gateway``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec

from nightkeep.core.events import Event, Failed
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.classify import classify, classify_fault
from nightkeep.models.gateway.stream import FrameSource, Piece, ReplyStream
from nightkeep.models.transport import Fault, HttpClient, Origin, TransportError, Upstream
from nightkeep.models.wire.base import Codec

__all__ = ["Failure", "Opened", "Outbound", "Patience", "Whole", "attempt"]

_MOST_ERROR_BYTES = 1 << 20
_MOST_REPLY_BYTES = 256 << 20


class Outbound(msgspec.Struct, kw_only=True):
    """A request ready to leave for one account."""

    origin: Origin
    method: str
    target: str
    headers: bytes
    body: bytes
    codec: Codec
    read: Callable[[bytes], list[Event]]  # a whole answer; raises ValueError where it is none
    is_stream: bool
    frames: Callable[[], FrameSource] | None = None  # None: server-sent events


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds."""

    first_byte_s: float  # up to the head of a whole answer, or to the first content of a stream
    idle_s: float  # between two pieces
    deadline: float  # of the whole call, monotonic


class Whole(msgspec.Struct):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    events: list[Event]
    first_byte: float  # monotonic


class Opened(msgspec.Struct):
    """A stream that has shown content (or ended properly without any); the pieces so far are not sent yet."""

    stream: ReplyStream
    pieces: list[Piece]
    headers: dict[str, str]
    first_byte: float


class Failure(msgspec.Struct):
    """The attempt failed before anything was committed."""

    verdict: Verdict
    body: bytes = b""
    first_byte: float | None = None
    was_sent: bool = True  # the provider may have seen the request
    is_answered: bool = False  # it refused: nothing is billed


async def attempt(
    client: HttpClient, outbound: Outbound, patience: Patience, now: Callable[[], datetime]
) -> Whole | Opened | Failure:
    """Make one attempt; every fault becomes a ``Failure``, only cancellation is raised."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    wait = min(patience.first_byte_s, patience.deadline - started)
    try:
        upstream = await client.send(
            outbound.origin, outbound.method, outbound.target, outbound.headers, outbound.body, first_byte_s=wait
        )
    except TransportError as error:
        return Failure(classify_fault(error.fault, error.detail), was_sent=error.was_sent)
    first_byte = loop.time()
    try:
        return await _read(upstream, outbound, patience, first_byte, started + wait, now)
    except TransportError as error:
        return Failure(classify_fault(error.fault, error.detail), first_byte=first_byte)
    except BaseException:
        upstream.close()
        raise


async def _read(
    upstream: Upstream,
    outbound: Outbound,
    patience: Patience,
    first_byte: float,
    content_by: float,
    now: Callable[[], datetime],
) -> Whole | Opened | Failure:
    loop = asyncio.get_running_loop()
    wire = outbound.codec.wire
    idle_s = min(patience.idle_s, max(0.001, patience.deadline - first_byte))
    if not 200 <= upstream.status < 300:
        body = await upstream.read(idle_s, _MOST_ERROR_BYTES)
        verdict = classify(wire, upstream.status, upstream.headers, body, now())
        return Failure(verdict, body, first_byte, is_answered=True)
    if not outbound.is_stream or "json" in upstream.headers.get("content-type", ""):
        body = await upstream.read(idle_s, _MOST_REPLY_BYTES)
        return _whole(upstream, outbound, body, first_byte, now)
    if upstream.headers.get("content-type", "").startswith("text/html"):
        body = await upstream.read(idle_s, _MOST_ERROR_BYTES)
        return Failure(classify_fault(Fault.MALFORMED, "an HTML page instead of a stream"), body, first_byte)
    frames = outbound.frames() if outbound.frames is not None else None
    stream = ReplyStream(upstream, outbound.codec.decoder(), frames)
    pieces: list[Piece] = []
    while not (stream.has_content or stream.is_over or stream.failure):
        wait = min(idle_s, max(0.001, content_by - loop.time()))
        pieces += await stream.pull(wait)
    if stream.failure is not None and not stream.has_content:
        stream.close()
        return Failure(_failed_verdict(outbound, stream.failure, upstream, pieces, now), first_byte=first_byte)
    if stream.is_over and not stream.is_ended:
        verdict = Verdict(outcome=Outcome.CUT_STREAM, status=200, message="the stream ended before its end mark")
        return Failure(verdict, first_byte=first_byte)
    return Opened(stream, pieces, upstream.headers, first_byte)


def _whole(
    upstream: Upstream, outbound: Outbound, body: bytes, first_byte: float, now: Callable[[], datetime]
) -> Whole | Failure:
    try:
        events = outbound.read(body)
    except (ValueError, RecursionError) as error:
        verdict = classify(outbound.codec.wire, upstream.status, upstream.headers, body, now())
        if verdict.outcome is Outcome.SUCCESS:
            verdict = classify_fault(Fault.MALFORMED, f"the answer is not what its wire allows: {error}")
        return Failure(verdict, body, first_byte)
    if any(type(event) is Failed for event in events):
        verdict = classify(outbound.codec.wire, upstream.status, upstream.headers, body, now())
        if verdict.outcome is Outcome.SUCCESS:
            verdict = classify_fault(Fault.MALFORMED, "the answer reports a failure")
        return Failure(verdict, body, first_byte)
    return Whole(upstream.status, upstream.headers, body, events, first_byte)


def _failed_verdict(
    outbound: Outbound, failed: Failed, upstream: Upstream, pieces: list[Piece], now: Callable[[], datetime]
) -> Verdict:
    """Classify an error event that came before content, as if it had come as an HTTP error."""
    raw = next((piece.raw for piece in pieces if failed in piece.events), b"")
    payload = b"".join(line[5:].strip() for line in raw.splitlines() if line.startswith(b"data:"))
    status = failed.status or 200
    verdict = classify(outbound.codec.wire, status, upstream.headers, payload, now())
    if verdict.outcome is Outcome.SUCCESS:
        return Verdict(
            outcome=Outcome.UNAVAILABLE, status=status, message=failed.message[:300], provider_code=failed.code
        )
    return verdict
