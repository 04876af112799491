"""From settings to alerts: channels with their addresses, the hourly limit, the dead man's switch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nightkeep.config import Loaded
from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import is_key_source, parse_key_source, resolve_key
from nightkeep.ops.alert_channels import ChannelSpec
from nightkeep.ops.alerts import AlertPolicy

__all__ = ["WEBHOOK", "alert_policy"]

WEBHOOK = "webhook"
"""What the channel of ``notify.webhook`` is called."""


def alert_policy(loaded: Loaded, environ: Mapping[str, str]) -> AlertPolicy:
    """Where alerts go. An address that cannot be had makes a channel that says so, not a gateway that does not start.

    Notifications never stop the work (law 7): the fault is an alert of its own at the first use.
    """
    notify = loaded.settings.notify
    channels = []
    if notify.webhook is not None:
        address, fault = _address(notify.webhook, environ, loaded.base)
        channels.append(ChannelSpec(name=WEBHOOK, address=address, fault=fault))
    for name, channel in notify.channels.items():
        address, fault = _address(channel.url, environ, loaded.base)
        channels.append(
            ChannelSpec(
                name=name,
                address=address,
                kind="webhook" if address.startswith(("http://", "https://")) else "apprise",
                levels=frozenset(channel.levels),
                scopes=channel.scopes,
                fault=fault,
            )
        )
    if notify.heartbeat is None:
        return AlertPolicy(channels=tuple(channels), per_hour=notify.per_hour)
    address, fault = _address(notify.heartbeat.url, environ, loaded.base)
    return AlertPolicy(
        channels=tuple(channels),
        per_hour=notify.per_hour,
        heartbeat=None if fault else address,
        heartbeat_s=notify.heartbeat.every_s,
        heartbeat_fault=fault,
    )


def _address(source: str, environ: Mapping[str, str], base: Path) -> tuple[str, str]:
    """The address, or why it cannot be had."""
    if not is_key_source(source):
        return source, ""
    try:
        return resolve_key(parse_key_source(source), environ, base).secret.reveal().strip(), ""
    except ConfigError as error:
        return "", error.message
