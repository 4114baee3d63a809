from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast._core import Stream
from holdfast._errors import DeadlineExceeded, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Delta, Event, Head, Request
from holdfast.layers.deadline import Deadline
from holdfast.moments import Moment, Stalled
from holdfast.testing import FakeClock, check_layer
from tests.puppet import Puppet, Script, Wait, drain, request_on

EMPTY = Delta(raw=Event())


def _delta(text: str) -> Delta:
    return Delta(raw=Event(), text=text)


async def _open(puppet: Any, clock: FakeClock, **clocks: float) -> Stream[Any]:
    return await Deadline(**clocks)(puppet).open(request_on(clock))


async def _expires(stream: Stream[Any]) -> DeadlineExceeded:
    with pytest.raises(DeadlineExceeded) as caught:
        await drain(stream)
    return caught.value


def _is_clean(clock: FakeClock) -> bool:
    """No timer is left, and no cancellation stays counted."""
    task = asyncio.current_task()
    assert task is not None
    return clock._next() is None and task.cancelling() == 0


# -- open --------------------------------------------------------------------------------------


async def test_a_slow_open_is_cut_off_and_leaves_nothing_open(clock: FakeClock) -> None:
    puppet = Puppet(Script("a", opening=(Wait(9.0),)))
    with pytest.raises(DeadlineExceeded) as caught:
        await _open(puppet, clock, open=3.0)
    assert (caught.value.clock, caught.value.seconds, clock.now()) == ("open", 3.0, 3.0)
    assert caught.value.retryable
    assert not puppet.live
    assert _is_clean(clock)


async def test_an_open_in_time_is_left_alone(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(50.0), "a", opening=(Wait(2.9),)))
    stream = await _open(puppet, clock, open=3.0)
    assert await drain(stream) == ["a"]
    await stream.aclose()
    assert _is_clean(clock)


async def test_with_nothing_to_watch_after_the_head_it_steps_aside(clock: FakeClock) -> None:
    puppet = Puppet(["a"])
    assert await _open(puppet, clock, open=3.0) in puppet.live
    assert _is_clean(clock)


async def test_what_fails_to_open_fails_as_it_is(clock: FakeClock) -> None:
    failure = StreamBroken("cut")
    with pytest.raises(StreamBroken) as caught:
        await _open(Puppet(failure), clock, open=3.0, total=9.0)
    assert caught.value is failure
    assert _is_clean(clock)


@pytest.mark.parametrize(
    ("clocks", "name"),
    [
        ({"open": 9.0, "first_token": 5.0}, "first_token"),
        ({"open": 9.0, "first_token": 8.0, "total": 5.0}, "total"),
        ({"open": 5.0, "first_token": 5.0, "total": 5.0}, "open"),
    ],
)
async def test_the_tightest_clock_bounds_the_open(clock: FakeClock, clocks: dict[str, float], name: str) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await _open(Puppet(Script(opening=(Wait(60.0),))), clock, **clocks)
    assert (caught.value.clock, clock.now()) == (name, 5.0)
    assert caught.value.retryable == (name != "total")


async def test_what_opened_in_spite_of_the_interruption_is_closed(clock: FakeClock) -> None:
    class Stubborn(Puppet):
        async def open(self, request: Request) -> Any:
            try:
                await request.call.clock.sleep(9.0)
            except asyncio.CancelledError:
                return await Puppet.open(self, request)
            raise AssertionError

    puppet = Stubborn(["a"])
    with pytest.raises(DeadlineExceeded):
        await _open(puppet, clock, open=3.0, progress=1.0)
    assert (puppet.opens, puppet.closes) == (1, 1)
    assert _is_clean(clock)


async def test_a_clock_that_is_left_out_starts_no_timer(clock: FakeClock) -> None:
    puppet = Puppet(Script(asyncio.Event(), opening=(asyncio.Event(),)))
    opening = asyncio.create_task(_open(puppet, clock, progress=5.0))
    await clock.settle()
    assert clock._next() is None
    puppet.scripts[0].opening[0].set()
    stream = await opening
    reading = asyncio.create_task(stream.receive())
    await clock.settle()
    assert clock._next() is None, "before the first token progress does not count"
    puppet.scripts[0].steps[0].set()
    with pytest.raises(EndOfStream):
        await reading
    await stream.aclose()


# -- first_token -------------------------------------------------------------------------------


async def test_the_first_token_counts_from_the_start_of_the_open(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(60.0), "a", opening=(Wait(4.0),)))
    stream = await _open(puppet, clock, first_token=10.0)
    error = await _expires(stream)
    assert (error.clock, error.seconds, clock.now()) == ("first_token", 10.0, 10.0)


async def test_empty_deltas_are_no_first_token(clock: FakeClock) -> None:
    puppet = Puppet([Wait(4.0), EMPTY, Wait(4.0), [EMPTY, EMPTY], Wait(4.0), _delta("late")])
    error = await _expires(await _open(puppet, clock, first_token=10.0))
    assert (error.clock, clock.now()) == ("first_token", 10.0)


async def test_a_reader_that_dawdles_before_its_first_read_is_no_stall(clock: FakeClock) -> None:
    puppet = Puppet([Wait(4.0), "a"])
    stream = await _open(puppet, clock, first_token=5.0)
    await clock.sleep(60.0)
    assert await drain(stream) == ["a"]


async def test_after_the_first_token_its_clock_is_over(clock: FakeClock) -> None:
    puppet = Puppet([Wait(4.0), "a", Wait(60.0), "b"])
    assert await drain(await _open(puppet, clock, first_token=5.0)) == ["a", "b"]


# -- progress ----------------------------------------------------------------------------------


async def test_a_stall_is_noticed(clock: FakeClock) -> None:
    puppet = Puppet(["a", Wait(4.9), "b", Wait()])
    stream = await _open(puppet, clock, progress=5.0)
    error = await _expires(stream)
    assert (error.clock, error.seconds, clock.now()) == ("progress", 5.0, 9.9)
    assert error.retryable


@pytest.mark.parametrize("ping", [EMPTY, Event(type="")])
async def test_a_stall_behind_pings_is_noticed(clock: FakeClock, ping: object) -> None:
    puppet = Puppet(["a", *[Wait(1.0), ping] * 20])
    error = await _expires(await _open(puppet, clock, progress=5.0))
    assert (error.clock, clock.now()) == ("progress", 5.0)


@pytest.mark.parametrize(
    "item", [b": ping\n\n", "text", Event(), _delta("x"), Delta(raw=Event(), finish_reason="stop")]
)
async def test_whatever_is_not_empty_is_progress(clock: FakeClock, item: object) -> None:
    puppet = Puppet([item, *[Wait(4.0), EMPTY, Wait(0.9), [EMPTY, item]] * 10])
    assert len(await drain(await _open(puppet, clock, progress=5.0))) == 31
    assert clock.now() == pytest.approx(49.0)


async def test_a_slow_reader_is_no_stall(clock: FakeClock) -> None:
    puppet = Puppet([_delta("a"), Wait(3.0), EMPTY, Wait(1.5), _delta("b"), "c"])
    stream = await _open(puppet, clock, progress=5.0)
    items: list[Any] = []
    for _ in range(4):
        items += await stream.receive()
        await clock.sleep(100.0)
    assert len(items) == 4
    await stream.aclose()


async def test_before_the_first_token_progress_does_not_count(clock: FakeClock) -> None:
    puppet = Puppet([Wait(500.0), "a", Wait(4.0), "b", Wait(6.0)])
    error = await _expires(await _open(puppet, clock, first_token=600.0, progress=5.0))
    assert (error.clock, clock.now()) == ("progress", 509.0)


async def test_a_cancelled_wait_counts_as_waiting(clock: FakeClock) -> None:
    puppet = Puppet(["a", Wait()])
    stream = await _open(puppet, clock, progress=5.0)
    assert await stream.receive() == ["a"]
    for _ in range(2):
        task = asyncio.create_task(stream.receive())
        await clock.advance(2.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await clock.advance(50.0)
    before = clock.now()
    await _expires(stream)
    assert clock.now() - before == 1.0


# -- total -------------------------------------------------------------------------------------


async def test_the_total_counts_everything(clock: FakeClock) -> None:
    puppet = Puppet(Script("a", Wait(2.0), "b", Wait(1.0), "c", Wait(), opening=(Wait(3.0),)))
    stream = await _open(puppet, clock, progress=2.5, total=8.0)
    error = await _expires(stream)
    assert (error.clock, error.seconds, clock.now()) == ("total", 8.0, 8.0)
    assert not error.retryable


async def test_the_total_is_checked_before_what_is_ready_is_read(clock: FakeClock) -> None:
    puppet = Puppet(["a", "b"])
    stream = await _open(puppet, clock, total=8.0)
    assert await stream.receive() == ["a"]
    await clock.sleep(8.0)
    assert (await _expires(stream)).clock == "total"
    assert next(iter(puppet.live)).received == 1


async def test_a_stall_before_the_total_is_a_stall(clock: FakeClock) -> None:
    error = await _expires(await _open(Puppet(["a", Wait()]), clock, progress=5.0, total=8.0))
    assert (error.clock, clock.now()) == ("progress", 5.0)


# -- the end -----------------------------------------------------------------------------------


async def test_it_is_announced_and_sticky_and_delivers_nothing_late(clock: FakeClock) -> None:
    heard: list[Moment] = []
    puppet = Puppet(["a", Wait(6.0), "late"])
    async with (Pipe(puppet, clock=clock, listeners=[heard.append]) | Deadline(progress=5.0)).stream() as stream:
        assert await anext(stream) == "a"
        with pytest.raises(DeadlineExceeded) as first:
            await anext(stream)
        await clock.sleep(60.0)
        with pytest.raises(DeadlineExceeded) as second:
            await anext(stream)
    assert first.value is second.value
    assert [(m.clock, m.seconds) for m in heard if isinstance(m, Stalled)] == [("progress", 5.0)]
    assert not puppet.live
    assert _is_clean(clock)


async def test_the_ends_of_the_stream_pass(clock: FakeClock) -> None:
    failure = StreamBroken("cut")
    for end, scripted in ((EndOfStream, []), (StreamBroken, [failure])):
        stream = await _open(Puppet(["a", *scripted]), clock, first_token=1.0, progress=1.0, total=9.0)
        assert await stream.receive() == ["a"]
        for _ in range(2):
            with pytest.raises(end):
                await stream.receive()
            assert _is_clean(clock), "nothing is left to watch"
        await stream.aclose()


async def test_closed_it_leaves_no_timer(clock: FakeClock) -> None:
    puppet = Puppet(["a", "b"])
    stream = await _open(puppet, clock, open=1.0, first_token=2.0, progress=3.0, total=9.0)
    await stream.receive()
    assert clock._next() is not None
    await stream.aclose()
    await stream.aclose()
    assert _is_clean(clock)
    assert not puppet.live


# -- cancellation and company ------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["open", "receive"])
async def test_an_outer_cancellation_that_meets_it_wins(clock: FakeClock, phase: str) -> None:
    opening = (Wait(),) if phase == "open" else ()
    puppet = Puppet(Script(Wait(), opening=opening))

    async def read() -> None:
        stream = await _open(puppet, clock, open=5.0, first_token=5.0)
        try:
            await stream.receive()
        finally:
            await stream.aclose()

    def cancel() -> None:
        task.cancel()

    task = asyncio.create_task(read())
    clock.call_at(5.0, cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 5.0
    assert task.cancelling() == 1
    assert not puppet.live
    assert clock._next() is None


@pytest.mark.parametrize("arrives_first", [True, False])
async def test_what_arrives_at_the_same_moment_is_late_and_stays_below(
    clock: FakeClock, *, arrives_first: bool
) -> None:
    arrived = asyncio.Event()
    if arrives_first:
        clock.call_at(5.0, arrived.set)
    puppet = Puppet(["a", arrived, "b"])
    stream = await _open(puppet, clock, progress=5.0)
    assert await stream.receive() == ["a"]
    reading = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    if not arrives_first:
        clock.call_at(5.0, arrived.set)
    with pytest.raises(DeadlineExceeded):
        await reading
    (below,) = puppet.live
    assert arrived.is_set()
    assert await below.receive() == ["b"]
    await stream.aclose()


async def test_what_an_inner_stream_hands_over_in_spite_of_the_interruption_is_delivered(clock: FakeClock) -> None:
    class Stubborn:
        head = Script().head

        async def receive(self) -> list[str]:
            try:
                await clock.sleep(60.0)
            except asyncio.CancelledError:
                return ["all the same"]
            raise AssertionError

        async def aclose(self) -> None:
            await asyncio.sleep(0)

    class Source:
        async def open(self, request: Request) -> Stubborn:
            return Stubborn()

    stream = await _open(Source(), clock, first_token=5.0, progress=5.0)
    assert await stream.receive() == ["all the same"]
    assert await stream.receive() == ["all the same"]
    await stream.aclose()
    assert _is_clean(clock)


@pytest.mark.parametrize(("items", "name"), [([EMPTY] * 9, "first_token"), ([_delta("a"), *[EMPTY] * 9], "progress")])
async def test_used_up_time_is_noticed_without_a_turn_of_the_event_loop(
    clock: FakeClock, items: list[Delta], name: str
) -> None:
    """A source with everything at hand never suspends: no timer can ring while it is read."""

    class Busy:
        head = Head()

        async def receive(self) -> list[Delta]:
            clock._now += 1.0  # what parsing takes
            return [items.pop(0)]

        async def aclose(self) -> None:
            pass

    class Source:
        async def open(self, request: Request) -> Stream[Delta]:
            return Busy()

    stream = await _open(Source(), clock, first_token=3.0, progress=3.0)
    error = await _expires(stream)
    assert (error.clock, len(items)) == (name, 6)
    assert await _expires(stream) is error
    await stream.aclose()
    assert _is_clean(clock)


async def test_an_error_made_of_the_interruption_is_the_deadlines(clock: FakeClock) -> None:
    class Translating(Puppet):
        async def open(self, request: Request) -> Any:
            try:
                return await Puppet.open(self, request)
            except asyncio.CancelledError as error:
                raise StreamError("something went wrong") from error

    with pytest.raises(DeadlineExceeded):
        await _open(Translating(Script(opening=(Wait(),))), clock, open=5.0)
    assert _is_clean(clock)


async def test_of_two_deadlines_each_keeps_its_own_time(clock: FakeClock) -> None:
    puppet = Puppet([Wait(2.0), b"\n", *[Wait(2.0), b": ping\n\n"] * 20])

    def pipe(first_token: float) -> Pipe[bytes]:
        return Pipe(puppet, clock=clock) | Deadline(progress=3.0) | Deadline(total=first_token)

    async with pipe(11.0).stream() as stream:
        with pytest.raises(DeadlineExceeded) as caught:
            async for _ in stream:
                pass
    assert (caught.value.clock, clock.now()) == ("total", 11.0)
    assert _is_clean(clock)


async def test_a_second_reader_does_not_take_the_firsts_alarm(clock: FakeClock) -> None:
    stream = await _open(Puppet(["a", Wait()]), clock, progress=5.0)
    await stream.receive()
    first = asyncio.create_task(stream.receive())
    await clock.advance(1.0)
    with pytest.raises(UsageError):
        await stream.receive()
    with pytest.raises(DeadlineExceeded):
        await first
    assert clock.now() == 5.0
    await stream.aclose()


async def test_closing_under_a_reader_does_not_let_it_wait_for_ever(clock: FakeClock) -> None:
    stream = await _open(Puppet([Wait()]), clock, first_token=5.0)
    reading = asyncio.create_task(stream.receive())
    await clock.advance(1.0)
    await stream.aclose()
    with pytest.raises(DeadlineExceeded):
        await reading


@pytest.mark.parametrize(
    "layer",
    [Deadline(), Deadline(open=9.0), Deadline(open=9.0, first_token=9.0, progress=9.0), Deadline(total=1e6)],
    ids=str,
)
async def test_it_keeps_the_contract_of_a_stream(layer: Deadline) -> None:
    await check_layer(layer, items=["a", "b", "c", "d"])


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open", "first_token", "progress", "total"])
@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "30", True])
def test_settings_that_make_no_sense_are_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .* not {seconds!r}"):
        Deadline(**{name: seconds})


class Retry:
    def __call__(self, inner: Any) -> Any:
        return inner


def test_a_total_that_starts_anew_at_every_attempt_is_told() -> None:
    pipe = Pipe(Puppet())
    assert "! Deadline(total=...) belongs right of Retry" in str(pipe | Deadline(total=9.0) | Retry())
    assert "!" not in str(pipe | Deadline(open=3.0, progress=9.0) | Retry() | Deadline(total=9.0))
