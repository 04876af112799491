"""One database: connections, migrations, the grouped writer, blobs.

What a call, an account or a run *is* stands with its owner; a capability owns its tables and the SQL on them, and
nobody else reads them. There is one history of migrations, here. SQLite today; the port is small so that PostgreSQL
can stand beside it.
"""

from __future__ import annotations

from nightkeep.store.blobs import Blob, load_blob, save_blobs
from nightkeep.store.port import Row, Store, StoreHealth, Transaction, Value, Work
from nightkeep.store.sqlite import DATABASE_NAME, SqliteStore, open_snapshot

__all__ = [
    "DATABASE_NAME",
    "Blob",
    "Row",
    "SqliteStore",
    "Store",
    "StoreHealth",
    "Transaction",
    "Value",
    "Work",
    "load_blob",
    "open_snapshot",
    "save_blobs",
]
