"""A request with anything wrong in it is refused by name or read: it never breaks a codec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.errors import RequestError
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Wire

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 10),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=2), st.just({})), max_size=2),
    st.dictionaries(st.text(max_size=2), st.one_of(st.none(), st.integers(), st.text(max_size=2)), max_size=2),
)
SEEDS: dict[Wire, dict[str, Any]] = {
    Wire.ANTHROPIC_MESSAGES: {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x", "citations": [{"a": 1}]},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                    {"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "aGk="}},
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "r"}]}],
            },
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u"},
    },
    Wire.GEMINI: {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "x"}, {"inlineData": {"mimeType": "text/plain", "data": "aGk="}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "QQ=="}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}}}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"}},
                            "propertyOrdering": ["a"],
                            "anyOf": [{"type": "STRING"}],
                        },
                    }
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "maxOutputTokens": 5,
            "stopSequences": ["x"],
            "thinkingConfig": {"thinkingBudget": 5, "thinkingLevel": "LOW"},
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "enum": ["a"]}}},
        },
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def with_junk(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The value with junk at one place."""
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_junk(value[path[0]], path[1:], junk)
    return copy


@pytest.mark.parametrize("wire", list(SEEDS))
@given(data=st.data())
def test_junk_at_any_place_is_refused_or_read(wire: Wire, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(SEEDS[wire])))
    body = msgspec.json.encode(with_junk(SEEDS[wire], path, data.draw(JUNK)))
    codec = CODECS[wire]
    try:
        head = codec.head(body, "m" if wire is Wire.GEMINI else None)
        request = codec.read_request(body, head)
    except RequestError:
        return
    for target in CODECS:
        try:
            CODECS[target].write_request(request, "some-model", wire)
        except RequestError:
            continue


@given(body=st.binary(max_size=40))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    for codec in CODECS.values():
        try:
            codec.read_request(body, codec.head(body, "m" if codec.wire is Wire.GEMINI else None))
        except RequestError:
            continue
    for codec in CODECS.values():
        codec.read_error(500, body)
        for read in (codec.decoder().feed, codec.decoder().whole):
            try:
                read(body)
            except ValueError:
                continue
