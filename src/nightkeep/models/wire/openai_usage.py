"""Tokens as OpenAI's wires and their dialects count them, taken apart into disjoint classes and put together again.

Chat Completions says ``prompt_tokens``/``completion_tokens``, Responses ``input_tokens``/``output_tokens``; both
count cached tokens inside the input and reasoning inside the output. Dialects: DeepSeek's
``prompt_cache_hit_tokens``, Moonshot's ``cached_tokens``, Perplexity's ``reasoning_tokens`` beside the counts, and
xAI's and Gemini's reasoning that stands outside ``completion_tokens`` and shows in the total only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nightkeep.core.messages import Usage

__all__ = ["UsageCount", "chat_usage", "responses_usage"]

Number = int | float | None


class InputDetails(msgspec.Struct, gc=False):
    """What stands inside the input tokens."""

    cached_tokens: Number = None
    cache_write_tokens: Number = None


class OutputDetails(msgspec.Struct, gc=False):
    """What stands inside the output tokens."""

    reasoning_tokens: Number = None


class UsageCount(msgspec.Struct, gc=False):
    """The counts of either wire; unknown ones are passed over."""

    prompt_tokens: Number = None
    completion_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    total_tokens: Number = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None
    prompt_cache_hit_tokens: Number = None
    cached_tokens: Number = None
    reasoning_tokens: Number = None

    def neutral(self) -> Usage:
        """The same tokens in disjoint classes; their sum is ``total_tokens`` where the vendor's total can be true."""
        prompt = _count(self.prompt_tokens, self.input_tokens)
        completion = _count(self.completion_tokens, self.output_tokens)
        taken = self.prompt_tokens_details or self.input_tokens_details or _NO_INPUT
        made = self.completion_tokens_details or self.output_tokens_details or _NO_OUTPUT
        cached = min(prompt, _count(taken.cached_tokens, self.prompt_cache_hit_tokens, self.cached_tokens))
        written = min(prompt - cached, _count(taken.cache_write_tokens))
        reasoning = _count(made.reasoning_tokens, self.reasoning_tokens)
        outside = max(0, _count(self.total_tokens) - prompt - completion)
        inside = 0 if outside >= reasoning else min(completion, reasoning)
        return Usage(
            input=prompt - cached - written,
            cache_read=cached,
            cache_write_5m=written,  # OpenAI's writes live half an hour; this is the nearest class
            output=completion - inside,
            reasoning=inside + outside,
        )


_NO_INPUT = InputDetails()
_NO_OUTPUT = OutputDetails()


def _count(*values: Number) -> int:
    return next((max(0, int(value)) for value in values if value is not None), 0)


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Usage as Chat Completions says it."""
    details = {"cached_tokens": usage.cache_read}
    if written := usage.cache_write_5m + usage.cache_write_1h:
        details["cache_write_tokens"] = written
    return {
        "prompt_tokens": usage.total_input,
        "completion_tokens": usage.total_output,
        "total_tokens": usage.total,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Usage as Responses says it."""
    written = usage.cache_write_5m + usage.cache_write_1h
    return {
        "input_tokens": usage.total_input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "output_tokens": usage.total_output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }
