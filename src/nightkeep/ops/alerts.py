"""Alerts: who is told what, once per episode, and what is kept of it.

``raise_`` and ``resolve`` are the face for every other part: neither waits nor raises, so an alert never delays a call
(law 7). Each episode is logged, written down within a moment, and offered to the channels that want it; a channel that
fails is itself an alert, told to the others. Episodes are ``ops.alert_episodes``'s, limits and summaries
``ops.alert_courier``'s. No model is ever asked anything here (law 6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from datetime import datetime
from typing import Final, Literal

import msgspec

from nightkeep.core.clock import Clock, Randomness, new_id
from nightkeep.core.errors import NightkeepError, RequestError
from nightkeep.models.account_book import Change
from nightkeep.models.leases import AccountView
from nightkeep.models.transport import HttpClient
from nightkeep.ops import alert_rows as rows
from nightkeep.ops.alert_apprise import AppriseChannel
from nightkeep.ops.alert_channels import BrokenChannel, Channel, ChannelSpec, Message, WebhookChannel, message_of
from nightkeep.ops.alert_courier import ChannelView, Courier, Pause
from nightkeep.ops.alert_episodes import Alert, Episode, Episodes
from nightkeep.ops.alert_keeper import AlertKeeper
from nightkeep.ops.alert_posts import LetterBox, Post
from nightkeep.ops.alert_rates import RateGate
from nightkeep.ops.heartbeat import Heartbeat, HeartbeatView
from nightkeep.ops.notices import describe, ended, over
from nightkeep.store.port import Store, Transaction

__all__ = ["Alert", "AlertHealth", "AlertPolicy", "AlertView", "Alerts", "TestResult", "alert_view"]

log = logging.getLogger("nightkeep.alerts")

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}
_TICK_S: Final = 5.0
_LETTERS_S: Final = 0.5
_POST_AGAIN_S: Final = 60.0
_MOST_POSTED: Final = 5_000
_LOGGED_PER_HOUR: Final = 600
_FORGET_TICKS: Final = 720  # an hour


class AlertPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go."""

    channels: tuple[ChannelSpec, ...] = ()
    per_hour: int = 20
    heartbeat: str | None = None  # an address
    heartbeat_s: float = 60.0
    heartbeat_fault: str = ""  # why its address cannot be had


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """One alert as the API and the command line show it."""

    id: str
    key: str
    kind: str
    level: str
    state: Literal["open", "acked", "resolved"]
    about: str
    scope: str | None
    text: str
    first_at: datetime
    last_at: datetime
    count: int
    resets_at: datetime | None
    acked_at: datetime | None
    acked_by: str | None
    acked_why: str | None
    resolved_at: datetime | None
    deliveries: dict[str, str]


class AlertHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How telling people goes."""

    open: int
    critical: int
    channels: list[ChannelView]
    heartbeat: HeartbeatView | None
    unsaved: int  # episodes that the store has not taken yet
    is_teller: bool = True  # of several processes one tells people, and only that one knows how its channels do


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a test message."""

    __test__ = False  # not one of pytest's

    channel: str
    ok: bool
    error: str
    took_ms: float


class Alerts:
    """Raises, resolves, tells and keeps alerts. For one event loop."""

    def __init__(
        self,
        store: Store,
        client: HttpClient,
        clock: Clock,
        randomness: Randomness,
        policy: AlertPolicy,
        *,
        trouble: Callable[[], str] = str,
        pause: Pause = asyncio.sleep,
        is_teller: bool = True,
        is_alone: bool = True,
    ) -> None:
        """``trouble`` says why the gateway is not healthy, empty while it is: then no heartbeat is sent.

        Of several processes on one database (``is_alone`` false) exactly one is the teller: it has the episodes, the
        channels and the heartbeat; the others post theirs to it.
        """
        self._is_teller = is_teller
        self._is_alone = is_alone
        self._store = store
        self._client = client
        self._clock = clock
        self._randomness = randomness
        self._trouble = trouble
        self._pause = pause
        self._episodes = Episodes()
        self._couriers: dict[str, Courier] = {}
        self._heartbeat: Heartbeat | None = None
        self._keeper = AlertKeeper(store)
        self._box = LetterBox(store, clock, randomness)
        self._posted: dict[str, tuple[str, float]] = {}  # by key: at what level and when it was posted to the teller
        self._log_gate = RateGate(_LOGGED_PER_HOUR)
        self._not_logged = 0
        self._ticking: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_started = False
        self._policy = AlertPolicy()
        self.configure(policy)

    # -- its life

    async def open(self) -> None:
        """Go on where the last process stood, and begin to send. Raises StoreError."""
        if not self._is_teller:
            return
        found = [rows.episode_of(row) for row in await self._store.read(rows.SELECT_OPEN)]
        self._episodes.restore(found)
        self._is_started = True
        for courier in self._couriers.values():
            courier.start()
        if self._heartbeat is not None:
            self._heartbeat.start()
        self._ticking = asyncio.ensure_future(self._tick_on())
        if not self._is_alone:
            self._reading = asyncio.ensure_future(self._read_letters())
        self._forget_channels()
        for episode in self._episodes.all():
            self._tell(episode)  # only those who have not heard it

    async def take_over(self) -> None:
        """Become the teller, after the one before has ended. Raises StoreError."""
        if not self._is_teller:
            self._is_teller = True
            await self.open()

    def configure(self, policy: AlertPolicy) -> None:
        """Take another policy; channels that stay as they are keep their counts."""
        if policy == self._policy:
            return
        kept = {} if policy.per_hour != self._policy.per_hour else self._couriers
        couriers: dict[str, Courier] = {}
        for spec in policy.channels:
            old = kept.get(spec.name)
            couriers[spec.name] = old if old is not None and old.spec == spec else self._make(spec, policy.per_hour)
        for name, courier in self._couriers.items():
            if couriers.get(name) is not courier:
                courier.close()
        self._couriers = couriers
        self._replace_heartbeat(policy)
        self._policy = policy
        if self._is_started:
            self._forget_channels()
            for episode in self._episodes.all():
                self._tell(episode, couriers.keys() - {name for name in kept if couriers.get(name) is kept[name]})

    def _forget_channels(self) -> None:
        """A channel that is no longer there does not fail any more."""
        there = {_channel_key(name) for name in self._couriers} | ({"heartbeat"} if self._heartbeat else set())
        for key in (*self.open_keys("channel:"), "heartbeat"):
            if key not in there:
                self.resolve(key)
        if self._policy.heartbeat_fault:
            text = f"The dead man's switch cannot be pinged: {self._policy.heartbeat_fault}."
            self.raise_(Alert(key="heartbeat", text=text, level="warning", kind="heartbeat_failed"))

    def _make(self, spec: ChannelSpec, per_hour: int) -> Courier:
        courier = Courier(spec, self._channel(spec), self._clock, per_hour, self._delivered, self._pause)
        if self._is_started:
            courier.start()
        return courier

    def _channel(self, spec: ChannelSpec) -> Channel:
        if spec.fault:
            return BrokenChannel(spec.fault)
        if spec.kind == "webhook":
            return WebhookChannel(self._client, spec.address)
        return AppriseChannel(spec.address)

    def _replace_heartbeat(self, policy: AlertPolicy) -> None:
        old = self._policy
        if (policy.heartbeat, policy.heartbeat_s) == (old.heartbeat, old.heartbeat_s):
            return
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
        if policy.heartbeat is not None:
            self._heartbeat = Heartbeat(
                self._client,
                policy.heartbeat,
                policy.heartbeat_s,
                self._clock,
                self._trouble,
                self._heartbeat_changed,
                self._pause,
            )
            if self._is_started:
                self._heartbeat.start()

    async def flush(self) -> None:
        """Wait until nothing is under way: all is written, and delivered, held back or given up."""
        for courier in list(self._couriers.values()):
            if self._is_teller:
                await courier.flush()
        await self._box.flush()
        await self._keeper.save_all()

    async def close(self) -> None:
        """Stop; what was not delivered is in the record and is offered again after the next start."""
        for task in (self._ticking, self._reading):
            if task is not None:
                task.cancel()
        if self._heartbeat is not None:
            self._heartbeat.close()
        for courier in self._couriers.values():
            courier.close()
        await self._box.flush()
        await self._keeper.close()

    # -- what other parts call

    def raise_(self, alert: Alert) -> None:
        """Tell people, once per episode; a key that is open already is counted. Neither waits nor raises."""
        if not self._is_teller:
            self._post(alert)
            return
        now = self._clock.now()
        step, episode = self._episodes.raise_(alert, now, lambda: new_id("alert", now, self._randomness))
        self._keeper.save_soon(episode)
        if step == "counted":
            return
        if step == "risen":
            episode.deliveries = {}
        self._log(episode)
        self._tell(episode)

    def resolve(self, key: str, text: str = "") -> None:
        """End an episode, if there is one; ``text`` says how. Neither waits nor raises."""
        if not self._is_teller:
            self._posted.pop(key, None)
            self._box.put(Post(act="resolve", key=key, text=text))
            return
        episode = self._episodes.resolve(key, self._clock.now())
        if episode is not None:
            self._ended(episode, text)

    def tell(self, change: Change) -> None:
        """Raise or end what a change of an account, a breaker or a pool means."""
        key = ended(change)
        if key is not None:
            self.resolve(key)
        alert = describe(change)
        if alert is not None and alert.kind == "pool_recovered":
            self.resolve(alert.key, alert.text)
        elif alert is not None:
            self.raise_(alert)

    def settle(self, accounts: Sequence[AccountView]) -> None:
        """End what is over by what the accounts say: after the start, and after new settings."""
        for key in over(self.open_keys(), accounts):
            self.resolve(key)

    def open_keys(self, prefix: str = "") -> list[str]:
        """The keys of the episodes that have not ended."""
        return [episode.alert.key for episode in self._episodes.all() if episode.alert.key.startswith(prefix)]

    # -- where another process tells people

    def _post(self, alert: Alert) -> None:
        """Post an alert to the teller; one that lasts, again each minute only."""
        now_s = self._clock.monotonic()
        level, posted_at = self._posted.get(alert.key, ("", 0.0))
        if level == alert.level and now_s - posted_at < _POST_AGAIN_S:
            return
        if len(self._posted) >= _MOST_POSTED:
            self._posted.clear()
        self._posted[alert.key] = (alert.level, now_s)
        log.log(_LEVELS[alert.level], "%s", alert.text)
        self._box.put(Post(act="raise", alert=alert))

    async def _read_letters(self) -> None:
        while True:
            await asyncio.sleep(_LETTERS_S)
            try:
                await self.read_letters()
            except NightkeepError as error:
                log.error("alerts of other processes cannot be read now: %s", error.message)

    async def read_letters(self) -> None:
        """Take what other processes posted. Raises StoreError."""
        for post in await self._box.take():
            if post.act == "raise" and post.alert is not None:
                self.raise_(post.alert)
            elif post.act == "resolve":
                self.resolve(post.key, post.text)
            elif post.act == "ack":
                episode = self._episodes.acknowledge(post.alert_id, self._clock.now(), post.by, post.why)
                if episode is not None:
                    self._keeper.save_soon(episode)

    # -- what the API asks

    def health(self) -> AlertHealth:
        """How telling people goes."""
        episodes = self._episodes.all()
        return AlertHealth(
            open=sum(1 for each in episodes if each.state == "open"),
            critical=sum(1 for each in episodes if each.state == "open" and each.alert.level == "critical"),
            channels=[courier.view() for courier in self._couriers.values()] if self._is_teller else [],
            heartbeat=self._heartbeat.view if self._heartbeat is not None else None,
            unsaved=len(self._keeper.unsaved),
            is_teller=self._is_teller,
        )

    async def find(self, state: str = "unresolved", limit: int = 100) -> list[AlertView]:
        """Alerts, newest first. Raises StoreError where resolved ones are asked for and cannot be read."""
        if self._is_teller and state in ("unresolved", "open", "acked"):
            found = [each for each in self._episodes.all() if state in ("unresolved", each.state)]
            return [alert_view(each) for each in reversed(found)][:limit]
        await self._keeper.save_all()
        if state == "unresolved":
            read = (await self._store.read(rows.SELECT_OPEN))[::-1][:limit]
        elif state == "all":
            read = await self._store.read(rows.SELECT, (limit,))
        else:
            read = await self._store.read(rows.SELECT_STATE, (state, limit))
        return [alert_view(rows.episode_of(row)) for row in read]

    async def show(self, alert_id: str) -> AlertView | None:
        """One alert; None where there is none. Raises StoreError."""
        episode = self._episodes.with_id(alert_id) or self._keeper.unsaved.get(alert_id)
        if episode is not None:
            return alert_view(episode)
        read = await self._store.read(rows.SELECT_ID, (alert_id,))
        return alert_view(rows.episode_of(read[0])) if read else None

    async def acknowledge(self, alert_id: str, by: str, why: str) -> AlertView | None:
        """Somebody has seen it: it is told again only if it becomes worse. None where there is no such alert.

        Raises:
            RequestError: it is over.
            StoreError: it could not be written.
        """
        if not self._is_teller:
            return await self._ask_teller(alert_id, by, why[:500])
        episode = self._episodes.acknowledge(alert_id, self._clock.now(), by, why[:500])
        if episode is None:
            if await self.show(alert_id) is None:
                return None
            raise _is_over(alert_id)
        await self._keeper.save_now(episode)
        return alert_view(episode)

    async def _ask_teller(self, alert_id: str, by: str, why: str) -> AlertView | None:
        view = await self.show(alert_id)
        if view is None:
            return None
        if view.state == "resolved":
            raise _is_over(alert_id)
        self._box.put(Post(act="ack", alert_id=alert_id, by=by, why=why))
        return msgspec.structs.replace(view, state="acked", acked_at=self._clock.now(), acked_by=by, acked_why=why)

    async def test(self, channel: str | None = None) -> list[TestResult]:
        """Send a test message through one channel, or all. Raises KeyError: there is no such channel."""
        chosen = list(self._couriers.values()) if channel is None else [self._couriers[channel]]
        log.info("a test message goes to %d alert channels", len(chosen))
        return list(await asyncio.gather(*map(self._test_one, chosen)))

    async def _test_one(self, courier: Courier) -> TestResult:
        text = f"This is a test of the alert channel {courier.spec.name}. Nothing is wrong."
        message = Message(text=text, level="info", kind="test", state="test", key="alerts:test", at=self._clock.now())
        began_s = self._clock.monotonic()
        error = await courier.test(message)
        took_ms = round((self._clock.monotonic() - began_s) * 1000, 1)
        self._channel_changed(courier)
        return TestResult(channel=courier.spec.name, ok=not error, error=error, took_ms=took_ms)

    @property
    def channels(self) -> list[str]:
        """The names of the channels."""
        return list(self._couriers)

    # -- telling

    def _tell(self, episode: Episode, only: Set[str] | None = None) -> None:
        message = message_of(episode)
        for name, courier in self._couriers.items():
            if only is not None and name not in only:
                continue
            if episode.state == "resolved":
                is_due = name in episode.deliveries  # whoever heard of it hears that it is over
            else:
                is_due = episode.state == "open" and episode.deliveries.get(name) != "sent"
            if is_due and message.key != _channel_key(name):
                courier.offer(message)

    def _ended(self, episode: Episode, text: str = "") -> None:
        if text:
            episode.alert = msgspec.structs.replace(episode.alert, text=text)
        self._keeper.save_soon(episode)
        self._log(episode)
        self._tell(episode)

    def _delivered(self, courier: Courier, message: Message | None, what: str) -> None:
        """What became of a message."""
        if message is not None and message.state == "open":
            episode = self._episodes.with_id(message.id)
            if episode is not None:
                episode.deliveries[courier.spec.name] = what
                self._keeper.save_soon(episode)
        if what not in ("waiting", "held"):
            self._channel_changed(courier)

    def _channel_changed(self, courier: Courier) -> None:
        name = courier.spec.name
        if courier.failing_since is None:
            self.resolve(_channel_key(name), f"Alert channel {name} works again.")
            return
        text = (
            f"Alert channel {name} fails ({courier.last_error}): what it should tell is in 'nightkeep alerts list' "
            "and follows when it works again."
        )
        key = _channel_key(name)
        if self._episodes.get(key) is None:
            self.raise_(Alert(key=key, text=text, level="critical", kind="channel_failed", about=name))

    def _heartbeat_changed(self, error: str) -> None:
        if not error:
            self.resolve("heartbeat", "The dead man's switch is pinged again.")
            return
        text = f"The dead man's switch cannot be reached ({error}): its monitor may soon report this gateway as gone."
        self.raise_(Alert(key="heartbeat", text=text, level="warning", kind="heartbeat_failed"))

    def _log(self, episode: Episode) -> None:
        level = logging.INFO if episode.state == "resolved" else _LEVELS[episode.alert.level]
        if self._log_gate.admit(self._clock.monotonic(), is_critical=level >= logging.CRITICAL) == "hold":
            self._not_logged += 1
            return
        if self._not_logged:
            log.warning("%d more alerts were not logged one by one; see: nightkeep alerts list", self._not_logged)
            self._not_logged = 0
        log.log(level, "%s", message_of(episode).text)

    # -- time

    async def _tick_on(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            self.tick()
            ticks += 1
            if ticks % _FORGET_TICKS == 1:
                now = self._clock.now()
                self._store.post(_forgetting(now))

    def tick(self) -> None:
        """End what ends by itself, and let couriers look at the clock."""
        for episode in self._episodes.expire(self._clock.now()):
            self._ended(episode)
        for courier in self._couriers.values():
            courier.wake()


def alert_view(episode: Episode) -> AlertView:
    """An episode as it is shown."""
    alert = episode.alert
    return AlertView(
        id=episode.id,
        key=alert.key,
        kind=alert.kind,
        level=alert.level,
        state=episode.state,
        about=alert.about,
        scope=alert.scope,
        text=alert.text,
        first_at=episode.first_at,
        last_at=episode.last_at,
        count=episode.count,
        resets_at=alert.resets_at,
        acked_at=episode.acked_at,
        acked_by=episode.acked_by,
        acked_why=episode.acked_why,
        resolved_at=episode.resolved_at,
        deliveries=dict(episode.deliveries),
    )


def _is_over(alert_id: str) -> RequestError:
    return RequestError(f"alert {alert_id} is over already: there is nothing to acknowledge")


def _channel_key(name: str) -> str:
    return f"channel:{name}"


def _forgetting(now: datetime) -> Callable[[Transaction], None]:
    return lambda transaction: rows.forget_resolved(transaction, now)
