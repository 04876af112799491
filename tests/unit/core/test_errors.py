"""The tree of errors: one code each, drawn in its docstring."""

from __future__ import annotations

import re

import pytest

from nightkeep.core import errors
from nightkeep.core.errors import NightkeepError

every = [each for name in errors.__all__ if issubclass(each := getattr(errors, name), NightkeepError)]


def test_no_two_errors_share_a_code() -> None:
    codes = [each.code for each in every]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", every, ids=lambda each: each.__name__)
def test_each_error_is_drawn_in_the_docstring_and_answers_with_an_error_status(error: type[NightkeepError]) -> None:
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")
    assert 400 <= error.status <= 599
    assert re.fullmatch(r"[a-z_]+", error.code)


def test_a_providers_own_status_goes_before_the_class_s() -> None:
    assert errors.ProviderError("down").http_status == 502
    assert errors.ProviderError("down", status=529).http_status == 529


def test_the_time_to_wait_is_said_only_where_it_is_known() -> None:
    assert errors.PoolExhaustedError("none left").retry_after_s is None
    assert errors.PoolExhaustedError("none left", retry_after_s=3).retry_after_s == 3.0
