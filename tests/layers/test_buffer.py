"""Buffer hands over by number, by sentence and by time, and loses nothing on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core import Stream
from holdfast._errors import EndOfStream, StreamBroken, UsageError
from holdfast._types import Delta, Event
from holdfast.layers.buffer import Buffer
from holdfast.testing import FakeClock
from tests.pages import ROOT
from tests.puppet import Puppet, Script, Wait, request_on


def said(text: str) -> Delta:
    return Delta(raw=Event(), text=text)


async def batches(layer: Buffer, *steps: Any, clock: FakeClock | None = None) -> list[list[Any]]:
    """Reads everything the steps lead to; the items of each batch, deltas as their text."""
    stream = await layer(Puppet(Script(*steps))).open(request_on(clock))
    got = []
    try:
        while True:
            batch = await stream.receive()
            got.append([item.text if isinstance(item, Delta) else item for item in batch])
    except EndOfStream:
        return got
    finally:
        await stream.aclose()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"Buffer\(count=...\) must be a whole number from 1 or None, not 0"),
        ({"count": 9, "max_items": 8}, "max_items=8, not 9"),
        ({"seconds": 0.0}, r"Buffer\(seconds=...\) must be a number of seconds above 0 or None, not 0.0"),
        ({"seconds": float("nan")}, "not nan"),
        ({"max_items": 0}, "a whole number from 1, not 0"),
        ({"sentences": "no"}, r"Buffer\(sentences=...\) must be True or False, not 'no'"),
        ({"hold_first": 1}, r"Buffer\(hold_first=...\) must be True or False, not 1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Buffer(**settings)


def test_immediate_is_no_layer_at_all() -> None:
    source = Puppet(["a"])
    assert Buffer()(source) is source


async def test_it_groups_by_count_after_the_first_delta() -> None:
    assert await batches(Buffer(count=2), *"abcdef") == [["a"], ["b", "c"], ["d", "e"], ["f"]]


async def test_the_first_delta_is_grouped_too_when_told_to() -> None:
    assert await batches(Buffer(count=2, hold_first=True), *"abc") == [["a", "b"], ["c"]]


async def test_a_large_batch_is_cut() -> None:
    assert await batches(Buffer(count=2, hold_first=True), list("abcde")) == [["a", "b"], ["c", "d"], ["e"]]


async def test_it_groups_by_sentence() -> None:
    deltas = [said(text) for text in ("Hi", " there", ".", " It is 3", ".", "14", "!", " 好", "的", "。", "再见")]
    got = await batches(Buffer(sentences=True), *deltas)
    assert got == [["Hi"], [" there", "."], [" It is 3", ".", "14", "!"], [" 好", "的", "。"], ["再见"]]


async def test_a_text_without_any_mark_is_bounded() -> None:
    got = await batches(Buffer(sentences=True, max_items=3), *[said("x")] * 8)
    assert [len(batch) for batch in got] == [1, 3, 3, 1]


async def test_finish_reason_waits_for_nothing() -> None:
    stop = Delta(raw=Event(), finish_reason="stop")
    assert await batches(Buffer(count=8), said("a"), said("b"), stop, Wait(60.0), said("c")) == [
        ["a"],
        ["b", ""],
        ["c"],
    ]


async def test_it_hands_over_when_time_is_up_since_the_first_held_item(clock: FakeClock) -> None:
    stream = await Buffer(seconds=0.05)(Puppet(["a", Wait(1.0), "b", Wait(0.03), "c", Wait(9.0), "d"])).open(
        request_on(clock)
    )
    read: list[tuple[float, Sequence[Any]]] = []
    for _ in range(3):
        batch = await stream.receive()
        read.append((round(clock.now(), 3), batch))
    assert read == [(0.0, ["a"]), (1.05, ["b", "c"]), (10.03, ["d"])]
    await stream.aclose()


async def test_a_consumer_that_was_away_too_long_gets_what_is_held_at_once(clock: FakeClock) -> None:
    stream = await Buffer(count=3, seconds=0.05)(Puppet([list("abc"), Wait(9.0)])).open(request_on(clock))
    assert await stream.receive() == ["a"]
    await clock.sleep(1.0)
    assert await stream.receive() == ["b", "c"]
    assert clock.now() == 1.0
    await stream.aclose()


async def test_whichever_comes_first() -> None:
    clock = FakeClock()
    layer = Buffer(count=3, seconds=0.05, hold_first=True)
    assert await batches(layer, *"abcd", Wait(1.0), "e", clock=clock) == [["a", "b", "c"], ["d"], ["e"]]
    clock.close()


async def test_a_failure_comes_after_what_is_held_and_stays(clock: FakeClock) -> None:
    broken = StreamBroken("cut")
    stream = await Buffer(count=8, hold_first=True)(Puppet(["a", "b", broken])).open(request_on(clock))
    assert await stream.receive() == ["a", "b"]
    for _ in range(2):
        with pytest.raises(StreamBroken) as caught:
            await stream.receive()
        assert caught.value is broken
    await stream.aclose()


async def test_a_cancelled_reader_leaves_what_is_held(clock: FakeClock) -> None:
    more = asyncio.Event()
    stream = await Buffer(count=3, seconds=60.0, hold_first=True)(Puppet(["a", "b", more, "c"])).open(request_on(clock))
    reader = asyncio.create_task(stream.receive())
    for _ in range(5):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    more.set()
    assert await stream.receive() == ["a", "b", "c"]
    await stream.aclose()


async def test_an_outer_cancellation_that_meets_the_alarm_wins(clock: FakeClock) -> None:
    stream = await Buffer(seconds=1.0, hold_first=True)(Puppet(["a", Wait()])).open(request_on(clock))
    reader = asyncio.create_task(stream.receive())

    def cancel() -> None:
        reader.cancel()

    clock.call_at(1.0, cancel)
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await stream.receive() == ["a"]
    await stream.aclose()


async def test_a_second_reader_does_not_take_the_alarm_over(clock: FakeClock) -> None:
    stream = await Buffer(seconds=1.0, hold_first=True)(Puppet(["a", Wait()])).open(request_on(clock))
    reader = asyncio.create_task(stream.receive())
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(UsageError):
        await stream.receive()
    assert await reader == ["a"]
    await stream.aclose()


async def read_into(got: list[Sequence[Any]], stream: Stream[Any]) -> None:
    while True:
        got.append(await stream.receive())


_TEXT = st.sampled_from(["", "a", ".", " b", "。", "”", "!\n", "3", "e.g"])
_ITEMS = st.lists(st.lists(_TEXT.map(said) | st.integers(), min_size=1, max_size=5), max_size=6)


_LAYERS = st.builds(
    Buffer,
    count=st.none() | st.integers(1, 4),
    sentences=st.booleans(),
    seconds=st.sampled_from([1e9, 0.05]),
    max_items=st.just(4),
    hold_first=st.booleans(),
)


@settings(max_examples=100)
@given(inner=_ITEMS, layer=_LAYERS, fails=st.booleans())
def test_any_items_in_any_batches_come_out_as_they_are(
    inner: list[list[Any]],
    layer: Buffer,
    fails: bool,  # noqa: FBT001 - drawn
) -> None:
    steps: list[Any] = [step for batch in inner for step in (batch, Wait(0.03))]

    async def read() -> list[Sequence[Any]]:
        async with FakeClock() as clock:
            end: list[Any] = [StreamBroken("cut")] if fails else []
            stream = await layer(Puppet(Script(*steps, *end))).open(request_on(clock))
            got: list[Sequence[Any]] = []
            with pytest.raises(StreamBroken if fails else EndOfStream):
                await read_into(got, stream)
            await stream.aclose()
            return got

    got = asyncio.run(read())
    assert [id(item) for batch in got for item in batch] == [id(item) for batch in inner for item in batch]
    assert all(1 <= len(batch) <= 4 for batch in got)


# -- profiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("realtime", Buffer(count=3, seconds=0.05)),
        ("sentences", Buffer(sentences=True, seconds=2.0)),
        ("throughput", Buffer(count=64, seconds=0.5)),
    ],
)
def test_a_profile_is_a_buffer_of_known_settings(name: Any, meant: Buffer) -> None:
    assert Buffer.profile(name) == meant


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ValueError, match="takes one of 'realtime', 'sentences', 'throughput', not 'fast'"):
        Buffer.profile("fast")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "longest"), [("realtime", 0.05), ("sentences", 2.0), ("throughput", 0.5)])
@pytest.mark.parametrize("every", [0.004, 0.02, 0.3])
async def test_no_delta_waits_longer_than_its_profile_says(
    clock: FakeClock, name: Any, longest: float, every: float
) -> None:
    steps = [step for _ in range(60) for step in (Wait(every), said("word "))]
    stream = await Buffer.profile(name)(Puppet(Script(*steps))).open(request_on(clock))
    number = 0
    while number < 60:
        for _ in await stream.receive():
            number += 1
            assert clock.now() - number * every <= longest + 1e-9
    await stream.aclose()


async def test_the_page_says_what_profiles_do(clock: FakeClock) -> None:
    rows = []
    for name in ("none", "realtime", "sentences", "throughput"):
        layer = Buffer() if name == "none" else Buffer.profile(name)  # type: ignore[arg-type]  # one of its names
        steps = [
            step for number in range(600) for step in (Wait(0.02), said(" kelp" if (number + 1) % 20 else " holds."))
        ]
        began = clock.now()
        stream = await layer(Puppet(Script(*steps))).open(request_on(clock))
        waits: list[float] = []
        sizes: list[int] = []
        while len(waits) < 600:
            batch = await stream.receive()
            sizes.append(len(batch))
            waits += [clock.now() - began - 0.02 * (len(waits) + place) for place in range(1, len(batch) + 1)]
        await stream.aclose()
        mean, longest = abs(sum(waits)) / 600, max(waits)
        title = name if name == "none" else f"`{name}`"
        rows.append(f"| {title} | {len(sizes)} | {max(sizes)} | {mean * 1e3:.0f} ms | {longest * 1e3:.0f} ms |")
    assert "\n".join(rows) in (ROOT / "docs/buffer.md").read_text("utf-8")
