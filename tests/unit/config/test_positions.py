"""Where a setting stands in the text, however it is written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.config_positions import find_positions

TEXT = '''# a comment with [table] and a = b
top = 1
"quoted key" = 2
a.b."c.d" = 3

[gateway]
port = 7777 # ]
deadlines = { idle_s = 1, "total_s" = 2 }
text = """
[not.a.table]
port = 1
"""
list = [
  1,
  { x = [10, 20] }, # }
  "]",
]

[ models . "a/b" ]
targets = ["x",
  "y"]

[[routes]]
match = { tags = ["a"] }
[routes.limits]
concurrent = 3
[[routes]]
pool = 'it''s'
after = '[x]'
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("a", "b", "c.d"), 4),
        (("gateway",), 6),
        (("gateway", "port"), 7),
        (("gateway", "deadlines", "total_s"), 8),
        (("gateway", "list"), 13),
        (("gateway", "list", 1, "x", 1), 15),
        (("gateway", "list", 2), 16),
        (("models", "a/b", "targets", 1), 21),
        (("routes", 0), 23),
        (("routes", 0, "match", "tags", 0), 24),
        (("routes", 0, "limits", "concurrent"), 26),
        (("routes", 1, "pool"), 28),
        (("gateway", "missing"), 6),
        (("routes", 1, "missing", "deep"), 27),
        (("nowhere",), None),
    ],
)
def test_finds_the_line_of_a_setting_or_of_its_nearest_parent(path: tuple[str | int, ...], line: int | None) -> None:
    assert find_positions(TEXT).line(path) == line


@given(st.text(max_size=200))
def test_any_text_is_scanned_without_complaint(text: str) -> None:
    find_positions(text)


@given(st.text(alphabet="[]{}=.,\"'\\#\n ab1", max_size=80))
def test_every_key_of_a_valid_file_is_found(text: str) -> None:
    try:
        value = tomllib.loads(text)
    except ValueError:
        return
    positions = find_positions(text)
    for key in value:
        assert positions.has((key,)), (text, key)
