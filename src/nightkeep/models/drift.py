"""Notices that another model answered than was asked (S10.14, W10.6): a comparison of names, nothing else.

Names are compared after ``nightkeep.models.catalog.canonical`` (dates, ``-latest``, cloud prefixes). A difference
only in ``-thinking`` is told apart from another model, since it is a downgrade too (D6).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nightkeep.models.catalog import canonical

__all__ = ["ModelMismatch", "find_mismatch"]

_VARIANTS: Final = ("-thinking",)


class ModelMismatch(msgspec.Struct, frozen=True, kw_only=True):
    """The provider answered with another model than it was asked for."""

    asked: str
    served: str
    kind: Literal["model", "variant"]  # variant: the same model, but with or without thinking


def find_mismatch(asked: str, served: str) -> ModelMismatch | None:
    """Compare what was sent to a provider with what it says it used; None where they agree or it does not say."""
    if not served or asked == served:
        return None
    wanted, got = canonical(asked.rpartition("/")[2]), canonical(served.rpartition("/")[2])
    if wanted == got:
        return None
    kind: Literal["model", "variant"] = "variant" if _plain(wanted) == _plain(got) else "model"
    return ModelMismatch(asked=asked, served=served, kind=kind)


def _plain(name: str) -> str:
    for suffix in _VARIANTS:
        name = name.removesuffix(suffix)
    return name
