"""Scopes are paths with one spelling, and what is above holds below."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.core.errors import RequestError
from nightkeep.core.scope import ROOT, is_within, join_scope, parents, parse_scope

segments = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
scopes = st.lists(segments, max_size=8).map(lambda names: "/".join(names) or ROOT)


@given(scopes)
def test_a_canonical_scope_is_its_own_canonical_form(scope: str) -> None:
    assert parse_scope(scope) == scope
    assert parse_scope(f"/{scope}/") == scope


@given(st.text(max_size=40))
def test_any_text_is_either_refused_or_read_to_one_spelling(text: str) -> None:
    try:
        scope = parse_scope(text)
    except RequestError:
        return
    assert parse_scope(scope) == scope


@pytest.mark.parametrize(
    "text", ["a//b", "../a", "a/..", "a b", "a/\n", "a\n", ".a", "a" * 81, "/".join("abcdefghi"), "ä"]
)
def test_what_could_be_taken_for_another_path_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_scope(text)


@pytest.mark.parametrize("text", ["", "/", "///"])
def test_nothing_means_everything(text: str) -> None:
    assert parse_scope(text) == ROOT


@given(scopes)
def test_a_scope_lies_within_each_of_its_parents_and_the_root_is_the_last(scope: str) -> None:
    above = parents(scope)
    assert above[0] == scope
    assert above[-1] == ROOT
    assert all(is_within(scope, each) for each in above)
    assert len(set(above)) == len(above)


@given(scopes, scopes)
def test_to_be_within_is_to_have_it_among_the_parents(scope: str, ancestor: str) -> None:
    assert is_within(scope, ancestor) == (ancestor in parents(scope))


def test_a_longer_name_is_not_below_a_shorter_one() -> None:
    assert not is_within("acme-corp", "acme")
    assert is_within("acme/corp", "acme")


@given(scopes, scopes)
def test_what_is_joined_lies_below(base: str, child: str) -> None:
    assert is_within(join_scope(base, child), base)
    assert join_scope(ROOT, child) == child
    assert join_scope(base, ROOT) == base
