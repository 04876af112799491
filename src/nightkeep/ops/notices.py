"""What a change of an account, a breaker or a pool means for people, in one sentence.

The episodes themselves are found by ``models.account_book``; ``ops.alerts`` tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from nightkeep.models.account_book import BreakerChange, Change
from nightkeep.models.accounts import AccountChange, AccountStatus
from nightkeep.models.leases import AccountView
from nightkeep.models.pools import PoolEpisode
from nightkeep.ops.alert_episodes import Alert, Level

__all__ = ["describe", "ended", "over"]

_HINTS = {
    AccountStatus.SUSPENDED: "The provider closed it; it is never tried again by itself.",
    AccountStatus.AUTH_FAILED: "Its key was refused; run 'nightkeep accounts test'.",
}
_OVER = (AccountStatus.AVAILABLE, AccountStatus.DISABLED)


def describe(change: Change) -> Alert | None:
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
            return Alert(key=_breaker_key(change), text=text, level="info", kind="breaker_open", about=change.account)
        case _:
            return None


def ended(change: Change) -> str | None:
    """The key of the episode that a change ends, if it ends one."""
    match change:
        case AccountChange() if change.after in _OVER:
            return f"account:{change.account}"
        case BreakerChange(is_open=False):
            return _breaker_key(change)
        case _:
            return None


def over(keys: Iterable[str], accounts: Sequence[AccountView]) -> list[str]:
    """Which of these episodes are over, by what the accounts say now: for the start and for new settings.

    An episode may have ended while no gateway ran, and an account may be gone.
    """
    lasting = {f"account:{view.id}" for view in accounts if view.status not in _OVER}
    lasting |= {
        f"breaker:{view.id}:{breaker.model}"
        for view in accounts
        for breaker in view.breakers
        if breaker.state != "closed"
    }
    pools = {view.pool for view in accounts if view.status is not AccountStatus.AVAILABLE}
    found = []
    for key in keys:
        kind, _, name = key.partition(":")
        if kind == "pool":
            found += [] if name.partition(" (")[0] in pools else [key]
        elif kind in ("account", "breaker") and key not in lasting:
            found.append(key)
    return found


def _breaker_key(change: BreakerChange) -> str:
    return f"breaker:{change.account}:{change.model}"


def _pool(episode: PoolEpisode) -> Alert:
    name = f"{episode.pool}" if episode.segment is None else f"{episode.pool} ({episode.segment})"
    resets_at = _moment(episode.resets_at) if episode.resets_at is not None else None
    back = f" The first comes back at {resets_at:%Y-%m-%d %H:%M UTC}." if resets_at else ""
    if episode.kind == "exhausted":
        text = f"ALL {episode.total} accounts of pool {name} are exhausted: its calls are refused at once.{back}"
    elif episode.kind == "partial":
        text = f"{episode.down} of {episode.total} accounts of pool {name} are exhausted.{back}"
    else:
        text = f"Pool {name} has recovered: {episode.total - episode.down} of {episode.total} accounts serve again."
    levels: dict[str, Level] = {"exhausted": "critical", "partial": "warning"}
    return Alert(
        key=f"pool:{name}",
        text=text,
        level=levels.get(episode.kind, "info"),
        kind=f"pool_{episode.kind}",
        about=name,
        resets_at=resets_at,
    )


def _account(change: AccountChange) -> Alert | None:
    why = f" ({change.why})" if change.why else ""
    key = f"account:{change.account}"
    if change.after in _HINTS:
        text = f"Account {change.account} is {change.after}{why}. {_HINTS[change.after]}"
        return Alert(key=key, text=text, level="warning", kind=str(change.after), about=change.account)
    if change.after is AccountStatus.QUOTA_EXHAUSTED:
        until = f" until {_moment(change.until):%Y-%m-%d %H:%M UTC}" if change.until else ""
        text = f"Account {change.account} has no quota left{until}{why}."
        return Alert(key=key, text=text, level="info", kind="quota_exhausted", about=change.account)
    return None


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
