"""The operator's token: what lets a person change a running gateway, and an agent not (design.md, law 8).

It is made at the first start, in ``operator.token`` of the data directory, readable by the gateway's own user only.
Whoever can read that file is the operator; agents belong to another user, container or machine. In memory only the
token's hash is kept. The file is looked at whenever a token is presented, so another one holds at once, in every
process on the directory; while there is none, or a broken one, nobody is the operator.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path
from typing import Final

from nightkeep.control.key_text import TOKEN_PREFIX, Entropy, is_whole, make_secret
from nightkeep.core.errors import StoreError

__all__ = ["TOKEN_NAME", "OperatorToken", "obtain_token", "read_token", "renew_token"]

TOKEN_NAME: Final = "operator.token"
_MOST_BYTES: Final = 256
_LOG: Final = logging.getLogger("nightkeep")


class OperatorToken:
    """Knows the token of a data directory when it is presented; cannot tell it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp: tuple[int, int, int] | None = None
        self._digest: bytes | None = None

    def fits(self, presented: str) -> bool:
        """Tell whether this is the token, in a time that says nothing about it."""
        self._look()
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        return self._digest is not None and hmac.compare_digest(digest, self._digest)

    def _look(self) -> None:
        """Take what is in the file now."""
        try:
            found = (self._directory / TOKEN_NAME).stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            token = read_token(self._directory)
        except OSError as error:
            stamp, token = None, None
            if self._digest is not None:
                _LOG.error("the operator's token cannot be read, so nobody is the operator: %s", error.strerror)
        is_good = token is not None and is_whole(TOKEN_PREFIX, token)
        self._digest = hashlib.sha256(token.encode()).digest() if token is not None and is_good else None
        self._stamp = stamp


def obtain_token(directory: Path, entropy: Entropy) -> OperatorToken:
    """The token of a data directory; the first to ask makes it, whole, with mode 0600.

    Raises:
        StoreError: the file cannot be made or read, or is no token.
    """
    path = directory / TOKEN_NAME
    try:
        if not path.exists():
            _write_new(path, make_secret(TOKEN_PREFIX, entropy))
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(0o600)
            _LOG.warning(
                "%s could be read by others (mode %03o) and is private again; delete it and restart to change it",
                path,
                mode,
            )
        token = read_token(directory)
    except OSError as error:
        raise StoreError(f"the operator's token {path} cannot be had: {error.strerror}") from error
    if token is None or not is_whole(TOKEN_PREFIX, token):
        raise StoreError(f"{path} holds no operator's token; delete it and start again, and a new one is made")
    return OperatorToken(directory)


def renew_token(directory: Path, entropy: Entropy) -> None:
    """Put another token in the place of the one that is there. Raises StoreError."""
    path = directory / TOKEN_NAME
    try:
        _write_whole(path, make_secret(TOKEN_PREFIX, entropy)).replace(path)
    except OSError as error:
        raise StoreError(f"the operator's token {path} cannot be replaced: {error.strerror}") from error


def read_token(directory: Path) -> str | None:
    """The text of a data directory's token; None where there is none. Raises OSError: it may not be read."""
    try:
        with (directory / TOKEN_NAME).open("rb") as stream:
            return stream.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def _write_new(path: Path, token: str) -> None:
    """Put the whole file there at once; where another process was first, its token holds."""
    fresh = _write_whole(path, token)
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def _write_whole(path: Path, token: str) -> Path:
    """A file beside it with a token, on the disk, mode 0600."""
    fresh = path.with_name(f"{path.name}.{hashlib.sha256(token.encode()).hexdigest()[:8]}")
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, token.encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    return fresh
