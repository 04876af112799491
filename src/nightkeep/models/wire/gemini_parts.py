"""Gemini's content parts, read and written; the request around them is ``gemini_request`` and ``gemini_write``.

Function calls have no id on this wire (newer models give one): reading makes ids that are stable within a
conversation, writing matches results to calls by id and gives the name that Gemini wants.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from typing import Any, Literal

from nightkeep.core.errors import RequestError
from nightkeep.core.messages import Media, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.shape import Fields, json_object_text

__all__ = ["MADE_ID", "CallIds", "media_kind", "pack_signature", "read_part", "unpack_signature"]

Foreign = dict[str, Any]

MADE_ID = "call_gemini_"
"""What ids begin with that we made because the wire gave none; they are not sent back."""

_TAGGED = "bmlnaHRrZWVwL"  # how base64 of "nightkeep." begins
_OWN_FILES = ("gs://", "files/", "https://generativelanguage.googleapis.com/")


class CallIds:
    """Ids of the function calls of one conversation, in order, and which of them were answered."""

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[str, str] = {}

    def call(self, given: str | None, name: str) -> str:
        """The id of the next call."""
        call_id = given or f"{MADE_ID}{self._count}"
        self._count += 1
        self._open[call_id] = name
        return call_id

    def answer(self, given: str | None, name: str) -> str:
        """The id of the call that a response answers: its own, else the oldest open call of that name."""
        call_id = given or next((key for key, value in self._open.items() if value == name), f"{MADE_ID}{name}")
        self._open.pop(call_id, None)
        return call_id


def unpack_signature(signature: str | None) -> str | None:
    """A ``thoughtSignature`` as it came, or another vendor's signature that we packed into one."""
    if signature and signature.startswith(_TAGGED):
        try:
            return base64.b64decode(_standard_base64(signature)).decode()
        except (binascii.Error, UnicodeDecodeError):
            return signature
    return signature or None


def pack_signature(tagged: str) -> str:
    """Another vendor's tagged signature as base64, the only form that ``thoughtSignature`` takes."""
    return base64.b64encode(tagged.encode()).decode()


def media_kind(media_type: str | None) -> Literal["image", "document", "audio", "video"]:
    """What a MIME type is; everything but images, audio and video is a document."""
    match (media_type or "").partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
        case _:
            return "document"


def read_part(item: Any, path: str, foreign: Foreign, ids: CallIds) -> list[Part]:
    """One part of a request's turn; a signed text is the text and the signature beside it."""
    part = Fields(item, path)
    is_thought, signature = bool(part.flag("thought")), unpack_signature(part.text("thoughtSignature"))
    text = part.text("text")
    parts: list[Part] = []
    if text is not None:
        parts = _read_text(text, is_thought, signature)
    elif (blob := part.inner("inlineData")) is not None:
        media_type = blob.text("mimeType")
        data, name = _standard_base64(blob.required_text("data")), blob.text("displayName")
        parts = [Media(kind=media_kind(media_type), media_type=media_type, data=data, name=name)]
        blob.collect_rest(foreign)
    elif (file := part.inner("fileData")) is not None:
        parts = [_read_file(file)]
        file.collect_rest(foreign)
    elif (call := part.inner("functionCall")) is not None:
        parts = [_read_call(call, signature, ids)]
        call.collect_rest(foreign)
    elif (response := part.inner("functionResponse")) is not None:
        parts = [_read_response(response, foreign, ids)]
        response.collect_rest(foreign)
    else:
        kind = next((name for name in item if name not in _BESIDE), "part")
        return [Opaque(wire=Wire.GEMINI, kind=kind, raw=item)]
    part.collect_rest(foreign)
    return parts


_BESIDE = ("thought", "thoughtSignature", "thought_signature", "videoMetadata", "partMetadata", "mediaResolution")


def _read_text(text: str, is_thought: bool, signature: str | None) -> list[Part]:
    if is_thought:
        return [Reasoning(text=text, signature=signature)]
    if signature is None:
        return [Text(text=text)]
    return [*([Text(text=text)] if text else []), Reasoning(signature=signature)]


def _read_file(file: Fields) -> Media:
    uri, media_type, name = file.required_text("fileUri"), file.text("mimeType"), file.text("displayName")
    kind = media_kind(media_type or mimetypes.guess_type(uri)[0])
    if uri.startswith(_OWN_FILES):
        return Media(kind=kind, media_type=media_type, file_id=uri, name=name)
    return Media(kind=kind, media_type=media_type, url=uri, name=name)


def _read_call(call: Fields, signature: str | None, ids: CallIds) -> ToolCall:
    name = call.required_text("name")
    arguments = json_object_text(call.object("args") or {})
    return ToolCall(id=ids.call(call.text("id"), name), name=name, arguments=arguments, signature=signature)


def _read_response(response: Fields, foreign: Foreign, ids: CallIds) -> ToolResult:
    name = response.required_text("name")
    call_id = ids.answer(response.text("id"), name)
    content: list[Text | Media] = []
    answer = response.object("response") or {}
    is_error = answer.keys() == {"error"}
    if answer.keys() in ({"output"}, {"error"}):
        value = next(iter(answer.values()))
        content.append(Text(text=value if isinstance(value, str) else json_object_text(value)))
    elif answer:
        content.append(Text(text=json_object_text(answer)))
    for index, item in enumerate(response.array("parts")):
        for part in read_part(item, f"{response.at('parts')}.{index}", foreign, ids):
            if not isinstance(part, Text | Media):
                raise RequestError(f"{response.at('parts')}.{index}: expected inlineData or fileData")
            content.append(part)
    return ToolResult(call_id=call_id, name=name, content=tuple(content), is_error=is_error)


def _standard_base64(data: str) -> str:
    """Google's SDK writes the URL-safe alphabet; everybody else wants the standard one."""
    return data.replace("-", "+").replace("_", "/") if "-" in data or "_" in data else data
