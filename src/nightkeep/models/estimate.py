"""A cheap guess of what a request needs, from its bytes: for admission and routing, never for billing.

Not a tokenizer: a body is JSON in a known shape, so its length says enough. Tokens are one per four bytes of ASCII
(OpenAI's and Anthropic's rule of thumb, S10.12) or one per three bytes of other text, where scripts such as Chinese
take about a token per character of three bytes. It is a rule of thumb and was never measured against tokenizers;
what a provider really counts is learnt in ``nightkeep.models.calibration``, on which money depends.
Media count by piece: in bodies over 16 KiB a long base64 run is taken out and counted as one image.
"""

from __future__ import annotations

import re
from typing import Final

from nightkeep.models.routing_specs import Needs
from nightkeep.models.wire.base import Head, Wire

__all__ = ["MEDIA_TOKENS", "estimate_tokens", "needs_of", "without_media"]

MEDIA_TOKENS: Final = 1_600
"""Anthropic's largest image (width * height / 750 at 1.15 megapixels); OpenAI's and Gemini's are cheaper."""

_BYTES_PER_TOKEN_ASCII: Final = 4
_BYTES_PER_TOKEN_OTHER: Final = 3
_LEAST_MEDIA_BYTES: Final = 2_048
_LEAST_SCANNED_BYTES: Final = 16_384  # smaller bodies cannot be far off, whatever is in them
_BASE64: Final = re.compile(rb'[A-Za-z0-9+/_=-]{%d,}(?=")' % _LEAST_MEDIA_BYTES)
_WIRE_MARKS: Final[dict[Wire, dict[bytes, str]]] = {
    Wire.OPENAI_CHAT: {
        b"tools": "tools",
        b"functions": "tools",
        b"image_url": "images",
        b"file": "documents",
        b"input_audio": "audio",
        b"json_schema": "structured",
    },
    Wire.OPENAI_RESPONSES: {
        b"tools": "tools",
        b"input_image": "images",
        b"input_file": "documents",
        b"input_audio": "audio",
        b"json_schema": "structured",
    },
    Wire.ANTHROPIC_MESSAGES: {
        b"tools": "tools",
        b"image": "images",
        b"document": "documents",
        b"json_schema": "structured",
    },
    Wire.GEMINI: {
        b"functionDeclarations": "tools",
        b"function_declarations": "tools",
        b"image/": "images",
        b"application/pdf": "documents",
        b"audio/": "audio",
        b"responseSchema": "structured",
        b"responseJsonSchema": "structured",
        b"response_schema": "structured",
    },
}
_MARKS: Final = {
    wire: re.compile(b'"(' + b"|".join(mark if mark.endswith(b"/") else mark + b'(?=")' for mark in marks) + b")")
    for wire, marks in _WIRE_MARKS.items()
}


def estimate_tokens(body: bytes) -> int:
    """About how many input tokens a request body has."""
    per_token = _BYTES_PER_TOKEN_ASCII if body.isascii() else _BYTES_PER_TOKEN_OTHER
    size, pieces, _ = without_media(body)
    return size // per_token + pieces * MEDIA_TOKENS + 1


def without_media(body: bytes) -> tuple[int, int, int]:
    """The bytes of a body that are not media, the pieces of media in it, and their bytes."""
    size = len(body)
    if size < _LEAST_SCANNED_BYTES or not (b"base64" in body or b"inlineData" in body or b"inline_data" in body):
        return size, 0, 0
    found = [len(match[0]) for match in _BASE64.finditer(body)]
    return size - sum(found), len(found), sum(found)


def needs_of(wire: Wire, head: Head, body: bytes) -> Needs:
    """What a request needs of a model.

    May see a need that is not there (a string that is just "tools"), never misses one: quotes inside of JSON text
    are escaped, so that these letters between bare quotes are a key or a whole value.
    """
    marks = _WIRE_MARKS[wire]
    found = {marks[mark] for mark in _MARKS[wire].findall(body)}
    return Needs(
        stream=head.stream,
        tools="tools" in found,
        images="images" in found,
        documents="documents" in found,
        audio="audio" in found,
        structured="structured" in found,
        context_tokens=estimate_tokens(body),
        output_tokens=head.max_output_tokens,
    )
