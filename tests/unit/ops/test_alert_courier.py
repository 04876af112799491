"""The courier of a channel: bounded messages, summaries, tries, and nothing lost when the channel fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightkeep.ops.alert_channels import ChannelSpec, Message
from nightkeep.ops.alert_courier import Courier
from nightkeep.ops.alert_episodes import Level
from nightkeep.testing.clock import FakeClock

SPEC = ChannelSpec(name="slack", address="")


class Phone:
    """A channel that keeps what it gets, and fails when told to."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.tried = 0
        self.fault = ""

    async def check(self) -> str:
        return ""

    async def send(self, message: Message) -> str:
        self.tried += 1
        if not self.fault:
            self.got.append(message)
        return self.fault


class Stage:
    def __init__(self, spec: ChannelSpec = SPEC, per_hour: int = 20) -> None:
        self.clock = FakeClock()
        self.phone = Phone()
        self.pauses: list[float] = []
        self.told: dict[str, str] = {}
        self.courier = Courier(spec, self.phone, self.clock, per_hour, self.note, self.pause)

    def note(self, courier: Courier, message: Message, what: str) -> None:
        self.told[message.id] = what

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def message(self, n: int, level: Level = "warning", scope: str | None = None) -> Message:
        return Message(
            text=f"Alert {n}.", level=level, kind="t", state="open", key=f"k{n}", id=f"i{n}", scope=scope,
            at=self.clock.now(),
        )  # fmt: skip

    async def settle(self) -> None:
        """Let the courier look at the clock and do what there is to do."""
        self.courier.wake()
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    made.courier.start()
    yield made
    made.courier.close()


async def test_a_storm_of_ten_thousand_alerts_is_a_bounded_number_of_messages(stage: Stage) -> None:
    for n in range(10_000):
        stage.courier.offer(stage.message(n, "critical" if n % 100 == 0 else "warning"))
    await stage.settle()
    assert len(stage.phone.got) == 20
    assert "Further alerts are held back" in stage.phone.got[-1].text
    assert sum(1 for message in stage.phone.got if message.level == "critical") >= 5
    stage.clock.advance(3_600)
    await stage.settle()
    assert len(stage.phone.got) == 21
    summary = stage.phone.got[-1]
    assert summary.state == "summary"
    assert summary.text.startswith("9980 alerts were held back since 12:00 UTC (")
    assert summary.text.count("\n- ") == 4
    assert summary.level == "critical"


async def test_one_alert_that_was_held_back_comes_as_itself() -> None:
    stage = Stage(per_hour=1)
    stage.courier.start()
    stage.courier.offer(stage.message(1))
    stage.courier.offer(stage.message(2))
    await stage.settle()
    assert stage.told == {"i1": "sent", "i2": "held"}
    stage.clock.advance(3_601)
    await stage.settle()
    assert [message.id for message in stage.phone.got] == ["i1", "i2"]
    assert stage.told["i2"] == "sent"
    stage.courier.close()


async def test_a_channel_that_fails_is_tried_three_times_then_later_and_loses_nothing(stage: Stage) -> None:
    stage.phone.fault = "HTTP 500"
    stage.courier.offer(stage.message(1))
    await stage.settle()
    assert stage.phone.tried == 3
    assert stage.pauses == [0.5, 1.0]
    assert stage.told == {"i1": "failed: HTTP 500"}
    view = stage.courier.view()
    assert (view.state, view.failed, view.held, view.last_error) == ("failing", 1, 1, "HTTP 500")
    stage.courier.offer(stage.message(2))
    await stage.settle()
    assert stage.phone.tried == 3  # not before the back-off is over
    stage.clock.advance(31)
    await stage.settle()
    assert stage.phone.tried == 4
    stage.phone.fault = ""
    stage.clock.advance(61)
    await stage.settle()
    assert len(stage.phone.got) == 1
    assert "Alert 1." in stage.phone.got[0].text
    assert "Alert 2." in stage.phone.got[0].text
    assert stage.told == {"i1": "sent", "i2": "sent"}
    assert stage.courier.view().state == "ok"


async def test_a_channel_that_breaks_its_promise_does_not_end_the_courier(stage: Stage) -> None:
    async def explode(message: Message) -> str:
        raise ZeroDivisionError

    calm, stage.phone.send = stage.phone.send, explode  # type: ignore[method-assign]
    stage.courier.offer(stage.message(1))
    await stage.settle()
    stage.phone.send = calm  # type: ignore[method-assign]
    stage.clock.advance(3_600)
    await stage.settle()
    assert [message.id for message in stage.phone.got] == ["i1"]


async def test_a_channel_hears_only_its_levels_and_scopes() -> None:
    spec = msgspec.structs.replace(SPEC, levels=frozenset({"critical"}), scopes=("acme",))
    stage = Stage(spec)
    stage.courier.start()
    stage.courier.offer(stage.message(1, "warning", "acme"))
    stage.courier.offer(stage.message(2, "critical", "acme/triage"))
    stage.courier.offer(stage.message(3, "critical", "acmecorp"))
    stage.courier.offer(stage.message(4, "critical", None))
    await stage.settle()
    assert [message.id for message in stage.phone.got] == ["i2"]
    stage.courier.close()


async def test_more_than_can_be_held_is_counted() -> None:
    stage = Stage(per_hour=1)
    stage.courier.start()
    for n in range(6_000):
        stage.courier.offer(stage.message(n))
    await stage.settle()
    assert stage.courier.held == 5_999
    stage.clock.advance(3_601)
    await stage.settle()
    assert stage.phone.got[-1].count == 5_999
    stage.courier.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "break", "mend", "wait", "wait"]),
        st.sampled_from(["warning", "critical"]),
        st.integers(1, 2_000),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 6))
def test_whatever_fails_and_however_much_comes_everything_is_told_within_the_limit(
    steps: list[tuple[str, Level, int]], per_hour: int
) -> None:
    async def play() -> None:
        stage = Stage(per_hour=per_hour)
        sent_at: list[float] = []
        send = stage.phone.send

        async def noting(message: Message) -> str:
            error = await send(message)
            sent_at.extend([stage.clock.monotonic()] if not error else [])
            return error

        stage.phone.send = noting  # type: ignore[method-assign]
        stage.courier.start()
        offered = set()
        for n, (what, level, seconds) in enumerate(steps):
            if what == "offer":
                stage.courier.offer(stage.message(n, level))
                offered.add(f"i{n}")
            elif what in ("break", "mend"):
                stage.phone.fault = "HTTP 500" if what == "break" else ""
            else:
                stage.clock.advance(seconds)
            await stage.settle()
        stage.phone.fault = ""
        for _ in range(4):
            stage.clock.advance(3_601)
            await stage.settle()
        assert set(stage.told) == offered
        assert set(stage.told.values()) <= {"sent"}
        for n, at in enumerate(sent_at):
            assert sum(1 for each in sent_at[n:] if each < at + 3_600) <= per_hour
        stage.courier.close()

    asyncio.run(play())
