"""How secrets of Nightkeep's own look: a prefix, 32 random bytes, and a checksum that tells a typo from a stranger.

``nk-…`` is a virtual key, ``nko-…`` the operator's token; then 43 base-62 digits (256 bits) and 6 more, the CRC-32 of
all before them. So a secret scanner needs one expression (``\\bnko?-[0-9A-Za-z]{49}\\b``) and no list, and a key that
was copied badly is told as such. The checksum protects nothing: whoever can guess 256 bits can also add.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

__all__ = ["KEY_PREFIX", "TOKEN_PREFIX", "Entropy", "is_damaged", "is_whole", "make_secret"]

Entropy = Callable[[int], bytes]
"""So many random bytes that nobody can guess, such as ``secrets.token_bytes``."""

KEY_PREFIX: Final = "nk-"
TOKEN_PREFIX: Final = "nko-"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES: Final = 32
_RANDOM_DIGITS: Final = 43  # 62**43 is just over 2**256
_CHECK_DIGITS: Final = 6  # 62**6 is over 2**32


def make_secret(prefix: str, entropy: Entropy) -> str:
    """Make a new secret."""
    text = prefix + _base62(int.from_bytes(entropy(_RANDOM_BYTES), "big"), _RANDOM_DIGITS)
    return text + _checksum(text)


def is_whole(prefix: str, text: str) -> bool:
    """Tell whether a text has the form of a secret of this kind, checksum and all."""
    if not text.startswith(prefix) or len(text) != len(prefix) + _RANDOM_DIGITS + _CHECK_DIGITS or not text.isascii():
        return False
    return text[-_CHECK_DIGITS:] == _checksum(text[:-_CHECK_DIGITS])


def is_damaged(text: str) -> bool:
    """Tell whether a text was meant as a key made here and is not whole: cut off, or mistyped."""
    return text.startswith(KEY_PREFIX) and not is_whole(KEY_PREFIX, text)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_DIGITS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
