"""Pools: which accounts a call may take, in which order, and when a whole pool is in trouble.

A pool is segmented by tag: ``reserve = {monitoring = 5}`` sets its last five accounts apart, and no call with
another tag, or none, is ever given one (Q-PROXY-03, W1.2). A call with the tag takes its own accounts first and
then the shared ones. Nothing here waits or decides what an answer means; that is ``nightkeep.models.queue`` and
``nightkeep.models.accounts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from nightkeep.control.meters import NO_LIMIT, Limits, Meter
from nightkeep.core.errors import ConfigError
from nightkeep.models.account_live import LiveAccount
from nightkeep.models.accounts import AccountStatus

__all__ = [
    "EpisodeTracker",
    "Group",
    "PoolEpisode",
    "PoolSpec",
    "Strategy",
    "TagLimit",
    "TagMeter",
    "Tier",
    "segment_accounts",
]

Strategy = Literal["round_robin", "fill_first", "least_loaded"]
SHARED: Final = None
_DOWN: Final = frozenset({AccountStatus.QUOTA_EXHAUSTED, AccountStatus.SUSPENDED, AccountStatus.AUTH_FAILED})


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as configured."""

    name: str
    strategy: Strategy = "round_robin"
    reserve: Mapping[str, int] = {}  # tag -> number of accounts that only it may use
    partial_alert: float = 0.5  # share of accounts down at which somebody is told (Q-PROXY-04)


class TagLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls with any of these tags may do together, over all accounts; the rest waits (Q-PROXY-15)."""

    tags: tuple[str, ...]
    limits: Limits
    pool: str | None = None  # only calls that name this pool; None is all


class PoolEpisode(msgspec.Struct, frozen=True, kw_only=True, tag="pool_episode"):
    """A pool got into trouble, or out of it. Each kind comes at most once per episode (Q-PROXY-04)."""

    pool: str
    segment: str | None  # None: the whole pool; "shared" or a tag: that part of a segmented pool
    kind: Literal["partial", "exhausted", "recovered"]
    at: float  # epoch seconds
    down: int
    total: int
    resets_at: float | None  # epoch seconds; the earliest of those that come back by themselves
    states: Mapping[str, str]  # account -> status


class TagMeter:
    """A tag's limits at work."""

    __slots__ = ("in_flight", "meter", "most_concurrent", "spec")

    def __init__(self, spec: TagLimit) -> None:
        self.in_flight = 0
        self.set_spec(spec)
        self.meter = Meter(spec.limits)

    def set_spec(self, spec: TagLimit) -> None:
        """Take other limits; what is in flight stays counted."""
        self.spec = spec
        self.most_concurrent = NO_LIMIT if spec.limits.concurrent is None else spec.limits.concurrent
        if hasattr(self, "meter"):
            self.meter.set_limits(spec.limits)

    def is_ready(self, tokens: int, now: float) -> bool:
        """Whether one more call fits."""
        return self.in_flight < self.most_concurrent and self.meter.is_ready(tokens, now)


class Tier:
    """Accounts of equal standing and the turn that they take."""

    __slots__ = ("_cursor", "_turns", "accounts")

    def __init__(self, accounts: Sequence[LiveAccount]) -> None:
        self.accounts = tuple(accounts)
        self._cursor = 0
        self._turns = 0

    def choose(
        self,
        strategy: Strategy,
        model: str,
        tokens: int,
        exclude: frozenset[str],
        now: float,
        epoch: float,
        waiter: object | None,
    ) -> LiveAccount | None:
        """Return the account whose turn it is among those that are ready; None if none is."""
        if strategy == "least_loaded":
            return self._least_loaded(model, tokens, exclude, now, epoch, waiter)
        accounts = self.accounts
        start = self._cursor if strategy == "round_robin" else 0
        for index in range(start - len(accounts), start):  # negative indices wrap around
            account = accounts[index]
            if (not exclude or account.spec.id not in exclude) and account.is_ready(model, tokens, now, epoch, waiter):
                if strategy == "round_robin":
                    self._pass_turn(index % len(accounts))
                return account
        return None

    def _pass_turn(self, index: int) -> None:
        if index != self._cursor:
            self._cursor, self._turns = index, 0
        self._turns += 1
        if self._turns >= self.accounts[index].spec.weight:
            self._cursor, self._turns = (index + 1) % len(self.accounts), 0

    def _least_loaded(
        self, model: str, tokens: int, exclude: frozenset[str], now: float, epoch: float, waiter: object | None
    ) -> LiveAccount | None:
        best: LiveAccount | None = None
        least = 0.0
        accounts = self.accounts
        best_index = 0
        for index in range(self._cursor - len(accounts), self._cursor):
            account = accounts[index]
            load = account.in_flight / account.spec.weight
            if best is not None and load >= least:
                continue
            if (not exclude or account.spec.id not in exclude) and account.is_ready(model, tokens, now, epoch, waiter):
                best, least, best_index = account, load, index
                if not account.in_flight:
                    break
        if best is not None:
            self._cursor = (best_index + 1) % len(accounts)
        return best


class Group:
    """What the calls of one (pool, provider, tag) may take: their own tier, then the shared one."""

    __slots__ = ("_member_set", "members", "name", "strategy", "tag_meters", "tiers")

    def __init__(self, name: str, strategy: Strategy, tiers: Iterable[Tier], tag_meters: Iterable[TagMeter]) -> None:
        self.name = name
        self.strategy: Strategy = strategy
        self.tiers = tuple(tier for tier in tiers if tier.accounts)
        self.tag_meters = tuple(tag_meters)
        self.members = tuple(account for tier in self.tiers for account in tier.accounts)
        self._member_set = frozenset(self.members)

    def has_member(self, account: LiveAccount) -> bool:
        """Whether its calls may take the account."""
        return account in self._member_set

    def choose(
        self, model: str, tokens: int, exclude: frozenset[str], now: float, epoch: float, waiter: object | None
    ) -> LiveAccount | None:
        """Return the account for a call, or None."""
        for tier in self.tiers:
            account = tier.choose(self.strategy, model, tokens, exclude, now, epoch, waiter)
            if account is not None:
                return account
        return None


def segment_accounts(pool: PoolSpec, accounts: Sequence[LiveAccount]) -> dict[str | None, list[LiveAccount]]:
    """Divide a pool's accounts into the shared ones (key None) and those of each tag.

    The reserved ones are taken from the end of the list, enabled ones first, so that an account that is
    switched off in the configuration does not thin out a reservation.

    Raises:
        ConfigError: more accounts are reserved than there are.
    """
    reserved = sum(pool.reserve.values())
    if reserved > len(accounts):
        raise ConfigError(
            f"pools.{pool.name}.reserve sets {reserved} accounts apart, but the pool has {len(accounts)}; "
            "reserve fewer or add accounts",
            setting=f"pools.{pool.name}.reserve",
        )
    order = sorted(range(len(accounts)), key=lambda index: (accounts[index].spec.enabled, index))
    parts: dict[str | None, list[LiveAccount]] = {}
    for tag, count in pool.reserve.items():
        taken = sorted(order.pop() for _ in range(count))
        parts[tag] = [accounts[index] for index in taken]
    parts[SHARED] = [accounts[index] for index in sorted(order)]
    return parts


class EpisodeTracker:
    """Watches a pool, or a segment of one, and says once when it is in trouble and once when it is over."""

    __slots__ = ("_accounts", "_is_exhausted_told", "_is_partial_told", "_pool", "_segment", "_threshold")

    def __init__(self, pool: str, segment: str | None, accounts: Sequence[LiveAccount], threshold: float | None):
        self._pool = pool
        self._segment = segment
        self._accounts = accounts
        self._threshold = threshold  # None: only the whole matters
        self._is_partial_told = False
        self._is_exhausted_told = False

    def take_over(self, other: EpisodeTracker) -> None:
        """Go on with the episode of another tracker, after a reload."""
        self._is_partial_told = other._is_partial_told
        self._is_exhausted_told = other._is_exhausted_told

    def observe(self, epoch: float) -> PoolEpisode | None:
        """Look at the accounts after a change.

        Cooling is not trouble: it passes in seconds. An account that came back at a guessed time is still
        down until it succeeds, so that a guess that was wrong does not begin another episode.
        """
        watched = [account for account in self._accounts if account.state.disabled_why is None]
        down = sum(1 for account in watched if account.state.health in _DOWN or account.state.quota_streak)
        if not down:
            was_told = self._is_partial_told or self._is_exhausted_told
            self._is_partial_told = self._is_exhausted_told = False
            return self._episode("recovered", 0, watched, epoch) if was_told and watched else None
        if down == len(watched):
            if self._is_exhausted_told:
                return None
            self._is_partial_told = self._is_exhausted_told = True
            return self._episode("exhausted", down, watched, epoch)
        share = down / len(watched)
        if self._is_exhausted_told or self._is_partial_told:
            if share * 2 >= (1.0 if self._threshold is None else self._threshold):
                return None
            self._is_partial_told = self._is_exhausted_told = False
            return self._episode("recovered", down, watched, epoch)
        if self._threshold is not None and share >= self._threshold:
            self._is_partial_told = True
            return self._episode("partial", down, watched, epoch)
        return None

    def _episode(
        self,
        kind: Literal["partial", "exhausted", "recovered"],
        down: int,
        watched: Sequence[LiveAccount],
        epoch: float,
    ) -> PoolEpisode:
        resets = [account.state.until for account in watched if account.state.until is not None]
        return PoolEpisode(
            pool=self._pool,
            segment=self._segment,
            kind=kind,
            at=epoch,
            down=down,
            total=len(watched),
            resets_at=min(resets) if resets and kind != "recovered" else None,
            states={account.spec.id: str(account.state.status) for account in watched},
        )
