"""The file ``STOP`` in the data directory: while it is there, nothing is served. For whoever has a shell and no more.

``touch STOP`` is enough; what is written in it is the why. Anything of that name counts: a file, a directory, a link
that leads nowhere.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Final

from nightkeep.control.stops import Stop, clipped
from nightkeep.core.errors import StoreError
from nightkeep.core.scope import ROOT

__all__ = ["STOP_NAME", "StopFile", "remove_stop_file"]

STOP_NAME: Final = "STOP"
_MOST_WHY_BYTES: Final = 2_000
_MOST_WHY: Final = 500


class StopFile:
    """Looks whether the file is there: one ``stat``."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / STOP_NAME
        self._seen: os.stat_result | None = None
        self._stop: Stop | None = None

    def look(self, now: datetime) -> Stop | None:
        """The stop that the file makes; None where there is no file.

        Raises:
            StoreError: it cannot be told whether it is there.
        """
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            self._seen = self._stop = None
            return None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be looked for: {error.strerror}") from error
        if self._stop is None or self._seen is None or _stamp(found) != _stamp(self._seen):
            self._stop = self._made(found, now)
            self._seen = found
        return self._stop

    def _made(self, found: os.stat_result, now: datetime) -> Stop:
        """The first look decides since when: a file's own times can be set at will."""
        since = self._stop.since if self._stop is not None else now
        why = _content(self.path) if stat.S_ISREG(found.st_mode) and found.st_size else ""
        return Stop(
            id="stop_file",
            kind="scope",
            name=ROOT,
            why=why,
            by=f"the file {STOP_NAME} of user {found.st_uid}",
            since=since,
            source="file",
        )


def remove_stop_file(directory: Path) -> bool:
    """Take the file away; False where there was none.

    Raises:
        StoreError: it cannot be taken away.
    """
    path = directory / STOP_NAME
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error.strerror}; while it is there, nothing is served") from error
    return True


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(path: Path) -> str:
    """What stands in a plain file; a link is not followed, and nothing here waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return clipped(os.read(descriptor, _MOST_WHY_BYTES).decode("utf-8", "replace"), _MOST_WHY)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
