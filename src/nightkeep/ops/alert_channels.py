"""Channels: where messages go beside the log. The port, the webhook, and the channel that could not be made.

Slack, Telegram, e-mail, PagerDuty and a hundred others are ``ops.alert_apprise``'s; when and how often a channel is
used is ``ops.alert_courier``'s.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from nightkeep.core.scope import is_within
from nightkeep.models.transport import HttpClient, Origin, TransportError
from nightkeep.ops.alert_episodes import Episode, Level

__all__ = ["BrokenChannel", "Channel", "ChannelSpec", "Message", "WebhookChannel", "ask", "message_of"]

_WAIT_S = 10.0
_MOST_ANSWER_BYTES = 1 << 20


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a channel carries; a webhook gets it as JSON. ``text`` is a whole sentence (Slack shows it as it is)."""

    text: str
    level: Level
    kind: str
    state: Literal["open", "resolved", "summary", "test"]
    key: str
    id: str = ""
    about: str = ""
    scope: str | None = None
    at: datetime
    count: int = 1
    resets_at: datetime | None = None


class ChannelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A channel, and what it wants to hear of."""

    name: str
    address: str  # secret with most services; empty where it could not be had
    kind: Literal["webhook", "apprise"] = "webhook"
    levels: frozenset[Level] = frozenset({"warning", "critical"})
    scopes: tuple[str, ...] = ()  # empty: everything
    fault: str = ""  # why there is no address

    def wants(self, message: Message) -> bool:
        """Whether a message is for this channel. With ``scopes``: only what is about one of them, or below."""
        if message.level not in self.levels:
            return False
        scope = message.scope
        return not self.scopes or (scope is not None and any(is_within(scope, each) for each in self.scopes))


class Channel(Protocol):
    """Carries one message."""

    async def check(self) -> str:
        """Say what is wrong with the channel, as far as that is known without sending; empty when nothing is."""
        ...

    async def send(self, message: Message) -> str:
        """Send it; returns what went wrong, empty when nothing did. Never raises; may be called again."""
        ...


class WebhookChannel:
    """Posts messages as JSON."""

    def __init__(self, client: HttpClient, address: str) -> None:
        self._client = client
        self._address = address

    async def check(self) -> str:
        """Nothing is known before it is used."""
        return ""

    async def send(self, message: Message) -> str:
        """Post it; anything but a 2xx is a failure."""
        return await ask(self._client, "POST", self._address, msgspec.json.encode(message))


class BrokenChannel:
    """Stands for a channel that cannot be made; it says why whenever it is used."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def check(self) -> str:
        """Say why."""
        return self._why

    async def send(self, message: Message) -> str:
        """Fail."""
        return self._why


async def ask(client: HttpClient, method: str, address: str, body: bytes = b"") -> str:
    """Send one request; returns what went wrong, empty when nothing did. Does not tell the address: it is a secret."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "its address is not valid"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "its address is no http or https address"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kind = "content-type: application/json\r\n" if body else ""
    host = parts.netloc.rpartition("@")[2]
    try:
        head = f"host: {host}\r\n{kind}user-agent: nightkeep\r\n".encode("ascii")
        upstream = await client.send(Origin(parts.scheme, parts.hostname, port), method, target, head, body,
                                     first_byte_s=_WAIT_S)  # fmt: skip
        await upstream.read(_WAIT_S, _MOST_ANSWER_BYTES)
    except TransportError as error:
        return str(error)
    except UnicodeEncodeError:
        return "its address is not plain ASCII"
    return "" if 200 <= upstream.status < 300 else f"HTTP {upstream.status}"


def message_of(episode: Episode) -> Message:
    """What is said of an episode now."""
    alert = episode.alert
    is_over = episode.state == "resolved"
    text = alert.text.replace("<", "‹").replace(">", "›")  # <!channel> and links: names in it are made up by clients
    return Message(
        text=f"Over: {text}" if is_over else text,
        level=alert.level,
        kind=alert.kind,
        state="resolved" if is_over else "open",
        key=alert.key,
        id=episode.id,
        about=alert.about,
        scope=alert.scope,
        at=episode.resolved_at or episode.last_at,
        count=episode.count,
        resets_at=alert.resets_at,
    )
