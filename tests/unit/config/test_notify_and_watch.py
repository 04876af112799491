"""``[notify]`` and ``[watch]``: what is allowed, what is refused, and that the pages about them show valid settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nightkeep.bootstrap_alerts import alert_policy
from nightkeep.bootstrap_watch import watch_spec
from nightkeep.config import InvalidConfigError, parse
from nightkeep.control.watch_specs import WatchSpec

DOCS = Path(__file__).parents[3] / "docs"
CHANNEL = '[notify.channels.slack]\nurl = "env:SLACK"\n'


def test_without_settings_the_rules_have_their_own_defaults() -> None:
    assert watch_spec(parse(b"", None, {}).settings) == WatchSpec()


def test_channels_get_their_addresses_from_where_they_are_kept() -> None:
    text = CHANNEL + 'levels = ["critical"]\nscopes = ["acme"]\n[notify.channels.hook]\nurl = "env:HOOK"\n'
    loaded = parse(text.encode(), None, {})
    policy = alert_policy(loaded, {"SLACK": "slack://a/b/c", "HOOK": "https://example.com/x"})
    assert [(each.name, each.kind, each.fault) for each in policy.channels] == [
        ("slack", "apprise", ""),
        ("hook", "webhook", ""),
    ]
    assert policy.channels[0].levels == frozenset({"critical"})
    assert policy.channels[0].scopes == ("acme",)
    assert "slack://" not in repr(loaded.settings)


def test_an_address_that_is_not_there_is_a_fault_of_the_channel_and_not_of_the_start() -> None:
    text = CHANNEL + '[notify.heartbeat]\nurl = "env:BEAT"\n'
    policy = alert_policy(parse(text.encode(), None, {}), {})
    assert "SLACK is not set" in policy.channels[0].fault
    assert policy.heartbeat is None
    assert "BEAT is not set" in policy.heartbeat_fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[notify.channels.x]\nurl = "slack://a/b/c"', "is a secret and may not stand in the file"),
        ('[notify.channels.x]\nurl = "env:A"\nlevels = ["loud"]', "levels"),
        ('[notify.channels.x]\nurl = "env:A"\nlevels = []', "levels"),
        ('[notify.channels.x]\nurl = "env:A"\nscopes = ["../x"]', "scope"),
        ("[notify]\nper_hour = 0", "per_hour"),
        ('[notify.heartbeat]\nurl = "https://example.com"', "secret"),
        ("[watch.spend_rate]\nfactor = 1.0", "factor"),
        ('[watch.same_request]\naction = "kill"', "action"),
        ("[watch.nonsense]\nenabled = true", "nonsense"),
    ],
)
def test_what_cannot_be_is_refused_with_the_name_of_the_setting(text: str, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse(text.encode(), None, {})
    assert said in str(caught.value)


@pytest.mark.parametrize("page", ["alerts.md", "watching.md"])
def test_the_settings_that_the_pages_show_are_valid(page: str) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        parse(block.encode(), None, {})
