"""From the settings to the specs of pools, accounts and keys: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nightkeep.bootstrap_routes import SIMULATED
from nightkeep.config_models import Account, Settings
from nightkeep.config_models import KeyLimits as KeyLimitSettings
from nightkeep.config_models import Limits as LimitSettings
from nightkeep.config_models import Quota as QuotaSettings
from nightkeep.control.keys import KeyLimits, KeySpec
from nightkeep.control.meters import Limits
from nightkeep.core.money import micro_usd
from nightkeep.models.accounts import AccountSpec
from nightkeep.models.calls import RecordPolicy
from nightkeep.models.gateway.gateway import GatewaySettings
from nightkeep.models.pools import PoolSpec, TagLimit
from nightkeep.models.quota import Quota
from nightkeep.models.retry import RetryRules
from nightkeep.models.upstream import UpstreamAccount

__all__ = ["Share", "account_specs", "gateway_settings", "key_specs", "pool_specs", "record_policy", "tag_limits"]


class Share(NamedTuple):
    """Which part of every limit is one process's: several workers must not use an account up together."""

    slot: int = 0
    workers: int = 1

    def of(self, amount: int | None) -> int | None:
        """This worker's part; the parts add up to the whole. At least 1, so that every worker can serve."""
        if amount is None or self.workers == 1:
            return amount
        return max(1, amount // self.workers + (self.slot < amount % self.workers))


WHOLE = Share()


def pool_specs(settings: Settings) -> list[PoolSpec]:
    """Every pool that is configured, or named by an account."""
    names = dict.fromkeys([*settings.pools, *(account.pool for account in settings.accounts.values())])
    if settings.is_simulated:
        names[SIMULATED] = None
    specs = []
    for name in names:
        pool = settings.pools.get(name)
        if pool is None:
            specs.append(PoolSpec(name=name))
        else:
            specs.append(
                PoolSpec(name=name, strategy=pool.strategy, reserve=pool.reserve, partial_alert=pool.partial_alert)
            )
    return specs


def account_specs(
    settings: Settings, accounts: Mapping[str, UpstreamAccount], share: Share = WHOLE
) -> list[AccountSpec]:
    """Every account that can be used; an account without a usable key is left out (the log has said why)."""
    specs = [
        _account(name, account, accounts[name], share)
        for name, account in settings.accounts.items()
        if name in accounts
    ]
    if settings.is_simulated:
        specs.append(AccountSpec(id=f"{SIMULATED}-1", provider=SIMULATED, pool=SIMULATED))
    return specs


def _account(name: str, account: Account, access: UpstreamAccount, share: Share) -> AccountSpec:
    secret = access.access.secret
    return AccountSpec(
        id=name,
        provider=account.provider,
        pool=account.pool,
        key_fingerprint=secret.fingerprint if secret is not None else "",
        limits=_limits(account.limits, share),
        quota=tuple(_quota(quota, share) for quota in account.quota),
        enabled=account.enabled,
    )


def _limits(limits: LimitSettings, share: Share) -> Limits:
    return Limits(
        requests_per_minute=share.of(limits.requests_per_minute),
        tokens_per_minute=share.of(limits.tokens_per_minute),
        concurrent=share.of(limits.concurrent),
    )


def _quota(quota: QuotaSettings, share: Share) -> Quota:
    return Quota(
        per=quota.per,
        tokens=share.of(quota.tokens),
        requests=share.of(quota.requests),
        window=quota.window,
        resets_at=quota.resets_at,
        resets_on=quota.resets_on,
    )


def tag_limits(settings: Settings, share: Share = WHOLE) -> list[TagLimit]:
    """The limits that routes put on tags (S3.2); a route without tags is limited by its accounts only."""
    found = []
    for route in settings.routes:
        limits = Limits(
            requests_per_minute=share.of(route.limits.requests_per_minute), concurrent=share.of(route.limits.concurrent)
        )
        if route.match.tags and limits != Limits():
            found.append(TagLimit(tags=route.match.tags, limits=limits, pool=route.pool))
    return found


def key_specs(settings: Settings) -> list[KeySpec]:
    """The virtual keys."""
    return [
        KeySpec(
            name=name,
            scope=key.scope,
            hash=key.hash,
            models=key.models,
            tags=key.tags,
            default_tag=key.default_tag,
            limits=_key_limits(key.limits),
            expires_at=key.expires,
        )
        for name, key in settings.keys.items()
    ]


def _key_limits(limits: KeyLimitSettings) -> KeyLimits:
    return KeyLimits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent=limits.concurrent,
        micro_usd_per_day=None if limits.usd_per_day is None else micro_usd(limits.usd_per_day),
    )


def record_policy(settings: Settings) -> RecordPolicy:
    """What is kept of each call."""
    record = settings.record
    return RecordPolicy(bodies=record.bodies, sample_rate=record.sample_rate, keep_days=record.keep_days)


def gateway_settings(settings: Settings) -> GatewaySettings:
    """How patient the gateway is."""
    gateway = settings.gateway
    return GatewaySettings(
        first_byte_s=gateway.deadlines.first_byte_s,
        idle_s=gateway.deadlines.idle_s,
        max_wait_s=gateway.queue.max_wait_s,
        min_bytes_per_s=gateway.deadlines.min_bytes_per_s,
        retry_rules=RetryRules(max_attempts=gateway.retries.max_attempts),
        retry_ratio=gateway.retries.budget,
        is_simulated=settings.is_simulated,
    )
