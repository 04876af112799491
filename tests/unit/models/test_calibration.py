"""The counter that learns: bounds hold, experience sharpens them, and what one process has learnt another knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightkeep.models.calibration import Calibration, Calibrations, weigh
from nightkeep.store.sqlite import SqliteStore
from nightkeep.testing.clock import FakeClock

ENGLISH = b"Tell me what happened in the night and who has seen it. "


@given(st.binary(max_size=2_000))
def test_a_weight_is_never_more_than_a_token_a_byte_and_never_less_than_half(body: bytes) -> None:
    weight = weigh(body)
    assert len(body) / 2 <= weight.bound <= len(body) + 1


@pytest.mark.parametrize(
    ("text", "tokens_a_byte"),
    [(ENGLISH * 20, 0.25), ("夜の見張り".encode() * 100, 0.4), (b"0123456789" * 100, 1.0), ("🌙".encode() * 100, 0.75)],
)
def test_the_bound_holds_for_text_of_every_kind(text: bytes, tokens_a_byte: float) -> None:
    assert weigh(text).bound >= len(text) * tokens_a_byte


def test_a_target_that_never_reported_is_held_at_its_bound_and_beyond() -> None:
    calibration = Calibration()
    weight = weigh(ENGLISH)
    assert not calibration.is_known
    assert calibration.upper(weight) == weight.bound
    assert calibration.unknown() > 0


@given(st.lists(st.floats(0.1, 0.9), min_size=4, max_size=100))
def test_what_was_reported_lately_always_fits_what_is_held_next(ratios: list[float]) -> None:
    calibration, weight = Calibration(), weigh(ENGLISH * 10)
    for ratio in ratios:
        calibration.note(weight, int(weight.text * ratio), 50, 200)
    assert calibration.is_known
    assert calibration.unknown() == 0
    assert calibration.upper(weight) >= max(int(weight.text * ratio) for ratio in ratios[-64:])


def test_images_and_tools_are_counted_beside_the_text() -> None:
    picture = b'{"image":"' + b"iVBORw0KGgo" * 3_000 + b'","kind":"base64"}'
    assert weigh(picture).fixed >= 6_400
    assert weigh(picture).bound < len(picture)  # an image is no text of that length
    assert weigh(ENGLISH, has_tools=True).bound - weigh(ENGLISH).bound == 600


async def test_what_one_process_has_learnt_another_takes_up_and_never_forgets_more_for_less(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path, FakeClock(), pid=1)
    one, two = Calibrations(), Calibrations()
    for _ in range(6):
        one.note("lab/m", weigh(ENGLISH), 14, 30, 100)
    work = one.save(1)
    assert work is not None
    assert one.save(2) is None  # nothing new
    await store.write(work)
    await two.restore(store)
    assert two.of("lab/m").is_known
    for _ in range(9):
        two.note("lab/m", weigh(ENGLISH), 14, 30, 100)
    await two.restore(store)
    assert two.of("lab/m").calls == 15
    await store.close()
