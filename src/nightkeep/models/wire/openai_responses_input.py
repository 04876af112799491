"""The ``input`` items of a Responses request, read into neutral messages.

Items that follow each other and belong to one speaker become one turn: thoughts, text and calls of the assistant;
answers of tools. Items that only this wire knows stay ``Opaque``. A thought that another vendor signed comes back
here in ``encrypted_content``, tagged (``signatures``). Shapes: ``openai.types.responses.response_input_item_param``.
"""

from __future__ import annotations

from typing import Any, Literal

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Media, Message, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_media import audio_media, file_media, url_media
from nightkeep.models.wire.shape import Fields

__all__ = ["SIGNATURE_MARK", "read_input"]

Foreign = dict[str, Any]
Role = Literal["user", "assistant", "system"]
SIGNATURE_MARK = "signature:"
"""Before a tagged value in ``encrypted_content``: it is a thought's signature, not the thought itself."""


def read_input(fields: Fields, foreign: Foreign) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The system text before the first turn, and the turns. Raises RequestError where a shape is wrong."""
    value = fields.take("input")
    if isinstance(value, str):
        return (), (Message(role="user", parts=(Text(text=value),)),)
    if value is not None and not isinstance(value, list):
        raise RequestError("input: expected a string or an array of items", parameter="input")
    reader = _Reader(foreign)
    for index, item in enumerate(value or ()):
        reader.read(item, f"input.{index}")
    return tuple(reader.system), tuple(reader.messages)


class _Reader:
    """Reads item after item, and joins what belongs to one turn."""

    def __init__(self, foreign: Foreign) -> None:
        self.system: list[Text] = []
        self.messages: list[Message] = []
        self._foreign = foreign
        self._names: dict[str, str] = {}

    def read(self, item: Any, path: str) -> None:
        fields = Fields(item, path)
        kind = fields.text("type") or ("message" if "role" in item else "")
        match kind:
            case "message":
                self._read_message(fields)
            case "function_call":
                self._join("assistant", self._call(fields))
            case "function_call_output":
                self._join("user", self._result(fields))
            case "reasoning":
                self._join("assistant", _thought(fields))
            case "":
                raise RequestError(f"{fields.at('type')}: this field is required", parameter=fields.at("type"))
            case _:
                role: Role = "user" if kind.endswith(("_output", "_response")) else "assistant"
                self._join(role, Opaque(wire=Wire.OPENAI_RESPONSES, kind=kind, raw=item))
                return
        for name in ("id", "status"):  # the vendor's own book-keeping
            fields.take(name)
        fields.collect_rest(self._foreign)

    def _join(self, role: Role, part: Part) -> None:
        """Add a part to the speaker's turn; a user's own words are never joined with answers of tools."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == role and (role == "assistant" or _is_answers(last)):
            self.messages[-1] = Message(role=role, parts=(*last.parts, part))
        else:
            self.messages.append(Message(role=role, parts=(part,)))

    def _read_message(self, fields: Fields) -> None:
        role = fields.required_text("role")
        parts = self._content(fields.take("content"), fields.at("content"))
        match role:
            case "user":
                self.messages.append(Message(role="user", parts=tuple(parts)))
            case "assistant":
                for part in parts:
                    self._join("assistant", part)
            case "system" | "developer":
                texts = tuple(part for part in parts if isinstance(part, Text))
                if len(texts) != len(parts):
                    raise RequestError(f"{fields.at('content')}: expected text only", parameter=fields.at("content"))
                if self.messages:
                    self.messages.append(Message(role="system", parts=texts))
                else:
                    self.system += texts
            case _:
                raise RequestError(
                    f"{fields.at('role')}: expected user, assistant, system or developer, got {role!r}",
                    parameter=fields.at("role"),
                )

    def _call(self, fields: Fields) -> ToolCall:
        call_id, name = fields.required_text("call_id"), fields.required_text("name")
        self._names[call_id] = name
        return ToolCall(id=call_id, name=name, arguments=fields.text("arguments") or "{}")

    def _result(self, fields: Fields) -> ToolResult:
        call_id, path = fields.required_text("call_id"), fields.at("output")
        output = self._content(fields.take("output"), path)
        content = tuple(part for part in output if isinstance(part, Text | Media))
        if len(content) != len(output):
            raise RequestError(f"{path}: expected text, images or files", parameter=path)
        if len(content) == 1 and isinstance(content[0], Text) and not content[0].text:
            content = ()
        return ToolResult(call_id=call_id, name=self._names.get(call_id), content=content)

    def _content(self, value: Any, path: str) -> list[Part]:
        if isinstance(value, str):
            return [Text(text=value)]
        if not isinstance(value, list):
            raise RequestError(f"{path}: expected a string or an array of parts", parameter=path)
        return [self._part(item, f"{path}.{index}") for index, item in enumerate(value)]

    def _part(self, item: Any, path: str) -> Part:
        fields = Fields(item, path)
        kind = fields.required_text("type")
        part: Part
        match kind:
            case "input_text" | "output_text" | "text" | "summary_text":
                part = _text(fields)
            case "refusal":
                part = Refusal(text=fields.required_text("refusal"))
            case "input_image":
                part = _image(fields)
            case "input_file":
                part = file_media(fields, None)
            case "input_audio":
                inner = fields.inner("input_audio")
                if inner is None:
                    raise RequestError(f"{path}.input_audio: this field is required", parameter=path)
                part = audio_media(inner)
            case _:
                return Opaque(wire=Wire.OPENAI_RESPONSES, kind=kind, raw=item)
        fields.collect_rest(self._foreign)
        return part


def _text(fields: Fields) -> Text:
    citations = tuple(item for item in fields.array("annotations") if isinstance(item, dict))
    fields.take("logprobs")
    return Text(text=fields.required_text("text"), citations=citations)


def _is_answers(message: Message) -> bool:
    return all(isinstance(part, ToolResult | Opaque) for part in message.parts)


def _image(fields: Fields) -> Media:
    url, file_id, detail = fields.text("image_url"), fields.text("file_id"), fields.text("detail")
    if url is not None:
        return url_media("image", url, fields.at("image_url"), detail=detail)
    if file_id is None:
        raise RequestError(f"{fields.path}: expected image_url or file_id", parameter=fields.path)
    return Media(kind="image", file_id=file_id, detail=detail)


def _thought(fields: Fields) -> Reasoning:
    pieces = fields.array("summary") or fields.array("content")
    texts = [str(piece.get("text") or "") for piece in pieces if isinstance(piece, dict)]
    fields.take("content")
    encrypted = fields.text("encrypted_content") or None
    signature: str | None = None
    if encrypted is not None and encrypted.startswith(SIGNATURE_MARK):
        signature, encrypted = encrypted.removeprefix(SIGNATURE_MARK), None
    return Reasoning(text="\n\n".join(texts), id=fields.text("id"), encrypted=encrypted, signature=signature)
