"""What a request asks, read from any wire: just enough to choose a turn and to answer.

Not the neutral vocabulary of ``nightkeep.core``: the simulated provider stays independent of the
codecs that are tested against it.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Asked", "Refusal", "Refused", "count_tokens"]

_IMAGE_CHARS = 258 * 4  # what one image or document weighs in the automatic count, in characters
_CHARS_PER_TOKEN = 4
_LONG = 2048  # a string under "data" or "url" this long is a file, not text


class Asked(msgspec.Struct, kw_only=True):
    """One request as the script sees it."""

    wire: str
    operation: str = "chat"  # chat | embed | count_tokens | models
    model: str
    stream: bool = False
    body: dict[str, Any]
    text: str = ""  # the last user text
    turn: int = 1
    has_tool_result: bool = False
    tools: dict[str, Any] = {}  # name -> JSON schema of its arguments
    custom_tools: frozenset[str] = frozenset()  # OpenAI: tools that take free text
    forced_tool: str | None = None  # "*": any of them
    schema: Any = None  # structured output; {} for "some JSON object"
    max_output: int | None = None
    stop_sequences: tuple[str, ...] = ()
    input_tokens: int = 0
    include_usage: bool = True
    framing: str = "sse"  # sse | array (Gemini without alt=sse) | aws
    is_thinking: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error before it has a vendor's shape.

    ``kind``: invalid | authentication | suspended | not_found | rate_limited | quota | no_credit | too_long |
    content | server_error | overloaded | unavailable | timeout.
    """

    kind: str
    message: str | None = None  # None: the vendor's usual sentence
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    model: str = ""
    key: str = ""
    metric: str = "requests"  # what the limit counts: requests | tokens | concurrent
    limit: int = 0
    status: int | None = None


class Refused(Exception):
    """The vendor refuses the request; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.kind)
        self.refusal = refusal


def count_tokens(*parts: Any) -> int:
    """Count tokens at four characters each over all strings in ``parts``; files count as one image."""
    return _chars(parts) // _CHARS_PER_TOKEN + 1


def _chars(node: Any) -> int:
    if type(node) is str:
        return len(node) if len(node) < _LONG or not node.startswith("data:") else _IMAGE_CHARS
    if type(node) is dict:
        total = 0
        for name, value in node.items():
            if type(value) is str and name == "data" and len(value) >= _LONG:
                total += _IMAGE_CHARS
            else:
                total += _chars(value)
        return total
    if type(node) is list or type(node) is tuple:
        return sum([_chars(child) for child in node])
    return 0 if node is None else 4
