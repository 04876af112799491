"""From a path to what is asked for: all the vendors' paths, each also under ``/a/NAME``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

__all__ = ["Route", "find_route", "key_of"]


class Route(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a request goes."""

    provider: str = ""  # the NAME of /a/NAME
    wire: str
    operation: str = "chat"  # chat | embed | embed_batch | count_tokens | models
    model: str | None = None  # where the path names it
    stream: bool | None = None  # where the path says it
    framing: str = "sse"
    is_aws: bool = False


_PLAIN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"wire": "openai_chat"},
    "/v1/responses": {"wire": "openai_responses"},
    "/v1/embeddings": {"wire": "openai_chat", "operation": "embed"},
    "/v1/models": {"wire": "openai_chat", "operation": "models"},
    "/v1/messages": {"wire": "anthropic_messages"},
    "/v1/messages/count_tokens": {"wire": "anthropic_messages", "operation": "count_tokens"},
    "/v1beta/models": {"wire": "gemini", "operation": "models"},
}
_VERBS: dict[str, dict[str, Any]] = {
    "generateContent": {"wire": "gemini", "stream": False},
    "streamGenerateContent": {"wire": "gemini", "stream": True},
    "countTokens": {"wire": "gemini", "operation": "count_tokens"},
    "embedContent": {"wire": "gemini", "operation": "embed"},
    "batchEmbedContents": {"wire": "gemini", "operation": "embed_batch"},
    "rawPredict": {"wire": "anthropic_messages"},
    "streamRawPredict": {"wire": "anthropic_messages"},
}
_CACHE: dict[tuple[str, str], Route | None] = {}


def find_route(path: str, query: str) -> Route | None:
    """Find the route of a path; None where no vendor has one."""
    key = (path, query)
    if key in _CACHE:
        return _CACHE[key]
    route = _find(path, query)
    if len(_CACHE) < 4096:
        _CACHE[key] = route
    return route


def _find(path: str, query: str) -> Route | None:
    provider = ""
    if path.startswith("/a/"):
        _, _, provider, *rest = path.split("/", 3)
        path = "/" + "/".join(rest)
    # OpenAI-compatible vendors put their version elsewhere: /api/v1, /openai/v1, /inference/v1, /v1beta/openai
    for prefix in ("/openai/v1", "/api/v1", "/inference/v1", "/v1beta/openai"):
        if path.startswith(prefix + "/"):
            path = "/v1" + path[len(prefix) :]
    plain = _PLAIN.get(path)
    if plain is None and f"/v1{path}" in _PLAIN:
        plain = _PLAIN[f"/v1{path}"]
    found = dict(plain) if plain is not None else _by_pattern(path)
    if found is None:
        return None
    if found["wire"] == "gemini" and found.get("stream") and "alt=sse" not in query:
        found["framing"] = "array"
    return Route(provider=provider, **found)


def _by_pattern(path: str) -> dict[str, Any] | None:
    match path.strip("/").split("/"):
        case ["openai", "deployments", deployment, "chat", "completions"]:
            return {"wire": "openai_chat", "model": unquote(deployment)}
        case ["openai", "deployments", deployment, "embeddings"]:
            return {"wire": "openai_chat", "operation": "embed", "model": unquote(deployment)}
        case ["model", model, "invoke"]:
            return {"wire": "anthropic_messages", "model": unquote(model), "stream": False, "is_aws": True}
        case ["model", model, "invoke-with-response-stream"]:
            named = {"wire": "anthropic_messages", "model": unquote(model), "is_aws": True}
            return {**named, "stream": True, "framing": "aws"}
        case ["v1beta" | "v1", "models", named] if ":" in named:
            return _verb(named)
        case ["v1" | "v1beta1", "projects", _, "locations", _, "publishers", "google" | "anthropic", "models", named]:
            return _verb(named)
        case ["v1" | "v1beta1", "publishers", "google" | "anthropic", "models", named]:
            return _verb(named)
    return None


def _verb(named: str) -> dict[str, Any] | None:
    model, _, verb = unquote(named).rpartition(":")
    found = _VERBS.get(verb)
    return {**found, "model": model} if found is not None else None


def key_of(headers: dict[str, str], query: str) -> str:
    """The key a request carries, wherever its vendor puts it; empty where there is none."""
    bearer = headers.get("authorization", "")
    if bearer.startswith("AWS4-HMAC-SHA256 "):
        return bearer.partition("Credential=")[2].partition("/")[0]
    for name in ("x-api-key", "x-goog-api-key", "api-key"):
        if name in headers:
            return headers[name]
    if bearer[:7].lower() == "bearer ":
        return bearer[7:]
    return parse_qs(query).get("key", [""])[0] if "key=" in query else ""
