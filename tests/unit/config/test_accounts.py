"""From settings to accounts that can send: a broken one is named and left out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from nightkeep.config import Resolution, parse, provider_specs, resolve_accounts
from nightkeep.models.wire.base import Operation, Wire

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def resolved(text: str, environ: dict[str, str]) -> Resolution:
    return resolve_accounts(parse(text.encode(), Path("f"), environ).settings, environ)


def test_an_account_whose_key_is_missing_does_not_stop_the_others() -> None:
    text = '[accounts.a]\nprovider="openai"\nkey="env:A"\n[accounts.b]\nprovider="openai"\nkey="env:B"'
    found = resolved(text, {"B": "sk-proj-" + "x" * 60})
    assert list(found.accounts) == ["b"]
    assert [(note.account, note.is_error) for note in found.notes] == [("a", True)]


def test_a_key_of_another_provider_is_a_note_and_the_account_is_kept() -> None:
    found = resolved('[accounts.a]\nprovider="openai"\nkey="env:A"', {"A": "sk-ant-" + "x" * 60})
    assert "looks like one of Anthropic" in found.notes[0].what
    assert not found.notes[0].is_error
    assert list(found.accounts) == ["a"]


def test_a_key_that_cannot_stand_in_a_header_is_no_account() -> None:
    found = resolved('[accounts.a]\nprovider="openai"\nkey="env:A"', {"A": "a\r\nx: y"})
    assert found.accounts == {}
    assert found.notes[0].is_error


def test_awss_three_variables_make_one_key() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "ASIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t:u", "AWS_REGION": "r"}
    account = resolved("", environ).accounts["bedrock"]
    request = account.request(Wire.ANTHROPIC_MESSAGES, Operation.CHAT, "m", b"{}", client_headers={}, now=NOW)
    assert b"Credential=ASIA/20261120/r/bedrock/" in request.headers
    assert b"x-amz-security-token: t:u\r\n" in request.headers


def test_a_files_own_provider_and_another_address_of_a_built_in_one() -> None:
    text = """
[providers.lab]
wire = "anthropic_messages"
wires = ["openai_chat"]
base_url = "http://127.0.0.1:9001/v1"
headers = { x-team = "a" }
free = true
[providers.deepseek]
base_url = "http://127.0.0.1:9002/v1"
"""
    specs = provider_specs(parse(text.encode(), Path("f"), {}).settings)
    assert specs["lab"].wires == (Wire.ANTHROPIC_MESSAGES, Wire.OPENAI_CHAT)
    assert specs["lab"].is_free
    assert ("x-team", "a") in specs["lab"].headers
    assert specs["deepseek"].wires == (Wire.OPENAI_CHAT,)
    assert specs["deepseek"].base_url == "http://127.0.0.1:9002/v1"
