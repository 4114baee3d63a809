"""The default source on real sockets: every failure typed, every byte delivered, every connection accounted for."""

import asyncio
import contextlib
import errno
import gc
import gzip
import importlib
import socket
import ssl
import time
import traceback
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import trustme

from holdfast._core import Call, Stream
from holdfast._errors import (
    ConnectError,
    DecodeError,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UsageError,
)
from holdfast._types import Request
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import cause
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.testing.background import in_background
from holdfast.testing.contract import check_source
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Drip,
    Pause,
    ReceivedRequest,
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

brotli: Any = importlib.import_module("brotli")

EVENTS = [sse(f"event {n} 你好") for n in range(5)]
TEXT = b"".join(EVENTS)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


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


async def fetch(script: list[Step]) -> tuple[bytes, Exception]:
    """Opens, reads to the end and closes."""
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream = await source.open(ask(server.url))
        try:
            return await read(stream)
        finally:
            await stream.aclose()
            await stream.aclose()


# -- a healthy stream ------------------------------------------------------------------------------


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
async def test_delivers_every_byte(script: list[Step]) -> None:
    data, end = await fetch(script)
    assert data == TEXT
    assert isinstance(end, EndOfStream)


@pytest.mark.parametrize("script", [respond(), [Send(head(204))], [Send(STREAM_HEAD + LAST_CHUNK)]])
async def test_no_body_is_a_clean_end(script: list[Step]) -> None:
    data, end = await fetch(script)
    assert data == b""
    assert isinstance(end, EndOfStream)


async def test_hands_over_what_is_ready() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD + chunked(b"first")), Stall()]]) as server, AiohttpSource() as source:
        stream = await source.open(ask(server.url))
        assert await stream.receive() == (b"first",)
        await stream.aclose()
        assert await server.all_closed()


async def test_sends_what_a_stream_needs() -> None:
    async with ScriptedServer([respond()]) as server, AiohttpSource() as source:
        for settings in (
            {"body": {"q": "你"}},
            {"body": {"q": 1}, "headers": {"ACCEPT": "a/b", "accept-encoding": "br", "content-type": "x/y"}},
            {"body": b"\x00raw"},
            {"method": "GET"},
        ):
            await (await source.open(ask(f"{server.url}/v1?k=v", **settings))).aclose()
    first, second, third, fourth = server.requests
    assert (first.method, first.path, first.body) == ("POST", "/v1?k=v", '{"q":"你"}'.encode())
    assert first.headers["content-type"] == "application/json"
    assert first.headers["accept"] == "text/event-stream"
    assert first.headers["accept-encoding"] == "identity"
    assert "cookie" not in first.headers
    assert [second.headers[n] for n in ("accept", "accept-encoding", "content-type")] == ["a/b", "br", "x/y"]
    assert third.body == b"\x00raw"
    assert "content-type" not in third.headers
    assert (fourth.method, fourth.body) == ("GET", b"")


async def test_a_large_body_is_sent_whole_and_framed_by_its_length() -> None:
    body = bytes(range(256)) * 10_000
    async with ScriptedServer([respond()]) as server, AiohttpSource() as source:
        await (await source.open(ask(server.url, body=body))).aclose()
    assert server.requests[0].body == body
    assert server.requests[0].headers["content-length"] == str(len(body))
    assert "content-type" not in server.requests[0].headers


async def test_the_head_is_lower_case_and_joined() -> None:
    script: list[Step] = [
        Send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Type: Text/X; y\r\nContent-Length: 0\r\n\r\n")
    ]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream = await source.open(ask(f"{server.url}/p"))
        assert stream.head.headers == {"x-a": "1, 2", "content-type": "Text/X; y", "content-length": "0"}
        assert stream.head.content_type == "text/x"
        assert (stream.head.status, stream.head.url, stream.head.encoding) == (200, f"{server.url}/p", "identity")
        await stream.aclose()


# -- connections -------------------------------------------------------------------------------------


async def test_a_connection_read_to_the_end_is_used_again() -> None:
    async with ScriptedServer([stream(*EVENTS)]) as server, AiohttpSource() as source:
        for _ in range(3):
            stream_ = await source.open(ask(server.url))
            await read(stream_)
            await stream_.aclose()
        assert server.accepted == 1
        assert server.open_connections == 1
        await source.aclose()
        assert await server.all_closed()


async def test_a_connection_given_up_is_closed() -> None:
    script: list[Step] = [Send(STREAM_HEAD), Repeat(chunked(bytes(100_000)), every=0)]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        for reads in range(3):
            stream_ = await source.open(ask(server.url))
            for _ in range(reads):
                await stream_.receive()
            await stream_.aclose()
            with pytest.raises(UsageError, match="closed"):
                await stream_.receive()
            assert await server.all_closed()
        assert server.accepted == 3


async def test_a_big_request_that_nobody_reads_does_not_hold_the_connection() -> None:
    """What is unsent when a stream is given up is not sent any more."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with AiohttpSource() as source:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            opening = asyncio.create_task(source.open(ask(url, body=bytes(20_000_000))))
            peer, _ = await loop.sock_accept(listener)
            with peer:
                await loop.sock_sendall(peer, STREAM_HEAD)
                await (await opening).aclose()
                received = 0
                with contextlib.suppress(ConnectionResetError):
                    while data := await loop.sock_recv(peer, 1_000_000):
                        received += len(data)
        assert received < 20_000_000


async def test_one_reader_at_a_time() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Stall()]]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        reader = asyncio.create_task(stream_.receive())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="a reader already"):
            await stream_.receive()
        await stream_.aclose()
        with pytest.raises(UsageError, match="closed"):  # a reader that still waits is told
            await reader


async def test_closing_the_source_ends_its_streams() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Stall()]]) as server:
        source = AiohttpSource()
        stream_ = await source.open(ask(server.url))
        reader = asyncio.create_task(stream_.receive())
        await asyncio.sleep(0.01)
        await source.aclose()
        await source.aclose()
        with pytest.raises(UsageError):
            await reader
        with pytest.raises(UsageError, match="this source is closed"):
            await source.open(ask(server.url))
        assert await server.all_closed()


async def test_a_borrowed_session_is_used_as_it_is_and_stays_open() -> None:
    timeout = aiohttp.ClientTimeout(total=0.05, sock_read=0.05)
    script: list[Step] = [Pause(0.08), Send(STREAM_HEAD + chunked(b"a")), Pause(0.08), Send(chunked(b"b") + LAST_CHUNK)]
    async with (
        ScriptedServer([script, respond(b"no", status=500)]) as server,
        aiohttp.ClientSession(
            timeout=timeout, raise_for_status=True, headers={"Accept": "x/y", "X-Team": "t"}
        ) as session,
    ):
        async with AiohttpSource(session) as source:
            stream_ = await source.open(ask(server.url))
            assert (await read(stream_))[0] == b"ab"
            await stream_.aclose()
            with pytest.raises(StatusError):
                await source.open(ask(server.url))
        assert not session.closed
        assert server.requests[0].headers["accept"] == "x/y"
        assert server.requests[0].headers["x-team"] == "t"
        await session.close()
        with pytest.raises(UsageError, match="is closed"):
            await AiohttpSource(session).open(ask(server.url))


async def test_a_borrowed_session_closed_under_a_reader_does_not_leave_it_waiting() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Stall()]]) as server, aiohttp.ClientSession() as session:
        stream_ = await AiohttpSource(session).open(ask(server.url))
        reader = asyncio.create_task(stream_.receive())
        await asyncio.sleep(0.01)
        await session.close()
        with pytest.raises(StreamBroken):
            await reader
        await stream_.aclose()


async def _once(source: AiohttpSource, url: str) -> bytes:
    stream_ = await source.open(ask(url))
    data, _ = await read(stream_)
    await stream_.aclose()
    return data


def none_open(server: ScriptedServer) -> bool:
    """Waits for a server that runs in another thread."""
    until = time.monotonic() + 10
    while server.open_connections and time.monotonic() < until:
        time.sleep(0.001)
    return not server.open_connections


def test_a_source_that_nobody_closed_is_closed_with_its_event_loop() -> None:
    """Transports that outlive their loop can be closed by nobody: they would warn when they are collected."""
    with in_background(ScriptedServer([stream(*EVENTS)])) as server:
        source = AiohttpSource()
        for run in (1, 2):
            assert asyncio.run(_once(source, server.url)) == TEXT
            assert none_open(server)
            assert server.accepted == run
        asyncio.run(source.aclose())
        gc.collect()


async def test_a_source_that_nobody_closed_lives_as_long_as_its_last_stream() -> None:
    async with ScriptedServer([[Send(STREAM_HEAD), Pause(0.01), Send(chunked(TEXT) + LAST_CHUNK)]]) as server:
        stream_ = await AiohttpSource().open(ask(server.url))
        gc.collect()
        assert await stream_.receive() == (TEXT,)
        await stream_.aclose()
        assert server.open_connections == 1  # the body was whole: it waits in the pool
        del stream_
        assert await server.all_closed()


def test_a_source_outlives_its_event_loop_and_never_shares_it() -> None:
    source = AiohttpSource()

    async def once() -> bytes:
        async with ScriptedServer([[*respond(TEXT), Close()]]) as server:
            stream_ = await source.open(ask(server.url))
            data, _ = await read(stream_)
            await stream_.aclose()
            await asyncio.sleep(0.01)
            return data

    assert asyncio.run(once()) == TEXT
    assert asyncio.run(once()) == TEXT
    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(once()) == TEXT
        with pytest.raises(UsageError, match="another event loop"):
            second.run(once())
        first.run(source.aclose())


def dies_when_used_again() -> Callable[[ReceivedRequest], list[Step]]:
    seen: set[int] = set()

    def reply(request: ReceivedRequest) -> list[Step]:
        known = request.port in seen
        seen.add(request.port)
        return [Reset()] if known else stream(*EVENTS)

    return reply


async def test_after_a_connection_of_the_pool_died_the_next_request_gets_a_new_one() -> None:
    async with ScriptedServer(dies_when_used_again()) as server, AiohttpSource() as source:
        for one in await asyncio.gather(*(source.open(ask(server.url)) for _ in range(5))):
            await read(one)
            await one.aclose()
        assert server.open_connections == 5
        with pytest.raises(ConnectError) as caught:
            await source.open(ask(server.url))
        assert caught.value.retryable
        assert await _once(source, server.url) == TEXT
        assert (len(server.requests), server.accepted) == (7, 6)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_sent_once_and_no_more(method: str) -> None:
    async with ScriptedServer(dies_when_used_again()) as server, AiohttpSource() as source:
        assert await _once(source, server.url) == TEXT
        with pytest.raises(ConnectError):
            await source.open(ask(server.url, method=method))
        assert len(server.requests) == 2


# -- cuts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        [Send(STREAM_HEAD + chunked(TEXT)), Reset()],
        [Send(STREAM_HEAD + chunked(TEXT)), Close()],
        [Send(STREAM_HEAD + chunked(TEXT + b"xyz")[:-5]), Close()],
        [Send(STREAM_HEAD + chunked(TEXT + b"xyz")[:-5]), Reset()],
        [Send(STREAM_HEAD), Pause(0.01), Send(chunked(TEXT) + b"zz\r\nnot a chunk")],
        [Send(head(content_length=len(TEXT) + 10) + TEXT), Close()],
        [Send(head(content_length=len(TEXT) + 10) + TEXT), Reset()],
    ],
    ids=[
        "reset",
        "no last chunk",
        "FIN in a chunk",
        "RST in a chunk",
        "bad chunk",
        "FIN before length",
        "RST before length",
    ],
)
async def test_what_arrived_before_a_cut_is_delivered_before_the_failure(script: list[Step]) -> None:
    data, end = await fetch(script)
    assert data.startswith(TEXT)
    assert type(end) is StreamBroken
    assert end.retryable
    assert end.__cause__ is not None
    assert "127.0.0.1" in str(end)
    assert "event" not in str(end)


async def test_broken_framing_in_the_read_that_brought_the_head_is_an_error() -> None:
    """aiohttp keeps nothing of such a read, not even the head."""
    async with ScriptedServer([[Send(STREAM_HEAD + chunked(TEXT) + b"zz\r\n")]]) as server, AiohttpSource() as source:
        with pytest.raises(ConnectError, match="not HTTP"):
            await source.open(ask(server.url))


async def test_bytes_kept_privately_by_aiohttp_are_not_needed() -> None:
    """An aiohttp without the private buffer loses what it loses, and the failure is the same."""
    script: list[Step] = [Send(STREAM_HEAD + chunked(b"x")), Pause(0.01), Reset()]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        content = stream_._content
        stream_._content = _Bare(content)  # type: ignore[assignment]  # a reader with a public face only
        assert (await stream_.receive())[0] == b"x"
        with pytest.raises(StreamBroken):
            await stream_.receive()
        await stream_.aclose()


class _Bare:
    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.readany = content.readany


# -- no head ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([Reset()], "the connection was lost"),
        ([Close()], "the server hung up"),
        ([Send(b"HTTP/1.1 200 OK\r\nContent-"), Close()], "hung up"),
        ([Send(b"HTTP/1.1 200 OK\r\nContent-"), Reset()], "lost"),
        ([Send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), Stall()], "not HTTP"),
    ],
)
async def test_a_connection_that_dies_before_the_head_is_a_connect_error(script: list[Step], says: str) -> None:
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        with pytest.raises(ConnectError, match=says) as caught:
            await source.open(ask(f"{server.url}/secret?key=secret", headers={"X": "secret"}))
        assert caught.value.retryable
        assert caught.value.__cause__ is not None
        assert str(caught.value).startswith(f"127.0.0.1:{server.port}: ")
        assert "secret" not in str(caught.value)
        assert await server.all_closed()


async def test_nobody_listens() -> None:
    async with ScriptedServer([respond()]) as server:
        url = server.url
    async with AiohttpSource() as source:
        with pytest.raises(ConnectError, match="refused") as caught:
            await source.open(ask(url))
    assert caught.value.retryable


async def test_a_name_that_does_not_resolve() -> None:
    async with AiohttpSource() as source:
        with pytest.raises(ConnectError, match=r"no\.such\.invalid: its name does not resolve") as caught:
            await source.open(ask("http://user:pw@no.such.invalid/"))
    assert caught.value.retryable


async def test_connecting_takes_too_long() -> None:
    full = aiohttp.TCPConnector(limit=1)
    script: list[Step] = [Send(STREAM_HEAD), Stall()]
    async with ScriptedServer([script]) as server, aiohttp.ClientSession(connector=full) as session:
        source = AiohttpSource(session, connect_timeout=0.02)
        first = await source.open(ask(server.url))
        with pytest.raises(ConnectError, match="connect_timeout") as caught:
            await source.open(ask(server.url))  # no place in the pool
        assert caught.value.retryable
        await first.aclose()


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/", "http://", "127.0.0.1:80/v1", "http://[::1/"])
async def test_a_url_that_cannot_be_asked_is_a_usage_error(url: str) -> None:
    async with AiohttpSource() as source:
        with pytest.raises(UsageError):
            await source.open(ask(url))


async def test_a_request_that_cannot_be_written_is_a_usage_error() -> None:
    async with ScriptedServer([respond()]) as server, AiohttpSource() as source:
        with pytest.raises(UsageError, match="JSON"):
            await source.open(ask(server.url, body={"a": object()}))
        with pytest.raises(UsageError, match="cannot send"):
            await source.open(ask(server.url, headers={"X": "a\r\nY: secret"}))
        assert server.requests == []


@pytest.mark.parametrize(
    "settings", [{"connect_timeout": 0}, {"connect_timeout": float("nan")}, {"max_error_body": -1}]
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        AiohttpSource(**settings)


# -- what errors hold --------------------------------------------------------------------------------


def printed(error: BaseException) -> str:
    """Everything that anybody could print of an error and of all that hangs on it."""
    told = "".join(traceback.format_exception(error))
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None:
            told += f"{one!r} {one} {one.args!r} {getattr(one, '__notes__', '')}"
            left += [one.__cause__, one.__context__]
    return told


@pytest.mark.parametrize(
    "script",
    [
        [Send(b"secret not http\r\n\r\n"), Stall()],
        [Send(b"HTTP/1.1 200 OK\r\nBad secret header\r\n\r\n"), Stall()],
        [Send(STREAM_HEAD + chunked(TEXT) + b"secret\r\n"), Stall()],
        [Send(STREAM_HEAD), Pause(0.01), Send(chunked(TEXT) + b"secret\r\n"), Stall()],
        [Send(head(content_length=1000) + b"secret"), Close()],
        [Send(head(content_length=1000) + b"secret"), Reset()],
        [Send(head(content_length=6, content_encoding="gzip") + b"secret")],
        [Close()],
        [Reset()],
    ],
    ids=["no http", "header", "chunk at once", "chunk later", "FIN", "RST", "coding", "hung up", "reset"],
)
async def test_an_error_holds_neither_key_nor_answer_wherever_it_is_looked_into(script: list[Step]) -> None:
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        request = ask(f"{server.url}/v1?key=secret", headers={"Authorization": "Bearer secret"}, body={"q": "secret"})
        failure: Exception
        try:
            failure = (await read(await source.open(request)))[1]
        except StreamError as refused:
            failure = refused
        assert isinstance(failure, StreamError)
        assert "secret" not in printed(failure)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://user:secret@127.0.0.1/?key=secret"},
        {"url": "http://[secret"},
        {"headers": {"X": "a\r\nY: secret"}},
        {"body": {"q": "secret \ud800"}},
    ],
)
async def test_a_mistake_that_is_told_does_not_quote_the_request(settings: dict[str, Any]) -> None:
    async with ScriptedServer([respond()]) as server, AiohttpSource() as source:
        with pytest.raises(UsageError) as caught:
            await source.open(ask(**{"url": server.url, **settings}))
        assert "secret" not in printed(caught.value)


async def test_a_proxys_password_stays_out_of_errors(environment: Callable[[str, str], None]) -> None:
    async with ScriptedServer([respond(status=407)]) as proxy, AiohttpSource() as source:
        for port in (proxy.port, 9):
            environment("https_proxy", f"http://user:secret@127.0.0.1:{port}")
            with pytest.raises(ConnectError) as caught:
                await source.open(ask("https://upstream.invalid/v1"))
            assert "secret" not in printed(caught.value)


async def test_the_cause_names_the_classes_and_the_errno_of_the_original() -> None:
    async with ScriptedServer([[Reset()]]) as server, AiohttpSource() as source:
        with pytest.raises(ConnectError) as caught:
            await source.open(ask(server.url))
    cause = caught.value.__cause__
    assert isinstance(cause, ForeignError)
    assert (cause.kind, cause.errno) == ("ClientOSError", errno.ECONNRESET)
    assert str(cause).startswith("ClientOSError from ConnectionResetError: ")


# -- TLS ---------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def test_speaks_tls(authority: trustme.CA) -> None:
    scripts: list[list[Step]] = [stream(*EVENTS), [Send(STREAM_HEAD + chunked(TEXT)), Reset()]]
    async with (
        ScriptedServer(scripts, tls=server_side(authority, "127.0.0.1")) as server,
        trusting(authority) as session,
    ):
        source = AiohttpSource(session)
        for kind in (EndOfStream, StreamBroken):
            stream_ = await source.open(ask(server.url))
            data, end = await read(stream_)
            await stream_.aclose()
            assert data == TEXT
            assert type(end) is kind


async def test_a_certificate_that_is_not_trusted_is_not_retryable(authority: trustme.CA) -> None:
    async with ScriptedServer([respond()], tls=server_side(authority, "other.example")) as server:
        async with AiohttpSource() as source, trusting(authority) as session:
            for one, says in ((source, "self-signed|issuer"), (AiohttpSource(session), "mismatch")):
                with pytest.raises(ConnectError, match=rf"certificate is not trusted \(.*({says})") as caught:
                    await one.open(ask(server.url))
                assert not caught.value.retryable
        assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"session": "s"}, "session= takes an aiohttp.ClientSession, not 's'"),
        ({"connect_timeout": "30"}, "connect_timeout must be a number of seconds above 0, not '30'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ValueError), match=words):
        AiohttpSource(**settings)


async def test_plain_text_where_tls_was_expected() -> None:
    async with ScriptedServer([respond()]) as server, AiohttpSource(connect_timeout=0.1) as source:
        with pytest.raises(ConnectError, match=r"(TLS failed|connect_timeout).*; the url says https") as caught:
            await source.open(ask(server.url.replace("http:", "https:")))
    assert "Cancelled" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "url", "words"),
    [
        (TimeoutError(), "https://host/v1", " (TimeoutError); the url says https: does that port speak TLS?"),
        (TimeoutError(), "http://host/v1", " (TimeoutError)"),
        (TimeoutError(), "", " (TimeoutError)"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), "https://host/v1", " (Connection refused)"),
    ],
)
def test_https_is_named_where_it_may_be_the_cause(error: Exception, url: str, words: str) -> None:
    error.__cause__ = asyncio.CancelledError()
    assert cause(error, url) == words


# -- refused -----------------------------------------------------------------------------------------


async def test_another_status_is_an_error_with_the_body_and_without_quoting_it() -> None:
    script = respond(b'{"error": "secret"}', status=429, retry_after="2", x_should_retry="false")
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        for _ in range(2):
            with pytest.raises(StatusError, match="429 Too Many Requests") as caught:
                await source.open(ask(server.url))
        assert server.accepted == 1  # a body read to its end gives its connection back
    error = caught.value
    assert (error.status, error.body, error.retry_after) == (429, b'{"error": "secret"}', 2.0)
    assert not error.retryable
    assert "secret" not in str(error)


async def test_an_endless_error_body_is_bounded() -> None:
    script: list[Step] = [Send(head(500, content_type="text/html")), Repeat(bytes(1_000_000), every=0)]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
        assert len(caught.value.body) == 65_536
        assert await server.all_closed()


async def test_a_packed_error_body_is_bounded_after_unpacking() -> None:
    script = respond(gzip.compress(bytes(10_000_000)), status=400, content_encoding="gzip")
    async with ScriptedServer([script]) as server, AiohttpSource(max_error_body=100) as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
        assert caught.value.body == bytes(100)


@pytest.mark.parametrize(
    "tail",
    [
        [Send(head(503, content_length=10) + b"half"), Reset()],
        [Send(head(503, content_length=10, content_encoding="compress") + b"half"), Reset()],
    ],
)
async def test_an_error_body_that_breaks_is_still_a_status_error(tail: list[Step]) -> None:
    async with ScriptedServer([tail]) as server, AiohttpSource() as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
        assert b"half".startswith(caught.value.body)


async def test_an_error_body_that_stalls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.sources._http.ERROR_BODY_SECONDS", 0.01)
    script: list[Step] = [Send(head(503, content_length=10) + b"half"), Stall()]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        with pytest.raises(StatusError) as caught:
            await source.open(ask(server.url))
        assert caught.value.body == b"half"
        assert await server.all_closed()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with ScriptedServer([respond(b"stolen")]) as other:
        script = respond(status=status, location=other.url)
        async with ScriptedServer([script]) as server, AiohttpSource() as source:
            with pytest.raises(StatusError, match="not followed") as caught:
                await source.open(ask(server.url, headers={"Authorization": "Bearer key"}, body={"a": 1}))
            assert not caught.value.retryable
        assert other.requests == []


# -- codings -------------------------------------------------------------------------------------------


def flushed_gzip(events: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    return [*(packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events), packer.flush()]


def packed(coding: str, *pieces: bytes) -> list[Step]:
    start = head(content_type="text/event-stream", content_encoding=coding, transfer_encoding="chunked")
    return [Send(start), *(Send(chunked(piece)) for piece in pieces)]


async def test_a_packed_body_is_unpacked_as_it_comes() -> None:
    pieces = flushed_gzip(EVENTS)
    handed: list[bytes] = []
    async with ScriptedServer([[*packed("gzip", *pieces[:-1]), Stall()]]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        assert stream_.head.encoding == "gzip"
        while b"".join(handed) != TEXT:
            handed += await stream_.receive()
        await stream_.aclose()
    data, end = await fetch([*packed("gzip, br", brotli.compress(b"".join(pieces))), Send(LAST_CHUNK)])
    assert (data, type(end)) == (TEXT, EndOfStream)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [([Send(LAST_CHUNK)], Truncated), ([Close()], StreamBroken), ([Reset()], StreamBroken)],
)
async def test_a_packed_body_cut_short_is_no_clean_end(ending: list[Step], kind: type[Exception]) -> None:
    data, end = await fetch([*packed("gzip", *flushed_gzip(EVENTS)[:-1]), *ending])
    assert data == TEXT
    assert type(end) is kind


async def test_a_packed_body_that_is_corrupt() -> None:
    bad = bytearray(gzip.compress(TEXT))
    bad[-6] ^= 1
    data, end = await fetch([*packed("gzip", bytes(bad)), Send(LAST_CHUNK)])
    assert TEXT.startswith(data)
    assert isinstance(end, DecodeError)


async def test_a_coding_nobody_knows_is_an_error_and_closes() -> None:
    async with ScriptedServer([[*packed("compress", b"x"), Stall()]]) as server, AiohttpSource() as source:
        with pytest.raises(DecodeError, match="compress"):
            await source.open(ask(server.url))
        assert await server.all_closed()


async def test_a_bomb_is_handed_over_in_bounded_pieces_though_the_line_is_cut() -> None:
    script = [*packed("gzip", gzip.compress(bytes(20_000_000))), Reset()]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        total = longest = 0
        with pytest.raises(StreamBroken):  # noqa: PT012 - after everything
            while True:
                piece = (await stream_.receive())[0]
                total, longest = total + len(piece), max(longest, len(piece))
        await stream_.aclose()
    assert total == 20_000_000
    assert longest <= 65_536


async def test_a_bomb_does_not_keep_the_event_loop_to_itself() -> None:
    """One read of the wire inflates to 300 pieces; between any two of them whoever else is waiting runs."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    script = [*packed("gzip", gzip.compress(bytes(20_000_000))), Send(LAST_CHUNK)]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        await stream_.receive()
        task = asyncio.create_task(others())
        longest = 0
        with pytest.raises(EndOfStream):  # noqa: PT012 - turns are counted around every read
            while True:
                before = turns
                await stream_.receive()
                longest = longest + 1 if turns == before else 0
                assert longest < 2
        task.cancel()
        await stream_.aclose()
    assert turns > 250


@pytest.mark.parametrize("ending", [[Send(LAST_CHUNK)], [Reset()]])
async def test_a_body_coded_of_nothing_does_not_keep_the_event_loop_to_itself(ending: list[Step]) -> None:
    wire = gzip.compress(gzip.compress(b"") * 200_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with ScriptedServer([[*packed("gzip, gzip", wire), *ending]]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        task = asyncio.create_task(others())
        data, end = await read(stream_)
        task.cancel()
        await stream_.aclose()
    assert (data, type(end)) == (b"", EndOfStream if ending == [Send(LAST_CHUNK)] else StreamBroken)
    assert turns > 50


async def test_a_cancellation_between_two_pieces_of_a_read_loses_nothing() -> None:
    body = bytes(range(256)) * 4_000
    script = [*packed("gzip", gzip.compress(body)), Send(LAST_CHUNK)]
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        stream_ = await source.open(ask(server.url))
        data, cancelled = bytearray(), 0
        with pytest.raises(EndOfStream):  # noqa: PT012 - cancelled at the first await of every read
            while True:
                reader = asyncio.ensure_future(stream_.receive())
                asyncio.get_running_loop().call_soon(reader.cancel)
                try:
                    data += (await reader)[0]
                except asyncio.CancelledError:
                    cancelled += 1
                    data += (await stream_.receive())[0]
        await stream_.aclose()
    assert data == body
    assert cancelled > 5


# -- proxies ---------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    return monkeypatch.setenv


async def test_a_proxy_of_the_environment_is_used_unless_told_not_to(environment: Callable[[str, str], None]) -> None:
    async with ScriptedServer([respond(b"proxied")]) as proxy, ScriptedServer([respond(b"direct")]) as server:
        environment("http_proxy", f"http://u:p@127.0.0.1:{proxy.port}")
        for source in (AiohttpSource(), AiohttpSource(trust_env=False)):
            async with source:
                stream_ = await source.open(ask("http://upstream.invalid/v1" if source._trust_env else server.url))
                assert (await read(stream_))[0] == (b"proxied" if source._trust_env else b"direct")
                await stream_.aclose()
        environment("no_proxy", "127.0.0.1")
        async with AiohttpSource() as source:
            stream_ = await source.open(ask(server.url))
            assert (await read(stream_))[0] == b"direct"
            await stream_.aclose()
    assert proxy.requests[0].path == "http://upstream.invalid/v1"
    assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")
    assert len(proxy.requests) == 1


async def test_a_proxy_that_refuses_or_is_not_there(environment: Callable[[str, str], None]) -> None:
    async with ScriptedServer([respond(status=407), respond(status=503)]) as proxy, AiohttpSource() as source:
        environment("https_proxy", f"127.0.0.1:{proxy.port}")
        for status, again in ((407, False), (503, True)):
            with pytest.raises(ConnectError, match=f"the proxy answered {status}") as caught:
                await source.open(ask("https://upstream.invalid/v1"))
            assert caught.value.retryable is again
        assert proxy.requests[0].method == "CONNECT"
    async with AiohttpSource() as source:
        with pytest.raises(ConnectError, match="the proxy cannot be reached"):
            await source.open(ask("https://upstream.invalid/v1"))


async def test_a_netrc_file_does_not_get_in_the_way(environment: Callable[[str, str], None], tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("default login a password b\n")
    environment("NETRC", str(tmp_path / "netrc"))
    async with ScriptedServer([respond()]) as server, AiohttpSource() as source:
        await (await source.open(ask(server.url, headers={"Authorization": "Bearer key"}))).aclose()
    assert server.requests[0].headers["authorization"] == "Bearer key"


# -- cancelling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [stream(*EVENTS), [Pause(0.002), *respond(b"refused", status=500)], packed("gzip", *flushed_gzip(EVENTS))],
)
async def test_cancelled_anywhere_no_connection_is_left(script: list[Step]) -> None:
    async with ScriptedServer([[*script, Close()]]) as server, AiohttpSource() as source:

        async def scenario() -> None:
            try:
                stream_ = await source.open(ask(server.url, body={"a": 1}))
            except StreamError:
                return
            try:
                await read(stream_)
            finally:
                await stream_.aclose()

        async def check() -> None:
            assert await server.all_closed()

        ticks = await cancel_everywhere(scenario, check=check)
        assert ticks > 5


@pytest.mark.parametrize(
    ("script", "expected", "fails"),
    [
        ([*stream(*EVENTS), Close()], EVENTS, False),
        ([Send(STREAM_HEAD + chunked(TEXT)), Reset()], EVENTS, True),
        ([*packed("gzip", *flushed_gzip(EVENTS)), Send(LAST_CHUNK), Close()], EVENTS, False),
        ([*respond(status=503), Close()], None, None),
    ],
)
async def test_keeps_the_contract(script: list[Step], expected: list[bytes] | None, fails: Any) -> None:
    async with ScriptedServer([script]) as server, AiohttpSource() as source:
        await check_source(
            lambda: source,
            expected=expected,
            fails=fails,
            request=Request(url=server.url),
            opened=lambda: server.open_connections,
            settle=1.0,
        )


async def test_a_connection_that_is_reset_as_its_stream_is_closed_dies_in_silence() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with ScriptedServer([[Send(STREAM_HEAD), Send(chunked(TEXT)), Stall()]]) as server, AiohttpSource() as source:
        opened = await source.open(ask(server.url))
        assert await opened.receive() == (TEXT,)
        connection = opened._response.connection
        assert connection is not None
        transport: Any = connection.transport
        transport._force_close(ConnectionResetError(104, "reset by peer"))  # what the loop does when a RST is read
        await opened.aclose()  # the reader has had enough before the loop tells of it
        assert await server.all_closed()
        del opened, connection, transport
        gc.collect()
    assert said == []


async def test_a_connection_that_dies_in_the_pool_dies_in_silence() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with ScriptedServer(dies_when_used_again()) as server, AiohttpSource() as source:
        assert await _once(source, server.url) == TEXT
        with pytest.raises(ConnectError):
            await source.open(ask(server.url))
        assert await _once(source, server.url) == TEXT
        idle = next(iter(server._connections))
        idle.abort()
        assert await server.all_closed()
        await asyncio.sleep(0.01)
    gc.collect()
    assert said == []
