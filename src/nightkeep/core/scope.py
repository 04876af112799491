"""Scopes: the paths that own limits and history, such as ``acme/triage/run_01J9``.

A limit that is set on a scope holds for everything below it; ``/`` is everything.
"""

from __future__ import annotations

import re

from nightkeep.core.errors import RequestError

__all__ = ["ROOT", "is_within", "join_scope", "parents", "parse_scope"]

ROOT = "/"
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
_MOST_SEGMENTS = 8


def parse_scope(text: str) -> str:
    """Return the canonical form of a scope: no leading or trailing slash, ``/`` for everything.

    Raises:
        RequestError: a segment is empty, starts with a dot, or has a character outside
            ``A-Z a-z 0-9 . _ -``; or there are more than eight segments.
    """
    trimmed = text.strip("/")
    if not trimmed:
        return ROOT
    segments = trimmed.split("/")
    if len(segments) > _MOST_SEGMENTS:
        raise RequestError(f"scope {text!r} has {len(segments)} segments; at most {_MOST_SEGMENTS} are allowed")
    for segment in segments:
        if not _SEGMENT.match(segment):
            raise RequestError(
                f"scope {text!r}: segment {segment!r} is not allowed; use letters, digits, '.', '_' and '-'"
            )
    return trimmed


def join_scope(base: str, child: str) -> str:
    """Put ``child`` below ``base``; both canonical."""
    if base == ROOT:
        return child
    return base if child == ROOT else f"{base}/{child}"


def is_within(scope: str, ancestor: str) -> bool:
    """Tell whether ``scope`` is ``ancestor`` or lies below it."""
    return ancestor == ROOT or scope == ancestor or scope.startswith(ancestor + "/")


def parents(scope: str) -> list[str]:
    """List a scope and all that is above it, nearest first, ending with ``/``."""
    if scope == ROOT:
        return [ROOT]
    segments = scope.split("/")
    return ["/".join(segments[:n]) for n in range(len(segments), 0, -1)] + [ROOT]
