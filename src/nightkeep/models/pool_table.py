"""All pools of the process as built from their configuration: who may take what, and which episodes are watched.

Built anew at each reload from the same live accounts; the rules of a pool are in ``nightkeep.models.pools``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nightkeep.core.errors import ConfigError
from nightkeep.models.account_live import LiveAccount
from nightkeep.models.accounts import AccountSpec
from nightkeep.models.pools import EpisodeTracker, Group, PoolSpec, TagLimit, TagMeter, Tier, segment_accounts

__all__ = ["PoolTable", "check_pools"]


def check_pools(pools: Sequence[PoolSpec], accounts: Sequence[AccountSpec]) -> None:
    """Refuse what cannot be built, before anything is touched.

    Raises:
        ConfigError: an account or pool is there twice, or a pool reserves more accounts than it has.
    """
    for noun, names in (("pools", [pool.name for pool in pools]), ("accounts", [spec.id for spec in accounts])):
        for name, count in Counter(names).items():
            if count > 1:
                raise ConfigError(f"{noun}.{name} is there {count} times; names are unique", setting=f"{noun}.{name}")
    for pool in pools:
        segment_accounts(pool, [LiveAccount(spec) for spec in accounts if spec.pool == pool.name])


class PoolTable:
    """Groups by (pool, provider, tag), made when first asked for."""

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        accounts: Mapping[str, LiveAccount],
        tag_meters: Sequence[TagMeter],
    ) -> None:
        named = {pool.name: pool for pool in pools}
        for account in accounts.values():
            if account.spec.pool not in named:
                named[account.spec.pool] = PoolSpec(name=account.spec.pool)
        self._pools = named
        self._tag_meters = tuple(tag_meters)
        self._segments: dict[str, dict[str | None, list[LiveAccount]]] = {
            name: segment_accounts(pool, [a for a in accounts.values() if a.spec.pool == name])
            for name, pool in named.items()
        }
        self._tags = {tag for pool in named.values() for tag in pool.reserve}
        self._tags.update(tag for meter in self._tag_meters for tag in meter.spec.tags)
        self._tiers: dict[tuple[str | None, str, str | None], Tier] = {}
        self._groups: dict[tuple[str | None, str, str | None], Group] = {}
        self._empty = Group("", "round_robin", (), ())
        self.reserved_for: dict[str, str] = {
            account.spec.id: tag
            for parts in self._segments.values()
            for tag, members in parts.items()
            if tag is not None
            for account in members
        }
        self.trackers: dict[tuple[str, str | None], EpisodeTracker] = {}
        for name, pool in named.items():
            self._watch(name, pool)

    def known_tag(self, tag: str | None) -> str | None:
        """The tag if any pool or limit knows it; all others are alike (tags come from clients)."""
        return tag if tag in self._tags else None

    def group(self, pool: str | None, provider: str, tag: str | None) -> Group:
        """What a call with a known tag may take; empty when nothing fits."""
        key = (pool, provider, tag)
        group = self._groups.get(key)
        if group is None:
            group = self._make_group(pool, provider, tag)
            if not group.members:
                return self._empty
            self._groups[key] = group
        return group

    def _make_group(self, pool: str | None, provider: str, tag: str | None) -> Group:
        names = [pool] if pool is not None else list(self._pools)
        members = [name for name in names if self._of_provider(name, provider)]
        tiers = [self._tier(pool, provider, tag, members)] if tag is not None else []
        tiers.append(self._tier(pool, provider, None, members))
        strategy = self._pools[members[0]].strategy if len(members) == 1 else "round_robin"
        meters = [meter for meter in self._tag_meters if tag in meter.spec.tags and meter.spec.pool in (None, pool)]
        return Group(pool or provider, strategy, tiers, meters)

    def _of_provider(self, pool: str, provider: str) -> bool:
        parts = self._segments.get(pool, {})
        return any(account.spec.provider == provider for part in parts.values() for account in part)

    def _tier(self, pool: str | None, provider: str, tag: str | None, names: Sequence[str]) -> Tier:
        key = (pool, provider, tag)
        tier = self._tiers.get(key)
        if tier is None:
            found = [
                account
                for name in names
                for account in self._segments[name].get(tag, ())
                if account.spec.provider == provider
            ]
            tier = Tier(found)
            if found:
                self._tiers[key] = tier
        return tier

    def _watch(self, name: str, pool: PoolSpec) -> None:
        parts = self._segments[name]
        everyone = [account for part in parts.values() for account in part]
        self.trackers[name, None] = EpisodeTracker(name, None, everyone, pool.partial_alert)
        if len(parts) > 1:
            for tag, part in parts.items():
                label = "shared" if tag is None else tag
                self.trackers[name, label] = EpisodeTracker(name, label, part, None)


def make_tag_meters(limits: Sequence[TagLimit], known: Sequence[TagMeter]) -> list[TagMeter]:
    """Build the meters of tags; those of the same tags and pool go on counting where they stood."""
    before = {(meter.spec.tags, meter.spec.pool): meter for meter in known}
    meters = []
    for limit in limits:
        meter = before.get((limit.tags, limit.pool))
        if meter is None:
            meter = TagMeter(limit)
        else:
            meter.set_spec(limit)
        meters.append(meter)
    return meters
