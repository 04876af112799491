"""How OpenAI's two wires ask a model to think: an effort, whatever words the client used for it.

The words of all wires are matched in ``thinking``; which models think is in ``openai_models``.
"""

from __future__ import annotations

from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.openai_models import is_reasoning_model, knows_minimal_effort
from nightkeep.models.wire.stripping import StripList
from nightkeep.models.wire.thinking import effort_of

__all__ = ["effort_for"]


def effort_for(request: ChatRequest, model: str, source: Wire, strips: StripList) -> str | None:
    """The effort to write, if any; a budget said as an effort is reported, and so is one that is not sent."""
    settings = request.reasoning
    if settings is None:
        return None
    if source in (Wire.OPENAI_CHAT, Wire.OPENAI_RESPONSES) and settings.effort is not None:
        return settings.effort  # the client's own word for this vendor
    effort = effort_of(settings)
    if effort is None:
        if settings.enabled:
            strips.note("reasoning", "the model decides itself how much it thinks: no effort was said")
        return None
    if not is_reasoning_model(model):
        if effort != "none":
            strips.note("reasoning", f"{model} takes no reasoning effort")
        return None
    if effort == "none" and knows_minimal_effort(model):
        effort = "minimal"
        strips.note("reasoning", f"{model} cannot be told not to think: sent as effort minimal")
    elif settings.budget_tokens is not None:
        strips.note("reasoning", f"a budget of {settings.budget_tokens} tokens was sent as effort {effort}")
    return effort
