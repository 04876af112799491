"""A committed stream on its way to the client: passed on as it came, or said again in the client's wire.

From here on nothing can be retried: when the provider's stream breaks, the client gets the typed error
event of its own wire, which says that the text is incomplete. It never sees an ending that the model
did not make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from nightkeep.core.errors import BudgetError, NightkeepError
from nightkeep.core.events import Event, Failed, PartDelta, Started, UsageReported
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.classify import classify_fault
from nightkeep.models.gateway.attempt import Opened, Patience
from nightkeep.models.gateway.call import Answer
from nightkeep.models.gateway.failure import wire_error
from nightkeep.models.gateway.interruption import Interruption
from nightkeep.models.gateway.spending import StreamMeter
from nightkeep.models.gateway.stream import Piece, ReplyStream
from nightkeep.models.transport import Fault, TransportError
from nightkeep.models.wire.base import Encoder, WireError

__all__ = ["SlowStream", "dated", "relay"]

_SUCCESS = Verdict(outcome=Outcome.SUCCESS, status=200)


class SlowStream:
    """Tells when a provider drips: fewer than ``bytes_per_s`` bytes a second over a window.

    Source: a provider that drips one token a second holds a stream for ever (bifrost#6472).
    """

    def __init__(self, bytes_per_s: float, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._least = bytes_per_s * window_s
        self._since = now
        self._seen = 0

    def check(self, bytes_in: int, now: float) -> bool:
        """Whether the window that ends now was too slow."""
        if now - self._since < self._window_s:
            return False
        is_slow = bytes_in - self._seen < self._least
        self._since, self._seen = now, bytes_in
        return is_slow


async def relay(
    opened: Opened,
    answer: Answer,
    encoder: Encoder,
    patience: Patience,
    *,
    is_same_wire: bool,
    hides_usage: bool,
    min_bytes_per_s: float,
    created: int,
    interruption: Interruption,
    meter: StreamMeter | None = None,
) -> Verdict:
    """Carry a stream to its end; the verdict says how it ended. The answer has been started.

    An ``interruption`` stops it when somebody has thrown a switch. With a ``meter``, what is said is covered by a
    budget before it is passed on; where there is no more room, the stream is stopped and the client is told.
    """
    stream = opened.stream
    write = _pass_on(encoder, hides_usage) if is_same_wire else _translate(encoder, created)
    verdict = _SUCCESS
    halt: NightkeepError | None = None
    try:
        await _carry(opened, answer, write, patience, min_bytes_per_s, meter)
    except TransportError as error:
        verdict = classify_fault(error.fault, error.detail)
    except BudgetError as error:
        halt = error
    except asyncio.CancelledError:
        halt = interruption.take()
        if halt is None:
            raise
    finally:
        stream.close()
    if halt is not None:
        answer.send(encoder.fail(_stopped(halt, "".join(stream.texts))))
        answer.finish()
        return Verdict(outcome=Outcome.CANCELLED, provider_code=halt.code, message=halt.message)
    verdict = _how_it_ended(stream, verdict)
    if verdict is not _SUCCESS:
        answer.send(encoder.fail(_incomplete(verdict, "".join(stream.texts))))
    answer.finish()
    return verdict


async def _carry(
    opened: Opened,
    answer: Answer,
    write: Callable[[list[Piece]], bytes],
    patience: Patience,
    min_bytes_per_s: float,
    meter: StreamMeter | None,
) -> None:
    """Pass pieces on until there are no more. Raises TransportError, BudgetError."""
    loop = asyncio.get_running_loop()
    stream, pieces = opened.stream, opened.pieces
    slow = SlowStream(min_bytes_per_s, patience.idle_s, loop.time())
    while True:
        if meter is not None and stream.text_bytes > meter.early_bytes:
            await meter.cover(stream.text_bytes)
        if data := write(pieces):
            answer.send(data)
            await answer.drain()
        if stream.is_over or stream.failure is not None:
            return
        now = loop.time()
        if slow.check(stream.bytes_in, now) and not stream.is_ended:
            raise TransportError(Fault.IDLE_TIMEOUT, "the stream drips too slowly", was_sent=True)
        pieces = await stream.pull(min(patience.idle_s, max(0.001, patience.deadline - now)))


def _how_it_ended(stream: ReplyStream, verdict: Verdict) -> Verdict:
    if verdict is not _SUCCESS:
        return verdict
    if stream.failure is not None:
        failed = stream.failure
        return Verdict(outcome=Outcome.CUT_STREAM, status=200, message=failed.message, provider_code=failed.code)
    if not stream.is_ended:
        return Verdict(outcome=Outcome.CUT_STREAM, status=200, message="the stream ended before its end mark")
    return _SUCCESS


def _incomplete(verdict: Verdict, text: str) -> WireError:
    return WireError(
        status=504 if verdict.outcome is Outcome.TIMED_OUT else 502,
        code="stream_cut",
        kind="timeout" if verdict.outcome is Outcome.TIMED_OUT else "api_error",
        message=(
            f"the answer is INCOMPLETE: the provider's stream broke after {len(text)} characters "
            f"({verdict.message or verdict.outcome}). What you have so far is all there is; send the request again."
        ),
        data={"code": "stream_cut", "outcome": str(verdict.outcome), "characters": len(text)},
    )


def _stopped(error: NightkeepError, text: str) -> WireError:
    """Nightkeep itself ends the stream: the reason, and how much of the answer there is."""
    said = wire_error(error)
    message = f"the answer is INCOMPLETE: it was stopped after {len(text)} characters. {error.message}"
    return msgspec.structs.replace(said, message=message, data={**said.data, "characters": len(text)})


def _pass_on(encoder: Encoder, hides_usage: bool) -> Callable[[list[Piece]], bytes]:
    """Bytes as they came, less error events (we say it better) and usage that the client did not ask for.

    Some vendors leave out the end mark after a proper finish; it is added, for clients that wait for it.
    """

    def write(pieces: list[Piece]) -> bytes:
        if len(pieces) == 1 and len(pieces[0].events) == 1 and type(pieces[0].events[0]) is PartDelta:
            return pieces[0].raw
        return b"".join(
            [
                piece.raw or b"".join([encoder.feed(event) for event in piece.events])
                for piece in pieces
                if _is_for_client(piece.events, hides_usage)
            ]
        )

    return write


def _is_for_client(events: list[Event], hides_usage: bool) -> bool:
    if not events:
        return True
    last = events[-1]
    if type(last) is Failed:
        return False
    return not (hides_usage and len(events) == 1 and type(last) is UsageReported)


def _translate(encoder: Encoder, created: int) -> Callable[[list[Piece]], bytes]:
    def write(pieces: list[Piece]) -> bytes:
        return b"".join(
            [
                encoder.feed(dated(event, created))
                for piece in pieces
                for event in piece.events
                if type(event) is not Failed
            ]
        )

    return write


def dated(event: Event, created: int) -> Event:
    """A reply's start with a time, for wires that carry one; Anthropic's and Gemini's do not."""
    if type(event) is Started and event.created is None:
        return Started(event.id, event.model, created)
    return event
