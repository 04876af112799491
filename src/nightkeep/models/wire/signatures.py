"""Whose signature is it: thoughts signed by one vendor, carried through another vendor's wire.

Anthropic signs thinking, Gemini signs parts, OpenAI encrypts reasoning; each refuses the others'.
When a reply crosses wires its signature is written tagged with its origin, so that a client that sends
the turn back (to whichever vendor then serves it) never makes us send a vendor what it did not sign.
Same-wire traffic is passed through and is never tagged.
"""

from __future__ import annotations

from nightkeep.models.wire.base import Wire

__all__ = ["own_signature", "tag_signature"]

_PREFIX = "nightkeep."


def tag_signature(origin: Wire, signature: str) -> str:
    """Mark a signature with the wire it was made on; a marked one stays as it is."""
    return signature if signature.startswith(_PREFIX) else f"{_PREFIX}{origin}.{signature}"


def own_signature(signature: str | None, source: Wire, target: Wire) -> str | None:
    """The signature as ``target`` made it, or None where another vendor did. Untagged: ``source`` made it."""
    if not signature:
        return None
    if not signature.startswith(_PREFIX):
        return signature if source == target else None
    origin, _, raw = signature.removeprefix(_PREFIX).partition(".")
    return raw if origin == target else None
