"""Bodies, each kept once under the hash of its bytes, compressed where that helps.

A blob remembers the last moment at which something referred to it (``last_at``): when all that is older than a day
is forgotten, so are the blobs that nothing newer refers to; no counting of references.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from nightkeep.core.errors import StoreError
from nightkeep.store.port import Row, Transaction, Value

__all__ = ["LOAD_BLOB", "Blob", "load_blob", "save_blobs"]

LOAD_BLOB: Final = "SELECT codec, data, size FROM blobs WHERE hash = ?"
"""The query whose row ``load_blob`` reads."""

_LEVEL: Final = 1  # zlib: bodies are JSON; level 1 takes most of what 6 takes, in a fifth of the time
_WORTH_IT: Final = 256  # bytes; below it compression saves nothing


class Blob(msgspec.Struct, frozen=True):
    """Bytes under their name."""

    hash: str
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Blob:
        """Name bytes by their SHA-256, in hex."""
        return cls(hashlib.sha256(data).hexdigest(), data)


def save_blobs(transaction: Transaction, blobs: Iterable[Blob], at_ms: int) -> None:
    """Keep blobs until all that refers to them is older than ``at_ms``; those that are kept already cost little."""
    for blob in {blob.hash: blob for blob in blobs}.values():
        found = transaction.execute("SELECT 1 FROM blobs WHERE hash = ?", (blob.hash,))
        if found:
            transaction.execute(
                "UPDATE blobs SET last_at = ? WHERE hash = ? AND last_at < ?", (at_ms, blob.hash, at_ms)
            )
        else:
            transaction.insert("INTO blobs (hash, codec, size, data, last_at)", [_row(blob, at_ms)])


def _row(blob: Blob, at_ms: int) -> list[Value]:
    packed = zlib.compress(blob.data, _LEVEL) if len(blob.data) >= _WORTH_IT else blob.data
    is_smaller = len(packed) < len(blob.data)
    return [blob.hash, "zlib" if is_smaller else "raw", len(blob.data), packed if is_smaller else blob.data, at_ms]


def load_blob(row: Row) -> bytes:
    """The bytes of a row of ``LOAD_BLOB``. Raises StoreError where they are damaged."""
    codec, data, size = row
    assert isinstance(data, bytes)
    try:
        plain = zlib.decompress(data) if codec == "zlib" else data
    except zlib.error as error:
        raise StoreError(f"a stored body is damaged: {error}") from error
    if len(plain) != size:
        raise StoreError(f"a stored body is damaged: {len(plain)} bytes instead of {size!r}")
    return plain
