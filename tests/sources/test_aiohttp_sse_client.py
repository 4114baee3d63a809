"""aiohttp-sse-client, tamed: what the package alone loses arrives, and nothing of it is left behind."""

import asyncio
from typing import Any

import pytest

from holdfast._core import Call, Stream
from holdfast._errors import (
    ConnectError,
    DecodeError,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._types import Event, Request
from holdfast.layers.parse import parse_sse
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.sources.aiohttp_sse_client import AiohttpSseClientSource
from holdfast.sources.memory import MemorySource
from holdfast.testing.contract import check_source
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.server import (
    STREAM_HEAD,
    Close,
    Drip,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    Step,
    chunked,
    respond,
    sse,
    stream,
)


async def read(stream: Stream[Event]) -> tuple[list[Event], Exception]:
    events: list[Event] = []
    try:
        while True:
            events += await stream.receive()
    except (EndOfStream, StreamError) as end:
        return events, end
    finally:
        await stream.aclose()


def said(event: Event) -> tuple[object, ...]:
    return (event.type, event.payload, event.id, event.last_event_id)


async def over(body: bytes, **settings: Any) -> tuple[list[Event], Exception]:
    source = AiohttpSseClientSource(MemorySource(body), **settings)
    return await read(await source.open(Request(call=Call())))


BODIES = {
    "LF": b"id: 1\nevent: e\ndata: a\ndata: b\n\ndata: c\n\n",
    "CRLF": b"id: 1\r\ndata: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
    "CR": b"id: 1\rdata: a\rdata: b\r\rdata: c\r\r",
    "BOM": b"\xef\xbb\xbfdata: first\n\ndata: second\n\n",
    "spaces": b"data:    four before, two after  \n\n",
    "newlines": b"data: a\ndata\ndata:\n\ndata\n\n",
    "ids": b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid:  2\n\ndata: d\n\n",
    "types": b"event:  spaced\ndata: a\n\nevent: message\ndata: b\n\nevent\ndata: c\n\n",
    "odd": b": comment\n\nretry: 7\n\nx: y\ndata: \x01\x02: {}\n\ndata: \xe2\x80\xa8 \xf0\x9f\x90\x9f\n\n",
    "unfinished": b"data: whole\n\ndata: half\n",
    "long": b"data: " + b"x" * 300_000 + b"\n\ndata: y\n\n",
}


@pytest.mark.parametrize("name", BODIES)
async def test_gives_the_same_events_as_the_parser(name: str) -> None:
    plain = await parse_sse()(MemorySource(BODIES[name])).open(Request(call=Call()))
    expected, _ = await read(plain)
    events, end = await over(BODIES[name])
    assert expected
    assert events == expected
    assert [event.wire for event in events] == [event.wire for event in expected]
    assert isinstance(end, EndOfStream)


async def test_bytes_that_are_not_utf8_are_replaced_or_refused() -> None:
    body = b"data: a\n\ndata: \xff\n\n"
    events, end = await over(body)
    assert [event.data for event in events] == ["a", "\ufffd"]
    assert events[1].wire == b"data: \xff\n\n"
    events, end = await over(body, strict=True)
    assert [event.data for event in events] == ["a"]
    assert isinstance(end, DecodeError)


@pytest.mark.parametrize("name", BODIES)
async def test_over_tcp_byte_by_byte(name: str) -> None:
    whole, size = BODIES[name], 1 if len(BODIES[name]) < 1_000 else 5_000
    script: list[Step] = [Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole)), Drip(whole, size=size)]
    async with ScriptedServer([script]) as server, AiohttpSseClientSource() as source:
        events, end = await read(await source.open(Request(url=server.url, call=Call())))
    assert [said(event) for event in events] == [said(event) for event in (await over(whole))[0]]
    assert whole.startswith(b"".join(event.wire for event in events))
    assert [event.offset for event in events[1:]] == [event.end for event in events[:-1]]
    assert isinstance(end, EndOfStream)


async def test_sends_method_body_and_headers() -> None:
    async with ScriptedServer([stream(sse("a", id="8"))]) as server, AiohttpSseClientSource() as source:
        headers = {"Last-Event-ID": "7", "accept": "x/y", "Authorization": "Bearer key"}
        call = Call()
        request = Request(url=f"{server.url}/v1", headers=headers, body={"q": 1}, call=call)
        opened = await source.open(request)
        assert opened.head.content_type == "text/event-stream"
        await read(opened)
    (received,) = server.requests
    assert (received.method, received.path, received.json()) == ("POST", "/v1", {"q": 1})
    assert received.headers["last-event-id"] == "7"
    assert received.headers["authorization"] == "Bearer key"
    assert received.headers["accept"] == "text/event-stream"
    assert received.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("ending", [Reset(), Close()])
async def test_a_cut_is_an_error_and_nobody_connects_again(ending: Step) -> None:
    script: list[Step] = [Send(STREAM_HEAD), Send(chunked(sse("a", id="1") + sse("b") + b"data: ha")), ending]
    async with ScriptedServer([script]) as server, AiohttpSseClientSource() as source:
        opened = await source.open(Request(url=server.url, call=Call()))
        events, end = await read(opened)
        assert [event.data for event in events] == ["a", "b"]
        assert type(end) is StreamBroken
        with pytest.raises(StreamBroken):
            await opened.receive()
        assert len(server.requests) == 1
        assert await server.all_closed()


async def test_a_clean_end_does_not_connect_again() -> None:
    async with ScriptedServer([stream(sse("a"))]) as server, AiohttpSseClientSource() as source:
        events, end = await read(await source.open(Request(url=server.url, method="GET", call=Call())))
        assert ([event.data for event in events], type(end)) == (["a"], EndOfStream)
        assert len(server.requests) == 1


async def test_what_is_no_event_stream_is_left_to_the_layers_to_tell() -> None:
    for script in (respond(b'{"error": {}}', content_type="application/json"), respond(status=204)):
        call = Call()
        async with ScriptedServer([script]) as server, AiohttpSseClientSource() as source:
            events, end = await read(await source.open(Request(url=server.url, call=call)))
        assert events == []
        assert isinstance(end, EndOfStream)
        assert bytes(call.cursor.stray).strip() in (b'{"error": {}}', b"")


async def test_failures_to_open_are_the_inner_source_s() -> None:
    async with ScriptedServer([respond(b"no", status=401), [Reset()]]) as server, AiohttpSseClientSource() as source:
        with pytest.raises(StatusError, match="401"):
            await source.open(Request(url=server.url, call=Call()))
        with pytest.raises(ConnectError):
            await source.open(Request(url=server.url, call=Call()))
        for url in ("http://[::1/", "ftp://h/"):
            with pytest.raises(UsageError):
                await source.open(Request(url=url, call=Call()))


async def test_a_cancelled_receive_loses_nothing() -> None:
    body = b"".join(sse(str(n)) for n in range(20))
    script: list[Step] = [Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)), Drip(body)]
    async with ScriptedServer([script]) as server, AiohttpSseClientSource() as source:
        opened = await source.open(Request(url=server.url, call=Call()))
        texts: list[str] = []
        with pytest.raises(EndOfStream):  # noqa: PT012 - reads to it
            while True:
                reader = asyncio.create_task(opened.receive())
                await asyncio.sleep(0)
                reader.cancel()
                await asyncio.wait([reader])
                if reader.cancelled():
                    reader = asyncio.create_task(opened.receive())
                texts += [event.data for event in await reader]
        await opened.aclose()
    assert texts == [str(n) for n in range(20)]


async def test_cancelled_anywhere_nothing_is_left() -> None:
    script: list[Step] = [*stream(*(sse(str(n)) for n in range(3))), Close()]
    async with ScriptedServer([script]) as server, AiohttpSource() as wire:
        source = AiohttpSseClientSource(wire)

        async def scenario() -> None:
            await read(await source.open(Request(url=server.url, call=Call())))

        async def check() -> None:
            assert await server.all_closed()
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("holdfast")]

        assert await cancel_everywhere(scenario, check=check) > 5


@pytest.mark.parametrize("end", [[], [StreamBroken("cut")]])
async def test_keeps_the_contract(end: list[Exception]) -> None:
    pieces = [sse("a", id="1"), sse("b"), sse("c", event="e")]

    async def expected() -> list[Event]:
        return (await over(b"".join(pieces)))[0]

    await check_source(
        lambda: AiohttpSseClientSource(MemorySource([*pieces, *end])), expected=await expected(), fails=bool(end)
    )


async def test_a_stream_given_up_closes_its_connection() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD + chunked(sse("a"))), Stall()]]) as server:
        source = AiohttpSseClientSource()
        opened = await source.open(Request(url=server.url, call=Call()))
        assert [event.data for event in await opened.receive()] == ["a"]
        reader = asyncio.create_task(opened.receive())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="a reader already"):
            await opened.receive()
        await opened.aclose()
        with pytest.raises(UsageError, match="closed"):
            await reader
        await source.aclose()
        assert await server.all_closed()
