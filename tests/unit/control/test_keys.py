"""Virtual keys: who is calling, what a key allows, and that nothing leads out of its scope."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.key_text import make_secret
from nightkeep.control.keys import Caller, KeyRing, KeySpec, hash_key, presented_key
from nightkeep.core.errors import AuthenticationError, DeniedError, RequestError
from nightkeep.core.scope import is_within

NOW = datetime(2026, 11, 20, tzinfo=UTC)
KEY = "nk-correct-horse-battery"


def ring(**more: object) -> KeyRing:
    return KeyRing([KeySpec(name="team-a", scope="acme", hash=hash_key(KEY), **more)])  # type: ignore[arg-type]


def test_without_keys_everybody_is_one_open_caller() -> None:
    assert KeyRing([]).authenticate(None, NOW).scope == "default"
    assert KeyRing([]).is_open


def test_a_known_key_names_its_scope() -> None:
    assert ring().authenticate(KEY, NOW).scope == "acme"


@pytest.mark.parametrize("presented", [None, "", KEY[:-1], KEY + " ", KEY.upper(), hash_key(KEY)])
def test_any_other_key_is_refused_without_being_shown(presented: str | None) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ring().authenticate(presented, NOW)
    assert not presented or presented not in str(caught.value)
    if presented:
        assert str(caught.value.data["fingerprint"]) in str(caught.value)


def test_an_expired_key_is_refused_by_name() -> None:
    with pytest.raises(AuthenticationError, match=r"'team-a'.*expired"):
        ring(expires_at=NOW - timedelta(seconds=1)).authenticate(KEY, NOW)


def test_models_and_tags_outside_of_a_keys_allowance_are_denied() -> None:
    caller = ring(models=("claude-*",), tags=("batch",)).authenticate(KEY, NOW)
    caller.check("claude-sonnet-4-6", "batch")
    caller.check("claude-sonnet-4-6", None)
    with pytest.raises(DeniedError, match=r"may not use model 'gpt-4\.1'"):
        caller.check("gpt-4.1", None)
    with pytest.raises(DeniedError, match="may not use tag 'monitoring'"):
        caller.check("claude-sonnet-4-6", "monitoring")


@given(st.text(max_size=40))
def test_no_header_leads_out_of_a_keys_scope(header: str) -> None:
    caller = Caller(name="team-a", scope="acme")
    try:
        scope = caller.narrowed(header)
    except RequestError:
        return
    assert is_within(scope, "acme")


def test_a_scope_below_the_keys_may_be_named_whole_or_relative() -> None:
    caller = Caller(name="team-a", scope="acme")
    assert caller.narrowed("acme/triage") == "acme/triage"
    assert caller.narrowed("triage") == "acme/triage"
    assert caller.narrowed("acmeevil") == "acme/acmeevil"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY} "},
        {"x-api-key": KEY},
        {"x-goog-api-key": KEY},
        {"api-key": KEY},
    ],
)
def test_every_sdks_way_of_showing_a_key_is_read(headers: dict[str, str]) -> None:
    assert presented_key(headers) == KEY


def test_where_no_key_is_asked_for_a_known_one_still_says_who_calls() -> None:
    keys = KeyRing([KeySpec(name="team-a", scope="acme", hash=hash_key(KEY))], "never")
    assert keys.is_open
    assert keys.has_keys
    assert keys.authenticate(KEY, NOW).name == "team-a"
    assert keys.authenticate("any text", NOW).name == ""
    assert keys.authenticate(None, NOW).name == ""


def test_where_no_key_is_asked_for_one_that_is_over_is_refused_all_the_same() -> None:
    revoked = KeySpec(name="team-a", scope="acme", hash=hash_key(KEY), revoked_at=NOW - timedelta(days=1))
    with pytest.raises(AuthenticationError, match="was revoked"):
        KeyRing([revoked], "never").authenticate(KEY, NOW)


def test_where_keys_are_always_asked_for_nobody_gets_in_without_one_though_there_is_none() -> None:
    for presented in (None, "", "any text"):
        with pytest.raises(AuthenticationError):
            KeyRing([], "always").authenticate(presented, NOW)


def test_a_key_that_was_copied_badly_is_told_as_such() -> None:
    good = make_secret("nk-", lambda size: b"x" * size)
    with pytest.raises(AuthenticationError, match="cut off or mistyped") as caught:
        ring().authenticate(good[:-1], NOW)
    assert good[:-1] not in str(caught.value)
    with pytest.raises(AuthenticationError, match="keys list"):
        ring().authenticate(good, NOW)


def test_the_default_tag_is_the_callers() -> None:
    assert ring(default_tag="batch").authenticate(KEY, NOW).default_tag == "batch"


@pytest.mark.parametrize("presented", ["\udcff", "\xff" * 10, "é", "\x00", "nk-" + "z" * 10_000])
def test_any_bytes_are_looked_up_without_a_fault(presented: str) -> None:
    with pytest.raises(AuthenticationError):
        ring().authenticate(presented, NOW)
