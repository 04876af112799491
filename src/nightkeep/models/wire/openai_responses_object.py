"""The response object of OpenAI Responses, and the output items in it, from neutral values.

The object repeats the request's settings, because SDKs read them there. The events that carry it are
``openai_responses_encoder``. Shapes: ``openai.types.responses.response``, ``response_output_item``.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.events import Finished, Started
from nightkeep.core.messages import (
    ChatRequest,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_responses_input import SIGNATURE_MARK
from nightkeep.models.wire.openai_responses_write import echo_settings
from nightkeep.models.wire.openai_usage import responses_usage
from nightkeep.models.wire.signatures import tag_signature

__all__ = ["ResponseObject"]

_INCOMPLETE = {
    StopReason.MAX_TOKENS: "max_output_tokens",
    StopReason.CONTEXT_FULL: "max_output_tokens",
    StopReason.REFUSAL: "content_filter",
}
_PREFIXES = {"text": "msg", "refusal": "msg", "reasoning": "rs", "tool_call": "fc", "opaque": "item"}


class ResponseObject:
    """Makes the object at any moment of one reply, and the items that stand in it."""

    def __init__(self, model: str, request: ChatRequest | None) -> None:
        self._model = model
        self._settings = echo_settings(request)
        self.started = Started("", model)

    @property
    def id(self) -> str:
        """The response's id, in this wire's form."""
        said = self.started.id or "nightkeep"
        return said if said.startswith("resp") else f"resp_{said}"

    def item_id(self, kind: str, place: int) -> str:
        """The id of the item at a place in the output."""
        return f"{_PREFIXES[kind]}_{self.id.removeprefix('resp_')}_{place}"

    def at(self, status: str, output: list[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        """The object with a status and what has been said so far."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.started.created or 0,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": output,
            **self._settings,
            "usage": None if usage is None else responses_usage(usage),
        }

    def ended(self, finished: Finished, output: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        """The object at its end: completed, or incomplete with the reason."""
        has_refused = any(part.get("type") == "refusal" for item in output for part in item.get("content") or ())
        reason = _INCOMPLETE.get(finished.stop)
        if reason is None or (finished.stop is StopReason.REFUSAL and has_refused):
            return self.at("completed", output, usage)
        return self.at("incomplete", output, usage) | {"incomplete_details": {"reason": reason}}

    def item(self, part: Part, place: int, status: str = "completed") -> dict[str, Any] | None:
        """A part as an output item; None for what only another wire can say."""
        match part:
            case Text(text=text):
                content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                return self._message("text", place, status, [content])
            case Refusal(text=text):
                return self._message("refusal", place, status, [{"type": "refusal", "refusal": text}])
            case Reasoning():
                return self._reasoning(part, place)
            case ToolCall():
                item = {"id": self.item_id("tool_call", place), "type": "function_call", "status": status}
                return item | {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            case Opaque(wire=Wire.OPENAI_RESPONSES):
                return part.raw
            case _:
                return None

    def _message(self, kind: str, place: int, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        item = {"id": self.item_id(kind, place), "type": "message", "status": status, "role": "assistant"}
        return item | {"content": content}

    def _reasoning(self, part: Reasoning, place: int) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        item: dict[str, Any] = {"id": part.id or self.item_id("reasoning", place), "type": "reasoning"}
        item["summary"] = summary
        origin = Wire.GEMINI if "gemini" in self.started.model else Wire.ANTHROPIC_MESSAGES
        if part.encrypted:
            item["encrypted_content"] = tag_signature(origin, part.encrypted)
        elif part.signature:
            item["encrypted_content"] = SIGNATURE_MARK + tag_signature(origin, part.signature)
        return item
