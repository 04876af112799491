"""Every wire's request and reply on every other: nothing foreign leaks, what is stripped is told, meaning stays."""

from __future__ import annotations

import base64
from itertools import permutations
from typing import Any

import msgspec
import pytest

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.events import Event, PartEnded, Unknown, collect_reply, replay_reply
from nightkeep.core.messages import (
    ChatRequest,
    Media,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Head, Wire, Written
from nightkeep.models.wire.sse import FrameReader

PAIRS = [pytest.param(a, b, id=f"{a}-to-{b}") for a, b in permutations(CODECS, 2)]
MODELS = {
    Wire.OPENAI_CHAT: "gpt-5.2",
    Wire.OPENAI_RESPONSES: "gpt-5.2",
    Wire.ANTHROPIC_MESSAGES: "claude-sonnet-4-5",
    Wire.GEMINI: "gemini-2.5-pro",
}
PNG = base64.b64encode(b"\x89PNG an image").decode()
PDF = base64.b64encode(b"%PDF a document").decode()
TOOL_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"warmer": {"type": "string"}},
    "required": ["warmer"],
    "additionalProperties": False,
}
CALLS = (("call_1", '{"city":"Oslo"}', "3 degrees"), ("call_2", '{"city":"Bergen"}', "no such city"))

OPENAI_CHAT: dict[str, Any] = {
    "model": "smart",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Which is warmer?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
                for call_id, arguments, _ in CALLS
            ],
        },
        *({"role": "tool", "tool_call_id": call_id, "content": answer} for call_id, _, answer in CALLS),
    ],
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "It says.", "parameters": TOOL_SCHEMA}}
    ],
    "tool_choice": "auto",
    "max_completion_tokens": 9000,
    "stop": ["END"],
    "reasoning_effort": "low",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": ANSWER_SCHEMA, "strict": True},
    },
    "stream": True,
    "stream_options": {"include_usage": True},
    "store": True,
    "prediction": {"type": "content", "content": "x"},
    "logit_bias": {"5": 1},
    "made_up_by_us": {"a": 1},
}
OPENAI_RESPONSES: dict[str, Any] = {
    "model": "smart",
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Which is warmer?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        *(
            {"type": "function_call", "call_id": call_id, "name": "weather", "arguments": arguments}
            for call_id, arguments, _ in CALLS
        ),
        *({"type": "function_call_output", "call_id": call_id, "output": answer} for call_id, _, answer in CALLS),
    ],
    "tools": [{"type": "function", "name": "weather", "description": "It says.", "parameters": TOOL_SCHEMA}],
    "tool_choice": "auto",
    "max_output_tokens": 9000,
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": ANSWER_SCHEMA, "strict": True}},
    "stream": True,
    "store": False,
    "truncation": "auto",
    "made_up_by_us": {"a": 1},
}
ANTHROPIC: dict[str, Any] = {
    "model": "smart",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Which is warmer?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                    "cache_control": {"type": "ephemeral"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two cities.", "signature": "signed-by-anthropic"},
                {"type": "redacted_thinking", "data": "sealed-by-anthropic"},
                {"type": "text", "text": "I look."},
                *(
                    {"type": "tool_use", "id": call_id, "name": "weather", "input": msgspec.json.decode(arguments)}
                    for call_id, arguments, _ in CALLS
                ),
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call_id, "content": answer, "is_error": call_id == "call_2"}
                for call_id, _, answer in CALLS
            ],
        },
    ],
    "tools": [{"name": "weather", "description": "It says.", "input_schema": TOOL_SCHEMA}],
    "tool_choice": {"type": "auto"},
    "max_tokens": 9000,
    "stop_sequences": ["END"],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": ANSWER_SCHEMA}},
    "stream": True,
    "context_management": {"edits": []},
    "made_up_by_us": {"a": 1},
}
GEMINI: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Which is warmer?"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"inline_data": {"mime_type": "application/pdf", "data": PDF}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Two cities.", "thought": True, "thoughtSignature": "U0lHTkVE"},
                {"text": "I look."},
                *(
                    {"functionCall": {"id": call_id, "name": "weather", "args": msgspec.json.decode(arguments)}}
                    for call_id, arguments, _ in CALLS
                ),
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": call_id, "name": "weather", "response": {key: answer}}}
                for (call_id, _, answer), key in zip(CALLS, ("output", "error"), strict=True)
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "weather",
                    "description": "It says.",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"city": {"type": "STRING"}},
                        "required": ["city"],
                    },
                }
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
    "generationConfig": {
        "maxOutputTokens": 9000,
        "stopSequences": ["END"],
        "thinkingConfig": {"thinkingBudget": 1024},
        "responseMimeType": "application/json",
        "responseJsonSchema": ANSWER_SCHEMA,
        "responseModalities": ["TEXT"],
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "made_up_by_us": {"a": 1},
}
BODIES = {
    Wire.OPENAI_CHAT: OPENAI_CHAT,
    Wire.OPENAI_RESPONSES: OPENAI_RESPONSES,
    Wire.ANTHROPIC_MESSAGES: ANTHROPIC,
    Wire.GEMINI: GEMINI,
}
FOREIGN = {
    Wire.OPENAI_CHAT: {"store", "prediction", "logit_bias", "made_up_by_us"},
    Wire.OPENAI_RESPONSES: {"truncation", "made_up_by_us"},
    Wire.ANTHROPIC_MESSAGES: {"context_management", "made_up_by_us"},
    Wire.GEMINI: {"safetySettings", "generationConfig.responseModalities", "made_up_by_us"},
}
KNOWN = {
    Wire.OPENAI_CHAT: {
        *("model", "messages", "tools", "tool_choice", "max_completion_tokens", "max_tokens", "stop"),
        *("reasoning_effort", "response_format", "stream", "stream_options", "parallel_tool_calls"),
    },
    Wire.OPENAI_RESPONSES: {
        *("model", "instructions", "input", "tools", "tool_choice", "max_output_tokens", "reasoning", "text"),
        *("stream", "store", "include", "parallel_tool_calls"),
    },
    Wire.ANTHROPIC_MESSAGES: {
        *("model", "system", "messages", "tools", "tool_choice", "max_tokens", "stop_sequences", "thinking"),
        *("output_config", "stream"),
    },
    Wire.GEMINI: {"systemInstruction", "contents", "tools", "toolConfig", "generationConfig"},
}
KNOWN_IN_GENERATION_CONFIG = {
    *("maxOutputTokens", "stopSequences", "thinkingConfig", "responseMimeType", "responseJsonSchema"),
    "responseSchema",
}


def read(wire: Wire, body: bytes) -> ChatRequest:
    codec = CODECS[wire]
    head = codec.head(body, "smart" if wire is Wire.GEMINI else None, stream=True if wire is Wire.GEMINI else None)
    return codec.read_request(body, head)


def translate(source: Wire, target: Wire) -> Written:
    request = read(source, msgspec.json.encode(BODIES[source]))
    return CODECS[target].write_request(request, MODELS[target], source)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_translated_request_holds_only_what_the_target_knows(source: Wire, target: Wire) -> None:
    body = msgspec.json.decode(translate(source, target).body)
    assert body.keys() <= KNOWN[target]
    assert body.get("generationConfig", {}).keys() <= KNOWN_IN_GENERATION_CONFIG
    if target is not Wire.GEMINI:
        assert body["model"] == MODELS[target]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_foreign_parameter_is_reported(source: Wire, target: Wire) -> None:
    stripped = {item.name: item.reason for item in translate(source, target).stripped}
    openai = {Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES}
    expected = FOREIGN[source] - ({"store"} if {source, target} == openai else set())
    assert expected <= stripped.keys()
    assert all(stripped.values())
    if source is Wire.ANTHROPIC_MESSAGES:
        assert "cache_control" in stripped


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_meaning_of_a_request_survives_translation(source: Wire, target: Wire) -> None:
    before = read(source, msgspec.json.encode(BODIES[source]))
    after = read(target, translate(source, target).body)
    assert "".join(text.text for text in after.system) == "Be brief."
    assert texts(after) == texts(before) == ["Which is warmer?", "I look."]
    assert media(after) == media(before) == [("image", "image/png", PNG), ("document", "application/pdf", PDF)]
    assert calls(after) == calls(before)
    assert results(after) == results(before)
    assert [(tool.name, tool.description, tool.schema) for tool in after.tools] == [
        ("weather", "It says.", TOOL_SCHEMA)
    ]
    assert after.tool_choice is not None and after.tool_choice.mode == "auto"
    assert after.max_output_tokens == 9000
    assert after.stream is True
    assert after.output_format is not None and after.output_format.schema == ANSWER_SCHEMA
    if target is not Wire.OPENAI_RESPONSES and source is not Wire.OPENAI_RESPONSES:
        assert after.stop == ("END",)


def texts(request: ChatRequest) -> list[str]:
    return [part.text for message in request.messages for part in message.parts if isinstance(part, Text)]


def media(request: ChatRequest) -> list[tuple[str, str | None, str | None]]:
    parts = [part for message in request.messages for part in message.parts if isinstance(part, Media)]
    return [(part.kind, part.media_type, part.data) for part in parts]


def calls(request: ChatRequest) -> list[tuple[str, Any]]:
    parts = [part for message in request.messages for part in message.parts if isinstance(part, ToolCall)]
    return [(part.name, msgspec.json.decode(part.arguments)) for part in parts]


def results(request: ChatRequest) -> list[tuple[int, str]]:
    """Each result by the number of the call that it answers: ids may differ, pairs may not."""
    parts = [part for message in request.messages for part in message.parts]
    order = [part.id for part in parts if isinstance(part, ToolCall)]
    found = []
    for part in parts:
        if isinstance(part, ToolResult):
            said = "".join(item.text for item in part.content if isinstance(item, Text))
            found.append((order.index(part.call_id), said.removeprefix("Error: ").removeprefix("[error] ")))
    return found


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_reasoning_that_the_target_did_not_sign_is_never_sent(source: Wire, target: Wire) -> None:
    written = translate(source, target)
    assert b"signed-by-anthropic" not in written.body and b"sealed-by-anthropic" not in written.body
    assert b"U0lHTkVE" not in written.body
    if source in (Wire.ANTHROPIC_MESSAGES, Wire.GEMINI):
        assert any("reasoning" in item.name or "thinking" in item.name for item in written.stripped)


SERVER_TOOLS: dict[Wire, tuple[str, Any]] = {
    Wire.OPENAI_RESPONSES: ("web_search", {"type": "web_search"}),
    Wire.ANTHROPIC_MESSAGES: ("web_search_20250305", {"type": "web_search_20250305", "name": "web_search"}),
    Wire.GEMINI: ("googleSearch", {"googleSearch": {}}),
}


@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair.values[0] in SERVER_TOOLS])
def test_a_tool_that_the_vendor_runs_itself_is_refused_by_name(source: Wire, target: Wire) -> None:
    name, tool = SERVER_TOOLS[source]
    body = BODIES[source] | {"tools": [*BODIES[source]["tools"], tool]}
    request = read(source, msgspec.json.encode(body))
    with pytest.raises(UntranslatableError, match=name):
        CODECS[target].write_request(request, MODELS[target], source)
    assert tool in msgspec.json.decode(CODECS[source].write_request(request, "m", source).body)["tools"]


REPLY = Reply(
    id="reply_1",
    model="upstream",
    parts=(
        Reasoning(text="Two cities."),
        Text(text="I look – at once 🌙."),
        ToolCall(id="call_1", name="weather", arguments='{"city":"Oslo"}'),
        ToolCall(id="call_2", name="weather", arguments='{"city":"Bergen","days":2}'),
    ),
    stop=StopReason.TOOL_CALLS,
    usage=Usage(input=30, cache_read=12, output=17, reasoning=9),
)


def streamed(wire: Wire, events: list[Event]) -> bytes:
    encoder = CODECS[wire].encoder("the-alias", read(wire, msgspec.json.encode(BODIES[wire])))
    return b"".join(encoder.feed(event) for event in events)


def decoded(wire: Wire, stream: bytes) -> list[Event]:
    decoder, reader = CODECS[wire].decoder(), FrameReader()
    events: list[Event] = []
    for frame in reader.feed(stream):
        if frame.data is not None:
            events += decoder.feed(frame.data)
    return events + decoder.close()


@pytest.mark.parametrize("is_source_whole", [False, True], ids=["stream", "whole"])
@pytest.mark.parametrize("is_target_whole", [False, True], ids=["stream", "whole"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_reply_keeps_its_meaning_over_two_wires(
    source: Wire, target: Wire, is_source_whole: bool, is_target_whole: bool
) -> None:
    events = replay_reply(REPLY)
    for wire, is_whole in ((source, is_source_whole), (target, is_target_whole)):
        if is_whole:
            events = CODECS[wire].decoder().whole(CODECS[wire].encoder("the-alias").whole(events))
        else:
            events = decoded(wire, streamed(wire, events))
        assert not any(isinstance(event, Unknown) for event in events)
    reply = collect_reply(events)
    said = [part for part in reply.parts if isinstance(part, Text)]
    assert [part.text for part in said] == ["I look – at once 🌙."]
    made = [part for part in reply.parts if isinstance(part, ToolCall)]
    assert [(part.id, part.name, msgspec.json.decode(part.arguments)) for part in made] == [
        ("call_1", "weather", {"city": "Oslo"}),
        ("call_2", "weather", {"city": "Bergen", "days": 2}),
    ]
    assert reply.stop is StopReason.TOOL_CALLS
    assert reply.usage == REPLY.usage
    assert reply.is_complete


@pytest.mark.parametrize(
    ("stop", "detail"),
    [(StopReason.END, None), (StopReason.MAX_TOKENS, None), (StopReason.REFUSAL, None)],
)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_why_the_model_stopped_survives_two_wires(
    source: Wire, target: Wire, stop: StopReason, detail: str | None
) -> None:
    events = replay_reply(Reply(id="r", model="m", parts=(Text(text="a"),), stop=stop, stop_detail=detail))
    for wire in (source, target):
        events = decoded(wire, streamed(wire, events))
    assert collect_reply(events).stop is stop


@pytest.mark.parametrize("wire", list(CODECS))
def test_parts_that_open_side_by_side_are_kept_apart(wire: Wire) -> None:
    """OpenAI's chat wire may tell two calls in turns, and ends text only with the reply."""
    events = replay_reply(REPLY)
    ends = [event for event in events if isinstance(event, PartEnded)]
    late = [event for event in events if not isinstance(event, PartEnded)]
    late[-2:-2] = ends
    reply = collect_reply(decoded(wire, streamed(wire, late)))
    assert [part.arguments for part in reply.parts if isinstance(part, ToolCall)] == [
        '{"city":"Oslo"}',
        '{"city":"Bergen","days":2}',
    ]


@pytest.mark.parametrize("wire", list(CODECS))
def test_a_stream_without_its_end_mark_is_incomplete(wire: Wire) -> None:
    events = replay_reply(REPLY)[:-2]
    assert not collect_reply(decoded(wire, streamed(wire, events))).is_complete


@pytest.mark.parametrize("wire", list(CODECS))
def test_the_same_wire_passes_the_same_bytes_unless_the_model_changes(wire: Wire) -> None:
    body = msgspec.json.encode(BODIES[wire] if wire is Wire.GEMINI else BODIES[wire] | {"model": "smart"})
    codec = CODECS[wire]
    head: Head = codec.head(body, "smart" if wire is Wire.GEMINI else None, stream=None)
    assert codec.retarget(body, head, "smart") is body
    if wire is not Wire.GEMINI:
        changed = msgspec.json.decode(codec.retarget(body, head, "other"))
        assert changed == BODIES[wire] | {"model": "other"}


def test_a_thought_goes_home_through_another_vendors_wire() -> None:
    """Signed by Anthropic, shown to a Gemini client and sent back by it; and the other way round."""
    signed = Reply(
        id="r", model="m", parts=(Reasoning(text="t", signature="c2ln"), Text(text="a")), stop=StopReason.END
    )
    shown = msgspec.json.decode(CODECS[Wire.GEMINI].encoder("m").whole(replay_reply(signed)))
    back = read(Wire.GEMINI, msgspec.json.encode({"contents": [shown["candidates"][0]["content"]]}))
    sent = CODECS[Wire.ANTHROPIC_MESSAGES].write_request(back, "claude-sonnet-4-5", Wire.GEMINI)
    assert msgspec.json.decode(sent.body)["messages"][0]["content"][0] == {
        "type": "thinking",
        "thinking": "t",
        "signature": "c2ln",
    }
    shown = msgspec.json.decode(CODECS[Wire.ANTHROPIC_MESSAGES].encoder("m").whole(replay_reply(signed)))
    turn = {"role": "assistant", "content": shown["content"]}
    back = read(Wire.ANTHROPIC_MESSAGES, msgspec.json.encode({"model": "m", "messages": [turn]}))
    sent = CODECS[Wire.GEMINI].write_request(back, "gemini-2.5-pro", Wire.ANTHROPIC_MESSAGES)
    assert msgspec.json.decode(sent.body)["contents"][0]["parts"][0] == {
        "text": "t",
        "thought": True,
        "thoughtSignature": "c2ln",
    }
