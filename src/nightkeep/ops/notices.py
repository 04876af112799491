"""Telling people: what happened to accounts and pools, in one sentence, once per episode.

The episodes themselves are found by ``models.account_book``. The log always gets a notice; a webhook
gets it too, where one is configured. A webhook that fails is tried three times, reported and counted:
it never stands in the way of a call (law 7). Channels beyond it come with a later issue.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from nightkeep.models.account_book import BreakerChange, Change
from nightkeep.models.accounts import AccountChange, AccountStatus
from nightkeep.models.pools import PoolEpisode
from nightkeep.models.transport import HttpClient, Origin, TransportError

__all__ = ["Notice", "Notifier", "describe"]

log = logging.getLogger("nightkeep.notices")

_MOST_WAITING = 100
_TRIES = 3
_WAIT_S = 10.0
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person should know. ``text`` is a whole sentence; Slack and its like show it as it is."""

    text: str
    level: Literal["info", "warning", "critical"]
    kind: str
    about: str  # the account or the pool
    at: datetime
    resets_at: datetime | None = None


def describe(change: Change) -> Notice | None:
    """Say a change in one sentence; None where nobody needs to be told (a short cooling, a breaker that closed)."""
    match change:
        case PoolEpisode():
            return _pool(change)
        case AccountChange():
            return _account(change)
        case BreakerChange(is_open=True):
            text = (
                f"Account {change.account} keeps failing for {change.model}: no calls go there until it has recovered."
            )
            return Notice(text=text, level="info", kind="breaker_open", about=change.account, at=_moment(change.at))
        case _:
            return None


def _pool(episode: PoolEpisode) -> Notice:
    name = f"{episode.pool}" if episode.segment is None else f"{episode.pool} ({episode.segment})"
    resets_at = _moment(episode.resets_at) if episode.resets_at is not None else None
    back = f" The first comes back at {resets_at:%Y-%m-%d %H:%M UTC}." if resets_at else ""
    if episode.kind == "exhausted":
        text = f"ALL {episode.total} accounts of pool {name} are exhausted: its calls are refused at once.{back}"
    elif episode.kind == "partial":
        text = f"{episode.down} of {episode.total} accounts of pool {name} are exhausted.{back}"
    else:
        text = f"Pool {name} has recovered: {episode.total - episode.down} of {episode.total} accounts serve again."
    levels: dict[str, Literal["info", "warning", "critical"]] = {"exhausted": "critical", "partial": "warning"}
    return Notice(
        text=text,
        level=levels.get(episode.kind, "info"),
        kind=f"pool_{episode.kind}",
        about=name,
        at=_moment(episode.at),
        resets_at=resets_at,
    )


def _account(change: AccountChange) -> Notice | None:
    why = f" ({change.why})" if change.why else ""
    hints = {
        AccountStatus.SUSPENDED: "The provider closed it; it is never tried again by itself.",
        AccountStatus.AUTH_FAILED: "Its key was refused; run 'nightkeep accounts test'.",
    }
    if change.after in hints:
        text = f"Account {change.account} is {change.after}{why}. {hints[change.after]}"
        return Notice(text=text, level="warning", kind=str(change.after), about=change.account, at=_moment(change.at))
    if change.after is AccountStatus.QUOTA_EXHAUSTED:
        until = f" until {_moment(change.until):%Y-%m-%d %H:%M UTC}" if change.until else ""
        text = f"Account {change.account} has no quota left{until}{why}."
        return Notice(text=text, level="info", kind="quota_exhausted", about=change.account, at=_moment(change.at))
    return None


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


class Notifier:
    """Sends notices on. Call ``tell`` from anywhere on the event loop; it neither waits nor raises."""

    def __init__(self, client: HttpClient, webhook: str | None) -> None:
        self._client = client
        self.webhook = webhook
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(_MOST_WAITING)
        self._sender: asyncio.Task[None] | None = None
        self.sent = 0
        self.failed = 0

    def tell(self, change: Change) -> None:
        """Log a change that people should know of, and queue it for the webhook."""
        notice = describe(change)
        if notice is None:
            return
        log.log(_LEVELS[notice.level], "%s", notice.text)
        if self.webhook is None or notice.level == "info":
            return
        try:
            self._waiting.put_nowait(notice)
        except asyncio.QueueFull:
            self._lost(notice, "too many notices are waiting")
            return
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while not self._waiting.empty():
            notice = self._waiting.get_nowait()
            error = "no webhook"
            for attempt in range(_TRIES):
                error = await self._send(notice)
                if not error:
                    break
                await asyncio.sleep(0.5 * 2**attempt)
            if error:
                self._lost(notice, error)
            else:
                self.sent += 1

    async def _send(self, notice: Notice) -> str:
        """Send one; returns what went wrong, empty when nothing did."""
        if self.webhook is None:
            return "no webhook"
        parts = urlsplit(self.webhook)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"host: {parts.netloc}\r\ncontent-type: application/json\r\nuser-agent: nightkeep\r\n".encode("ascii")
        try:
            origin = Origin(parts.scheme, parts.hostname or "", port)
            body = msgspec.json.encode(notice)
            upstream = await self._client.send(origin, "POST", target, head, body, first_byte_s=_WAIT_S)
            await upstream.read(_WAIT_S, 1 << 20)
        except TransportError as error:
            return str(error)
        return "" if 200 <= upstream.status < 300 else f"HTTP {upstream.status}"

    def _lost(self, notice: Notice, why: str) -> None:
        self.failed += 1
        log.error("a notice could not be delivered to the webhook (%s): %s", why, notice.text)

    async def flush(self) -> None:
        """Wait until nothing is under way: all is delivered, or given up."""
        if self._sender is not None:
            await self._sender

    async def close(self) -> None:
        """Stop; what still waits is in the log."""
        if self._sender is not None:
            self._sender.cancel()
