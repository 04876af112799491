"""Requests that lean on what one vendor keeps: an earlier response, a conversation, a stored prompt, a background job.

Sent elsewhere, the model would answer without it, which is another meaning: that is refused here, naming the field.
Tools that a vendor runs are refused in ``server_tools``.
"""

from __future__ import annotations

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Wire

__all__ = ["refuse_vendor_state"]

_REASONS = {
    "previous_response_id": "an earlier response is kept by the vendor of {source}; send the whole conversation",
    "conversation": "the conversation is kept by the vendor of {source}; send it whole",
    "prompt": "the prompt is stored at the vendor of {source}; send its text",
    "background": "a background response is kept by the vendor of {source}; ask without it",
    "tool_choice": "this choice names a tool that only {source} has",
}
"""Fields of OpenAI Responses (and Chat Completions' ``tool_choice``) that codecs leave in ``foreign``."""


def refuse_vendor_state(request: ChatRequest, source: Wire, target: Wire) -> None:
    """Raise UntranslatableError where a request to another wire needs what only the client's vendor has."""
    if source == target:
        return
    for name, reason in _REASONS.items():
        if request.foreign.get(name):
            raise UntranslatableError(f"{name}: {reason.format(source=source)}", parameter=name)
