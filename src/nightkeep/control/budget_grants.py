"""How much of a budget a process may take: pure arithmetic, shared by every store.

A process takes more than it needs while there is plenty, so that the hot path makes no disk write; near the limit it
takes exactly what a call needs, so that nothing lies idle in one process while another refuses (design.md §5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["Grant", "Room", "Want", "decide"]

_PLENTY: Final = 8  # times what is wanted: from here on a slice is taken ahead
_AHEAD: Final = 32  # times what is wanted: the most that is taken ahead
_SHARE: Final = 16  # of what is free: the most that is taken ahead
_QUARTER: Final = 4  # of what is free: the most that one call's worst case may hold beyond what is likely


class Want(msgspec.Struct, frozen=True, gc=False):
    """What one waiting call needs of one budget."""

    least: int  # with less it is not worth sending
    likely: int  # with this it will most probably be whole
    most: int  # its worst case


class Room(msgspec.Struct, frozen=True, gc=False):
    """What there is."""

    free: int  # in nobody's hands
    own: int  # free in the hands of the process that asks
    sure_left: int  # the limit less what is spent for certain: what could ever come free in this window


class Grant(msgspec.Struct, frozen=True, gc=False):
    """The answer: an amount to add to the process's own; or why not."""

    amount: int = 0
    can_serve: bool = False  # the first want fits now
    is_final: bool = False  # the first want can never fit in this window


def decide(room: Room, wants: Sequence[Want]) -> Grant:
    """Decide what a process gets for the calls that wait in it, the first one first.

    The first call is served where it can be; further ones as far as there is room. Nothing is given that does not
    serve a call whole: two processes with half of what they need would wait for each other for ever.
    """
    together = room.free + room.own
    all_most = sum([want.most for want in wants])
    if together >= _PLENTY * all_most:
        needed = max(0, all_most - room.own)
        ahead = min(_AHEAD * all_most, (room.free - needed) // _SHARE)
        return Grant(amount=needed + max(0, ahead), can_serve=True)
    first, total = _fit(wants[0], together, room.sure_left), 0
    if first is None:
        return Grant(is_final=room.sure_left < wants[0].least)
    total = first
    for want in wants[1:]:
        more = _fit(want, together - total, room.sure_left - total)
        if more is None:
            break
        total += more
    return Grant(amount=max(0, total - room.own), can_serve=True)


def _fit(want: Want, room: int, sure_left: int) -> int | None:
    """What one call may hold of ``room``; None where it has to wait, or is refused."""
    ideal = min(want.most, max(want.likely, room // _QUARTER))
    if ideal <= room:
        return ideal
    if want.likely <= sure_left:  # more will come free when calls under way end
        return None
    return room if want.least <= room else None
