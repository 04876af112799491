"""OpenAI Responses replies, written: neutral events as the numbered events of a stream or as a whole response object.

Reading them is ``openai_responses_reply``; the object and its items are ``openai_responses_object``. Each neutral part
is one output item. Sequence: platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.events import (
    Ended,
    Event,
    Failed,
    Finished,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    UsageReported,
    collect_reply,
)
from nightkeep.core.messages import ChatRequest, Opaque, Part, Reasoning, Refusal, StopReason, Text, ToolCall, Usage
from nightkeep.models.wire.base import WireError
from nightkeep.models.wire.openai_errors import error_object
from nightkeep.models.wire.openai_responses_object import ResponseObject
from nightkeep.models.wire.shape import encode_json

__all__ = ["OpenaiResponsesEncoder"]

_DELTAS = {
    "text": ("response.output_text.delta", '"content_index":0,', b',"logprobs":[]}\n\n'),
    "refusal": ("response.refusal.delta", '"content_index":0,', b"}\n\n"),
    "reasoning": ("response.reasoning_summary_text.delta", '"summary_index":0,', b"}\n\n"),
    "tool_call": ("response.function_call_arguments.delta", "", b"}\n\n"),
}
_EMPTY: dict[str, Part] = {
    "text": Text(text=""),
    "refusal": Refusal(text=""),
    "reasoning": Reasoning(),
    "tool_call": ToolCall(id="", name="", arguments=""),
}
_STATUS_KINDS = {429: "rate_limited", 503: "overloaded", 529: "overloaded", 504: "timeout", 400: "invalid_request"}


class _OpenItem:
    """An output item whose part is still being said."""

    __slots__ = ("has_summary", "item_id", "kind", "part", "place", "prefix", "tail", "texts")

    def __init__(self, kind: str, part: Part, place: int, item_id: str) -> None:
        name, extra, self.tail = _DELTAS[kind]
        self.kind = kind
        self.part = part
        self.place = place
        self.item_id = item_id
        self.texts: list[str] = []
        self.has_summary = False
        where = f'"item_id":{encode_json(item_id).decode()},"output_index":{place},{extra}"sequence_number":'
        self.prefix = f'event: {name}\ndata: {{"type":"{name}",{where}'.encode()


class OpenaiResponsesEncoder:
    """Writes one reply under the model name that the client asked for."""

    def __init__(self, model: str, request: ChatRequest | None = None) -> None:
        self._object = ResponseObject(model, request)
        self._is_begun = False
        self._sequence = 0
        self._usage: Usage | None = None
        self._finished: Finished | None = None
        self._open: dict[int, _OpenItem] = {}
        self._output: dict[int, dict[str, Any]] = {}
        self._count = 0

    def feed(self, event: Event) -> bytes:
        """The server-sent events for one neutral event."""
        if type(event) is PartDelta:
            return self._delta(event)
        match event:
            case Started():
                self._object.started = event
                return self._begin()
            case PartStarted():
                return self._begin() + self._start(event)
            case PartEnded():
                return self._end_part(event)
            case UsageReported(usage=usage):
                self._usage = usage
                return b""
            case Finished():
                self._finished = event
                return b""
            case Ended():
                return self._begin() + self._end()
            case Failed(code=code, message=message, status=status):
                kind = _STATUS_KINDS.get(status or 0, "api_error")
                return self.fail(WireError(status=status or 500, code=code, message=message, kind=kind))
            case _:
                return b""

    def whole(self, events: list[Event]) -> bytes:
        """The body of a whole response object."""
        reply = collect_reply(events)
        self._object.started = Started(reply.id, reply.model, reply.created)
        items = [self._object.item(part, place) for place, part in enumerate(reply.parts)]
        output = [item for item in items if item is not None]
        return encode_json(self._object.ended(Finished(reply.stop, reply.stop_detail), output, reply.usage))

    def fail(self, error: WireError) -> bytes:
        """``response.failed`` (which Codex reads), then the ``error`` event from which the SDK raises ``APIError``."""
        said = error_object(error)
        items = [self._item_so_far(item, "incomplete") for item in self._open.values()]
        output = [*self._output.values(), *items]
        failed = self._object.at("failed", output, self._usage) | {"error": said}
        return self._event("response.failed", response=failed) + self._event(
            "error", code=error.code, message=error.message, param=error.parameter, error=said
        )

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        body = {"type": kind, **fields, "sequence_number": self._sequence}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode_json(body))

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        begun = self._object.at("in_progress", [])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def _delta(self, event: PartDelta) -> bytes:
        item = self._open.get(event.index)
        if item is None or not event.text:
            return b""
        out = b""
        if item.kind == "reasoning" and not item.has_summary:
            item.has_summary = True
            part = {"type": "summary_text", "text": ""}
            out = self._item_event("response.reasoning_summary_part.added", item, summary_index=0, part=part)
        item.texts.append(event.text)
        number = self._sequence
        self._sequence += 1
        return b"".join((out, item.prefix, b'%d,"delta":' % number, encode_json(event.text), item.tail))

    def _item_event(self, kind: str, item: _OpenItem, /, **fields: Any) -> bytes:
        return self._event(kind, item_id=item.item_id, output_index=item.place, **fields)

    def _start(self, event: PartStarted) -> bytes:
        if event.kind == "opaque":
            return self._opaque(event.part)
        place = self._count
        self._count += 1
        part = event.part or _EMPTY[event.kind]
        known = part.id if isinstance(part, Reasoning) else None
        item = _OpenItem(event.kind, part, place, known or self._object.item_id(event.kind, place))
        self._open[event.index] = item
        begun = self._item_so_far(item, "in_progress")
        if event.kind in ("text", "refusal"):
            begun["content"] = []
        out = self._event("response.output_item.added", output_index=place, item=begun)
        if event.kind in ("text", "refusal"):
            out += self._item_event("response.content_part.added", item, content_index=0, part=_content(item, ""))
        first = _said(part)
        return out + (self._delta(PartDelta(event.index, first)) if first not in ("", "{}") else b"")

    def _opaque(self, part: Part | None) -> bytes:
        place = self._count
        written = self._object.item(part, place) if isinstance(part, Opaque) else None
        if written is None:
            return b""
        self._count += 1
        self._output[place] = written
        return self._event("response.output_item.added", output_index=place, item=written) + self._event(
            "response.output_item.done", output_index=place, item=written
        )

    def _end_part(self, event: PartEnded) -> bytes:
        item = self._open.pop(event.index, None)
        if item is None:
            return b""
        if isinstance(item.part, Reasoning):
            item.part = msgspec.structs.replace(
                item.part,
                signature=event.signature or item.part.signature,
                encrypted=event.encrypted or item.part.encrypted,
            )
        out = self._done_events(item)
        whole = self._output[item.place] = self._item_so_far(item, "completed")
        return out + self._event("response.output_item.done", output_index=item.place, item=whole)

    def _done_events(self, item: _OpenItem) -> bytes:
        text = "".join(item.texts)
        match item.kind:
            case "text":
                out = self._item_event("response.output_text.done", item, content_index=0, text=text, logprobs=[])
            case "refusal":
                out = self._item_event("response.refusal.done", item, content_index=0, refusal=text)
            case "tool_call":
                name = item.part.name if isinstance(item.part, ToolCall) else ""
                done = "response.function_call_arguments.done"
                return self._item_event(done, item, name=name, arguments=text or "{}")
            case _:
                if not item.has_summary:
                    return b""
                part = {"type": "summary_text", "text": text}
                return self._item_event(
                    "response.reasoning_summary_text.done", item, summary_index=0, text=text
                ) + self._item_event("response.reasoning_summary_part.done", item, summary_index=0, part=part)
        return out + self._item_event("response.content_part.done", item, content_index=0, part=_content(item, text))

    def _item_so_far(self, item: _OpenItem, status: str) -> dict[str, Any]:
        text = "".join(item.texts)
        match item.part:
            case ToolCall() as call:
                arguments = text if status == "in_progress" else text or "{}"
                part: Part = msgspec.structs.replace(call, arguments=arguments)
            case Reasoning() as thought:
                part = msgspec.structs.replace(thought, text=text)
            case Refusal():
                part = Refusal(text=text)
            case _:
                part = Text(text=text)
        return self._object.item(part, item.place, status) or {}

    def _end(self) -> bytes:
        out = b"".join([self._end_part(PartEnded(index)) for index in list(self._open)])
        output = [item for _, item in sorted(self._output.items())]
        ended = self._object.ended(self._finished or Finished(StopReason.END), output, self._usage)
        return out + self._event(f"response.{ended['status']}", response=ended)


def _said(part: Part) -> str:
    """What a part says from its start on."""
    match part:
        case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
            return text
        case ToolCall(arguments=arguments):
            return arguments
        case _:
            return ""


def _content(item: _OpenItem, text: str) -> dict[str, Any]:
    if item.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
