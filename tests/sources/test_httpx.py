"""httpx and httpx2 on real sockets, through clients and bare transports: what holds over aiohttp holds over them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import ssl
import sys
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
import trustme

from holdfast._core import Call, Stream
from holdfast._errors import (
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    MissingExtra,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UsageError,
)
from holdfast._types import Request
from holdfast.sources._foreign import ForeignError
from holdfast.sources.httpx import Httpx2Source, HttpxSource
from holdfast.testing.background import in_background
from holdfast.testing.contract import check_source
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Drip,
    Pause,
    Repeat,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    Step,
    chunked,
    head,
    respond,
    sse,
    stream,
)
from tests.sources.h2_server import H2Server, Part

EVENTS = [sse(f"event {n} 你好") for n in range(5)]
TEXT = b"".join(EVENTS)
BOTH = {httpx: HttpxSource, httpx2: Httpx2Source}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=BOTH, ids=lambda module: module.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    """Either module."""
    return request.param


@pytest.fixture
def make(library: Any) -> Any:
    """The class of the source that is for it."""
    return BOTH[library]


def ask(url: str, **settings: Any) -> Request:
    return Request(url=url, call=Call(), **settings)


async def read(stream: Stream[bytes]) -> tuple[bytes, Exception]:
    data = bytearray()
    while True:
        try:
            batch = await stream.receive()
        except (EndOfStream, StreamError) as end:
            ended: Exception = end
            break
        assert batch
        data += b"".join(batch)
    with pytest.raises(type(ended)) as again:  # sticky
        await stream.receive()
    assert str(again.value) == str(ended)
    return bytes(data), ended


async def once(source: Any, url: str, **settings: Any) -> tuple[bytes, Exception]:
    opened = await source.open(ask(url, **settings))
    try:
        return await read(opened)
    finally:
        await opened.aclose()
        await opened.aclose()


async def fetch(make: Any, script: list[Step]) -> tuple[bytes, Exception]:
    """Opens, reads to the end and closes."""
    async with ScriptedServer([script]) as server, make() as source:
        return await once(source, server.url)


# -- the contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["client", "transport"])
@pytest.mark.parametrize(
    ("reply", "arrives", "fails"),
    [
        (stream(*EVENTS[:2]), b"".join(EVENTS[:2]), False),
        ([Send(STREAM_HEAD + chunked(EVENTS[0]) + b"5\r\nda"), Reset()], EVENTS[0] + b"da", True),
        (respond(b"{}", status=429), b"", True),
        ([Reset()], b"", True),
        ([Send(STREAM_HEAD + LAST_CHUNK)], b"", False),
        ([Send(head(content_encoding="gzip") + gzip.compress(TEXT)), Close()], TEXT, False),
    ],
    ids=["whole", "cut in a chunk", "refused", "reset before the head", "empty", "packed"],
)
async def test_keeps_the_contract(
    library: Any, make: Any, over: str, reply: list[Step], arrives: bytes, *, fails: bool
) -> None:
    transport = library.AsyncHTTPTransport()
    async with ScriptedServer([reply]) as server, library.AsyncClient(transport=transport) as client:
        lent: dict[str, Any] = {"client": client} if over == "client" else {"transport": transport}
        await check_source(
            lambda: make(**lent),
            expected=[arrives] if arrives else [],
            fails=fails,
            request=Request(url=f"{server.url}/v1", body={}),
            opened=lambda: len(transport._pool._requests),
        )


@pytest.mark.parametrize(
    "script",
    [stream(*EVENTS), [Pause(0.002), *respond(b"refused", status=500)], [Send(STREAM_HEAD + chunked(TEXT)), Reset()]],
    ids=["whole", "refused", "cut"],
)
async def test_cancelled_anywhere_no_connection_is_left(make: Any, script: list[Step]) -> None:
    async with ScriptedServer([[*script, Close()]]) as server, make() as source:

        async def scenario() -> None:
            with contextlib.suppress(StreamError):
                await once(source, server.url, body={"a": 1})

        async def check() -> None:
            assert await server.all_closed()
            assert not [task for task in asyncio.all_tasks() if task.get_name() == "holdfast-httpx"]

        assert await cancel_everywhere(scenario, check=check) > 5


async def test_cancelled_anywhere_in_a_tls_handshake_nothing_is_left(
    library: Any, make: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's, whose handshakes fail
    script: list[Step] = [Send(head(connection="close", content_length=len(TEXT)) + TEXT), Close()]
    async with ScriptedServer([script], tls=tls[0]) as server:
        async with library.AsyncClient(verify=tls[1]) as client:

            async def scenario() -> None:
                await once(make(client), server.url)

            async def check() -> None:
                assert await server.all_closed()
                pool = client._transport._pool
                assert not [one for one in pool.connections if not one.is_idle() and not one.is_closed()]

            assert await cancel_everywhere(scenario, check=check) > 15
        gc.collect()  # a transport that was dropped would warn now


async def test_a_trace_of_the_callers_is_told_as_before(make: Any) -> None:
    events: list[str] = []

    async def trace(event: str, _: Any) -> None:
        events.append(event)

    async with ScriptedServer([stream(*EVENTS)]) as server, make(extensions={"trace": trace}) as source:
        await once(source, server.url)
    assert {"connection.connect_tcp.complete", "http11.response_closed.complete"} <= {*events}


async def test_a_reader_that_polls_loses_nothing(make: Any) -> None:
    """A cancelled generator of httpx's would be finished, and say that the stream ended well."""
    steps = [Send(STREAM_HEAD), *(step for event in EVENTS for step in (Pause(0.01), Send(chunked(event))))]
    async with ScriptedServer([[*steps, Pause(0.01), Send(LAST_CHUNK)]]) as server, make() as source:
        opened = await source.open(ask(server.url))
        data, cancelled = bytearray(), 0
        with pytest.raises(EndOfStream):  # noqa: PT012 - one of many reads
            while True:
                try:
                    async with asyncio.timeout(0.002):
                        data += (await opened.receive())[0]
                except TimeoutError:
                    cancelled += 1
        await opened.aclose()
    assert bytes(data) == TEXT
    assert cancelled > 2


async def test_one_reader_at_a_time(make: Any) -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Stall()]]) as server, make() as source:
        opened = await source.open(ask(server.url))
        first = asyncio.ensure_future(opened.receive())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="reader"):
            await opened.receive()
        await opened.aclose()
        with pytest.raises(UsageError, match="closed"):
            await first
        with pytest.raises(UsageError, match="closed"):
            await opened.receive()


# -- a healthy stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        stream(*EVENTS),
        [Send(STREAM_HEAD + b"".join(map(chunked, EVENTS)) + LAST_CHUNK)],
        [Drip(STREAM_HEAD + b"".join(map(chunked, EVENTS)) + LAST_CHUNK)],
        [Send(head(content_length=len(TEXT)) + TEXT)],
        [Send(head() + TEXT), Close()],
    ],
    ids=["chunks", "one write", "a byte a write", "content-length", "until FIN"],
)
async def test_delivers_every_byte(make: Any, script: list[Step]) -> None:
    data, end = await fetch(make, script)
    assert (data, type(end)) == (TEXT, EndOfStream)


async def test_hands_over_what_is_ready(make: Any) -> None:
    async with ScriptedServer([[Send(STREAM_HEAD + chunked(b"a") + chunked(b"b")), Stall()]]) as server:
        async with make() as source:
            opened = await source.open(ask(server.url))
            async with asyncio.timeout(30):
                got = b"".join(await opened.receive())
                while got != b"ab":
                    got += b"".join(await opened.receive())
            await opened.aclose()
        assert await server.all_closed()


async def test_sends_what_a_stream_needs(make: Any) -> None:
    async with ScriptedServer([respond(b"x")]) as server, make() as source:
        await once(source, f"{server.url}/v1?a=1", body={"q": "你"}, headers={"Authorization": "Bearer key"})
        await once(source, server.url, method="GET", headers={"accept": "x/y", "Accept-Encoding": "gzip"})
        first, second = server.requests
    assert (first.method, first.path, first.json()) == ("POST", "/v1?a=1", {"q": "你"})
    wanted = {"accept": "text/event-stream", "accept-encoding": "identity", "content-type": "application/json"}
    assert wanted.items() <= first.headers.items()
    assert first.headers["authorization"] == "Bearer key"
    assert (second.headers["accept"], second.headers["accept-encoding"]) == ("x/y", "gzip")
    assert "content-type" not in second.headers


async def test_the_head_is_lower_case_and_joined(make: Any) -> None:
    start = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedServer([[Send(start)]]) as server, make() as source:
        opened = await source.open(ask(server.url))
        await opened.aclose()
    assert opened.head.headers == {"x-a": "1, 2", "content-length": "0"}
    assert opened.head.url == server.url


async def test_a_connection_read_to_the_end_is_used_again(make: Any) -> None:
    async with ScriptedServer([stream(*EVENTS)]) as server, make() as source:
        for _ in range(3):
            assert (await once(source, server.url))[0] == TEXT
        assert server.accepted == 1


async def test_a_connection_given_up_is_closed(make: Any) -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Repeat(chunked(TEXT * 100), 0)]]) as server, make() as source:
        opened = await source.open(ask(server.url))
        await opened.receive()
        await asyncio.sleep(0.05)  # it has read as far ahead as it may, and waits
        await opened.aclose()
        assert await server.all_closed()


async def test_reads_ahead_no_further_than_allowed(make: Any) -> None:
    body = bytes(8_000_000)
    async with ScriptedServer([[Send(head(content_length=len(body))), Send(body)]]) as server, make() as source:
        await once(source, server.url)  # everything that is made once has been made
        opened = await source.open(ask(server.url))
        tracemalloc.start()
        try:
            await opened.receive()
            await asyncio.sleep(0.05)
            assert opened._size < 3 * 65_536
            total = longest = 0
            with pytest.raises(EndOfStream):  # noqa: PT012 - after everything
                while True:
                    piece = (await opened.receive())[0]
                    total, longest = total + len(piece), max(longest, len(piece))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await opened.aclose()
    assert longest < 3 * 65_536
    assert total > 7_000_000
    assert peak < 12_000_000  # the server's write buffer is the most of it


async def test_a_body_of_nothing_but_empty_pieces_lets_others_run(library: Any, make: Any) -> None:
    class Nothing(library.AsyncByteStream):  # type: ignore[misc]  # either library's
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b""

    transport = library.MockTransport(lambda _: library.Response(200, stream=Nothing()))
    opened = await make(transport=transport).open(ask("http://upstream/v1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await opened.receive()
    await opened.aclose()


# -- clients, transports, and whose they are ---------------------------------------------------------------


async def test_a_borrowed_client_is_used_as_it_is_and_stays_open(library: Any, make: Any) -> None:
    async with ScriptedServer([stream(*EVENTS)]) as server:
        settings = {"base_url": f"{server.url}/v1/", "headers": {"X-Mine": "yes", "Accept": "a/b"}, "timeout": 0.0001}
        async with library.AsyncClient(**settings, follow_redirects=True) as client:
            async with make(client) as source:
                assert (await once(source, "chat", body={}))[0] == TEXT
            assert not client.is_closed
        got = server.requests[0]
        assert (got.path, got.headers["x-mine"], got.headers["accept"]) == ("/v1/chat", "yes", "a/b")
        with pytest.raises(UsageError, match="closed"):
            await make(client).open(ask(server.url))


async def test_a_bare_transport_gets_the_request_as_it_is(library: Any, make: Any) -> None:
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(request)
        return library.Response(200, content=TEXT)

    given = library.Headers([("X-Twice", "1"), ("X-Twice", "2"), ("Content-Length", "999"), ("Accept", "*/*")])
    source = make(transport=library.MockTransport(answer), extensions={"sni_hostname": "a.b", "timeout": {"read": 9}})
    assert await once(source, "https://upstream/v1", body=b"bytes", headers=given) is not None
    (request,) = sent
    assert request.headers.multi_items() == [
        ("host", "upstream"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("content-length", "5"),
    ]
    assert request.content == b"bytes"
    assert request.extensions.pop("trace")
    assert request.extensions == {"sni_hostname": "a.b", "timeout": {"read": 9}}


@pytest.mark.parametrize("over", ["client", "transport"])
async def test_mocks_keep_working(library: Any, make: Any, over: str) -> None:
    transport = library.MockTransport(lambda _: library.Response(200, content=TEXT))
    async with library.AsyncClient(transport=transport) as client:
        source = make(client) if over == "client" else make(transport=transport)
        data, end = await once(source, "http://upstream/v1")
    assert (data, type(end)) == (TEXT, EndOfStream)


async def test_hooks_of_the_clients_owner_may_read_and_raise(library: Any, make: Any) -> None:
    async def look(response: Any) -> None:
        await response.aread()
        response.raise_for_status()

    replies = [[*stream(*EVENTS)], respond(b"why", status=503, retry_after=7)]
    async with ScriptedServer(replies) as server, library.AsyncClient(event_hooks={"response": [look]}) as client:
        assert await once(make(client), server.url)
        with pytest.raises(StatusError) as caught:
            await make(client).open(ask(server.url))
    assert (caught.value.status, caught.value.body, caught.value.retry_after) == (503, b"why", 7)


async def test_what_our_own_layers_raise_in_a_transport_passes(library: Any, make: Any) -> None:
    async def fail(_: Any) -> Any:
        raise StreamBroken("ours")

    with pytest.raises(StreamBroken, match=r"^ours$"):
        await make(transport=library.MockTransport(fail)).open(ask("http://upstream/v1"))


async def test_closing_the_source_ends_its_streams(make: Any) -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Stall()]]) as server:
        source = make()
        opened = await source.open(ask(server.url))
        reader = asyncio.ensure_future(opened.receive())
        await asyncio.sleep(0)
        await source.aclose()
        await source.aclose()
        with pytest.raises(UsageError, match="closed"):
            await reader
        assert await server.all_closed()
        with pytest.raises(UsageError, match="closed"):
            await source.open(ask(server.url))


def test_a_source_that_nobody_closed_is_closed_with_its_event_loop(make: Any) -> None:
    with in_background(ScriptedServer([stream(*EVENTS)])) as server:
        source = make()
        for _ in range(2):  # and the next loop gets a client of its own
            assert asyncio.run(once(source, server.url))[0] == TEXT
        gc.collect()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, library: Any, make: Any) -> None:
    monkeypatch.setitem(sys.modules, library.__name__, None)
    with pytest.raises(MissingExtra, match=rf"holdfast\[{library.__name__}\]"):
        make()


def test_settings_are_checked(library: Any, make: Any) -> None:
    other = httpx2 if library is httpx else httpx
    transport = library.MockTransport(lambda _: library.Response(200))
    for settings, says in [
        ({"connect_timeout": 0}, "connect_timeout .* 0"),
        ({"max_error_body": -1}, "max_error_body .* -1"),
        ({"client": other.AsyncClient()}, f"client must be an {library.__name__}.AsyncClient"),
        ({"client": library.AsyncClient(), "transport": transport}, "exclude"),
        ({"transport": library.HTTPTransport()}, "transport must be asynchronous"),
    ]:
        with pytest.raises(ValueError, match=says):
            make(**settings)


# -- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        [Send(STREAM_HEAD + chunked(TEXT)), Pause(0.01), Reset()],
        [Send(STREAM_HEAD + chunked(TEXT)), Close()],
        [Send(STREAM_HEAD + chunked(TEXT + b"xyz")[:-5]), Close()],
        [Send(STREAM_HEAD + chunked(TEXT) + b"zz\r\nnot a chunk")],
        [Send(head(content_length=len(TEXT) + 10) + TEXT), Close()],
    ],
    ids=["reset", "no last chunk", "FIN in a chunk", "bad chunk in the head's read", "FIN before length"],
)
async def test_what_arrived_before_a_cut_is_delivered_before_the_failure(make: Any, script: list[Step]) -> None:
    data, end = await fetch(make, script)
    assert data.startswith(TEXT)
    assert type(end) is StreamBroken
    assert end.retryable
    assert isinstance(end.__cause__, ForeignError)
    assert "127.0.0.1" in str(end)
    assert "event" not in "".join(traceback.format_exception(end)).partition("holdfast._errors")[2]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([Reset()], "lost"),
        ([Close()], "hung up"),
        ([Send(b"HTTP/1.1 200 OK\r\nContent-"), Close()], "hung up"),
        ([Send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), Stall()], "not HTTP"),
    ],
)
async def test_a_connection_that_dies_before_the_head_is_a_connect_error(
    make: Any, script: list[Step], says: str
) -> None:
    async with ScriptedServer([script]) as server, make() as source:
        with pytest.raises(ConnectError, match=says) as caught:
            await source.open(ask(f"{server.url}/secret?key=secret", headers={"X": "secret"}))
        assert caught.value.retryable
        assert str(caught.value).startswith(f"127.0.0.1:{server.port}: ")
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is caught.value.__cause__ or caught.value.__context__ is None
        assert await server.all_closed()


async def test_nobody_listens(make: Any, unused_tcp_port: int) -> None:
    async with make() as source:
        with pytest.raises(ConnectError, match="refused") as caught:
            await source.open(ask(f"http://127.0.0.1:{unused_tcp_port}"))
    assert caught.value.retryable


async def test_a_name_that_does_not_resolve(make: Any) -> None:
    async with make() as source:
        with pytest.raises(ConnectError, match="does not resolve"):
            await source.open(ask("http://no-such-host.invalid"))


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "nonsense", "http://host:port/"])
async def test_a_url_that_cannot_be_asked_is_a_usage_error(make: Any, url: str) -> None:
    async with make() as source:
        with pytest.raises(UsageError):
            await source.open(ask(url))


async def test_a_request_that_cannot_be_written_is_a_usage_error(make: Any) -> None:
    async with make() as source, ScriptedServer([respond()]) as server:
        for settings in ({"body": {"a": object()}}, {"headers": {"X": "a\r\nb"}}, {"headers": {"X": "你\ud800"}}):
            with pytest.raises(UsageError):
                await source.open(ask(server.url, **settings))
        assert server.requests == []


async def test_timeouts_that_come_with_the_request_are_deadlines(make: Any) -> None:
    replies: list[list[Step]] = [[Stall()], [Send(STREAM_HEAD + chunked(TEXT)), Stall()]]
    async with ScriptedServer(replies) as server, make(extensions={"timeout": {"read": 0.05}}) as source:
        with pytest.raises(DeadlineExceeded, match="read timeout") as before:
            await source.open(ask(server.url))
        data, end = await once(source, server.url)
    assert (before.value.clock, before.value.seconds) == ("open", 0.05)
    assert data == TEXT
    assert isinstance(end, DeadlineExceeded)
    assert (end.clock, end.retryable) == ("progress", True)


async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    async with ScriptedServer([respond(status=407)]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//me:secret@"))
        async with make() as source:
            with pytest.raises(ConnectError, match="proxy answered 407") as caught:
                await source.open(ask("https://upstream/v1"))
        assert not caught.value.retryable
        assert "secret" not in "".join(traceback.format_exception(caught.value))


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    authority = trustme.CA()
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(here)
    authority.configure_trust(there)
    return here, there


async def test_speaks_tls(library: Any, make: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with ScriptedServer([stream(*EVENTS)], tls=tls[0]) as server:
        async with library.AsyncClient(verify=tls[1]) as client:
            assert (await once(make(client), server.url))[0] == TEXT
        async with library.AsyncClient(verify=ssl.create_default_context()) as client:
            with pytest.raises(ConnectError, match="certificate") as caught:
                await make(client).open(ask(server.url))
        assert not caught.value.retryable


async def test_plain_text_where_tls_was_expected(library: Any, make: Any, tls: tuple[ssl.SSLContext, Any]) -> None:
    async with ScriptedServer([respond()]) as server, library.AsyncClient(verify=tls[1]) as client:
        with pytest.raises(ConnectError, match=r"(TLS failed|connect_timeout).*; the url says https"):
            await make(client, connect_timeout=0.1).open(ask(server.url.replace("http:", "https:")))


# -- other statuses -----------------------------------------------------------------------------------------


async def test_another_status_is_an_error_with_the_body_and_without_quoting_it(make: Any) -> None:
    async with ScriptedServer([respond(b'{"error": "prompt"}', status=429, retry_after=3)]) as server, make() as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
    error = caught.value
    assert (error.status, error.retry_after, error.body) == (429, 3.0, b'{"error": "prompt"}')
    assert "prompt" not in str(error)


async def test_an_endless_error_body_is_bounded(make: Any) -> None:
    endless: list[Step] = [Send(head(500, transfer_encoding="chunked")), Repeat(chunked(b"x" * 10_000), 0)]
    async with ScriptedServer([endless]) as server, make(max_error_body=25_000) as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
        assert len(caught.value.body) == 25_000
        assert await server.all_closed()


@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_is_not_followed(library: Any, make: Any, status: int) -> None:
    async with (
        ScriptedServer([respond(b"stolen")]) as other,
        ScriptedServer([respond(status=status, location=other.url)]) as server,
        library.AsyncClient(follow_redirects=True) as client,
    ):
        with pytest.raises(StatusError, match="not followed"):
            await make(client).open(ask(server.url, body={"a": 1}))
        assert other.requests == []


# -- codings -------------------------------------------------------------------------------------------------


def packed(coding: str, *pieces: bytes) -> list[Step]:
    start = head(content_type="text/event-stream", content_encoding=coding, transfer_encoding="chunked")
    return [Send(start), *(Send(chunked(piece)) for piece in pieces)]


def flushed_gzip(events: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    return [*(packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events), packer.flush()]


async def test_a_packed_body_is_unpacked_as_it_comes(make: Any) -> None:
    handed = b""
    async with ScriptedServer([[*packed("gzip", *flushed_gzip(EVENTS)[:-1]), Stall()]]) as server, make() as source:
        opened = await source.open(ask(server.url))
        assert opened.head.encoding == "gzip"
        while handed != TEXT:
            handed += b"".join(await opened.receive())
        await opened.aclose()


@pytest.mark.parametrize(
    ("ending", "kind"),
    [([Send(LAST_CHUNK)], Truncated), ([Close()], StreamBroken), ([Pause(0.01), Reset()], StreamBroken)],
)
async def test_a_packed_body_cut_short_is_no_clean_end(make: Any, ending: list[Step], kind: type[Exception]) -> None:
    data, end = await fetch(make, [*packed("gzip", *flushed_gzip(EVENTS)[:-1]), *ending])
    assert data == TEXT
    assert type(end) is kind


async def test_a_coding_nobody_knows_is_an_error_and_closes(make: Any) -> None:
    async with ScriptedServer([[*packed("compress", b"x"), Stall()]]) as server, make() as source:
        with pytest.raises(DecodeError, match="compress"):
            await source.open(ask(server.url))
        assert await server.all_closed()


# -- HTTP/2 --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over_h2(library: Any, *parts: Part) -> AsyncIterator[tuple[H2Server, Any]]:
    async with H2Server(*parts) as server, library.AsyncHTTPTransport(http1=False, http2=True) as transport:
        yield server, BOTH[library](transport=transport)


async def test_speaks_http2(library: Any) -> None:
    async with over_h2(library, *EVENTS, "end") as (server, source):
        for data, end in await asyncio.gather(*(once(source, server.url, body={}) for _ in range(20))):
            assert (data, type(end)) == (TEXT, EndOfStream)
        assert server.accepted == 1


@pytest.mark.parametrize("cut", ["reset", "goaway", "break"])
async def test_a_cut_of_http2_delivers_what_came_before(library: Any, cut: Any) -> None:
    async with over_h2(library, *EVENTS, cut, "stall") as (server, source):
        data, end = await once(source, server.url, body={})
    assert data == TEXT
    assert type(end) is StreamBroken


async def test_a_stream_of_http2_that_is_given_up_leaves_the_others_alone(library: Any) -> None:
    async with over_h2(library, *EVENTS, "end") as (server, source):
        others = [asyncio.ensure_future(once(source, server.url, body={})) for _ in range(3)]
        given_up = await source.open(ask(server.url, body={}))
        await given_up.receive()
        await given_up.aclose()
        for data, end in await asyncio.gather(*others):
            assert (data, type(end)) == (TEXT, EndOfStream)


async def test_keeps_the_contract_over_http2(library: Any, make: Any) -> None:
    transport = library.AsyncHTTPTransport(http1=False, http2=True)
    async with H2Server(*EVENTS[:2], "end") as server, transport:
        await check_source(
            lambda: make(transport=transport),
            expected=EVENTS[:2],
            fails=False,
            request=Request(url=server.url, body={}),
            opened=lambda: len(transport._pool._requests),
        )
