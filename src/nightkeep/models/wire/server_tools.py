"""Tools that a provider runs itself (web search, bash, computer use, code execution): one vendor's own.

A codec that reads one keeps it in ``ChatRequest.foreign`` under ``tools.<index>``. Sent elsewhere, the model
would answer without it, which is another meaning: that is refused here, naming the tool.
"""

from __future__ import annotations

from typing import Any

from nightkeep.core.errors import UntranslatableError
from nightkeep.core.messages import ChatRequest
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.vendor_state import refuse_vendor_state

__all__ = ["refuse_server_tools"]


def refuse_server_tools(request: ChatRequest, source: Wire, target: Wire) -> None:
    """Raise UntranslatableError where a request to another wire carries tools, or needs state, of its vendor."""
    if source == target:
        return
    refuse_vendor_state(request, source, target)
    names: list[str] = []
    for path, value in request.foreign.items():
        steps = path.split(".")
        if path == "tools" and isinstance(value, list):
            names += [_name(item) for item in value]
        elif steps[0] == "tools" and len(steps) == 2 and steps[1].isdigit():
            names.append(_name(value))
    if names:
        raise UntranslatableError(
            f"tools: {', '.join(names)} run at the vendor of {source}; {target} has no such tool. "
            "Leave them out, or name a model that speaks this wire",
            parameter="tools",
            tools=names,
        )


def _name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return "a tool"
    return str(tool.get("type") or tool.get("name") or next(iter(tool), "a tool"))
