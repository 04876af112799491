"""Money as integer micro-dollars, the only form in which Nightkeep adds it up.

Prices are written in USD per million tokens, so one token at $1.00/M costs exactly
one micro-dollar; fractions are carried in pico-dollars until a call is settled and
are rounded up once (a cost is never under-stated).
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import NewType

__all__ = ["MicroUsd", "format_usd", "micro_usd", "micro_usd_from_pico"]

MicroUsd = NewType("MicroUsd", int)
"""An amount in millionths of a US dollar; may be negative only in differences."""

_MICRO = Decimal(1_000_000)


def micro_usd(dollars: str | int | float | Decimal) -> MicroUsd:
    """Turn dollars into micro-dollars, rounding up to the next whole one.

    A float goes through its shortest decimal text, so ``0.06`` is six cents exactly.
    """
    return MicroUsd(int((Decimal(str(dollars)) * _MICRO).to_integral_value(ROUND_CEILING)))


def micro_usd_from_pico(pico_usd: int) -> MicroUsd:
    """Round an exact cost in pico-dollars (1e-12 USD) up to micro-dollars."""
    return MicroUsd(-(-pico_usd // 1_000_000))


def format_usd(amount: MicroUsd, *, places: int = 6) -> str:
    """Print an amount as dollars with ``places`` decimals, without the sign: ``0.060000``."""
    sign = "-" if amount < 0 else ""
    whole, micro = divmod(abs(amount), 1_000_000)
    text = f"{sign}{whole}.{micro:06d}"
    return text if places == 6 else f"{Decimal(text):.{places}f}"
