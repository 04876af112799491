"""Watching at work: takes note of calls beside the record, looks each second, tells people, and stops what it may stop.

On the way of a call only small values are put aside (a few microseconds); they are folded a moment later, and looked at
each second. A fault here is reported and stops nothing (law 7). The rules are ``control.watch``'s; no model is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import msgspec

from nightkeep.control.keys import OPEN_SCOPE
from nightkeep.control.watch import RuleView, Watch
from nightkeep.control.watch_specs import CallBegun, CallEnded, Finding, Now, WatchSpec
from nightkeep.core.clock import Clock
from nightkeep.core.errors import NightkeepError
from nightkeep.core.scope import ROOT
from nightkeep.models.call_record import CallRecord, CallSink
from nightkeep.models.ledger_tail import LedgerTail
from nightkeep.models.spend_history import hourly_spend, recent_runs
from nightkeep.ops.alerts import Alert, Alerts
from nightkeep.store.port import Store

__all__ = ["Pause", "Watching", "cost_of"]

log = logging.getLogger("nightkeep.watch")

Pause = Callable[[str, str, str], Awaitable[object]]
"""Stops a scope: scope, why, rule."""

_FOLD_S: Final = 0.1
_LOOK_S: Final = 1.0
_MOST_FACTS: Final = 100_000
_HISTORY: Final = timedelta(days=7)
_QUIET_S: Final = 300.0  # so long nothing was found: the episode is over
_TELL_AGAIN_S: Final = 60.0  # a finding that lasts is counted once a minute, with its newest numbers
_PREFIX: Final = "watch:"
_PAUSED: Final = "watch:paused:"
_FREE: Final = ("hit", "replayed", "joined")
_WHOLE: Final = 4_096  # bytes of a body whose print is taken at once
_MOST_LOOKS: Final = 20_000
_LONGEST_NAME: Final = 120


class _Lasting(msgspec.Struct):
    """A finding that people know of."""

    level: str
    seen_at: float
    told_at: float
    is_stopped: bool = False


class Watching:
    """A ``CallSink`` that passes everything on, and watches. For one event loop."""

    def __init__(
        self,
        following: CallSink,
        watch: Watch,
        clock: Clock,
        alerts: Alerts,
        *,
        pause: Pause | None = None,
        has_keys: Callable[[], bool] = bool,
        elsewhere: LedgerTail | None = None,
        is_first: bool = True,
    ) -> None:
        """``has_keys``: whether the gateway knows virtual keys, so that a call without one is a stray.

        Of several processes on one database the first watches what all of them spend (``elsewhere``: the rows that
        the others add to the ledger); each of the others (``is_first`` false) watches for equal requests only.
        """
        self._elsewhere = elsewhere
        self._is_first = is_first
        self._configured = watch.spec
        self.watch = watch
        self.pause = pause
        self.lost = 0  # facts that found no room
        self._following = following
        self._clock = clock
        self._alerts = alerts
        self._has_keys = has_keys
        self._asks_keys = has_keys()
        self._has_scopes = False
        self._facts: deque[CallBegun | CallEnded] = deque()
        self._prints: dict[str, int] = {}  # of calls in flight
        self._alike: dict[int, bool] = {}  # rough prints; True: its first sending was counted
        self._timer: asyncio.TimerHandle | None = None
        self._lasting: dict[str, _Lasting] = {}
        self._looking: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._is_broken = False
        self.configure(watch.spec)

    # -- its life

    async def open(self, store: Store) -> None:
        """Take the baselines of the last seven days, so that a restart does not forget, and begin to look.

        A history that cannot be read is reported; then the rules learn anew.
        """
        now = self._clock.now()
        try:
            spent = await hourly_spend(store, now - _HISTORY)
            runs = await recent_runs(store, now - _HISTORY)
        except NightkeepError as error:
            log.error("watching begins without a baseline: %s", error.message)
            spent, runs = [], []
        lag = self._clock.monotonic() - now.timestamp()
        self.watch.restore(spent, [(scope, run, cost, last_at + lag) for scope, run, cost, last_at in runs])
        self._has_scopes = any(_is_named(scope) for scope, _, _ in spent)
        at = self._clock.monotonic()
        for key in self._alerts.open_keys(_PREFIX):
            if not key.startswith(_PAUSED):
                self._lasting[key] = _Lasting(level="", seen_at=at, told_at=at)
        self._looking = asyncio.ensure_future(self._look_on())

    def configure(self, spec: WatchSpec) -> None:
        """Take other numbers."""
        self._configured = spec
        self.watch.configure(spec if self._is_first else spec.requests_only())

    async def close(self) -> None:
        """Stop looking; stops that are being thrown are thrown."""
        if self._looking is not None:
            self._looking.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=2.0)

    # -- on the way of a call

    def begin(self, record: CallRecord) -> None:
        """A call has begun."""
        self._following.begin(record)
        if record.operation == "count_tokens" or not self.watch.is_on:
            return
        body = record.request_body
        if body:
            times = 1
            if len(body) <= _WHOLE:
                mark = hash(body)
            else:
                mark, times = self._mark(body)
            self._prints[record.id] = mark
            self._note(CallBegun(self._clock.monotonic(), record.scope, record.asked[:_LONGEST_NAME], mark, times))

    def _mark(self, body: bytes) -> tuple[int, int]:
        """The print of a large body: only of its ends until one comes that looks the same, then of the whole."""
        rough = hash((len(body), body[:1024], body[-3072:]))
        was_counted = self._alike.get(rough)
        if was_counted is None:
            if len(self._alike) >= _MOST_LOOKS:
                del self._alike[next(iter(self._alike))]
            self._alike[rough] = False
            return rough, 1
        self._alike[rough] = True
        return hash(body), 1 if was_counted else 2

    def finish(self, record: CallRecord) -> None:
        """A call is over."""
        self._following.finish(record)
        if record.operation == "count_tokens" or not self.watch.is_on:
            return
        at = self._clock.monotonic()
        usage = record.usage
        is_paid = bool(record.attempts) and record.cache not in _FREE and record.idempotency not in _FREE
        input_tokens = usage.total_input if usage is not None and is_paid else 0
        self._note(
            CallEnded(
                at,
                at - record.duration_ms / 1000,
                record.scope,
                record.run,
                record.asked[:_LONGEST_NAME],
                record.agent,
                record.peer,
                "" if record.key else self._stray(record.scope),
                input_tokens,
                usage.total if usage is not None and is_paid else 0,
                cost_of(record) if is_paid else 0,
                input_tokens or record.bytes_out,
                self._prints.pop(record.id, 0),
                is_paid,
            )
        )

    def _stray(self, scope: str) -> str:
        if self._asks_keys:
            return "without a key, though there are keys"
        return "without a scope, though there are scopes" if self._has_scopes and not _is_named(scope) else ""

    def _note(self, fact: CallBegun | CallEnded) -> None:
        if len(self._facts) >= _MOST_FACTS:
            self.lost += 1
            return
        self._facts.append(fact)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FOLD_S, self.fold)

    # -- a moment later

    def fold(self) -> None:
        """Take note of what was put aside."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        facts, self._facts = self._facts, deque()
        try:
            for fact in facts:
                self.watch.fold(fact, now)
                self._has_scopes = self._has_scopes or _is_named(fact.scope)
            is_urgent = self.watch.take_urgent()
        except Exception:  # noqa: BLE001 - said by _broke; calls go on (law 7)
            self._broke()
            return
        if is_urgent:
            self._look(now)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.follow()
            self.tick()

    async def follow(self) -> None:
        """Take note of what other processes spent."""
        if self._elsewhere is None:
            return
        try:
            found = await self._elsewhere.news()
        except NightkeepError as error:
            log.warning("what other processes spend cannot be read now: %s", error.message)
            return
        lag = self._clock.monotonic() - self._clock.now().timestamp()
        for spent in found:
            self._note(
                CallEnded(
                    spent.ended + lag,
                    spent.began + lag,
                    spent.scope,
                    spent.run,
                    spent.asked[:_LONGEST_NAME],
                    spent.agent,
                    "",
                    "" if spent.key else self._stray(spent.scope),
                    spent.input_tokens,
                    spent.input_tokens + spent.output_tokens,
                    spent.cost,
                    spent.input_tokens,
                    0,
                    True,
                )
            )

    def tick(self) -> None:
        """Look, tell what is new, end what is over."""
        self._asks_keys = self._has_keys()
        self.fold()
        self._look(self._now())

    def _look(self, now: Now) -> None:
        try:
            findings = self.watch.look(now)
        except Exception:  # noqa: BLE001 - said by _broke; calls go on (law 7)
            self._broke()
            return
        for finding in findings:
            self._found(finding, now.at)
        for key, lasting in list(self._lasting.items()):
            if now.at - lasting.seen_at >= _QUIET_S:
                del self._lasting[key]
                self._alerts.resolve(key)

    def _broke(self) -> None:
        """A rule has a fault: said aloud, once; calls go on."""
        if not self._is_broken:
            self._is_broken = True
            log.exception("watching has a fault and may miss something")
            text = "Watching has a fault and may miss something; the log has the details."
            self._alerts.raise_(Alert(key="watching", text=text, level="critical", kind="watching_failed"))

    def _now(self) -> Now:
        return Now(self._clock.monotonic(), self._clock.now().timestamp())

    # -- what was found

    def _found(self, finding: Finding, at: float) -> None:
        lasting = self._lasting.get(finding.key)
        if lasting is None or lasting.level != finding.level or at - lasting.told_at >= _TELL_AGAIN_S:
            is_stopped = lasting is not None and lasting.is_stopped
            self._lasting[finding.key] = _Lasting(finding.level, at, at, is_stopped)
            self._alerts.raise_(
                Alert(
                    key=finding.key,
                    text=finding.text,
                    level=finding.level,
                    kind=finding.rule,
                    about=finding.scope,
                    scope=finding.scope,
                )
            )
        lasting = self._lasting[finding.key]
        lasting.seen_at = at
        if finding.wants_pause and not lasting.is_stopped:
            lasting.is_stopped = True  # once an episode: who resumes it is not overruled a second later
            task = asyncio.ensure_future(self._stop(finding))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def _stop(self, finding: Finding) -> None:
        """Stop the scope of a finding, and say so; where it cannot be stopped, say that."""
        scope, why = finding.scope, finding.text
        try:
            if self.pause is None:
                raise NightkeepError("this gateway has no switches")
            await self.pause(scope, why, finding.rule)
        except Exception as error:
            log.exception("rule %s could not stop %s", finding.rule, scope)
            text = f"Rule {finding.rule} could not stop {scope} ({error}). {why}"
            kind, key = "pause_failed", f"watch:pause_failed:{scope}"
        else:
            text = f"{scope} is stopped by the rule {finding.rule}: {why} Its way back: nightkeep resume {scope}"
            kind, key = "paused", f"{_PAUSED}{scope}"
        self._alerts.raise_(
            Alert(key=key, text=text, level="critical", kind=kind, about=scope, scope=scope, lasts_s=86_400.0)
        )

    def view(self) -> list[RuleView]:
        """The rules, and what they see now."""
        self.tick()
        views = self.watch.view()
        if self._is_first:
            return views
        here = {view.rule: view for view in views if view.is_on}
        state = "watched by the first worker; what it finds is an alert"
        return [
            here.get(view.rule) or (msgspec.structs.replace(view, state=state, is_here=False) if view.is_on else view)
            for view in Watch(self._configured).view()
        ]


def _is_named(scope: str) -> bool:
    return scope not in (OPEN_SCOPE, ROOT)


def cost_of(record: CallRecord) -> int:
    """What a call cost; where nobody said, what was held for it."""
    cost = 0
    for attempt in record.attempts:
        if attempt.cost is not None:
            cost += attempt.cost
        elif attempt.basis == "open":
            cost += attempt.reserved or 0
    return cost
