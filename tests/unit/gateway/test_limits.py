"""What a route says of a request's size is applied to the client's own body, and reported."""

from __future__ import annotations

import json

import pytest

from nightkeep.models.gateway.limits import limit_body
from nightkeep.models.routing import Route
from nightkeep.models.wire.base import Operation, Wire


def route(**more: object) -> Route:
    return Route(rule="task content_writing", asked="m", candidates=(), **more)  # type: ignore[arg-type]


def test_a_route_that_says_nothing_leaves_the_very_same_bytes() -> None:
    body = b'{"max_tokens": 9}'
    changed, notes = limit_body(Wire.OPENAI_CHAT, Operation.CHAT, body, route())
    assert changed is body
    assert notes == ()


@pytest.mark.parametrize(
    ("wire", "given", "expected", "name"),
    [
        (Wire.OPENAI_CHAT, {"max_tokens": 900}, {"max_tokens": 100}, "max_tokens"),
        (Wire.OPENAI_CHAT, {"max_completion_tokens": 900}, {"max_completion_tokens": 100}, "max_completion_tokens"),
        (Wire.OPENAI_RESPONSES, {}, {"max_output_tokens": 100}, "max_output_tokens"),
        (Wire.ANTHROPIC_MESSAGES, {"max_tokens": 101}, {"max_tokens": 100}, "max_tokens"),
        (
            Wire.GEMINI,
            {"generationConfig": {"maxOutputTokens": 900, "topK": 3}},
            {"generationConfig": {"maxOutputTokens": 100, "topK": 3}},
            "generationConfig.maxOutputTokens",
        ),
        (Wire.GEMINI, {}, {"generationConfig": {"maxOutputTokens": 100}}, "generationConfig.maxOutputTokens"),
    ],
)
def test_an_output_limit_over_the_routes_is_lowered_and_reported(
    wire: Wire, given: dict[str, object], expected: dict[str, object], name: str
) -> None:
    body, notes = limit_body(wire, Operation.CHAT, json.dumps(given).encode(), route(max_output_tokens=100))
    assert json.loads(body) == expected
    assert [note.name for note in notes] == [name]
    assert "100" in notes[0].reason


def test_a_limit_below_the_routes_stays() -> None:
    body = b'{"max_tokens": 9}'
    assert limit_body(Wire.OPENAI_CHAT, Operation.CHAT, body, route(max_output_tokens=100)) == (body, ())


def test_a_tasks_temperature_is_set_only_where_the_client_said_nothing() -> None:
    changed, notes = limit_body(Wire.OPENAI_CHAT, Operation.CHAT, b"{}", route(temperature=0.1))
    assert json.loads(changed) == {"temperature": 0.1}
    assert [note.name for note in notes] == ["temperature"]
    body = b'{"temperature": 0.9}'
    assert limit_body(Wire.OPENAI_CHAT, Operation.CHAT, body, route(temperature=0.1)) == (body, ())
