"""Alerts as episodes: opened once, counted while they last, ended once. Pure: time and ids come in as arguments.

An episode has a key, such as ``pool:production``. Raising the same key again counts; raising it at a higher level is
news again. How many episodes are open at once is bounded: a storm of different keys ends in one that counts the rest.
``ops.alerts`` tells people and keeps the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

__all__ = ["Alert", "Episode", "Episodes", "Level", "State", "Step"]

Level = Literal["info", "warning", "critical"]
State = Literal["open", "acked", "resolved"]
Step = Literal["opened", "risen", "counted"]

_RANK: Final[dict[str, int]] = {"info": 0, "warning": 1, "critical": 2}
_MOST_OPEN: Final = 2_000
_LONGEST_TEXT: Final = 2_000
_LONGEST_KEY: Final = 400
_OVERFLOW: Final = "alerts:overflow"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person should know. ``text`` is a whole sentence; chat programs show it as it is."""

    key: str  # the episode
    text: str
    level: Level
    kind: str
    about: str = ""  # the account, the pool, the run: what it is about
    scope: str | None = None  # where it is about one
    resets_at: datetime | None = None
    lasts_s: float | None = None  # it ends by itself when it was not raised again for so long; None: when resolved
    ends_at: datetime | None = None  # it ends by itself at this moment, such as the end of a budget's window


class Episode(msgspec.Struct, kw_only=True):
    """An alert from its first moment to its end."""

    id: str
    alert: Alert  # as it was raised last
    state: State
    first_at: datetime
    last_at: datetime
    count: int = 1
    acked_at: datetime | None = None
    acked_by: str | None = None
    acked_why: str | None = None
    resolved_at: datetime | None = None
    deliveries: dict[str, str] = {}


class Episodes:
    """The episodes that have not ended."""

    def __init__(self, most_open: int = _MOST_OPEN) -> None:
        self._open: dict[str, Episode] = {}
        self._most_open = most_open

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> list[Episode]:
        """What is open or acknowledged, oldest first."""
        return list(self._open.values())

    def get(self, key: str) -> Episode | None:
        """The episode of a key, if it has not ended."""
        return self._open.get(_key(key))

    def with_id(self, alert_id: str) -> Episode | None:
        """The episode of an id, if it has not ended."""
        return next((episode for episode in self._open.values() if episode.id == alert_id), None)

    def restore(self, episodes: Iterable[Episode]) -> None:
        """Go on where the last process stood."""
        for episode in episodes:
            self._open.setdefault(episode.alert.key, episode)

    def raise_(self, alert: Alert, now: datetime, make_id: Callable[[], str]) -> tuple[Step, Episode]:
        """Open an episode, or count one that is open. ``risen``: it became worse, which is news again."""
        alert = _bounded(alert)
        found = self._open.get(alert.key)
        if found is None and len(self._open) >= self._most_open:
            alert = self._overflow(alert)
            found = self._open.get(alert.key)
        if found is None:
            episode = Episode(id=make_id(), alert=alert, state="open", first_at=now, last_at=now)
            self._open[alert.key] = episode
            return "opened", episode
        has_risen = _RANK[alert.level] > _RANK[found.alert.level]
        found.alert, found.last_at = alert, max(now, found.last_at)
        found.count += 1
        if not has_risen:
            return "counted", found
        found.state = "open"  # whoever acknowledged the lesser one has not seen this
        return "risen", found

    def resolve(self, key: str, now: datetime) -> Episode | None:
        """End an episode; None where none is open."""
        episode = self._open.pop(_key(key), None)
        if episode is not None:
            episode.state, episode.resolved_at = "resolved", now
        return episode

    def acknowledge(self, alert_id: str, now: datetime, by: str, why: str) -> Episode | None:
        """Somebody has seen it: it is counted on, and told again only if it becomes worse."""
        episode = self.with_id(alert_id)
        if episode is not None and episode.state == "open":
            episode.state, episode.acked_at, episode.acked_by, episode.acked_why = "acked", now, by, why
        return episode

    def expire(self, now: datetime) -> list[Episode]:
        """End those that end by themselves."""
        over = [each.alert.key for each in self._open.values() if _is_over(each, now)]
        return [episode for key in over if (episode := self.resolve(key, now)) is not None]

    def _overflow(self, alert: Alert) -> Alert:
        text = (
            f"More than {self._most_open} alerts are open at once; further ones are only counted. "
            f"The last of them: {alert.text}"
        )
        return Alert(key=_OVERFLOW, text=text[:_LONGEST_TEXT], level="critical", kind="alert_storm", lasts_s=3_600.0)


def _is_over(episode: Episode, now: datetime) -> bool:
    lasts_s, ends_at = episode.alert.lasts_s, episode.alert.ends_at
    if ends_at is not None and now >= ends_at:
        return True
    return lasts_s is not None and now - episode.last_at >= timedelta(seconds=lasts_s)


def _bounded(alert: Alert) -> Alert:
    """Of a size, and printable: names that a client made up stand in texts, and must not move a terminal's cursor."""
    text, key, about = _plain(alert.text, _LONGEST_TEXT), _key(alert.key), _plain(alert.about, _LONGEST_KEY)
    if (text, key, about) == (alert.text, alert.key, alert.about):
        return alert
    return msgspec.structs.replace(alert, text=text, key=key, about=about)


def _key(key: str) -> str:
    return _plain(key, _LONGEST_KEY)


def _plain(text: str, most: int) -> str:
    text = text[:most]
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in text])
