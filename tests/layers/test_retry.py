from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    EndOfStream,
    StatusError,
    StreamBroken,
    Truncated,
    UsageError,
)
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Delta, Event, Head
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.retry_budget import RetryBudget
from holdfast.moments import Moment, Retrying
from holdfast.testing import FakeClock, check_layer
from tests.puppet import Puppet, Script, Wait, drain, request_on


class Half(Random):
    """Chance that always falls in the middle."""

    def random(self) -> float:
        return 0.5


def _busy(retry_after: float | None = None, *, retryable: bool = True) -> StatusError:
    return StatusError("busy", head=Head(status=429), retry_after=retry_after, retryable=retryable)


def _pipe(puppet: Puppet, clock: FakeClock, retry: Retry | None = None, **settings: Any) -> Pipe[Any]:
    return Pipe(puppet, clock=clock, random=Half(), **settings) | (retry or Retry())


async def _read(reader: Reader[Any]) -> list[Any]:
    async with reader as stream:
        return [item async for item in stream]


# -- opening -----------------------------------------------------------------------------------


async def test_what_opens_at_once_is_left_alone(clock: FakeClock) -> None:
    puppet = Puppet(["a", "b"])
    assert await _read(_pipe(puppet, clock).stream()) == ["a", "b"]
    assert (puppet.opens, puppet.closes, clock.slept) == (1, 1, [])


async def test_a_refused_open_is_tried_again_after_growing_pauses(clock: FakeClock) -> None:
    puppet = Puppet(ConnectError("1"), ConnectError("2"), ConnectError("3"), ["a"])
    heard: list[Moment] = []
    reader = _pipe(puppet, clock, listeners=[heard.append]).stream()
    assert await _read(reader) == ["a"]
    assert puppet.opened_at == [0.0, 0.5, 1.5, 3.5]
    retrying = [moment for moment in heard if isinstance(moment, Retrying)]
    assert [(str(moment.error), moment.delay, moment.attempt) for moment in retrying] == [
        ("1", 0.5, 1),
        ("2", 1.0, 2),
        ("3", 2.0, 3),
    ]
    assert reader.report.retries == 3
    assert reader.report.attempts == 4


async def test_pauses_are_drawn_as_told(clock: FakeClock) -> None:
    puppet = Puppet(*[ConnectError("")] * 4, ["a"])
    retry = Retry(attempts=5, base=2.0, cap=6.0, jitter="decorrelated")
    assert await _read(_pipe(puppet, clock, retry).stream()) == ["a"]
    assert clock.slept == [4.0, 6.0, 6.0, 6.0]


async def test_when_tries_run_out_the_last_failure_is_raised(clock: FakeClock) -> None:
    failures = [ConnectError(str(n)) for n in range(4)]
    puppet = Puppet(*failures)
    with pytest.raises(ConnectError) as caught:
        await _read(_pipe(puppet, clock).stream())
    assert caught.value is failures[3]
    assert caught.value.attempts == 4
    assert caught.value.__context__ is None, "the failures before it did not cause it"
    assert len(clock.slept) == 3, "nobody waits for a try that will not come"


async def test_one_attempt_is_no_retry(clock: FakeClock) -> None:
    puppet = Puppet(ConnectError("once"))
    with pytest.raises(ConnectError):
        await _read(_pipe(puppet, clock, Retry(attempts=1)).stream())
    assert clock.slept == []


@pytest.mark.parametrize("error", [_busy(retryable=False), CircuitOpen("open"), BudgetExhausted("none")])
async def test_what_is_not_retryable_is_raised_at_once(clock: FakeClock, error: Exception) -> None:
    puppet = Puppet(error)
    with pytest.raises(type(error)) as caught:
        await _read(_pipe(puppet, clock).stream())
    assert caught.value is error
    assert puppet.opens == 1


async def test_errors_of_the_program_are_none_of_its_business(clock: FakeClock) -> None:
    puppet = Puppet(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await _read(_pipe(puppet, clock).stream())
    assert puppet.opens == 1


# -- Retry-After -------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [0.0, 1.0, 25.0, 60.0])
async def test_nobody_comes_back_earlier_than_told_nor_all_at_once(clock: FakeClock, told: float) -> None:
    puppet = Puppet(_busy(told), ["a"])
    assert await _read(_pipe(puppet, clock, Retry(cap=10.0)).stream()) == ["a"]
    assert puppet.opened_at == [0.0, told + 0.5], "25 and 60 are above the cap, and obeyed"


async def test_a_server_that_says_now_again_and_again_is_still_given_room(clock: FakeClock) -> None:
    puppet = Puppet(_busy(0.0), _busy(0.0), _busy(0.0), ["a"])
    assert await _read(_pipe(puppet, clock).stream()) == ["a"]
    assert puppet.opened_at == [0.0, 0.5, 1.5, 3.5]


async def test_a_time_in_the_past_is_now(clock: FakeClock) -> None:
    puppet = Puppet(_busy(-30.0), ["a"])
    await _read(_pipe(puppet, clock).stream())
    assert clock.slept == [0.5]


@pytest.mark.parametrize("told", [60.1, 3600.0, float("inf")])
async def test_a_longer_wait_than_allowed_is_the_callers_to_decide(clock: FakeClock, told: float) -> None:
    puppet = Puppet(_busy(told))
    with pytest.raises(StatusError) as caught:
        await _read(_pipe(puppet, clock).stream())
    assert caught.value.retry_after == told
    assert clock.slept == []


# -- after the head ----------------------------------------------------------------------------


async def test_open_returns_at_the_head_and_holds_nothing_back(clock: FakeClock) -> None:
    puppet = Puppet([Wait(5.0), "a"])
    async with _pipe(puppet, clock).stream() as stream:
        assert clock.now() == 0.0
        assert stream.head.status == 200
        assert [item async for item in stream] == ["a"]


async def test_a_stream_that_fails_before_its_first_item_is_opened_again(clock: FakeClock) -> None:
    puppet = Puppet(
        Script(Wait(1.0), StreamBroken("cut"), head=Head(headers={"n": "1"})),
        ConnectError("refused"),
        Script("a", "b", head=Head(headers={"n": "2"})),
    )
    async with _pipe(puppet, clock).stream() as stream:
        assert stream.head.headers == {"n": "1"}
        assert [item async for item in stream] == ["a", "b"]
        assert stream.head.headers == {"n": "2"}
    assert puppet.opened_at == [0.0, 1.5, 2.5]
    assert puppet.requests[0] is puppet.requests[1] is puppet.requests[2]


async def test_the_broken_stream_is_closed_before_the_pause(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], ["a"])
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    reading = asyncio.create_task(drain(stream))
    await clock.advance(0.1)
    assert not puppet.live
    assert await reading == ["a"]
    await stream.aclose()


async def test_tries_are_counted_over_open_and_first_item_together(clock: FakeClock) -> None:
    last = StreamBroken("4")
    puppet = Puppet(ConnectError("1"), [StreamBroken("2")], ConnectError("3"), [last])
    with pytest.raises(StreamBroken) as caught:
        await _read(_pipe(puppet, clock).stream())
    assert caught.value is last
    assert puppet.opens == 4
    assert not puppet.live


@pytest.mark.parametrize("item", ["text", b"\n", Event(type=""), Delta(raw=Event())])
async def test_after_the_first_item_of_any_kind_it_is_not_there_any_more(clock: FakeClock, item: object) -> None:
    puppet = Puppet([item, StreamBroken("cut")])
    async with _pipe(puppet, clock).stream() as stream:
        assert await anext(stream) is item
        with pytest.raises(StreamBroken):
            await anext(stream)
    assert puppet.opens == 1
    assert clock.slept == []


async def test_a_clean_end_before_any_item_is_passed_on_as_it_is(clock: FakeClock) -> None:
    puppet = Puppet([])
    stream = await Retry()(puppet).open(request_on(clock))
    for _ in range(2):
        with pytest.raises(EndOfStream):
            await stream.receive()
    assert puppet.opens == 1
    await stream.aclose()


async def test_what_ended_it_is_said_again(clock: FakeClock) -> None:
    failure = Truncated("cut", retryable=False)
    stream = await Retry()(Puppet([failure])).open(request_on(clock))
    for _ in range(3):
        with pytest.raises(Truncated) as caught:
            await stream.receive()
        assert caught.value is failure
    await stream.aclose()


async def test_given_up_it_opens_nothing_any_more(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], BudgetExhausted("empty"))
    stream = await Retry()(puppet).open(request_on(clock))
    for _ in range(3):
        with pytest.raises(StreamBroken):
            await stream.receive()
    assert puppet.opens == 2
    await stream.aclose()


# -- the call's budget of requests -------------------------------------------------------------


async def test_when_the_calls_requests_are_gone_nobody_waits_for_another(clock: FakeClock) -> None:
    failures = [ConnectError("1"), ConnectError("2")]
    puppet = Puppet(*failures)
    with pytest.raises(ConnectError) as caught:
        await _read(_pipe(puppet, clock, max_requests=2).stream())
    assert caught.value is failures[1]
    assert clock.slept == [0.5]
    (why, *_) = caught.value.__notes__
    assert why == "it was not tried again: the call has sent its 2 requests (max_requests=)"


async def test_when_the_budget_that_calls_share_is_spent_the_failure_says_so(clock: FakeClock) -> None:
    spent = RetryBudget(ratio=0, floor=0, burst=1)
    assert spent.withdraw(0.0)
    with pytest.raises(ConnectError) as caught:
        await _read(_pipe(Puppet(ConnectError("1")), clock, retry_budget=spent).stream())
    assert "it was not tried again: the retry budget" in caught.value.__notes__[0]


async def test_what_is_tried_no_more_for_another_reason_says_nothing_of_budgets(clock: FakeClock) -> None:
    failures = [ConnectError(str(number)) for number in range(4)]
    with pytest.raises(ConnectError) as caught:
        await _read(_pipe(Puppet(*failures), clock, max_requests=4).stream())
    assert not [note for note in getattr(caught.value, "__notes__", ()) if "not tried again" in note]


async def test_a_budget_refused_below_does_not_hide_what_really_failed(clock: FakeClock) -> None:
    real = ConnectError("the real one")
    puppet = Puppet(real, BudgetExhausted("a shared budget is empty"))
    stream = _pipe(puppet, clock).stream()
    with pytest.raises(ConnectError) as caught:
        await _read(stream)
    assert caught.value is real
    assert "it was not tried again: a shared budget is empty" in real.__notes__


# -- cancellation ------------------------------------------------------------------------------


async def _cancel_at(clock: FakeClock, seconds: float, stream: Any) -> None:
    task = asyncio.create_task(stream.receive())
    await clock.advance(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_in_a_pause_it_goes_on_and_waits_only_for_the_rest(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], ["a"])
    stream = await Retry(base=8.0)(puppet).open(request_on(clock, random=Half()))
    await _cancel_at(clock, 3.0, stream)
    assert not puppet.live
    assert await drain(stream) == ["a"]
    assert puppet.opened_at == [0.0, 4.0]
    await stream.aclose()
    assert not puppet.live


async def test_cancelled_while_opening_again_it_goes_on(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], Script("kept", opening=(Wait(9.0),)))
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    await _cancel_at(clock, 3.0, stream)
    assert await drain(stream) == ["kept"]  # the request under way is not sent again, nor paid again
    assert puppet.opens == 2
    await stream.aclose()
    assert not puppet.live


async def test_closed_while_a_request_is_under_way_it_leaves_nothing_open(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], Script("late", opening=(Wait(9.0),)))
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    await _cancel_at(clock, 3.0, stream)
    await stream.aclose()
    assert not puppet.live
    assert len(asyncio.all_tasks()) == 1


async def test_cancelled_while_waiting_for_the_first_item_it_loses_nothing(clock: FakeClock) -> None:
    puppet = Puppet([Wait(5.0), "a", "b"])
    stream = await Retry()(puppet).open(request_on(clock))
    await _cancel_at(clock, 3.0, stream)
    assert await drain(stream) == ["a", "b"]
    assert puppet.opens == 1
    await stream.aclose()


@pytest.mark.parametrize("at", [0.2, 1.0])
async def test_a_cancelled_open_leaves_nothing_open(clock: FakeClock, at: float) -> None:
    puppet = Puppet(ConnectError("refused"), Script(opening=(Wait(9.0),)))
    task = asyncio.create_task(Retry()(puppet).open(request_on(clock, random=Half())))
    await clock.advance(at)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not puppet.live


async def test_closed_by_another_task_while_opening_again_it_leaves_nothing_open(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], Script("a", opening=(Wait(5.0),)))
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    reading = asyncio.create_task(stream.receive())
    await clock.advance(2.0)
    await stream.aclose()
    with pytest.raises(UsageError):
        await reading
    assert not puppet.live


async def test_closed_by_another_task_in_a_pause_it_opens_nothing(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")])
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    reading = asyncio.create_task(stream.receive())
    await clock.advance(0.1)
    await stream.aclose()
    with pytest.raises(UsageError):
        await reading
    assert puppet.opens == 1


async def test_a_second_reader_is_refused_even_in_a_pause(clock: FakeClock) -> None:
    puppet = Puppet([StreamBroken("cut")], ["a"])
    stream = await Retry()(puppet).open(request_on(clock, random=Half()))
    reading = asyncio.create_task(stream.receive())
    await clock.advance(0.1)
    with pytest.raises(UsageError):
        await stream.receive()
    assert await reading == ["a"]
    await stream.aclose()


async def test_it_keeps_the_contract_of_a_stream() -> None:
    await check_layer(Retry(), items=["a", "b", "c", "d"])


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attempts": 0}, "attempts .* not 0"),
        ({"max_retry_after": -1.0}, "max_retry_after .* not -1.0"),
        ({"base": -1.0}, "base .* not -1.0"),
        ({"base": 9.0, "cap": 2.0}, "cap .* not 2.0"),
        ({"jitter": "some"}, "jitter .* not 'some'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Retry(**settings)


def test_orders_that_cannot_work_are_told() -> None:
    source: Any = Pipe(Puppet())
    assert "!" not in str(source | Retry())
    assert "!" not in str(source | parse_sse() | verify("openai") | Retry() | Reconnect())
    assert "! Retry belongs left of Reconnect" in str(source | Reconnect() | Retry())
    assert "! Retry belongs right of verify()" in str(source | parse_sse() | Retry() | verify("openai"))
    assert "! Retry twice" in str(source | Retry() | Retry())
