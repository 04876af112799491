"""Secrets of Nightkeep's own: their form, and what tells a bad copy from a stranger."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from nightkeep.control.key_text import KEY_PREFIX, TOKEN_PREFIX, is_damaged, is_whole, make_secret

RANDOM = st.binary(min_size=32, max_size=32)


@given(RANDOM, st.sampled_from([KEY_PREFIX, TOKEN_PREFIX]))
def test_every_secret_is_whole_and_one_expression_finds_it(random: bytes, prefix: str) -> None:
    text = make_secret(prefix, lambda size: random[:size])
    assert is_whole(prefix, text)
    assert not is_damaged(text)
    assert re.search(r"\bnko?-[0-9A-Za-z]{49}\b", f'key = "{text}"')


@given(RANDOM, RANDOM)
def test_different_randomness_makes_different_secrets(one: bytes, other: bytes) -> None:
    texts = {make_secret(KEY_PREFIX, lambda _, random=random: random) for random in (one, other)}  # type: ignore[misc]
    assert len(texts) == len({one, other})


@given(RANDOM, st.data())
def test_one_wrong_or_missing_character_is_noticed(random: bytes, data: st.DataObject) -> None:
    text = make_secret(KEY_PREFIX, lambda _: random)
    at = data.draw(st.integers(len(KEY_PREFIX), len(text) - 1))
    other = data.draw(st.sampled_from("0aZ").filter(lambda each: each != text[at]))
    assert is_damaged(text[:at] + other + text[at + 1 :])
    assert is_damaged(text[:at])


@given(st.text(max_size=60))
def test_any_text_is_looked_at_without_a_fault(text: str) -> None:
    assert not is_whole(KEY_PREFIX, text)
    assert is_damaged(KEY_PREFIX + text)


def test_a_token_is_no_key_and_a_key_no_token() -> None:
    assert not is_whole(KEY_PREFIX, make_secret(TOKEN_PREFIX, bytes))
    assert not is_whole(TOKEN_PREFIX, make_secret(KEY_PREFIX, bytes))
