"""``nightkeep route explain`` from a configuration file, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nightkeep.cli.route import command

CONFIG = """
[accounts.a]
provider = "anthropic"
key = "env:A"
pool = "production"

[accounts.o]
provider = "openai"
key = "env:O"

[models.smart]
targets = ["anthropic/claude-opus-4-6", "openai/gpt-4o"]

[models.critical]
targets = ["anthropic/claude-opus-4-6", "openai/gpt-5"]
failover = "none"

[[routes]]
name = "batch"
match = { tags = ["batch"] }
model = "openai/gpt-5-mini"
"""


@pytest.fixture
def explain(tmp_path: Path) -> Any:
    file = tmp_path / "nightkeep.toml"
    file.write_text(CONFIG)

    def run(*args: str) -> Result:
        return CliRunner().invoke(command, ["explain", *args, "--config", str(file)])

    return run


def test_it_prints_rule_candidates_and_choice(explain: Any) -> None:
    shown = explain("smart")
    assert shown.exit_code == 0, shown.output
    assert "alias smart" in shown.output
    assert shown.output.index("anthropic/claude-opus-4-6") < shown.output.index("openai/gpt-4o")
    assert "production" in shown.output


def test_it_says_why_the_others_lost(explain: Any) -> None:
    shown = explain("smart", "--tokens", "150000", "--json")
    value = json.loads(shown.output)
    assert value["choice"] == "anthropic/claude-opus-4-6"
    assert [each["target"] for each in value["rejected"]] == ["openai/gpt-4o"]
    assert "failover is 'none'" in explain("critical").output


def test_a_route_for_a_tag_names_what_it_replaces(explain: Any) -> None:
    value = json.loads(explain("smart", "--tag", "batch", "--json").output)
    assert (value["choice"], value["degraded_from"], value["rule_name"]) == ("openai/gpt-5-mini", "smart", "batch")


def test_a_body_is_really_translated_and_what_is_stripped_is_named(explain: Any, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "smart", "messages": [{"role": "user", "content": "hi"}], "seed": 7}))
    value = json.loads(explain("smart", "--body", str(body), "--json").output)
    assert [item["name"] for item in value["candidates"][0]["stripped"]].count("seed") == 1
    assert value["candidates"][1]["stripped"] == []


def test_an_unknown_model_ends_with_four_and_a_request_that_does_not_fit_with_one(explain: Any) -> None:
    unknown = explain("claude-opus-4-66x")
    assert unknown.exit_code == 4 and "claude-opus-4-6" in unknown.output
    assert explain("gpt-4o", "--tokens", "9000000").exit_code == 1


def test_a_broken_configuration_ends_with_three(tmp_path: Path) -> None:
    file = tmp_path / "nightkeep.toml"
    file.write_text("[tasks.nope]\nprimary = 'openai/gpt-4o'\n")
    assert CliRunner().invoke(command, ["explain", "x", "--config", str(file)]).exit_code == 3
