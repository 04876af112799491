"""Guesses about requests, and another model than was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.drift import find_mismatch
from nightkeep.models.estimate import MEDIA_TOKENS, estimate_tokens, needs_of
from nightkeep.models.wire.base import Head, Wire


def body(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def test_text_counts_by_its_length() -> None:
    assert estimate_tokens(b"x" * 4000) == 1001


def test_a_picture_counts_as_a_picture_not_as_its_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    tokens = estimate_tokens(body({"messages": [{"role": "user", "content": [picture, picture]}]}))
    assert 2 * MEDIA_TOKENS <= tokens <= 2 * MEDIA_TOKENS + 100


@pytest.mark.parametrize(
    ("wire", "value", "field"),
    [
        (Wire.OPENAI_CHAT, {"tools": [{}]}, "tools"),
        (Wire.OPENAI_CHAT, {"content": [{"type": "image_url"}]}, "images"),
        (Wire.OPENAI_CHAT, {"response_format": {"type": "json_schema"}}, "structured"),
        (Wire.OPENAI_CHAT, {"content": [{"type": "input_audio"}]}, "audio"),
        (Wire.OPENAI_RESPONSES, {"content": [{"type": "input_file"}]}, "documents"),
        (Wire.ANTHROPIC_MESSAGES, {"content": [{"type": "image"}]}, "images"),
        (Wire.ANTHROPIC_MESSAGES, {"content": [{"type": "document"}]}, "documents"),
        (Wire.GEMINI, {"inlineData": {"mimeType": "image/png"}}, "images"),
        (Wire.GEMINI, {"tools": [{"functionDeclarations": []}]}, "tools"),
        (Wire.GEMINI, {"generationConfig": {"responseSchema": {}}}, "structured"),
    ],
)
def test_a_need_is_seen_on_each_wire(wire: Wire, value: Any, field: str) -> None:
    needs = needs_of(wire, Head("m"), body(value))
    assert getattr(needs, field)
    others = {"tools", "images", "documents", "audio", "structured"} - {field}
    assert not any(getattr(needs, name) for name in others)


@given(st.text(max_size=200))
def test_what_a_person_writes_is_no_need(text: str) -> None:
    needs = needs_of(Wire.OPENAI_CHAT, Head("m"), body({"role": "user", "content": f'say "tools" and "file": {text}'}))
    assert not (needs.tools or needs.images or needs.documents or needs.audio or needs.structured)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("openai/gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o", ""),
    ],
)
def test_the_same_model_by_another_name_is_no_mismatch(asked: str, served: str) -> None:
    assert find_mismatch(asked, served) is None


def test_another_model_is_a_mismatch() -> None:
    found = find_mismatch("claude-opus-4-6", "gemini-2.5-pro")
    assert found is not None and found.kind == "model"


def test_losing_the_thinking_is_a_mismatch_of_its_own_kind() -> None:
    found = find_mismatch("claude-opus-4-5-thinking", "claude-opus-4-5")
    assert found is not None and found.kind == "variant"
