"""`start()` opens a stream before anybody reads it: bounded, cancelled when it is closed, and ended by its clocks."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from holdfast import Client, ConnectError, DeadlineExceeded, MemorySource, Pipe, Timeouts, UsageError, sync
from holdfast.layers.deadline import Deadline
from holdfast.layers.read_ahead import ReadAhead
from holdfast.moments import Ended, Moment, Opened, Stalled, Started
from holdfast.testing import FakeClock, cancel_everywhere
from tests.puppet import Puppet, Script, Wait


def pipe_over(puppet: Puppet, clock: FakeClock, *layers: Any, **settings: Any) -> Pipe[Any]:
    pipe: Pipe[Any] = Pipe(puppet, clock=clock, **settings)
    for layer in (*layers, ReadAhead(max_items=4, unread=60.0)):
        pipe = pipe | layer
    return pipe


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- opening -------------------------------------------------------------------------------------


async def test_it_is_opened_and_read_before_it_is_entered(clock: FakeClock) -> None:
    told: list[Moment] = []
    puppet = Puppet(Script("a", "b", opening=(Wait(2.0),)))
    reader = pipe_over(puppet, clock, listeners=[told.append]).stream().start()
    await clock.sleep(10.0)
    assert [type(moment) for moment in told if isinstance(moment, Started | Opened)] == [Started, Opened]
    async with reader as items:
        entered = clock.now()
        assert [item async for item in items] == ["a", "b"]
    assert clock.now() == entered == 10.0
    assert items.report.open_seconds == 2.0


async def test_entering_waits_only_for_what_is_left(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(Script("a", opening=(Wait(5.0),))), clock).stream().start()
    await clock.sleep(3.0)
    async with reader as items:
        assert clock.now() == 5.0
        assert [item async for item in items] == ["a"]


async def test_memory_is_bounded(clock: FakeClock) -> None:
    puppet = Puppet([str(number) for number in range(100)])
    reader = pipe_over(puppet, clock).stream().start()
    await turns()
    (inner,) = puppet.live
    assert inner.received == 4
    async with reader as items:
        assert len([item async for item in items]) == 100


async def test_its_failure_is_raised_where_it_is_entered(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(ConnectError("refused")), clock).stream().start()
    await turns()
    with pytest.raises(ConnectError, match="refused") as raised:
        async with reader:
            pass
    assert raised.value.attempts == 1
    del reader, raised
    gc.collect()


async def test_awaiting_it_gives_the_answer(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(["a"]), clock).stream().start()
    async with reader as items:
        assert [batch async for batch in items.batches()] == [["a"]]


# -- giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [Script("a", opening=(Wait(),)), Script("a", Wait()), Script(*"abcdefgh")])
async def test_closing_it_unentered_leaves_nothing_open(clock: FakeClock, script: Script) -> None:
    told: list[Moment] = []
    puppet = Puppet(script)
    reader = pipe_over(puppet, clock, listeners=[told.append]).stream().start()
    await turns()
    await reader.aclose()
    assert not puppet.live
    (ended,) = (moment for moment in told if isinstance(moment, Ended))
    assert ended.cancelled
    with pytest.raises(UsageError):
        await reader.__aenter__()
    await reader.aclose()


async def test_one_that_is_closed_before_its_first_turn_sends_nothing(clock: FakeClock) -> None:
    puppet = Puppet(["a"])
    await pipe_over(puppet, clock).stream().start().aclose()
    assert puppet.opens == 0


@pytest.mark.parametrize("script", [Script("a", "b", opening=(Wait(2.0),)), Script("a", Wait(3.0), "b")])
async def test_cancelled_anywhere_it_leaves_nothing_open(clock: FakeClock, script: Script) -> None:
    made: list[Puppet] = []

    async def scenario() -> None:
        made.append(Puppet(script))
        reader = pipe_over(made[-1], clock).stream().start()
        try:
            await clock.sleep(1.0)
            async with reader as items:
                async for _ in items:
                    pass
        finally:
            await reader.aclose()

    def check() -> None:
        assert not made[-1].live

    assert await cancel_everywhere(scenario, check=check) > 5


async def test_entering_that_is_cancelled_closes_it(clock: FakeClock) -> None:
    puppet = Puppet(Script("a", opening=(Wait(),)))
    reader = pipe_over(puppet, clock).stream().start()
    entering = asyncio.create_task(reader.__aenter__())
    await turns()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not puppet.live


async def test_who_closes_it_while_another_task_enters_lets_that_one_go(clock: FakeClock) -> None:
    puppet = Puppet(Script("a", opening=(Wait(),)))
    reader = pipe_over(puppet, clock).stream().start()
    entering = asyncio.create_task(reader.__aenter__())
    await turns()
    await reader.aclose()
    with pytest.raises(UsageError, match="closed while it was being opened"):
        await entering
    assert not puppet.live


# -- never read ----------------------------------------------------------------------------------


async def test_one_that_is_never_read_is_ended_and_says_so(clock: FakeClock) -> None:
    told: list[Moment] = []
    puppet = Puppet([*"abcdefgh"])
    reader = pipe_over(puppet, clock, listeners=[told.append]).stream().start()
    await clock.sleep(59.0)
    assert puppet.live
    await clock.sleep(2.0)
    assert not puppet.live
    got = []
    with pytest.raises(DeadlineExceeded, match="waited 60 s for its reader") as raised:
        async with reader as items:
            got += [item async for item in items.batches()]
    assert got == []
    assert (raised.value.clock, raised.value.retryable) == ("unread", False)
    assert [moment.clock for moment in told if isinstance(moment, Stalled)] == ["unread"]
    assert reader.report.items == 4, "what had been read ahead came before the failure"


async def test_opening_meets_its_clocks_without_a_reader(clock: FakeClock) -> None:
    puppet = Puppet(Script("a", opening=(Wait(),)))
    reader = pipe_over(puppet, clock, Deadline(open=30.0)).stream().start()
    await clock.sleep(31.0)
    assert not puppet.live
    with pytest.raises(DeadlineExceeded) as raised:
        await reader.__aenter__()
    assert raised.value.clock == "open"


@pytest.mark.parametrize("way", ["started", "entered"])
async def test_one_that_is_dropped_unclosed_is_warned_of_and_closed(clock: FakeClock, way: str) -> None:
    puppet, told = Puppet([*"abcdefgh"]), list[Moment]()
    readers = [pipe_over(puppet, clock).stream(listeners=[told.append])]
    if way == "started":
        readers[0].start()
    else:
        await readers[0].__aenter__()
    await turns()
    assert puppet.live
    report = readers[0].report
    with pytest.warns(ResourceWarning, match="was never closed"):
        readers.clear()
    assert not any(isinstance(moment, Ended) for moment in told), "the collector may come while a listener holds a lock"
    await turns()
    assert isinstance(told[-1], Ended)
    assert (report.outcome, puppet.live) == ("cancelled", set())


async def test_one_that_was_not_started_is_not(clock: FakeClock, recwarn: pytest.WarningsRecorder) -> None:
    reader = pipe_over(Puppet(["a"]), clock).stream()
    del reader
    gc.collect()
    assert not recwarn.list


# -- misuse --------------------------------------------------------------------------------------


async def test_a_stream_is_opened_once(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(["a"]), clock).stream().start()
    with pytest.raises(UsageError, match="opened once"):
        reader.start()
    async with reader:
        with pytest.raises(UsageError, match="opened once"):
            reader.start()


def test_there_must_be_an_event_loop() -> None:
    with pytest.raises(UsageError, match="running event loop"):
        Pipe(MemorySource(b"")).stream().start()


# -- the facade ----------------------------------------------------------------------------------

ANSWER = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_client_starts_an_answer() -> None:
    async with Client("openai-compatible", base_url="http://upstream", source=MemorySource(ANSWER)) as client:
        first, second = client.start(QUESTION), client.start(QUESTION, max_items=1, timeouts=Timeouts(total=9))
        await turns()
        assert (await second).text == "Hello"
        async with first as deltas:
            assert [text async for text in deltas.text()] == ["Hello"]
        assert str(first.report.verdict) == "COMPLETE"
        with pytest.raises(UsageError, match="a request is the JSON body"):
            client.start("Hi")  # type: ignore[arg-type]


def test_a_client_without_async_starts_one_too() -> None:
    with sync.Client("openai-compatible", base_url="http://upstream", source=MemorySource(ANSWER)) as client:
        reader, given_up = client.start(QUESTION), client.start(QUESTION)
        with reader as deltas:
            assert "".join(deltas.text()) == "Hello"
        given_up.close()
        assert given_up.report.outcome == "cancelled"
