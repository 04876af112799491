"""Virtual keys in nightkeep.toml."""

from __future__ import annotations

import pytest

from nightkeep.bootstrap_pools import key_specs
from nightkeep.config import InvalidConfigError, parse
from nightkeep.control.keys import KeyLimits


def test_a_keys_default_tag_and_limits_reach_the_caller() -> None:
    text = f"""
        [keys.a]
        scope = "acme"
        hash = "sha256:{"0" * 64}"
        tags = ["batch"]
        default_tag = "batch"
        limits = {{ requests_per_minute = 5, usd_per_day = 1.5 }}
    """
    (spec,) = key_specs(parse(text.encode(), None, {}).settings)
    assert spec.default_tag == "batch"
    assert spec.limits == KeyLimits(requests_per_minute=5, micro_usd_per_day=1_500_000)
    with pytest.raises(InvalidConfigError, match="not among the tags"):
        parse(text.replace('default_tag = "batch"', 'default_tag = "other"').encode(), None, {})
