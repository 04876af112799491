"""What holds for every request, reply and count on OpenAI's two wires, whatever hypothesis thinks of."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.core.embeddings import EmbedReply, EmbedRequest
from nightkeep.core.events import Event, collect_reply, replay_reply
from nightkeep.core.messages import (
    ChatRequest,
    Media,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningSettings,
    Refusal,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolResult,
    Usage,
)
from nightkeep.models.wire import CODECS
from nightkeep.models.wire.base import Head, Wire
from nightkeep.models.wire.openai_embeddings import (
    read_embed_reply,
    read_embed_request,
    write_embed_reply,
    write_embed_request,
)
from nightkeep.models.wire.openai_usage import UsageCount, chat_usage, responses_usage
from nightkeep.models.wire.sse import FrameReader

WIRES = [Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES]
counts = st.integers(0, 10**7)
texts = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, json_values, max_size=3)
arguments = objects.map(lambda value: msgspec.json.encode(value).decode())


# --- usage ----------------------------------------------------------------------------------------------------------

usages = st.builds(Usage, input=counts, cache_read=counts, cache_write_5m=counts, output=counts, reasoning=counts)


@given(usages)
def test_usage_survives_both_wires(usage: Usage) -> None:
    for said in (chat_usage(usage), responses_usage(usage)):
        assert said["total_tokens"] == usage.total
        assert msgspec.convert(said, UsageCount).neutral() == usage


@given(prompt=counts, completion=counts, cached=counts, written=counts, reasoning=counts, is_outside=st.booleans())
def test_classes_are_disjoint_and_add_up_to_the_vendors_total(
    prompt: int, completion: int, cached: int, written: int, reasoning: int, is_outside: bool
) -> None:
    total = prompt + completion + (reasoning if is_outside else 0)
    said = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    usage = msgspec.convert(said, UsageCount).neutral()
    assert usage.total == total
    assert min(usage.input, usage.cache_read, usage.cache_write_5m, usage.output, usage.reasoning) >= 0
    assert usage.total_input == prompt


@given(st.dictionaries(st.sampled_from(UsageCount.__struct_fields__[:5]), st.none() | counts | st.floats(0, 1e7)))
def test_counts_with_holes_nulls_and_floats_are_read(said: dict[str, Any]) -> None:
    assert msgspec.convert(said, UsageCount).neutral().total >= 0


# --- replies --------------------------------------------------------------------------------------------------------

parts = st.lists(
    st.one_of(
        st.builds(Text, text=texts),
        st.builds(
            ToolCall, id=names, name=names, arguments=objects.map(lambda value: msgspec.json.encode(value).decode())
        ),
    ),
    max_size=4,
)
stops = st.sampled_from([StopReason.END, StopReason.MAX_TOKENS])


def streamed(wire: Wire, events: list[Event]) -> bytes:
    request = ChatRequest(model="m", messages=(), foreign={"stream_options": {"include_usage": True}})
    encoder = CODECS[wire].encoder("alias", request)
    return b"".join(encoder.feed(event) for event in events)


def decoded(wire: Wire, data: bytes) -> list[Event]:
    decoder, reader = CODECS[wire].decoder(), FrameReader()
    return [event for frame in reader.feed(data) for event in decoder.feed(frame.data or b"{}")] + decoder.close()


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=30)
@given(thought=st.text(max_size=10), said=parts, refusal=st.text(max_size=5), stop=stops, usage=usages)
def test_a_reply_survives_being_written_and_read(
    wire: Wire, thought: str, said: list[Part], refusal: str, stop: StopReason, usage: Usage
) -> None:
    all_parts = [*([Reasoning(text=thought)] if thought else []), *said, *([Refusal(text=refusal)] if refusal else [])]
    reply = Reply(id="r", model="m", parts=tuple(all_parts), stop=stop, usage=usage, created=5)
    streams = collect_reply(decoded(wire, streamed(wire, replay_reply(reply))))
    wholes = collect_reply(CODECS[wire].decoder().whole(CODECS[wire].encoder("alias").whole(replay_reply(reply))))
    for read in (streams, wholes):
        assert spoken(read, Text) == spoken(reply, Text)
        assert spoken(read, Reasoning) == spoken(reply, Reasoning)
        assert spoken(read, Refusal) == spoken(reply, Refusal)
        assert [part for part in read.parts if isinstance(part, ToolCall)] == [
            part for part in reply.parts if isinstance(part, ToolCall)
        ]
        assert (read.usage, read.created, read.is_complete) == (usage, 5, True)
        if stop is StopReason.MAX_TOKENS:
            assert read.stop is stop


def spoken(reply: Reply, kind: type[Any]) -> str:
    return "".join(part.text for part in reply.parts if isinstance(part, kind))


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=30)
@given(cut=st.integers(0, 10_000))
def test_a_stream_cut_anywhere_is_never_taken_for_whole(wire: Wire, cut: int) -> None:
    reply = Reply(id="r", model="m", parts=(Text(text="hello"), Text(text="you")), stop=StopReason.END)
    data = streamed(wire, replay_reply(reply))
    read = collect_reply(decoded(wire, data[: cut % len(data)]))
    assert not read.is_complete or spoken(read, Text) == "helloyou"


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=30)
@given(value=json_values, body=st.binary(max_size=40))
def test_a_decoder_answers_any_bytes_with_events_or_a_value_error(wire: Wire, value: Any, body: bytes) -> None:
    for data in (msgspec.json.encode(value), body):
        for read in (CODECS[wire].decoder().feed, CODECS[wire].decoder().whole):
            try:
                assert isinstance(read(data), list)
            except ValueError:
                continue
        assert CODECS[wire].read_error(500, data).message


chunk_like = st.fixed_dictionaries(
    {},
    optional={
        "id": st.none() | texts,
        "choices": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.none() | st.integers(0, 2),
                    "finish_reason": st.none() | texts | st.just("stop"),
                    "delta": st.none()
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "content": st.none() | texts | st.lists(json_values, max_size=2),
                            "reasoning": json_values,
                            "reasoning_content": st.none() | texts,
                            "tool_calls": st.none()
                            | st.lists(
                                st.fixed_dictionaries(
                                    {},
                                    optional={
                                        "index": st.none() | st.integers(0, 3),
                                        "id": st.none() | names,
                                        "function": st.none()
                                        | st.fixed_dictionaries({}, optional={"name": names, "arguments": texts}),
                                    },
                                ),
                                max_size=2,
                            ),
                        },
                    ),
                },
            ),
            max_size=2,
        ),
        "error": st.none() | texts | objects,
        "usage": st.none() | st.fixed_dictionaries({}, optional={"prompt_tokens": st.none() | counts}),
    },
)


@settings(max_examples=30)
@given(st.lists(chunk_like, max_size=6))
def test_any_sequence_of_chunks_makes_events_that_collect(chunks: list[dict[str, Any]]) -> None:
    """Every delta belongs to a part that has begun and not ended: else folding them would fail."""
    decoder = CODECS[Wire.OPENAI_CHAT].decoder()
    events: list[Event] = []
    try:
        for said in chunks:
            events += decoder.feed(msgspec.json.encode(said))
    except ValueError:
        pass
    collect_reply(events + decoder.close())


# --- requests -------------------------------------------------------------------------------------------------------

base64s = st.binary(min_size=1, max_size=12).map(lambda data: base64.b64encode(data).decode())
media = st.one_of(
    st.builds(Media, kind=st.just("image"), media_type=st.just("image/png"), data=base64s, detail=st.just("auto")),
    st.builds(Media, kind=st.just("image"), url=st.just("https://x.test/a.png"), detail=st.just("low")),
    st.builds(Media, kind=st.just("audio"), media_type=st.just("audio/wav"), data=base64s),
    st.builds(Media, kind=st.just("document"), media_type=st.just("application/pdf"), data=base64s, name=names),
)
user_turns = st.lists(st.builds(Text, text=texts) | media, min_size=1, max_size=3).map(
    lambda found: [Message(role="user", parts=tuple(found))]
)


@st.composite
def tool_turns(draw: st.DrawFn) -> list[Message]:
    ids = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    calls = [ToolCall(id=call_id, name=draw(names), arguments=draw(arguments)) for call_id in ids]
    said: list[Part] = [Text(text=draw(texts))] if draw(st.booleans()) else []
    results = [
        ToolResult(call_id=call.id, name=call.name, content=(Text(text=draw(texts)),) if draw(st.booleans()) else ())
        for call in calls
    ]
    return [
        Message(role="assistant", parts=(*said, *calls)),
        Message(role="user", parts=tuple(results)),
        Message(role="user", parts=(Text(text=draw(texts)),)),
    ]


def asked(turns: list[list[Message]], has_tools: bool, **fields: Any) -> ChatRequest:
    if not has_tools:
        fields |= {"tools": (), "tool_choice": None, "parallel_tool_calls": None}
    return ChatRequest(model="m", messages=tuple(message for turn in turns for message in turn), **fields)


schemas = st.just({"type": "object", "properties": {"a": {"type": "string"}}})
requests = st.builds(
    asked,
    turns=st.lists(user_turns | tool_turns(), min_size=1, max_size=3),
    has_tools=st.booleans(),
    system=st.lists(st.builds(Text, text=texts), max_size=1).map(tuple),
    tools=st.lists(
        st.builds(ToolDefinition, name=names, description=st.none() | texts, schema=schemas, strict=st.booleans()),
        min_size=1,
        max_size=2,
    ).map(tuple),
    tool_choice=st.none()
    | st.builds(ToolChoice, mode=st.sampled_from(["auto", "none", "required"]))
    | st.builds(ToolChoice, mode=st.just("tool"), name=names),
    parallel_tool_calls=st.none() | st.booleans(),
    max_output_tokens=st.none() | counts,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    stream=st.booleans(),
    output_format=st.none()
    | st.just(OutputFormat(kind="text"))
    | st.just(OutputFormat(kind="json"))
    | st.builds(OutputFormat, kind=st.just("schema"), name=names, schema=schemas, strict=st.none() | st.booleans()),
    reasoning=st.none() | st.builds(ReasoningSettings, effort=st.sampled_from(["minimal", "low", "high"])),
    user=st.none() | texts,
    metadata=st.none() | st.dictionaries(names, texts, max_size=2),
    service_tier=st.none() | st.just("flex"),
    prompt_cache_key=st.none() | texts,
    verbosity=st.none() | st.just("low"),
    foreign=st.dictionaries(names.map("x_".__add__), st.integers() | texts, max_size=2),
)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=30)
@given(request=requests)
def test_what_the_wire_can_say_survives_being_written_and_read(wire: Wire, request: ChatRequest) -> None:
    codec = CODECS[wire]
    written = codec.write_request(request, "m", wire)
    assert codec.read_request(written.body, codec.head(written.body)) == request
    assert not written.stripped


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=30)
@given(request=requests)
def test_the_two_wires_say_the_same_to_each_other(wire: Wire, request: ChatRequest) -> None:
    plain = msgspec.structs.replace(request, foreign={})
    other = CODECS[WIRES[1 - WIRES.index(wire)]]
    body = other.write_request(plain, "m", wire).body
    read = other.read_request(body, other.head(body))
    ours = {"store", "include", "stream_options"}
    assert read.foreign.keys() <= ours
    assert msgspec.structs.replace(read, foreign={}) == plain


# --- embeddings -----------------------------------------------------------------------------------------------------

vectors = st.lists(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4).map(tuple), max_size=3
)


@given(found=vectors, form=st.sampled_from([None, "float", "base64"]), tokens=counts)
def test_vectors_survive_both_number_forms(found: list[tuple[float, ...]], form: str | None, tokens: int) -> None:
    reply = EmbedReply(model="m", vectors=tuple(found), usage=Usage(input=tokens))
    assert read_embed_reply(write_embed_reply(reply, "m", form), "asked") == reply


@given(
    st.builds(
        EmbedRequest,
        model=st.just("m"),
        texts=st.lists(st.text(), min_size=1, max_size=3).map(tuple),
        dimensions=st.none() | counts,
        encoding_format=st.none() | st.sampled_from(["float", "base64"]),
        user=st.none() | texts,
    )
)
def test_embedding_requests_survive_being_written_and_read(request: EmbedRequest) -> None:
    body = write_embed_request(request, "m", Wire.OPENAI_CHAT).body
    assert read_embed_request(body, Head("m")) == request


@pytest.mark.parametrize(
    ("said", "texts_read", "tokens_read"),
    [
        ("a", ("a",), ()),
        (["a", "b"], ("a", "b"), ()),
        ([1, 2], (), ((1, 2),)),
        ([[1, 2], [3]], (), ((1, 2), (3,))),
    ],
)
def test_every_form_of_an_embedding_input_is_read(said: Any, texts_read: Any, tokens_read: Any) -> None:
    request = read_embed_request(msgspec.json.encode({"model": "m", "input": said}), Head("m"))
    assert (request.texts, request.tokens) == (texts_read, tokens_read)
