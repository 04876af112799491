"""Providers: what must be known of a vendor to reach it. A vendor that speaks a known wire is one data row.

Here is the shape of a row and how one is made for a vendor that is not built in; the rows themselves are in
``nightkeep.models.providers``, the making of a request from a row and an account in
``nightkeep.models.upstream``, and what the wires mean in ``nightkeep.models.wire``.
"""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from nightkeep.models.wire.base import Operation, Wire

__all__ = [
    "ANTHROPIC_VERSION",
    "CHAT_PATHS",
    "GEMINI_PATHS",
    "MESSAGES_PATHS",
    "RESPONSES_PATHS",
    "AuthStyle",
    "Endpoint",
    "KeyShape",
    "ProviderSpec",
    "custom_provider",
    "standard_endpoint",
]


class AuthStyle(StrEnum):
    """How a request shows who pays for it."""

    BEARER = "bearer"  # authorization: Bearer KEY
    X_API_KEY = "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    API_KEY = "api-key"  # Azure
    SIGV4 = "sigv4"  # AWS signature, or its bearer token
    GOOGLE_OAUTH = "google_oauth"  # authorization: Bearer ACCESS-TOKEN, exchanged for a service account
    NONE = "none"


class KeyShape(msgspec.Struct, frozen=True, kw_only=True):
    """How a vendor's keys look, so that a wrong one is named before it is sent."""

    pattern: str  # of the whole key
    description: str  # the same for people
    prefixes: tuple[str, ...] = ()  # those that are this vendor's own
    least_length: int = 20
    whole: tuple[tuple[str, int], ...] = ()  # (prefix, length of every key that begins so) where that is fixed

    def missing(self, key: str) -> int:
        """How many characters a key is short of; 0 when it is whole, or nothing is known."""
        length = next((length for prefix, length in self.whole if key.startswith(prefix)), self.least_length)
        return max(0, length - len(key))

    def matches(self, key: str) -> bool:
        """Tell whether a key could be one."""
        return re.fullmatch(self.pattern, key) is not None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One wire that a vendor speaks and where.

    ``chat``, ``stream``, ``embed`` and ``count`` are paths below the base URL; ``{model}``, ``{project}``
    and ``{location}`` are filled in. An empty path means: not offered.
    """

    wire: Wire
    chat: str = ""
    stream: str = ""  # where it differs from ``chat``
    embed: str = ""
    count: str = ""
    models: str = ""  # lists the models; the cheapest request there is
    base_url: str | None = None  # where this wire has a base of its own (DeepSeek, Gemini's OpenAI door)
    auth: AuthStyle | None = None  # where it differs from the provider's
    body_version: str = ""  # ``anthropic_version`` goes into the body and ``model`` leaves it (Vertex, Bedrock)
    is_event_stream: bool = False  # streams are AWS event-stream frames, not server-sent events

    def path(self, operation: Operation, *, stream: bool) -> str:
        """The path template of an operation; empty where the vendor does not offer it on this wire."""
        if operation is Operation.CHAT:
            return (self.stream or self.chat) if stream else self.chat
        return self.embed if operation is Operation.EMBED else self.count


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor as data."""

    id: str
    title: str
    base_url: str  # of the first endpoint; ``{region}``, ``{location}``, ``{endpoint}`` are filled in
    endpoints: tuple[Endpoint, ...]  # the first is the vendor's own wire
    auth: AuthStyle = AuthStyle.BEARER
    headers: tuple[tuple[str, str], ...] = ()
    key_env: tuple[str, ...] = ()  # the first that is set is taken
    base_url_env: tuple[str, ...] = ()  # where the vendor's base URL is the customer's own
    key_shape: KeyShape | None = None
    model_wires: tuple[tuple[str, Wire], ...] = ()  # (how a model's name begins, its wire) where one vendor hosts many
    unsupported: tuple[str, ...] = ()  # request fields on its first wire that it refuses; dropped and reported
    renamed: tuple[tuple[str, str], ...] = ()  # (field of its first wire, what it calls that)
    settings: tuple[str, ...] = ()  # account settings that must be given: region, project, location, base_url
    is_local: bool = False  # runs on the operator's machine: no key, no price
    is_free: bool = False
    docs_url: str = ""

    @property
    def needs_key(self) -> bool:
        """An account without a key is useless here."""
        return self.auth is not AuthStyle.NONE and not self.is_local

    @property
    def wires(self) -> tuple[Wire, ...]:
        """The wires it speaks, its own first."""
        return tuple(endpoint.wire for endpoint in self.endpoints)

    def endpoint(self, wire: Wire) -> Endpoint | None:
        """Where it speaks a wire; None where it does not."""
        return next((endpoint for endpoint in self.endpoints if endpoint.wire is wire), None)

    def wire_for(self, model: str, operation: Operation, client_wire: Wire) -> Wire | None:
        """The wire to ask for a model on: the client's own where it is offered (nothing to translate), else the
        first that offers the operation; None where none does."""
        forced = next((wire for prefix, wire in self.model_wires if model.startswith(prefix)), None)
        wires = (forced,) if forced is not None else (client_wire, *self.wires)
        for wire in wires:
            endpoint = self.endpoint(wire)
            if endpoint is not None and endpoint.path(operation, stream=False):
                return wire
        return None


CHAT_PATHS: Final = MappingProxyType({"chat": "/chat/completions", "embed": "/embeddings", "models": "/models"})
RESPONSES_PATHS: Final = MappingProxyType({"chat": "/responses", "models": "/models"})
MESSAGES_PATHS: Final = MappingProxyType(
    {"chat": "/v1/messages", "count": "/v1/messages/count_tokens", "models": "/v1/models"}
)
GEMINI_PATHS: Final = MappingProxyType(
    {
        "chat": "/v1beta/models/{model}:generateContent",
        "stream": "/v1beta/models/{model}:streamGenerateContent?alt=sse",
        "embed": "/v1beta/models/{model}:batchEmbedContents",
        "count": "/v1beta/models/{model}:countTokens",
        "models": "/v1beta/models?pageSize=1000",
    }
)
_PATHS: Final = MappingProxyType(
    {
        Wire.OPENAI_CHAT: CHAT_PATHS,
        Wire.OPENAI_RESPONSES: RESPONSES_PATHS,
        Wire.ANTHROPIC_MESSAGES: MESSAGES_PATHS,
        Wire.GEMINI: GEMINI_PATHS,
    }
)
_AUTH: Final = MappingProxyType({Wire.ANTHROPIC_MESSAGES: AuthStyle.X_API_KEY, Wire.GEMINI: AuthStyle.X_GOOG_API_KEY})
ANTHROPIC_VERSION: Final = ("anthropic-version", "2023-06-01")


def standard_endpoint(wire: Wire, *, base_url: str | None = None, auth: AuthStyle | None = None) -> Endpoint:
    """The endpoint of a wire with the paths of its inventor."""
    paths = _PATHS[wire]
    return Endpoint(
        wire=wire,
        base_url=base_url,
        auth=auth,
        chat=paths["chat"],
        stream=paths.get("stream", ""),
        embed=paths.get("embed", ""),
        count=paths.get("count", ""),
        models=paths["models"],
    )


def custom_provider(
    name: str,
    wire: Wire,
    base_url: str,
    *,
    auth: AuthStyle | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    more_wires: tuple[Wire, ...] = (),
    is_free: bool = False,
) -> ProviderSpec:
    """A vendor that is not built in, from its wire and base URL (``[providers.NAME]``)."""
    wires = (wire, *(other for other in more_wires if other is not wire))
    version = (ANTHROPIC_VERSION,) if Wire.ANTHROPIC_MESSAGES in wires else ()
    return ProviderSpec(
        id=name,
        title=name,
        base_url=base_url,
        endpoints=tuple(standard_endpoint(each) for each in wires),
        auth=auth or _AUTH.get(wire, AuthStyle.BEARER),
        headers=version + headers,
        is_free=is_free,
    )
