"""What a reply says while it arrives: one flat sequence of events for all wires.

A whole reply is the same sequence at once, so that decoders and encoders have one path.
The order is: ``Started``, then parts in order (``PartStarted``, deltas, ``PartEnded``), then
``Finished``; ``UsageReported`` may come at any time and replaces the one before it; ``Failed`` may
come instead of the rest. ``Ended`` says that the wire's own end mark was seen: a stream without it
was cut.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nightkeep.core.messages import Part, Reasoning, Refusal, Reply, StopReason, Text, ToolCall, Usage

__all__ = [
    "Ended",
    "Event",
    "Failed",
    "Finished",
    "PartDelta",
    "PartEnded",
    "PartStarted",
    "Started",
    "Unknown",
    "UsageReported",
    "collect_reply",
    "replay_reply",
]

PartKind = Literal["text", "reasoning", "tool_call", "refusal", "opaque"]


class Happening(msgspec.Struct, frozen=True, gc=False):
    """Base of the events; positional, because a stream makes one for every few bytes."""


class Started(Happening, frozen=True, tag="started"):
    """The preamble: the provider has begun. Not content: everything can still be retried."""

    id: str
    model: str
    created: int | None = None


class PartStarted(Happening, frozen=True, tag="part_started"):
    """A part begins. ``part`` holds what is known at its start: for a tool call its id and name."""

    index: int
    kind: PartKind
    part: Part | None = None


class PartDelta(Happening, frozen=True, tag="part_delta"):
    """More of a part: text, reasoning text, refusal text, or a piece of a tool call's JSON arguments."""

    index: int
    text: str


class PartEnded(Happening, frozen=True, tag="part_ended"):
    """A part is whole. ``signature`` and ``encrypted`` complete reasoning and (Gemini) tool calls."""

    index: int
    signature: str | None = None
    encrypted: str | None = None


class UsageReported(Happening, frozen=True, tag="usage_reported"):
    """Tokens so far, cumulative over the whole reply: the latest one holds."""

    usage: Usage


class Finished(Happening, frozen=True, tag="finished"):
    """The model stopped, and why. ``detail``: the vendor's own word, or the stop sequence it hit."""

    stop: StopReason
    detail: str | None = None


class Failed(Happening, frozen=True, tag="failed"):
    """The provider reported an error inside the stream."""

    code: str
    message: str
    status: int | None = None


class Unknown(Happening, frozen=True, tag="unknown"):
    """Something this version does not know; passed on to the same wire, counted on another."""

    kind: str
    raw: dict[str, Any] | None = None


class Ended(Happening, frozen=True, tag="ended"):
    """The wire's own end mark: ``[DONE]``, ``message_stop``, ``response.completed``; Gemini: the finish."""


Event = Started | PartStarted | PartDelta | PartEnded | UsageReported | Finished | Failed | Unknown | Ended


def collect_reply(events: list[Event]) -> Reply:
    """Fold events into a reply; ``is_complete`` is False unless ``Finished`` and ``Ended`` were seen."""
    started = Started("", "")
    usage: Usage | None = None
    finished: Finished | None = None
    ended = False
    open_parts: dict[int, tuple[PartStarted, list[str], PartEnded | None]] = {}
    for event in events:
        match event:
            case Started():
                started = event
            case PartStarted(index=index):
                open_parts[index] = (event, [], None)
            case PartDelta(index=index, text=text):
                open_parts[index][1].append(text)
            case PartEnded(index=index):
                begun, texts, _ = open_parts[index]
                open_parts[index] = (begun, texts, event)
            case UsageReported(usage=reported):
                usage = reported
            case Finished():
                finished = event
            case Ended():
                ended = True
            case Failed() | Unknown():
                pass
    return Reply(
        id=started.id,
        model=started.model,
        created=started.created,
        parts=tuple(_whole_part(*entry) for _, entry in sorted(open_parts.items())),
        stop=finished.stop if finished else StopReason.OTHER,
        stop_detail=finished.detail if finished else None,
        usage=usage,
        is_complete=finished is not None and ended,
    )


def _whole_part(begun: PartStarted, texts: list[str], ended: PartEnded | None) -> Part:
    text = "".join(texts)
    match begun.part or _BLANK[begun.kind]:
        case ToolCall() as call:
            signature = (ended.signature if ended else None) or call.signature
            return msgspec.structs.replace(call, arguments=text or call.arguments or "{}", signature=signature)
        case Reasoning() as thought:
            return msgspec.structs.replace(
                thought,
                text=thought.text + text,
                signature=(ended.signature if ended else None) or thought.signature,
                encrypted=(ended.encrypted if ended else None) or thought.encrypted,
            )
        case Text() as known:
            return msgspec.structs.replace(known, text=known.text + text)
        case Refusal() as refused:
            return Refusal(text=refused.text + text)
        case other:
            return other


_BLANK: dict[PartKind, Part] = {
    "text": Text(text=""),
    "reasoning": Reasoning(),
    "refusal": Refusal(text=""),
    "tool_call": ToolCall(id="", name="", arguments=""),
    "opaque": Text(text=""),
}
"""What a part is before anything is known of it."""


def replay_reply(reply: Reply) -> list[Event]:
    """Say a whole reply as events, so that it can be written on any wire, streamed or whole."""
    events: list[Event] = [Started(reply.id, reply.model, reply.created)]
    for index, part in enumerate(reply.parts):
        events.extend(_part_events(index, part))
    if reply.usage is not None:
        events.append(UsageReported(reply.usage))
    events.append(Finished(reply.stop, reply.stop_detail))
    if reply.is_complete:
        events.append(Ended())
    return events


def _part_events(index: int, part: Part) -> list[Event]:
    match part:
        case Text(text=text):
            head: Part | None = msgspec.structs.replace(part, text="") if part.citations or part.cache else None
            return [PartStarted(index, "text", head), PartDelta(index, text), PartEnded(index)]
        case Reasoning(text=text):
            begun = msgspec.structs.replace(part, text="")
            end = PartEnded(index, part.signature, part.encrypted)
            return [PartStarted(index, "reasoning", begun), *([PartDelta(index, text)] if text else []), end]
        case Refusal(text=text):
            return [PartStarted(index, "refusal"), PartDelta(index, text), PartEnded(index)]
        case ToolCall(arguments=arguments):
            begun_call = msgspec.structs.replace(part, arguments="")
            return [PartStarted(index, "tool_call", begun_call), PartDelta(index, arguments), PartEnded(index)]
        case _:
            return [PartStarted(index, "opaque", part), PartEnded(index)]
