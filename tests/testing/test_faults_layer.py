"""The layer of faults keeps the contract of a stream, and does in memory what the same value does over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast._core import Call, Source, Stream
from holdfast._errors import ConnectError, EndOfStream, StatusError, StreamBroken, StreamError, Truncated, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Event, Request
from holdfast.client import Client
from holdfast.dialects import Timeouts
from holdfast.layers.parse import parse_sse
from holdfast.offline import parse_events
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock, check_layer, check_source
from holdfast.testing import acts as a
from holdfast.testing import faults as f
from holdfast.testing.answers import write_answer
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.faults_layer import Faults, key_of
from holdfast.testing.inner import Inner
from holdfast.testing.schedule import Schedule
from holdfast.testing.shapes import ChatShape

SENTENCES = 2
ANSWER = write_answer("0 tides", sentences=SENTENCES)
EVENTS = ChatShape().events(ANSWER, "a1", ids=True)
FEW = EVENTS[3:8]
TCP_ALONE = (f.EarlyHints, f.SplitHead, f.EndlessLine)
"""What does nothing in memory, and what takes TCP longer than the clocks below."""


class Nought:
    """Chance without chance: no try waits."""

    def random(self) -> float:
        return 0.0


def always(fault: f.Fault) -> Schedule:
    return Schedule.draw(1, rate=1, faults=[fault], within=None)


def sent(fault: f.Fault, events: Sequence[bytes]) -> bytes:
    return b"".join(act.data for act in a.acts(fault.play(a.Asked()), events) if isinstance(act, a.Bytes))


def making(fault: f.Fault) -> Callable[[Sequence[bytes]], list[bytes]]:
    return lambda events: [made] if (made := sent(fault, events)) else []


async def read(source: Source[Any], clock: FakeClock, **headers: str) -> tuple[list[Any], Exception]:
    stream: Stream[Any] = await source.open(Request(call=Call(clock=clock), headers=headers))
    got: list[Any] = []
    try:
        while True:
            got += await stream.receive()
    except (EndOfStream, StreamError) as end:
        await stream.aclose()
        return got, end


SLOW = [f.Drip(size=500, every=0.5), f.Latency(), f.Throttle()]
HARMLESS = [
    *(f.Healthy(), f.SplitCharacters(), f.Drip(size=50), f.LineEnds(ends="CR"), f.Comments(), f.NoDone(), f.Gzipped()),
    *SLOW,
]
CORRUPT = [f.TornEvent(after=1), f.FlippedBit(after=1), f.DroppedEvent(after=1), f.RepeatedEvents(after=1)]


@pytest.mark.parametrize("fault", [*HARMLESS, *CORRUPT], ids=str)
async def test_keeps_the_contract_over_bytes(fault: f.Fault) -> None:
    await check_layer(Faults(always(fault)), items=FEW, expected=making(fault), waits_to_fill=fault in SLOW)


@pytest.mark.parametrize(
    "fault", [*HARMLESS[:7], f.Latency(), f.DroppedEvent(after=1), f.ReorderedEvents(after=1)], ids=str
)
async def test_keeps_the_contract_over_events(fault: f.Fault) -> None:
    def expected(events: Sequence[Event]) -> list[Any]:
        got = parse_events(sent(fault, [event.wire for event in events])).events
        return [_content(event) for event in got]

    def contents(inner: Source[Any]) -> Source[Any]:
        return _Contents(Faults(always(fault))(inner))

    events = parse_events(b"".join(FEW)).events
    await check_layer(contents, items=events, expected=expected, waits_to_fill=fault in SLOW)


def _content(event: Event) -> tuple[str | None, bytes]:
    return event.id, event.payload


class _Contents:
    """What events say, without where they stood: edits move them."""

    def __init__(self, inner: Source[Event]) -> None:
        self.inner = inner

    async def open(self, request: Request) -> Stream[Any]:
        return _ContentsStream(await self.inner.open(request))


class _ContentsStream:
    def __init__(self, inner: Stream[Event]) -> None:
        self.inner, self.head = inner, inner.head

    async def receive(self) -> Sequence[Any]:
        return [_content(event) for event in await self.inner.receive()]

    async def aclose(self) -> None:
        await self.inner.aclose()


CUTS = [f.ResetMidStream(after=2), f.ClosedMidStream(after=2), f.FinInsideChunk(after=2), f.BadChunk(after=2)]


@pytest.mark.parametrize("fault", [*CUTS, f.GzipCut(after=2), f.LengthTooLong(after=2)], ids=str)
async def test_a_cut_keeps_the_contract(fault: f.Fault) -> None:
    inner = Inner(batches=[FEW])
    async with FakeClock() as clock:
        cut = [act.data for act in a.acts(fault.play(a.Asked()), FEW) if isinstance(act, a.Bytes | a.Cut)]
        await check_source(
            lambda: Faults(always(fault))(inner),
            expected=[b"".join(cut)],
            fails=True,
            clock=clock,
            opened=lambda: inner.opened,
        )


@pytest.mark.parametrize("fault", [f.NoAnswer(), f.Refused(), f.HtmlPage(), f.LengthTooShort(after=2)], ids=str)
async def test_a_reply_that_is_decided_with_its_head_keeps_the_contract(fault: f.Fault) -> None:
    inner = Inner(batches=[FEW])
    async with FakeClock() as clock:
        await check_source(lambda: Faults(always(fault))(inner), clock=clock, opened=lambda: inner.opened)


async def test_what_comes_before_all_events_waits_until_it_is_known_what_flows(clock: FakeClock) -> None:
    events = parse_events(b"".join(FEW)).events
    got, _ = await read(Faults(always(f.ByteOrderMark()))(MemorySource(events)), clock)
    assert [_content(event) for event in got] == [_content(event) for event in events]
    got, _ = await read(Faults(always(f.ByteOrderMark()))(MemorySource(FEW)), clock)
    assert got == [b"\xef\xbb\xbf", *FEW]


async def test_without_a_fault_nothing_stands_between(clock: FakeClock) -> None:
    inner = Inner(batches=[FEW])
    stream = await Faults(Schedule())(inner).open(Request(call=Call(clock=clock)))
    assert type(stream).__module__ == "holdfast.testing.inner"
    await stream.aclose()


async def test_each_stream_meets_its_own_faults(clock: FakeClock) -> None:
    schedule = Schedule(streams={"a": [f.NoAnswer(), f.Refused(status=503)], "b": [f.EmptyBody()]})
    source = Faults(schedule, key=lambda request: request.headers["key"])(MemorySource(b"".join(FEW)))
    with pytest.raises(ConnectError):
        await read(source, clock, key="a")
    assert (await read(source, clock, key="b"))[0] == []
    with pytest.raises(StatusError) as refused:
        await read(source, clock, key="a")
    assert refused.value.status == 503
    got, _ = await read(source, clock, key="a")
    assert b"".join(got) == b"".join(FEW)


async def test_pauses_are_the_calls_time(clock: FakeClock) -> None:
    source = Faults(always(f.ThroughputCollapse(seconds=60)))(MemorySource(EVENTS[:6]))
    got, _ = await read(source, clock)
    assert b"".join(got) == b"".join(EVENTS[:6])
    assert clock.now() == 60 * 4


async def test_a_pause_that_was_cancelled_goes_on_where_it_was(clock: FakeClock) -> None:
    stream = await Faults(always(f.SlowThenDead(after=0, seconds=8)))(Inner(batches=[FEW])).open(
        Request(call=Call(clock=clock))
    )
    reading = asyncio.ensure_future(stream.receive())
    await clock.sleep(5)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert await stream.receive() == [FEW[0]]
    assert clock.now() == 8
    await stream.aclose()


async def test_a_server_that_forgets_does_not_see_the_id(clock: FakeClock) -> None:
    inner = Inner(batches=[EVENTS])
    got, _ = await read(Faults(always(f.RepeatedAfterResume(events=2)))(inner), clock, **{"Last-Event-ID": "5"})
    assert "Last-Event-ID" not in inner.requests[0].headers
    assert b"".join(got) == b"".join(EVENTS[3:])


@pytest.mark.parametrize("error", [StreamBroken("the line broke"), Truncated("half")], ids=repr)
async def test_a_true_failure_comes_through_after_all_that_had_arrived(error: StreamError, clock: FakeClock) -> None:
    source = Faults(always(f.Comments()))(MemorySource([FEW[0] + FEW[1][:9], error]))
    assert await read(source, clock) == ([f.COMMENT + FEW[0], FEW[1][:9]], error)


async def test_it_stands_where_bytes_or_events_flow(clock: FakeClock) -> None:
    with pytest.raises(UsageError, match="not str"):
        await read(Faults(always(f.Comments()))(MemorySource(["text"])), clock)


async def test_the_pipe_counts_what_a_fault_lets_no_answer_come_of(clock: FakeClock) -> None:
    pipe = Pipe(MemorySource(b"".join(EVENTS)), clock=clock) | Faults(always(f.NoAnswer())) | parse_sse()
    reader = pipe.stream(Request())
    with pytest.raises(ConnectError):
        async with reader:
            pass
    assert reader.report.attempts == 1


def test_the_key_is_what_is_asked_for() -> None:
    asked = Request(url="http://a/chat/completions?x=1", body={"messages": []})
    assert key_of(asked) == key_of(Request(url="http://b/chat/completions", body=b'{"messages": []}'))
    assert key_of(asked) != key_of(Request(url="http://a/chat/completions", body={"messages": [1]}))
    assert key_of(asked.with_headers({"Idempotency-Key": "k"})) == "k"


# -- one description, two levels ---------------------------------------------------------------


async def outcome(client: Client) -> tuple[str, str]:
    reader = client.stream({"messages": [{"role": "user", "content": "tides"}]})
    got: list[str] = []
    try:
        async with reader:
            async for delta in reader:
                got.append(delta.reasoning + delta.text)  # noqa: PERF401 - what came before an error counts
    except StreamError as error:
        return "".join(got), type(error).__name__
    return "".join(got), str(reader.report.verdict)


@pytest.mark.parametrize("fault", [x for x in f.VOCABULARY if not isinstance(x, TCP_ALONE)], ids=repr)
async def test_in_memory_a_fault_does_what_it_does_over_tcp(fault: f.Fault) -> None:
    schedule = Schedule(streams={"tides": (f.ResetMidStream(after=12), fault)})
    async with ChaosServer(schedule=schedule, sentences=SENTENCES) as server:
        clocks = Timeouts(open=1, first_token=1, progress=1)
        async with Client("deepseek", base_url=server.url, random=Nought(), timeouts=clocks) as client:
            over_tcp = await outcome(client)
    body = ChatShape().events(server.answer("tides"), "a1", ids=False)
    source = Faults(schedule, key=lambda _: "tides")(MemorySource(b"".join(body)))
    async with FakeClock() as clock, Client("deepseek", source=source, random=Nought(), clock=clock) as client:
        assert await outcome(client) == over_tcp
