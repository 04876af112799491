"""The data directory: one owner at a time, readable by nobody else.

The lock is the kernel's (``flock``), so it is gone with its process, however that ended. The lock file keeps the
owner's process id for the message to a second one, and shows whether the last owner left in order.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from nightkeep.core.errors import ConflictError, StoreError

__all__ = ["LOCK_NAME", "DirectoryLock", "WriteTurn", "private_file"]

LOCK_NAME: Final = "lock"


class DirectoryLock:
    """Owns a data directory until ``release``."""

    def __init__(self, directory: Path, pid: int) -> None:
        """Take the directory; made with mode 0700 where it is not there.

        Raises:
            ConflictError: another process has it; the message names its process id.
            StoreError: it cannot be made or written.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            self._file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the data directory {directory} cannot be used: {error.strerror}; name another with --data",
                directory=str(directory),
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = self._text()
            os.close(self._file)
            raise ConflictError(
                f"another nightkeep (process {owner or 'unknown'}) already uses the data directory {directory}; "
                f"stop it{f' (kill {owner})' if owner else ''}, or name another directory with --data",
                directory=str(directory),
                pid=int(owner) if owner else None,
            ) from None
        self.was_left_in_order = self._text() == ""
        """The last owner closed the store, or there was none."""
        self._say(str(pid))

    def release(self) -> None:
        """Give the directory back, in order."""
        self._say("")
        os.close(self._file)

    def _text(self) -> str:
        text = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
        return text if text.isdecimal() else ""

    def _say(self, text: str) -> None:
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)
        except OSError:  # a full disk: the lock itself holds all the same
            return


class WriteTurn:
    """Whose turn it is to write, among processes on one database: a lock that wakes who waits, and dies with its owner.

    SQLite's own lock is asked again and again with longer and longer pauses: under load a process could wait for
    seconds while others write.
    """

    def __init__(self, directory: Path) -> None:
        """Use the directory's turn. Raises OSError."""
        self._file = os.open(directory / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        """Wait for it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let the next one write."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


def private_file(path: Path) -> None:
    """Make a file with mode 0600, or give it that mode. SQLite makes its side files with the mode of the main one."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
