"""What OpenAI's wires say differently for different models: one small table, by the model's name.

The wire is spoken by many vendors whose parameters differ; whatever is not listed gets the words that all of
them know. Sources: platform.openai.com/docs/guides/reasoning, ``openai.types.shared.reasoning_effort``.
"""

from __future__ import annotations

import re

__all__ = ["is_reasoning_model", "knows_minimal_effort", "limit_name"]

_REASONING = re.compile(r"(?:^|[/.])(?:o[134](?:-|$)|gpt-[5-9]|codex-|gpt-oss)")
_NEW_LIMIT = re.compile(r"(?:^|[/.])(?:o[134](?:-|$)|gpt-[5-9]|codex-)")
_THINKERS = re.compile(
    r"deepseek-(?:reasoner|r1|v3\.[1-9]|v[4-9])|grok-(?:3-mini|[4-9])|qwen3|glm-[4-9]|kimi-k[2-9]|magistral"
)
_MINIMAL = re.compile(r"(?:^|[/.])gpt-5(?:-|$)")


def is_reasoning_model(model: str) -> bool:
    """Whether a model takes a reasoning effort: OpenAI's families, and others' that think when asked to."""
    return bool(_REASONING.search(model) or _THINKERS.search(model))


def knows_minimal_effort(model: str) -> bool:
    """Whether the effort ``minimal`` exists there (the first GPT-5 only; later ones have ``none``)."""
    return _MINIMAL.search(model) is not None


def limit_name(model: str) -> str:
    """The name of the output limit: OpenAI's reasoning models refuse ``max_tokens``, many vendors know nothing else."""
    return "max_completion_tokens" if _NEW_LIMIT.search(model) else "max_tokens"
