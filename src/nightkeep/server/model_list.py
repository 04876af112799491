"""``GET /v1/models`` and ``/v1beta/models``: the names that a client may ask for, in the form its SDK reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from nightkeep.core.errors import UnknownModelError
from nightkeep.models.wire.base import Wire
from nightkeep.server.http import Request

__all__ = ["ModelList"]

_SINCE = 1_735_689_600  # 2025-01-01: SDKs want a date; the gateway has none of its own for a model
_SINCE_TEXT = "2025-01-01T00:00:00Z"


class ModelList:
    """Lists names; which there are is asked anew each time, since a reload may change them."""

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self._names = names

    def wire_of(self, request: Request) -> Wire:
        """Whose SDK is asking. Google's asks at ``/v1/models`` as OpenAI's does, but shows its own key header."""
        headers = request.headers
        if request.target.startswith("/v1beta") or "x-goog-api-key" in headers or "x-goog-api-client" in headers:
            return Wire.GEMINI
        return Wire.ANTHROPIC_MESSAGES if "anthropic-version" in headers else Wire.OPENAI_CHAT

    def answer(self, request: Request, wire: Wire, may_see: Callable[[str], bool]) -> dict[str, Any]:
        """What the caller may see of the list, or one entry. Raises UnknownModelError: the name is not served to it."""
        wanted = unquote(request.target.split("/models", 1)[1].strip("/"))
        entry = _ENTRIES[wire]
        names = [name for name in self._names() if may_see(name)]
        if wanted:
            if wanted not in names:
                raise UnknownModelError(f"model {wanted!r} is not served here; GET /v1/models lists what is")
            return entry(wanted)
        entries = [entry(name) for name in names]
        if wire is Wire.GEMINI:
            return {"models": entries}
        if wire is Wire.ANTHROPIC_MESSAGES:
            ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
            return {"data": entries, "has_more": False, **ends}
        return {"object": "list", "data": entries}


def _openai(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _SINCE, "owned_by": name.partition("/")[0] or "nightkeep"}


def _anthropic(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": _SINCE_TEXT}


def _gemini(name: str) -> dict[str, Any]:
    methods = ["generateContent", "streamGenerateContent", "countTokens", "embedContent"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


_ENTRIES: dict[Wire, Callable[[str], dict[str, Any]]] = {
    Wire.OPENAI_CHAT: _openai,
    Wire.OPENAI_RESPONSES: _openai,
    Wire.ANTHROPIC_MESSAGES: _anthropic,
    Wire.GEMINI: _gemini,
}
