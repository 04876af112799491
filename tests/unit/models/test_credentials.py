"""Keys: fetched from where they are, never shown, and doubted aloud when they look wrong (W6.2)."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.errors import ConfigError
from nightkeep.models.credentials import (
    KeyFault,
    Secret,
    diagnose_key,
    fingerprint,
    parse_key_source,
    resolve_key,
)
from nightkeep.models.providers import PROVIDERS

ANTHROPIC = "sk-ant-api03-" + "a" * 93 + "AA"
OPENAI = "sk-proj-" + "b" * 120
GEMINI = "AIza" + "c" * 35
GROQ = "gsk_" + "d" * 52


def key(source: str, environ: dict[str, str] | None = None, base: Path = Path()) -> str:
    return resolve_key(parse_key_source(source), environ or {}, base).secret.reveal()


def test_a_key_comes_from_the_environment_a_file_or_a_command(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("from-file\n")
    assert key("env:K", {"K": "from-env"}) == "from-env"
    assert key("file:k", base=tmp_path) == "from-file"
    assert key(f"file:{tmp_path}/k") == "from-file"
    assert key("file:~/k", {"HOME": str(tmp_path)}) == "from-file"
    assert key(f"cmd:{sys.executable} -c \"print('from-command')\"") == "from-command"


def test_a_command_sees_the_environment_it_was_given() -> None:
    assert key(f"cmd:{sys.executable} -c 'import os; print(os.environ[\"MARK\"])'", {"MARK": "x"}) == "x"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("env:NONE", "NONE is not set"),
        ("env:BLANK", "is empty"),
        ("file:/nonexistent/key", "cannot be read"),
        ("file:/", "cannot be read"),
        ("cmd:/nonexistent/program", "cannot be run"),
        ("cmd:'unclosed", "not well quoted"),
        (f"cmd:{sys.executable} -c 'import sys; print(\"SECRET\"); sys.exit(3)'", "ended with code 3"),
        (f"cmd:{sys.executable} -c pass", "is empty"),
        ("vault:secret/openai#key", "not supported by this version"),
    ],
)
def test_a_key_that_cannot_be_had_says_why_and_the_way_out(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        key(source, {"BLANK": " \n"})
    assert caught.value.data["fix"]
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("text", [OPENAI, "https://x", "ENV:A", ""])
def test_what_is_no_source_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_key_source(text)
    assert not text or text not in str(caught.value)


def test_a_file_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("key")
    path.chmod(0o644)
    assert "chmod 600" in resolve_key(parse_key_source(f"file:{path}"), {}).warnings[0]
    path.chmod(0o600)
    assert resolve_key(parse_key_source(f"file:{path}"), {}).warnings == ()


@given(st.text(min_size=8, max_size=80))
def test_a_secret_never_shows_itself(text: str) -> None:
    secret = Secret(text)
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        "{}".format(secret),  # noqa: UP032 - the way that a log line does it
        repr([secret]),
        secret.fingerprint,
    ):
        assert text not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode({"key": secret})
    assert copy.deepcopy(secret) is secret


def test_a_fingerprint_has_four_and_two_characters_of_a_long_key_and_none_of_a_short_one() -> None:
    assert fingerprint(OPENAI).startswith("sk-p…bb #")
    assert fingerprint("short-password").startswith("… #")
    assert fingerprint(OPENAI) != fingerprint(OPENAI + "b")


@pytest.mark.parametrize(
    ("provider", "text", "fault", "looks_like"),
    [
        ("anthropic", ANTHROPIC, KeyFault.OK, None),
        ("anthropic", ANTHROPIC[:50] + ANTHROPIC[51:], KeyFault.TRUNCATED, None),
        ("anthropic", OPENAI, KeyFault.OTHER_PROVIDER, "openai"),
        ("openai", OPENAI, KeyFault.OK, None),
        ("openai", ANTHROPIC, KeyFault.OTHER_PROVIDER, "anthropic"),
        ("openai", GROQ, KeyFault.OTHER_PROVIDER, "groq"),
        ("openai", "sk-proj-abc", KeyFault.TRUNCATED, None),
        ("openai", f'"{OPENAI}"', KeyFault.STRAY_CHARACTERS, None),
        ("openai", OPENAI + "\n" + OPENAI, KeyFault.STRAY_CHARACTERS, None),
        ("openai", f" {OPENAI}", KeyFault.STRAY_CHARACTERS, None),
        ("openai", OPENAI + "\u200b", KeyFault.STRAY_CHARACTERS, None),
        ("openai", "password", KeyFault.WRONG_SHAPE, None),
        ("gemini", GEMINI, KeyFault.OK, None),
        ("gemini", GEMINI[:-1], KeyFault.TRUNCATED, None),
        ("groq", GROQ[:-1], KeyFault.TRUNCATED, None),
        ("mistral", GEMINI, KeyFault.OTHER_PROVIDER, "gemini"),
        ("bedrock", "AKIAABCDEFGHIJKLMNOP:" + "s" * 40, KeyFault.OK, None),
        ("ollama", "", KeyFault.OK, None),
        ("openai", "", KeyFault.MISSING, None),
    ],
)
def test_the_looks_of_a_key_are_judged_without_sending_it(
    provider: str, text: str, fault: KeyFault, looks_like: str | None
) -> None:
    found = diagnose_key(PROVIDERS[provider], Secret(text))
    assert (found.fault, found.looks_like) == (fault, looks_like)
    assert len(text) < 8 or text not in found.message


@given(st.sampled_from(list(PROVIDERS)), st.text(max_size=120))
def test_any_text_can_be_judged(provider: str, text: str) -> None:
    found = diagnose_key(PROVIDERS[provider], Secret(text))
    assert len(text) < 8 or text not in found.message
