"""The source without a network keeps the same contract as the others, whatever it is made from."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast._core import Call, Stream
from holdfast._errors import (
    ConnectError,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UsageError,
)
from holdfast._pipe import Pipe
from holdfast._types import Event, Head, Request
from holdfast.layers.record import Record
from holdfast.sources.memory import MemorySource
from holdfast.testing.contract import check_source
from holdfast.testing.driving import cancel_everywhere


def ask() -> Request:
    return Request(call=Call())


async def read(source: MemorySource[Any]) -> tuple[list[Any], Exception]:
    stream = await source.open(ask())
    items: list[Any] = []
    try:
        while True:
            items += await stream.receive()
    except (EndOfStream, StreamError) as end:
        return items, end
    finally:
        await stream.aclose()


async def slowly(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


class Again:
    """An asynchronous iterable that can be read any number of times."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return slowly(*self.items)


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (b"abc", [b"abc"]),
        (b"", []),
        ([b"a", b"bc"], [b"a", b"bc"]),
        ((), []),
        (Again(b"a", b"bc"), [b"a", b"bc"]),
        ([Event(b"x"), Event(b"y")], [Event(b"x"), Event(b"y")]),
        ("text", ["text"]),
    ],
)
async def test_serves_its_items_each_a_batch(body: Any, items: list[Any]) -> None:
    source: MemorySource[Any] = MemorySource(body)
    for _ in range(2):
        got, end = await read(source)
        assert got == items
        assert isinstance(end, EndOfStream)


async def test_each_open_serves_the_next_body_and_the_last_repeats() -> None:
    source = MemorySource(b"1", b"2")
    assert [(await read(source))[0] for _ in range(4)] == [[b"1"], [b"2"], [b"2"], [b"2"]]


@pytest.mark.parametrize("make", [iter, lambda items: slowly(*items)])
async def test_an_iterator_can_be_read_once(make: Any) -> None:
    source: MemorySource[Any] = MemorySource(make([b"a"]))
    assert (await read(source))[0] == [b"a"]
    with pytest.raises(ConnectError, match="only once") as caught:
        await source.open(ask())
    assert not caught.value.retryable


@pytest.mark.parametrize("kind", [list, Again, iter])
async def test_an_exception_is_raised_at_its_place(kind: Any) -> None:
    for planted, raised in (
        (StreamBroken("cut"), StreamBroken),
        (ConnectionResetError(), StreamBroken),
        (EndOfStream(), EndOfStream),
    ):
        items: list[Any] = [b"a", planted, b"never"]
        got, end = await read(MemorySource(Again(*items) if kind is Again else kind(items)))
        assert got == [b"a"]
        assert type(end) is raised
        assert end.__cause__ is (planted if isinstance(planted, OSError) else None)


async def test_an_exception_for_a_body_is_raised_by_open() -> None:
    for planted, raised in ((ConnectError("refused"), ConnectError), (OSError("x"), ConnectError)):
        with pytest.raises(raised):
            await MemorySource(planted, b"").open(ask())


async def test_what_an_iterable_raises_is_translated() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("secret")

    async def broken_slowly() -> AsyncIterator[bytes]:
        for item in broken():
            yield item

    for body in (broken(), broken_slowly()):
        got, end = await read(MemorySource(body))
        assert got == [b"a"]
        assert type(end) is StreamBroken
        assert "KeyError" in str(end)
        assert "secret" not in str(end)
        assert isinstance(end.__cause__, KeyError)


async def test_an_iterable_that_cancels_itself_has_not_ended_cleanly() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise asyncio.CancelledError

    assert await read_all(MemorySource(broken())) == ([b"a"], "StreamBroken: the iterable that is read was cancelled")


async def test_another_status_is_a_refusal() -> None:
    head = Head(status=503, headers={"retry-after": "3"})
    for body in (b"busy", Again(b"bu", b"sy"), [b"busy", StreamBroken("cut")]):
        with pytest.raises(StatusError) as caught:
            await MemorySource(body, head=head).open(ask())
        assert (caught.value.body, caught.value.retry_after, caught.value.head) == (b"busy", 3.0, head)


async def test_has_the_head_it_was_given() -> None:
    assert (await MemorySource(b"").open(ask())).head.content_type == "text/event-stream"
    head = Head(headers={"content-type": "a/b"})
    assert (await MemorySource(b"", head=head).open(ask())).head is head


def test_no_body_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one body"):
        MemorySource()


# -- the contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [[], [StreamBroken("cut")]])
async def test_keeps_the_contract(end: list[Exception]) -> None:
    bodies: list[Any] = [[b"a", b"b", *end], Again(b"a", b"b", *end)]
    for body in bodies:
        source: MemorySource[bytes] = MemorySource(body)
        await check_source(lambda source=source: source, expected=[b"a", b"b"], fails=bool(end))  # type: ignore[misc]  # mypy knows no defaults in lambdas


async def test_a_cancelled_receive_does_not_break_a_generator() -> None:
    stream: Stream[bytes] = await MemorySource(slowly(b"a", b"b")).open(ask())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.receive(), 0)
    assert [await stream.receive(), await stream.receive()] == [(b"a",), (b"b",)]
    with pytest.raises(EndOfStream):
        await stream.receive()
    await stream.aclose()


async def test_closing_ends_the_generator_and_tells_a_reader() -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def scenario() -> None:
        closed.clear()
        stream: Stream[bytes] = await MemorySource(endless()).open(ask())
        reader = asyncio.create_task(stream.receive())
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        finally:
            await stream.aclose()
            await asyncio.wait([reader])
            assert isinstance(reader.exception(), UsageError)
        with pytest.raises(UsageError, match="closed"):
            await stream.receive()

    await scenario()
    assert closed == ["closed"]
    assert await cancel_everywhere(scenario, check=lambda: None) > 3
    assert len(asyncio.all_tasks()) == 1


# -- recordings --------------------------------------------------------------------------------------


async def test_replays_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.sse").write_bytes(b"data: x\n\n")
    for _ in range(2):
        assert await read_all(MemorySource.replay(tmp_path / "a.sse")) == ([b"data: x\n\n"], "EndOfStream")


async def read_all(source: MemorySource[bytes]) -> tuple[list[bytes], str]:
    items, end = await read(source)
    return items, type(end).__name__ if isinstance(end, EndOfStream) else f"{type(end).__name__}: {end}"


@pytest.mark.parametrize("end", [None, StreamBroken("cut"), Truncated("short")])
async def test_replays_what_was_recorded(tmp_path: Path, end: Exception | None) -> None:
    head = Head(headers={"content-type": "text/event-stream", "x-a": "1"}, url="http://h/p")
    original = MemorySource([b"data: x\n\n", *([end] if end else [])], head=head)
    pipe = Pipe(original) | Record(tmp_path / "a.sse")
    reader = pipe.stream(Request(url="http://h/p"))
    try:
        async with reader as items:
            async for _ in items:
                pass
    except StreamError as error:
        assert error is end  # noqa: PT017 - None is an outcome as well
    source = MemorySource.replay(tmp_path / "a.sse")
    stream = await source.open(ask())
    assert stream.head == head
    assert await read_all(source) == (
        [b"data: x\n\n"],
        "EndOfStream" if end is None else f"{type(end).__name__}: {end}",
    )


async def test_replays_refusals_and_every_attempt_of_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.sse"
    call = Call()
    for original in (
        MemorySource(ConnectError("nobody there")),
        MemorySource(b"busy", head=Head(status=503)),
        MemorySource(b"data: x\n\n"),
    ):
        try:
            stream = await Record(path)(_Counting(original)).open(Request(call=call))
        except StreamError:
            continue
        with pytest.raises(EndOfStream):  # noqa: PT012 - reads to it
            while True:
                await stream.receive()
        await stream.aclose()
    (tmp_path / "a.4.sse").write_bytes(b"of another stream")
    (tmp_path / "a.4.sse.json").write_text('{"stream_id": "another"}')
    source = MemorySource.replay(path)
    with pytest.raises(ConnectError, match="nobody there"):
        await source.open(ask())
    with pytest.raises(StatusError) as caught:
        await source.open(ask())
    assert (caught.value.status, caught.value.body) == (503, b"busy")
    for _ in range(2):
        assert (await read(source))[0] == [b"data: x\n\n"]


class _Counting:
    """What the innermost wall of a pipe does."""

    def __init__(self, inner: MemorySource[bytes]) -> None:
        self.inner = inner

    async def open(self, request: Request) -> Stream[bytes]:
        request.call.spend_request(request)
        return await self.inner.open(request)


async def test_a_sidecar_that_tells_of_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sse").write_bytes(b"")
    (tmp_path / "a.sse.json").write_text("[]")
    with pytest.raises(UsageError, match=r"a\.sse\.json"):
        MemorySource.replay(tmp_path / "a.sse")
    with pytest.raises(FileNotFoundError):
        MemorySource.replay(tmp_path / "b.sse")
