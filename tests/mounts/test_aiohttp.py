"""A plain aiohttp session over the middleware, on real sockets: whole streams, and everything else as it was."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import warnings
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import aiohttp
import pytest

from holdfast import mounts
from holdfast._errors import ConnectError, DeadlineExceeded, StreamBroken
from holdfast.dialects import Timeouts
from holdfast.layers.retry import Retry
from holdfast.mounts._aiohttp_body import _open as open_answers
from holdfast.mounts.aiohttp import aiohttp_middleware
from holdfast.testing import ChaosServer, FakeClock, Schedule
from holdfast.testing import faults as f
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Pause,
    ReceivedRequest,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    Step,
    chunked,
    head,
    respond,
    sse,
)
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WHOLE, WIRE, Nought, begun, healthy, text_of

Made = Callable[..., aiohttp.ClientSession]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not open_answers


@pytest.fixture
def session() -> Made:
    """Makes a session over a mount that never waits between its tries."""

    def make(*others: Any, timeout: aiohttp.ClientTimeout | None = None, **settings: Any) -> aiohttp.ClientSession:
        mount = aiohttp_middleware(**{"random": Nought(), **settings})
        more: dict[str, Any] = {"timeout": timeout} if timeout is not None else {}
        return aiohttp.ClientSession(middlewares=[mount, *others], **more)

    return make


async def ask(s: aiohttp.ClientSession, server: ScriptedServer, **settings: Any) -> bytes:
    async with s.post(f"{server.url}{CHAT}", **{"json": BODY, **settings}) as response:
        return await response.read()


async def read_on(response: aiohttp.ClientResponse, heard: bytearray) -> None:
    """Reads until there is an exception."""
    while True:
        heard += await response.content.readany()


# -- streams ---------------------------------------------------------------------------------------


async def any_(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for piece in content.iter_any():
        yield piece


async def chunked_(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for piece in content.iter_chunked(7):
        yield piece


async def chunks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    held = b""
    async for piece, ended in content.iter_chunks():
        held += piece
        if ended:
            yield held
            held = b""
    assert held == b""


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for line in content:
        assert line.endswith(b"\n")
        yield line


async def polled(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    while not content.at_eof():
        yield await content.readany()


async def exactly(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    yield await content.readexactly(5)
    yield await content.readuntil(b"\n\n")
    yield await content.read(3)
    await content.wait_eof()
    yield await content.read()


@pytest.mark.parametrize("way", [any_, chunked_, chunks, lines, polled, exactly])
async def test_a_healthy_stream_passes_to_the_byte(session: Made, way: Any) -> None:
    events = [*EVENTS[:2], b": a comment\n\n", b":\n", *EVENTS[2:]]
    async with ScriptedServer([healthy(events)]) as server, session() as s:
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            data = b"".join([piece async for piece in way(response.content)])
        again = await ask(s, server)
    told = mounts.report(response)
    assert data == again == b"".join(events)
    assert (response.status, response.content_type) == (200, "text/event-stream")
    assert isinstance(response, aiohttp.ClientResponse)
    assert told is not None
    assert (told.outcome, told.attempts) == ("complete", 1)
    assert server.accepted == 1  # the connection went back to the pool


async def test_a_line_as_long_as_aiohttp_allows_is_read(session: Made) -> None:
    long = b":" + b"k" * 100_000 + b"\n\n"
    async with (
        ScriptedServer([healthy([long, *EVENTS])]) as server,
        session() as s,
        s.post(f"{server.url}{CHAT}", json=BODY) as response,
    ):
        assert await response.content.readline() == long[:-1]
        assert await response.read() == b"\n" + WIRE


@pytest.mark.parametrize("before", [b"", b": a ping\n\n"])
async def test_an_event_is_not_held_for_the_next(session: Made, before: bytes) -> None:
    async with (
        ScriptedServer([begun(Stall(), events=[before + EVENTS[0]])]) as server,
        session() as s,
        s.post(f"{server.url}{CHAT}", json=BODY) as response,
    ):
        assert await asyncio.wait_for(response.content.readany(), 30) == before + EVENTS[0]


@pytest.mark.parametrize(
    "fault",
    [
        begun(Reset()),
        begun(Close()),
        begun(Send(LAST_CHUNK)),
        [Reset()],
        [Close()],
        respond(b"busy", status=503),
        respond(b'{"error": {"message": "slow down"}}', status=429, retry_after=0, content_type="application/json"),
        respond(b"<html>down for maintenance</html>", content_type="text/html"),
        [Send(STREAM_HEAD + LAST_CHUNK)],
        [Send(STREAM_HEAD), Reset()],
        begun(Send(chunked(b'data: {"id": "a1", "choi\n\n')), Send(LAST_CHUNK)),
        begun(Send(b"not a chunk\r\n")),
    ],
    ids=[
        "reset",
        "closed",
        "clean cut",
        "no head",
        "hung up",
        "503",
        "429",
        "page",
        "empty",
        "head alone",
        "torn",
        "bad chunk",
    ],
)
async def test_an_evident_fault_leaves_no_trace(session: Made, fault: list[Step]) -> None:
    async with ScriptedServer([fault, healthy()]) as server:
        async with session() as s, s.post(f"{server.url}{CHAT}", json=BODY) as response:
            data = await response.read()
        assert await server.all_closed()
    assert text_of(data) == TEXT
    assert data.count(b"[DONE]") == 1
    first, second = server.requests
    assert (first.headers, first.body) == (second.headers, second.body)
    told = mounts.report(response)
    assert told is not None
    assert told.attempts == 2


@pytest.mark.parametrize("fault", f.EVIDENT, ids=str)
async def test_every_evident_fault_is_mended(session: Made, fault: f.Fault) -> None:
    schedule = Schedule(streams={"kelp": [fault]})
    clocks = Timeouts(open=5, first_token=5, progress=2)
    async with ChaosServer(schedule=schedule, sentences=2) as server, FakeClock(patience=0.01) as clock:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "kelp"}]}
        async with (
            session(clock=clock, timeouts=clocks) as s,
            s.post(f"{server.url}{CHAT}", json=body) as response,
        ):
            data = await response.read()
        assert await server.server.all_closed()
    assert text_of(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")) == server.answer("kelp").text
    assert len(server.served) <= 2


async def test_ids_are_resumed_at_the_last_one(session: Made) -> None:
    events = [sse(event.decode()[6:-2], id=str(number)) for number, event in enumerate(EVENTS, 1)]
    script = [begun(Reset(), events=events[:4]), healthy(events[4:])]
    async with ScriptedServer(script) as server, session() as s:
        data = await ask(s, server)
    assert data == b"".join(events)
    assert server.requests[1].headers["last-event-id"] == "4"


async def test_a_model_continues_its_own_words_where_that_is_allowed(session: Made) -> None:
    schedule = Schedule(streams={"kelp": [f.ResetMidStream(after=60)]})
    body = {**BODY, "messages": [{"role": "user", "content": "kelp"}]}
    async with (
        ChaosServer(schedule=schedule, mode="prefix") as server,
        session(dialect="deepseek", seams=True) as s,
        s.post(f"{server.url}/chat/completions", json=body) as response,
    ):
        data = await response.read()
    assert server.served[-1].rung == "prefix"
    assert text_of(data) in [told.text for told in server.answers("kelp")] or "tides" in str(server.answers("kelp"))
    sent = server.server.requests[-1]
    assert sent.json()["messages"][-1]["prefix"] is True
    assert int(sent.headers["content-length"]) == len(sent.body)


async def test_what_cannot_be_saved_is_aiohttps_own_error(session: Made) -> None:
    async with ScriptedServer([begun(Reset())]) as server, session(max_requests=3) as s:
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            heard = bytearray()
            with pytest.raises(aiohttp.ClientPayloadError) as lost:
                await read_on(response, heard)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.readany()
        assert await server.all_closed()
    assert heard == b"".join(EVENTS[:5])
    assert isinstance(lost.value.__cause__, StreamBroken)
    assert "delivered before: 5 deltas" in str(lost.value)
    assert "3 requests" in str(lost.value)
    assert "secret" not in str(lost.value)
    assert len(server.requests) == 3


async def test_a_clock_that_runs_out_is_a_timeout_of_aiohttps(session: Made) -> None:
    async with (
        ScriptedServer([begun(Stall())]) as server,
        FakeClock(patience=0.01) as clock,
        session(clock=clock, timeouts=Timeouts(progress=5), max_requests=2) as s,
    ):
        with pytest.raises(aiohttp.SocketTimeoutError) as lost:
            await ask(s, server)
    assert isinstance(lost.value.__cause__, DeadlineExceeded)
    assert isinstance(lost.value, TimeoutError)


# -- what is no stream -----------------------------------------------------------------------------


async def test_json_passes_untouched(session: Made) -> None:
    script = respond(b'{"a": 1}', content_type="application/json")
    async with ScriptedServer([script]) as server, session() as s:
        async with s.post(f"{server.url}/v1/embeddings", json={"input": "x"}) as response:
            assert await response.json() == {"a": 1}
            assert response.headers["Content-Length"] == "8"
        async with s.get(f"{server.url}/v1/models") as response:
            assert await response.json() == {"a": 1}
        assert server.accepted == 1


async def test_a_stream_of_another_kind_passes_untouched(session: Made) -> None:
    script = begun(Reset(), events=[b"{}\n"])
    script[0] = Send(head(content_type="application/x-ndjson", transfer_encoding="chunked"))
    async with ScriptedServer([script]) as server, session() as s:
        with pytest.raises(aiohttp.ClientError):
            await ask(s, server)
    assert len(server.requests) == 1


async def test_a_refusal_that_stays_is_the_servers_own(session: Made) -> None:
    body = b'{"error": {"message": "slow down", "code": "rate_limit"}}'
    script = respond(body, status=429, retry_after=0, content_type="application/json")
    async with ScriptedServer([script]) as server, session() as s:
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            assert response.status == 429
            assert await response.content.read(5) == body[:5]
            assert await response.content.read() == body[5:]
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            assert (await response.json())["error"]["code"] == "rate_limit"
    told = mounts.report(response)
    assert told is not None
    assert told.attempts == 4
    assert len(server.requests) == 8


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_refusal_on_its_merits_is_sent_once(session: Made, status: int) -> None:
    async with ScriptedServer([respond(b"no", status=status)]) as server, session() as s:
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await ask(s, server, raise_for_status=True)
        assert server.accepted == 1
    assert refused.value.status == status
    assert len(server.requests) == 1


async def test_a_long_refusal_is_read_to_its_end(session: Made) -> None:
    body = bytes(range(256)) * 1024
    async with ScriptedServer([respond(body, status=400)]) as server, session() as s:
        assert await ask(s, server) == body


@pytest.mark.parametrize(("method", "requests"), [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)])
async def test_only_what_may_be_repeated_is(session: Made, method: str, requests: int) -> None:
    script: list[list[Step]] = [respond(b"busy", status=503), [Reset()], respond(b"done")]
    async with (
        ScriptedServer(script) as server,
        session() as s,
        s.request(method, server.url, data=b"x") as response,
    ):
        assert response.status == (200 if requests == 3 else 503)
        assert await response.read() == (b"done" if requests == 3 else b"busy")
    assert len(server.requests) == requests


async def test_a_streamed_upload_is_sent_once(session: Made) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b'{"stream": true}'

    async with ScriptedServer([begun(Reset())]) as server, session() as s:
        with pytest.raises(aiohttp.ClientPayloadError) as lost:
            await ask(s, server, json=None, data=upload())
        assert len(server.requests) == 1
    assert "delivered before: 5 deltas" in str(lost.value)


async def test_a_post_that_did_not_ask_is_relayed_and_not_repeated(session: Made) -> None:
    async with ScriptedServer([healthy(), begun(Close())]) as server, session() as s:
        assert await ask(s, server, json={"messages": []}) == WIRE
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(s, server, json={"messages": []})
    assert len(server.requests) == 2


async def test_requests_of_its_own_do_not_multiply_with_the_sessions(session: Made) -> None:
    async with ScriptedServer([[Close()]]) as server, session() as s:
        with pytest.raises(aiohttp.ClientConnectionError) as lost:
            async with s.get(server.url):
                pass
    assert len(server.requests) == 4
    assert isinstance(lost.value.__cause__, ConnectError)


async def test_who_cannot_connect_learns_it_as_without_a_mount(session: Made) -> None:
    async with session(layers=[*WHOLE, Retry(attempts=2)]) as s:
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            async with s.get("http://127.0.0.1:9"):
                pass
    assert isinstance(refused.value.__cause__, ConnectError)


async def test_websockets_pass_untouched(session: Made) -> None:
    async def echo(request: aiohttp.web.BaseRequest) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("你好")
        await socket.close()
        return socket

    import aiohttp.web  # noqa: PLC0415 - for this test alone

    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(echo))
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with (
            session() as s,
            s.ws_connect(str(runner.addresses[0]) and f"http://127.0.0.1:{runner.addresses[0][1]}") as socket,
        ):
            assert await socket.receive_str() == "你好"
    finally:
        await runner.cleanup()


async def test_other_middlewares_see_every_attempt(session: Made) -> None:
    seen: list[str] = []

    async def sign(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers["X-Signed"] = str(len(seen))
        seen.append(request.method)
        return await handler(request)

    async with ScriptedServer([begun(Reset()), healthy()]) as server, session(sign) as s:
        assert text_of(await ask(s, server)) == TEXT
    assert [request.headers["x-signed"] for request in server.requests] == ["0", "1"]


async def test_a_body_in_a_coding_reads_as_without_a_mount(session: Made) -> None:
    packed = gzip.compress(WIRE)
    script = [
        Send(head(content_type="text/event-stream", content_encoding="gzip", content_length=len(packed)) + packed)
    ]
    async with ScriptedServer([script]) as server, session() as s:
        assert await ask(s, server) == WIRE
    assert server.requests[0].headers["accept-encoding"] == "identity"
    mount = aiohttp_middleware()
    async with (
        ScriptedServer([script]) as server,
        aiohttp.ClientSession(middlewares=[mount], auto_decompress=False) as plain,
    ):
        assert await ask(plain, server) == packed


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "release", "leave", "del"])
@pytest.mark.parametrize("seam", [False, True])
async def test_closing_early_closes_the_connection_at_once(session: Made, how: str, *, seam: bool) -> None:
    script = [begun(Reset(), events=EVENTS[:3])] * seam + [begun(Stall())]
    async with ScriptedServer(script) as server, session() as s:
        tasks = asyncio.all_tasks()
        context = s.post(f"{server.url}{CHAT}", json=BODY)
        response = await context.__aenter__()
        heard = b""
        while " and" not in text_of(heard):
            heard += await response.content.readany()
        if how == "leave":
            await context.__aexit__(None, None, None)
            assert not [task for task in asyncio.all_tasks() - tasks if "holdfast" in task.get_name()]
        elif how == "del":
            del response, context
            gc.collect()
        else:
            getattr(response, how)()
        assert await server.all_closed()
        if how in ("close", "release"):
            assert response.closed
            with pytest.raises(aiohttp.ClientConnectionError):
                await response.content.readany()


async def test_a_reader_that_waits_is_told_that_the_response_was_closed(session: Made) -> None:
    async with ScriptedServer([begun(Stall())]) as server, session() as s:
        response = await s.post(f"{server.url}{CHAT}", json=BODY)
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0.05)
        response.close()
        with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
            await reading
        assert not reading.cancelled()
        assert await server.all_closed()


async def test_two_readers_at_once_are_one_too_many(session: Made) -> None:
    async with (
        ScriptedServer([begun(Stall())]) as server,
        session() as s,
        s.post(f"{server.url}{CHAT}", json=BODY) as response,
    ):
        await response.content.readany()
        reading = asyncio.create_task(response.content.readany())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another coroutine"):
            await response.content.readany()
        reading.cancel()


async def test_a_cancelled_reader_loses_nothing(session: Made) -> None:
    script = [step for event in EVENTS for step in (Pause(0.03), Send(chunked(event)))]
    async with (
        ScriptedServer([[Send(STREAM_HEAD), *script, Send(LAST_CHUNK)]]) as server,
        session() as s,
        s.post(f"{server.url}{CHAT}", json=BODY) as response,
    ):
        data = b""
        while not response.content.at_eof():
            try:
                data += await asyncio.wait_for(response.content.readany(), 0.01)
            except TimeoutError:
                continue
    assert data == WIRE


@pytest.mark.parametrize("fault", [[], [begun(Reset())], [respond(b"busy", status=503)]], ids=["healthy", "cut", "503"])
async def test_cancelled_anywhere_nothing_is_left(session: Made, fault: list[list[Step]]) -> None:
    replies: list[list[Step]] = []
    async with ScriptedServer(lambda request: replies.pop(0)) as server:

        async def go() -> None:
            replies[:] = [*fault, healthy()]
            async with session() as s:
                await ask(s, server)

        async def check() -> None:
            assert await server.all_closed()

        assert await cancel_everywhere(go, check=check) > 10


async def test_a_request_that_is_cancelled_between_tries_leaves_nothing(session: Made) -> None:
    # Longer than what is read to learn why: the rest, and the connection, wait for whoever gets the response.
    script: list[Step] = [Send(head(503, content_length=200_000) + b"x" * 100_000), Stall()]
    async with (
        ScriptedServer([script]) as server,
        session(layers=[*WHOLE, Retry(base=30, cap=30)], random=Random(1)) as s,
    ):
        asking = asyncio.create_task(s.get(server.url).__aenter__())
        await asyncio.sleep(0.3)
        assert server.open_connections == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await server.all_closed()


async def test_the_sessions_total_timeout_is_over_all_attempts(session: Made) -> None:
    script = [begun(Reset()), begun(Stall())]
    async with ScriptedServer(script) as server, session(timeout=aiohttp.ClientTimeout(total=1)) as s:
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            with pytest.raises(TimeoutError) as over:
                await response.read()
        assert not isinstance(over.value, aiohttp.ClientError)
        assert len(server.requests) == 2
        assert await server.all_closed()


@pytest.mark.parametrize("first", [[], [begun(Reset())]], ids=["first", "second"])
async def test_the_total_timeout_ends_the_wait_for_a_head(session: Made, first: list[list[Step]]) -> None:
    async with ScriptedServer([*first, [Stall()]]) as server, session(timeout=aiohttp.ClientTimeout(total=0.3)) as s:
        with pytest.raises(TimeoutError) as over:
            await ask(s, server)
        assert not isinstance(over.value, aiohttp.ClientError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await server.all_closed()


async def test_sock_read_is_a_stall_that_is_mended(session: Made) -> None:
    script = [begun(Stall()), healthy()]
    async with ScriptedServer(script) as server, session(timeout=aiohttp.ClientTimeout(sock_read=1)) as s:
        assert text_of(await ask(s, server)) == TEXT
    assert len(server.requests) == 2


async def test_the_total_timeout_is_over_when_the_answer_is(session: Made) -> None:
    async with ScriptedServer([healthy()]) as server, session(timeout=aiohttp.ClientTimeout(total=1)) as s:
        async with s.post(f"{server.url}{CHAT}", json=BODY) as response:
            await response.read()
            await asyncio.sleep(1.1)
        assert await ask(s, server) == WIRE


# -- many at once ----------------------------------------------------------------------------------


async def test_a_hundred_streams_through_one_session(session: Made) -> None:
    counts: dict[str, int] = {}

    def reply(request: ReceivedRequest) -> list[Step]:
        name = json.loads(request.body)["user"]
        counts[name] = counts.get(name, 0) + 1
        broken = int(name) % 3 == 0 and counts[name] == 1
        return begun(Reset(), events=EVENTS[:4]) if broken else healthy()

    async def one(s: aiohttp.ClientSession, server: ScriptedServer, number: int) -> None:
        async with s.post(f"{server.url}{CHAT}", json={**BODY, "user": str(number)}) as response:
            if number % 10 == 1:
                await response.content.readany()
                return  # leaves early
            assert text_of(await response.read()) == TEXT

    before = asyncio.all_tasks()
    async with ScriptedServer(reply) as server:
        async with session() as s:
            await asyncio.gather(*(one(s, server, number) for number in range(100)))
            assert not [task for task in asyncio.all_tasks() - before if "holdfast" in task.get_name()]
        assert await server.all_closed()
    assert len(server.requests) == 131


async def test_who_reads_slowly_holds_the_server_back(session: Made) -> None:
    sent = 0

    async def flood(request: ReceivedRequest) -> Any:
        async def steps() -> AsyncIterator[Step]:
            nonlocal sent
            yield Send(STREAM_HEAD)
            for _ in range(4_000):
                sent += 1
                yield Send(chunked(b": " + b"x" * 20_000 + b"\n\n"))

        return steps()

    async with (
        ScriptedServer(flood) as server,
        session() as s,
        s.post(f"{server.url}{CHAT}", json=BODY) as response,
    ):
        await response.content.readany()
        await asyncio.sleep(0.3)
        assert sent < 2_000


def test_a_keyword_that_is_none_is_told() -> None:
    with pytest.raises(TypeError):
        aiohttp_middleware(dialekt="auto")  # type: ignore[call-arg]  # that is the point
