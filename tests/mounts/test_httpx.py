"""Plain httpx and httpx2 clients over a mount, on real sockets: whole streams, and everything else as it was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest

from holdfast import mounts
from holdfast._errors import DeadlineExceeded, StreamBroken, StreamError, UsageError
from holdfast._types import Request
from holdfast.dialects import Timeouts
from holdfast.layers.deadline import Deadline
from holdfast.layers.retry import Retry
from holdfast.mounts._relay import Mount
from holdfast.mounts.httpx import HttpxTransport
from holdfast.mounts.httpx2 import Httpx2Transport
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
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
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WIRE, Nought, answer, begun, healthy, text_of
from tests.sources.h2_server import H2Server

BOTH = {httpx: HttpxTransport, httpx2: Httpx2Transport}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=BOTH, ids=lambda module: module.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(library: Any) -> Any:
    """Makes a client over a mount that never waits between its tries."""

    def make(inner: Any = None, **settings: Any) -> Any:
        return library.AsyncClient(transport=BOTH[library](inner, **{"random": Nought(), **settings}))

    return make


async def fetch(client: Any, server: ScriptedServer, path: str = CHAT, **settings: Any) -> tuple[Any, bytes]:
    """Asks for a stream; gives its response and its body."""
    settings = {"json": BODY, **settings}
    async with client.stream("POST", f"{server.url}{path}", **settings) as response:
        return response, b"".join([piece async for piece in response.aiter_bytes()])


async def ask(client: Any, server: ScriptedServer, **settings: Any) -> bytes:
    return (await fetch(client, server, **settings))[1]


async def read_on(body: Any) -> bytes:
    """Reads until there is an exception."""
    while True:
        await anext(body)


# -- streams ---------------------------------------------------------------------------------------


async def test_a_healthy_stream_passes_to_the_byte(client: Any) -> None:
    events = [*EVENTS[:2], b": a comment\n\n", b":\n", *EVENTS[2:]]
    async with ScriptedServer([healthy(events)]) as server, client() as c:
        response, data = await fetch(c, server)
        told = mounts.report(response)
    assert data == b"".join(events)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
    assert told is not None
    assert (told.outcome, told.attempts) == ("complete", 1)
    assert response.http_version == "HTTP/1.1"


async def test_a_head_that_lies_of_the_charset_is_not_believed_by_lines(client: Any) -> None:
    head = STREAM_HEAD.replace(b"text/event-stream", b"text/event-stream; a=b; charset=iso-8859-1")
    script = [Send(head), *(Send(chunked(event)) for event in EVENTS), Send(LAST_CHUNK)]
    async with (
        ScriptedServer([script]) as server,
        client(random=Nought()) as c,
        c.stream("POST", server.url + CHAT, json=BODY) as response,
    ):
        lines = [line async for line in response.aiter_lines()]
    assert response.headers["content-type"] == "text/event-stream; a=b"
    assert text_of("\n".join(lines).encode()) == TEXT


async def test_the_request_goes_out_as_it_was(client: Any, library: Any) -> None:
    content = b'{ "stream" : true , "messages": [] }'
    headers = {"Content-Type": "application/json", "X-Odd-CASE": "1", "Accept": "a/b", "Accept-Encoding": "br"}
    async with ScriptedServer([healthy()]) as server:
        async with client() as c:
            await ask(c, server, json=None, content=content, headers=headers)
        async with library.AsyncClient() as bare:
            await ask(bare, server, json=None, content=content, headers=headers)
    (first, second) = server.requests
    assert (first.headers, first.body, first.path) == (second.headers, second.body, second.path)


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
        begun(Send(chunked(b'data: {"id": "a1", "choi')), Send(LAST_CHUNK)),
        respond(b"<html>\n\n<p>down\n\n</html>\n", content_type="text/html"),
    ],
    ids=[
        *("reset", "closed", "clean cut", "no head", "hung up", "503", "429", "page", "empty", "head alone", "torn"),
        *("cut in an event", "long page"),
    ],
)
async def test_an_evident_fault_leaves_no_trace(client: Any, fault: list[Step]) -> None:
    async with ScriptedServer([fault, healthy()]) as server, client() as c:
        response, data = await fetch(c, server)
    assert text_of(data) == TEXT
    assert data.count(b"[DONE]") == 1
    first, second = server.requests
    assert (first.headers, first.body) == (second.headers, second.body)
    assert response.headers["content-type"] == "text/event-stream"
    told = mounts.report(response)
    assert told is not None
    assert told.attempts == 2


async def test_an_answer_of_another_name_is_told_under_the_first(client: Any) -> None:
    async with ScriptedServer([begun(Reset()), healthy(answer("a2"))]) as server, client() as c:
        data = await ask(c, server)
    assert text_of(data) == TEXT
    assert b'"a2"' not in data
    assert data.count(b'"role"') == 1


async def test_ids_are_resumed_at_the_last_one(client: Any) -> None:
    events = [sse(event.decode()[6:-2], id=str(number)) for number, event in enumerate(EVENTS, 1)]
    async with ScriptedServer([begun(Reset(), events=events[:4]), healthy(events[4:])]) as server, client() as c:
        data = await ask(c, server)
    assert data == b"".join(events)
    assert server.requests[1].headers["last-event-id"] == "4"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(begun(Send(LAST_CHUNK)), "RemoteProtocolError"), (begun(Reset()), "ReadError")],
    ids=["clean cut", "reset"],
)
async def test_what_cannot_be_saved_is_the_librarys_own_exception(
    library: Any, client: Any, fault: list[Step], kind: str
) -> None:
    async with ScriptedServer([fault]) as server, client(max_requests=3) as c:
        with pytest.raises(library.TransportError) as caught:
            await ask(c, server)
        assert server.open_connections <= 1 or await server.all_closed()
    error = caught.value
    assert type(error).__name__ == kind
    assert isinstance(error.__cause__, StreamBroken)
    assert error.request.url.path == CHAT
    assert "3 requests" in str(error)
    assert "10 characters" in str(error)
    assert "secret" not in str(error)
    assert "潮" not in str(error)
    assert len(server.requests) == 3


async def test_a_failure_stays_one_and_a_cancelled_read_is_no_end(library: Any) -> None:
    async with ScriptedServer([begun(Stall())]) as server, BOTH[library](random=Nought()) as transport:
        request = library.Request("POST", f"{server.url}{CHAT}", json=BODY)
        response = await transport.handle_async_request(request)
        data, cancelled = b"", 0
        while cancelled < 3 or len(data) < sum(map(len, EVENTS[:5])):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:
                        data += await anext(response.stream)
            cancelled += 1
        assert data == b"".join(EVENTS[:5])
        await response.aclose()
        assert await server.all_closed()

    async with ScriptedServer([begun(Reset())]) as server, BOTH[library](random=Nought(), max_requests=1) as transport:
        response = await transport.handle_async_request(library.Request("POST", f"{server.url}{CHAT}", json=BODY))
        for _ in range(2):
            with pytest.raises(library.ReadError):
                await read_on(response.stream)
        await response.aclose()


async def test_an_event_is_not_held_for_the_next_nor_a_comment_for_an_event(client: Any) -> None:
    for piece in (EVENTS[0], b": ping\n\n"):
        async with (
            ScriptedServer([[Send(STREAM_HEAD + chunked(piece)), Stall()]]) as server,
            client() as c,
            c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response,
        ):
            assert await asyncio.wait_for(anext(response.aiter_raw()), 30) == piece


async def test_closing_early_closes_the_connection(client: Any) -> None:
    async with ScriptedServer([begun(Stall())]) as server, client() as c:
        async with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            async for _ in response.aiter_raw():
                break
        assert await server.all_closed()


async def test_a_stream_read_to_its_end_gives_its_connection_back(client: Any) -> None:
    async with ScriptedServer([healthy()]) as server, client() as c:
        for _ in range(3):
            assert await ask(c, server) == WIRE
        assert server.accepted == 1


async def test_a_response_that_is_forgotten_is_closed(library: Any) -> None:
    async with ScriptedServer([begun(Stall())]) as server, BOTH[library]() as transport:
        response = await transport.handle_async_request(library.Request("POST", f"{server.url}{CHAT}", json=BODY))
        await anext(response.stream)
        del response
        gc.collect()
        assert await server.all_closed()


@pytest.mark.parametrize(
    "script", [healthy(), begun(Stall()), respond(b"no", status=500), respond(b"{}", content_type="text/html")]
)
async def test_cancelled_anywhere_no_connection_is_left(library: Any, client: Any, script: list[Step]) -> None:
    async with ScriptedServer([[*script, Close()]]) as server, client(layers=None, max_requests=2) as c:

        async def scenario() -> None:
            with contextlib.suppress(library.TransportError, TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(c, server)

        async def check() -> None:
            assert await server.all_closed()
            assert not [task for task in asyncio.all_tasks() if task.get_name() == "holdfast-httpx"]

        assert await cancel_everywhere(scenario, check=check) > 5


async def test_a_packed_stream_is_unpacked_once(client: Any) -> None:
    start = head(content_type="text/event-stream", content_encoding="gzip")
    packed: list[Step] = [Send(start + gzip.compress(WIRE)), Close()]
    async with ScriptedServer([packed]) as server, client() as c:
        response, data = await fetch(c, server)
    assert data == WIRE
    assert "content-encoding" not in response.headers


async def test_a_read_timeout_of_the_clients_is_resumed_from(client: Any) -> None:
    async with ScriptedServer([begun(Stall()), healthy()]) as server, client() as c:
        assert text_of(await ask(c, server, timeout=1)) == TEXT
    assert len(server.requests) == 2


async def test_a_clock_of_ours_is_a_timeout_of_the_librarys(library: Any, client: Any) -> None:
    async with ScriptedServer([[Stall()]]) as server:
        async with client(timeouts=Timeouts(open=0.5), max_requests=2) as c:
            with pytest.raises(library.ReadTimeout) as caught:
                await ask(c, server)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)
        assert len(server.requests) == 2
        assert await server.all_closed()


async def test_fifty_streams_at_once(client: Any) -> None:
    async with ScriptedServer(lambda _: healthy()) as server, client() as c:
        texts = await asyncio.gather(*(ask(c, server) for _ in range(50)))
    assert texts == [WIRE] * 50


async def test_http2_is_relayed_and_mended(library: Any) -> None:
    inner = library.AsyncHTTPTransport(http1=False, http2=True)
    transport = BOTH[library](inner, random=Nought(), max_requests=2)
    async with H2Server(*EVENTS, "end") as server, transport:
        request = library.Request("POST", f"{server.url}{CHAT}", json=BODY)
        responses = await asyncio.gather(*(transport.handle_async_request(request) for _ in range(10)))
        for response in responses:
            assert b"".join([piece async for piece in response.stream]) == WIRE
        assert server.accepted == 1
    inner = library.AsyncHTTPTransport(http1=False, http2=True)
    transport = BOTH[library](inner, random=Nought(), max_requests=2)
    async with H2Server(*EVENTS[:5], "reset") as server, transport:
        response = await transport.handle_async_request(library.Request("POST", f"{server.url}{CHAT}", json=BODY))
        with pytest.raises(library.TransportError, match="2 requests"):
            await read_on(response.stream)


async def test_a_tools_answer_is_resumed_and_its_call_never_repeated(client: Any) -> None:
    result = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})
    told = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
    first, last = sse(told, id="1"), sse(result, id="2")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}
    accept = {"Accept": "application/json, text/event-stream", "Mcp-Session-Id": "s1"}

    def serve(request: ReceivedRequest) -> list[Step]:
        return begun(Reset(), events=[first]) if request.method == "POST" else healthy([last])

    async with ScriptedServer(serve) as server, client() as c:
        _, data = await fetch(c, server, "/mcp", json=call, headers=accept)
    assert data == first + last
    _, again = server.requests
    assert (again.method, again.body, again.headers["last-event-id"]) == ("GET", b"", "1")
    assert again.headers["mcp-session-id"] == "s1"
    assert "content-length" not in again.headers

    async with ScriptedServer([begun(Reset(), events=[])]) as server, client() as c:
        with pytest.raises((httpx.TransportError, httpx2.TransportError)):
            await fetch(c, server, "/mcp", json=call, headers=accept)
    assert len(server.requests) == 1


TRANSCRIPT = [
    sse('{"type":"transcript.text.delta","delta":"kelp"}'),
    sse('{"type":"transcript.text.done","text":"kelp"}'),
    b"data: [DONE]\n\n",
]
RUN = [sse('{"id":"r1","object":"thread.run"}', event="thread.run.created"), sse("[DONE]", event="done")]
TURN = [sse('{"type":"conversation.response.started"}', event="conversation.response.started")]


@pytest.mark.parametrize(
    ("at", "events"),
    [
        ("https://api.openai.com/v1/audio/transcriptions", TRANSCRIPT),
        ("https://api.openai.com/v1/threads/t/runs", RUN),
        ("https://api.mistral.ai/v1/conversations", TURN),
        ("https://example.com/feed", [b": hello\n\n", b"id: 1\ndata: one\n\n", b"data: two\n\n"]),
    ],
)
@pytest.mark.parametrize("body", [{"stream": True}, {}])
async def test_streams_of_other_kinds_pass_to_the_byte(
    library: Any, client: Any, at: str, events: list[bytes], body: dict[str, Any]
) -> None:
    async def serve(request: Any) -> Any:
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(events))

    async with client(library.MockTransport(serve)) as c:
        assert (await c.post(at, json=body)).content == b"".join(events)


async def test_a_feed_may_be_silent_and_end_when_it_likes(client: Any) -> None:
    told = sse(json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
    async with ScriptedServer([healthy([told])]) as server, client() as c:
        for path in ("/mcp", "/feed"):
            async with c.stream("GET", f"{server.url}{path}", headers={"Accept": "text/event-stream"}) as response:
                assert await response.aread() == told
    assert len(server.requests) == 2


def test_the_clocks_are_those_of_whoever_answers() -> None:
    mount = Mount()
    for path, progress in (("/mcp", 600), ("/v1/messages", 120), ("/v1/responses", 300), ("/other", 120)):
        layers = mount._default(Request(url=f"http://localhost{path}"))
        assert next(layer.progress for layer in layers if isinstance(layer, Deadline)) == progress
    answers = ("http://a/?stream=true", "https://stream.replicate.com/x")
    for url, count in (("http://a/mcp", 0), ("http://a/", 0), *((url, 2) for url in answers)):
        layers = mount._default(Request(url=url, method="GET"))
        assert sum(isinstance(layer, Deadline) for layer in layers) == count
    timed = Mount(timeouts=Timeouts(progress=5))
    for method in ("GET", "POST"):
        layers = timed._default(Request(url="http://localhost/mcp", method=method))
        assert next(layer.progress for layer in layers if isinstance(layer, Deadline)) == 5


# -- everything else ---------------------------------------------------------------------------------


async def test_an_answer_in_json_is_the_inner_transports_own(library: Any, client: Any) -> None:
    sent: list[Any] = []

    class Noting(library.AsyncHTTPTransport):  # type: ignore[misc]  # either library's
        async def handle_async_request(self, request: Any) -> Any:
            sent.append((request, await super().handle_async_request(request)))
            return sent[-1][1]

    document = gzip.compress(json.dumps({"object": "list"}).encode())
    reply = respond(document, content_type="application/json", content_encoding="gzip")
    async with ScriptedServer([reply]) as server, client(Noting()) as c:
        response = await c.post(f"{server.url}/v1/embeddings", json={"input": "x"})
        assert response.json() == {"object": "list"}
        assert mounts.report(response) is None
        other = await c.get(f"{server.url}/v1/models")
        assert other.json() == {"object": "list"}
    assert response is sent[0][1]
    assert other is sent[1][1]


async def test_a_stream_nobody_asked_for_is_relayed_and_not_sent_again(library: Any, client: Any) -> None:
    async with ScriptedServer([begun(Reset()), healthy()]) as server, client(random=None) as c:
        with pytest.raises(library.TransportError) as caught:
            await ask(c, server, json={"model": "m"})
    cause = caught.value.__cause__
    assert isinstance(cause, StreamError)
    assert len(server.requests) == 1
    assert len(cause.report.faults) == 1, "nothing was waited for"


async def test_a_stream_of_another_kind_passes(client: Any) -> None:
    lines = b'{"done": false}\n{"done": true}\n'
    async with ScriptedServer([respond(lines, content_type="application/x-ndjson")]) as server, client() as c:
        assert await ask(c, server) == lines


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_refuses_is_asked_again_where_that_is_allowed(client: Any, method: str) -> None:
    busy = respond(b"busy", status=503, x_request_id="r1")
    async with ScriptedServer([busy, busy, respond(b"{}")]) as server, client() as c:
        response = await c.request(method, f"{server.url}/v1/models")
    if method == "GET":
        assert (response.status_code, response.content, len(server.requests)) == (200, b"{}", 3)
    else:
        assert (response.status_code, response.content, len(server.requests)) == (503, b"busy", 1)
        assert "x-should-retry" not in response.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_after_the_tries_the_last_refusal_comes_as_it_was(client: Any, *, stream: bool) -> None:
    document = gzip.compress(b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')
    kind: dict[str, str | int] = {"content_type": "application/json", "content_encoding": "gzip", "retry_after": 0}
    async with ScriptedServer([respond(document, status=429, **kind)]) as server, client() as c:
        if stream:
            response = await c.post(f"{server.url}{CHAT}", json=BODY)
        else:
            response = await c.get(f"{server.url}/v1/models")
    assert response.status_code == 429
    assert response.json()["error"]["message"] == "slow down"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["content-length"] == str(len(document))
    assert len(server.requests) == Retry().attempts


async def test_a_long_refusal_comes_whole(client: Any) -> None:
    body = bytes(range(256)) * 1024
    async with ScriptedServer([respond(body, status=400)]) as server, client() as c:
        response = await c.post(f"{server.url}{CHAT}", json=BODY)
        assert response.content == body
        async with c.stream("POST", f"{server.url}{CHAT}", json=BODY):
            pass
        assert server.open_connections <= 1 or await server.all_closed()


async def test_an_sdk_that_tries_again_is_not_helped(client: Any) -> None:
    again = {"x-stainless-retry-count": "1"}
    async with ScriptedServer([respond(b"busy", status=503)]) as server, client() as c:
        response = await c.post(f"{server.url}{CHAT}", json=BODY, headers=again)
    assert (response.status_code, len(server.requests)) == (503, 1)
    assert "x-should-retry" not in response.headers


async def test_a_streamed_upload_is_sent_once(client: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with ScriptedServer([respond(b"busy", status=503)]) as server, client() as c:
        for method in ("POST", "PUT"):
            response = await c.request(method, f"{server.url}/v1/files", content=pieces())
            assert response.status_code == 503
    assert [request.body for request in server.requests] == [b"ab", b"ab"]


async def test_a_failed_connection_is_the_inner_transports_own_exception(library: Any, client: Any) -> None:
    tries: list[Any] = []

    async def refuse(request: Any) -> Any:
        tries.append(request)
        raise library.ConnectError(f"no {len(tries)}")

    async with client(library.MockTransport(refuse)) as c:
        with pytest.raises(library.ConnectError, match="no 4"):
            await c.post(f"http://localhost{CHAT}", json=BODY)
        assert len(tries) == 4
        with pytest.raises(library.ConnectError, match="no 5"):
            await c.post("http://localhost/v1/embeddings", json={})


async def test_a_redirect_is_the_clients_business(library: Any) -> None:
    moved = respond(status=307, location="/v1/chat/completions")
    following = library.AsyncClient(transport=BOTH[library](random=Nought()), follow_redirects=True)
    async with ScriptedServer([moved, healthy()]) as server, following as c:
        _, data = await fetch(c, server, "/old/chat/completions")
    assert text_of(data) == TEXT
    assert [request.json() for request in server.requests] == [BODY, BODY]


async def test_a_mocked_stream_is_relayed_too(library: Any, client: Any) -> None:
    async def serve(request: Any) -> Any:
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=WIRE)

    async with client(library.MockTransport(serve)) as c:
        response = await c.post(f"http://localhost{CHAT}", json=BODY)
    assert response.content == WIRE
    assert mounts.report(response).outcome == "complete"  # type: ignore[union-attr]  # it is there


def test_a_transport_that_blocks_is_refused(library: Any) -> None:
    with pytest.raises(UsageError, match="asynchronous"):
        BOTH[library](library.HTTPTransport())
