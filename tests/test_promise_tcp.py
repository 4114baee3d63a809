"""The promise over real TCP, one row a scenario: the exact text once, or the typed error that names what happened.

Each row says what a bad attempt gets on the wire. A row is played `once` (the second attempt is healthy) and `always`;
the server counts the requests, and afterwards it has no connection but a pooled one. No row waits: jitter is drawn as
nought, so tries follow each other at once.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, Literal, get_args

import httpx
import httpx2
import pytest

from holdfast._core import Source
from holdfast._errors import (
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    IntegrityError,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._reader import Reader
from holdfast._types import Delta
from holdfast.client import Client
from holdfast.dialects import Timeouts
from holdfast.moments import Moment, Retrying
from holdfast.sources.httpx import Httpx2Source, HttpxSource
from holdfast.testing import FakeClock
from holdfast.testing import faults as f
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Drip,
    Repeat,
    Reply,
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
from tests.properties.profile import DEEP

PIECES = ("潮", "起潮落", " 🌊", " and", " the", " kelp", " holds", ".")
TEXT = "".join(PIECES)
USAGE = {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
DONE = b"data: [DONE]\n\n"
CUT = 5
"""Events that arrive before a cut: the role and four pieces."""


class Nought:
    """Chance without chance: full jitter of it waits 0 s."""

    def random(self) -> float:
        return 0.0


def chunk(delta: dict[str, Any], *, finish: str | None = None, index: int = 0, answer: str = "a1") -> dict[str, Any]:
    return {"id": answer, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def events(*chunks: dict[str, Any], ids: bool = False, eol: str = "\n") -> list[bytes]:
    """Makes the events of an answer, `[DONE]` the last."""
    texts = [json.dumps(made, ensure_ascii=False) for made in chunks]
    return [*(sse(t, id=str(n) if ids else None, eol=eol) for n, t in enumerate(texts, 1)), sse("[DONE]", eol=eol)]


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": piece}) for piece in PIECES),
    {**chunk({"content": ""}, finish="stop"), "usage": USAGE},
]
EVENTS = events(*CHUNKS)
NUMBERED = events(*CHUNKS, ids=True)
BODY = b"".join(EVENTS)


def begun(*more: Step, sent: Iterable[bytes] = EVENTS[:CUT]) -> list[Step]:
    """A stream that begins well, and goes on with other steps."""
    return [Send(STREAM_HEAD), *(Send(chunked(event)) for event in sent), *more]


def plain(*body: bytes, **headers: str | int) -> list[Step]:
    """A body without chunks, one write a piece, with exactly these headers; then the connection is closed."""
    return [Send(head(200, content_type="text/event-stream", connection="close", **headers)), *map(Send, body), Close()]


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def error_event(code: str) -> bytes:
    return sse(json.dumps({"error": {"message": "no", "type": code, "code": code}}))


def error_body(code: str) -> bytes:
    return json.dumps({"error": {"message": "no", "type": code, "code": code}}).encode()


def endless_line() -> Iterator[Step]:
    """A line of 12 MiB without an end."""
    piece = Send(chunked(b"x" * 65_536))
    yield Send(STREAM_HEAD)
    yield Send(chunked(b"data: "))
    for _ in range(192):
        yield piece
    yield Stall()


@dataclass(slots=True, frozen=True, kw_only=True)
class Row:
    """One scenario.

    `once` and `always` are the requests that each play takes; `error` is what the persistent one ends in, None where
    the answer is exact all the same. `error_once`: the transient one ends in it as well, no try being made.
    """

    name: str
    reply: Callable[[], Reply]
    once: int = 1
    always: int = 1
    error: type[StreamError] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    text: str = TEXT
    report: dict[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts(open=10, first_token=10, progress=10)  # noqa: RUF009 - it is frozen


SHORT = 0.6  # so long must a busy machine not stand still


def early(name: str, reply: Reply, error: type[StreamError], **more: Any) -> Row:
    """A fault before the first item: tried again up to four times."""
    return Row(name=name, reply=lambda: reply, once=2, always=4, error=error, **more)


def late(name: str, reply: Reply, error: type[StreamError], **more: Any) -> Row:
    """A fault inside the answer: replayed, at most twice for a server that never gets further."""
    return Row(name=name, reply=lambda: reply, once=2, always=3, error=error, **more)


def final(name: str, reply: Reply, error: type[StreamError], **about: Any) -> Row:
    """A fault that no other try mends."""
    return Row(name=name, reply=lambda: reply, error=error, about=about)


def fine(name: str, reply: Reply, **more: Any) -> Row:
    """No fault at all to a client that reads by the standard."""
    return Row(name=name, reply=lambda: reply, **more)


ROWS = [
    # before the head
    early("reset before headers", [Reset()], ConnectError),
    early("closed before headers", [Close()], ConnectError),
    early("what comes is not HTTP", [Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Close()], ConnectError),
    early("stall before headers", [Stall()], DeadlineExceeded, about={"clock": "open"}, timeouts=Timeouts(open=SHORT)),
    # statuses
    early("429, Retry-After 0", respond(status=429, retry_after=0), StatusError, about={"status": 429}),
    early("500", respond(b"oops", 500), StatusError, about={"status": 500, "body": b"oops"}),
    early("502", respond(status=502), StatusError, about={"status": 502}),
    early("503", respond(status=503), StatusError, about={"status": 503}),
    final("429, Retry-After 61", respond(status=429, retry_after=61), StatusError, retry_after=61.0),
    final("429, quota", respond(error_body("insufficient_quota"), 429), StatusError, code="insufficient_quota"),
    final(
        "400", respond(error_body("invalid_request_error"), 400), StatusError, status=400, code="invalid_request_error"
    ),
    final("401", respond(status=401), StatusError, status=401),
    final("402", respond(status=402), StatusError, status=402),
    final("307", respond(status=307, location="http://127.0.0.1:9/"), StatusError, status=307),
    # 200, and no stream
    early("HTML with 200", respond(b"<html>soon</html>\n", content_type="text/html"), NotAStream),
    early("empty body with 200", respond(content_type="text/event-stream"), NotAStream),
    early("JSON error with 200", respond(error_body("server_error")), UpstreamError, about={"code": "server_error"}),
    final(
        "hopeless JSON error with 200", respond(error_body("invalid_api_key")), UpstreamError, code="invalid_api_key"
    ),
    final(
        "JSON answer with 200", respond(b'{"choices": [{"message": {"content": "hi"}}]}'), NotAStream, retryable=False
    ),
    # after the head, before the first item
    early("reset after headers", [Send(STREAM_HEAD), Reset()], StreamBroken),
    early("clean end after headers", stream(), NotAStream),
    early("error event first", stream(error_event("server_error")), UpstreamError),
    early(
        "stall before the first token",
        [Send(STREAM_HEAD), Stall()],
        DeadlineExceeded,
        about={"clock": "first_token"},
        timeouts=Timeouts(first_token=SHORT),
    ),
    early(
        "stall before the first token, behind pings",
        [Send(STREAM_HEAD), Repeat(chunked(b": keep-alive\n\n"), 0.02)],
        DeadlineExceeded,
        about={"clock": "first_token"},
        timeouts=Timeouts(first_token=SHORT),
    ),
    # inside the answer
    late("reset mid-stream", begun(Reset()), StreamBroken),
    late("FIN between chunks", begun(Close()), StreamBroken),
    late("FIN inside a chunk", begun(Send(chunked(EVENTS[CUT])[:20]), Close()), StreamBroken),
    late("bad chunk size", begun(Send(b"zz\r\n"), Stall()), StreamBroken),
    late("clean end without finish reason or [DONE]", stream(*EVENTS[:CUT]), Truncated),
    late("[DONE] without a finish reason", stream(*EVENTS[:CUT], DONE), Truncated),
    late("clean end inside an event", stream(*EVENTS[:CUT], EVENTS[CUT][:30]), Truncated),
    late("event cut in its JSON", stream(*EVENTS[:CUT], EVENTS[CUT][:30] + b"\n\n", *EVENTS[CUT + 1 :]), DecodeError),
    late(
        "bit flipped in the JSON",
        stream(*EVENTS[:CUT], EVENTS[CUT].replace(b"{", b"z", 1), *EVENTS[CUT + 1 :]),
        DecodeError,
    ),
    late("content that is a number", stream(*EVENTS[:CUT], sse(json.dumps(chunk({"content": 7})))), DecodeError),
    late("error event mid-stream", stream(*EVENTS[:CUT], error_event("server_error")), UpstreamError),
    late("error event, then [DONE]", stream(*EVENTS[:CUT], error_event("server_error"), DONE), UpstreamError),
    late(
        "the server gave up",
        stream(*EVENTS[:CUT], *events(chunk({"content": ""}, finish="insufficient_system_resource"))),
        UpstreamError,
    ),
    final(
        "hopeless error event mid-stream",
        stream(*EVENTS[:CUT], error_event("content_filter")),
        UpstreamError,
        code="content_filter",
    ),
    late(
        "stall mid-stream",
        begun(Stall()),
        DeadlineExceeded,
        about={"clock": "progress"},
        timeouts=Timeouts(progress=SHORT),
    ),
    late(
        "stall mid-stream, behind pings",
        begun(Repeat(chunked(b": keep-alive\n\n"), 0.02)),
        DeadlineExceeded,
        about={"clock": "progress"},
        timeouts=Timeouts(progress=SHORT),
    ),
    late(
        "stall mid-stream, behind empty deltas",
        begun(Repeat(chunked(sse(json.dumps(chunk({"content": ""})))), 0.02)),
        DeadlineExceeded,
        about={"clock": "progress"},
        timeouts=Timeouts(progress=SHORT),
    ),
    late(
        "content-length too short",
        plain(b"".join(EVENTS[:CUT]), b"".join(EVENTS[CUT:]), content_length=len(b"".join(EVENTS[:CUT]))),
        Truncated,
    ),
    late("content-length too long, cut", plain(b"".join(EVENTS[:CUT]), content_length=len(BODY)), StreamBroken),
    late("wrong digest", plain(BODY, content_digest=digest(b"another body")), IntegrityError),
    late(
        "gzip, cut",
        plain(gzip.compress(BODY)[:-60], content_encoding="gzip", content_length=len(gzip.compress(BODY)) - 60),
        Truncated,
    ),
    # no faults
    fine("clean end with finish reason, without [DONE]", stream(*EVENTS[:-1])),
    fine("reset after [DONE]", begun(Reset(), sent=EVENTS)),
    fine("reset after the finish reason", begun(Reset(), sent=EVENTS[:-1])),
    fine("stall after [DONE]", begun(Stall(), sent=EVENTS), timeouts=Timeouts(progress=SHORT)),
    fine("stall after the finish reason", begun(Stall(), sent=EVENTS[:-1]), timeouts=Timeouts(progress=SHORT)),
    fine("content-length too long, whole", plain(BODY, content_length=len(BODY) + 10)),
    fine("content-length right", plain(BODY, content_length=len(BODY))),
    fine("no length, closed at the end", plain(BODY)),
    fine("digest right", plain(BODY, content_digest=digest(BODY))),
    fine("byte order mark", stream(b"\xef\xbb\xbf", *EVENTS)),
    fine("CR", stream(*events(*CHUNKS, eol="\r"))),
    fine("CRLF", stream(*events(*CHUNKS, eol="\r\n"))),
    fine("comments between events", stream(*(b": ping\n\n" + event for event in EVENTS))),
    fine("comments between numbered events", stream(*(b": ping\n\n" + event for event in NUMBERED))),
    fine("1 byte a chunk", stream(*(bytes([b]) for b in BODY))),
    fine("1 byte a write", [Drip(b"".join((STREAM_HEAD, *map(chunked, EVENTS), LAST_CHUNK)))]),
    fine("gzip, whole", plain(gzip.compress(BODY), content_encoding="gzip", content_length=len(gzip.compress(BODY)))),
    fine("duplicated ids", stream(*(event * 2 for event in NUMBERED[:-1]), DONE), report={"dropped": len(CHUNKS)}),
    fine(
        "invalid UTF-8",
        stream(*EVENTS[:2], EVENTS[2].replace("潮".encode(), b"\xe6\xbd"), *EVENTS[3:]),
        text=TEXT.replace("起潮", "起\ufffd"),
        report={"repaired": 1},
    ),
    fine(
        "an event of 300 KB",
        stream(EVENTS[0], *events(chunk({"content": "海" * 100_000}, finish="stop"))),
        text="海" * 100_000,
    ),
]


Over = Literal["aiohttp", "httpx", "httpx2"]
OVER = get_args(Over)
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Knows no authority: to read those would take a client longer than a test."""


@asynccontextmanager
async def source_of(over: Over) -> AsyncIterator[Source[bytes] | None]:
    """The source to read through; none for the one that a client makes for itself."""
    match over:
        case "aiohttp":
            yield None
        case "httpx":
            async with httpx.AsyncClient(verify=NO_TLS) as lent, HttpxSource(lent) as source:
                yield source
        case "httpx2":
            async with httpx2.AsyncClient(verify=NO_TLS) as lent2, Httpx2Source(lent2) as source2:
                yield source2


@asynccontextmanager
async def client_of(
    server: ScriptedServer, timeouts: Timeouts | None = None, *, over: Over = "aiohttp", **settings: Any
) -> AsyncIterator[Client]:
    """A real client of a server, after which nothing is connected to it any more."""
    async with (
        source_of(over) as source,
        Client(
            "deepseek", base_url=server.url, timeouts=timeouts, random=Nought(), source=source, **settings
        ) as client,
    ):
        yield client
        for _ in range(100):
            if server.open_connections <= 1:  # one may be pooled: calls follow each other here
                break
            await asyncio.sleep(0.01)
        assert server.open_connections <= 1
    assert await server.all_closed()


async def read(client: Client, **request: Any) -> tuple[Reader[Delta], str, StreamError | None]:
    """Reads one answer: its reader, the text as it was handed over, and the error it ended in."""
    reader = client.stream({"messages": [{"role": "user", "content": "tides?"}], **request})
    got: list[str] = []
    try:
        async with reader:
            async for delta in reader:
                got.append(delta.text)  # noqa: PERF401 - what came before an error counts
    except StreamError as error:
        return reader, "".join(got), error
    return reader, "".join(got), None


def assert_exact(reader: Reader[Delta], got: str, error: StreamError | None, text: str = TEXT) -> None:
    assert error is None, repr(error)
    assert got == reader.completion.text == text
    assert reader.completion.finish_reason == "stop"
    assert reader.report.verdict is not None


def assert_typed(row: Row, got: str, error: StreamError | None) -> None:
    assert row.error is not None
    assert type(error) is row.error, repr(error)
    assert {name: getattr(error, name) for name in row.about} == row.about
    assert error.attempts == row.always
    assert error.partial is not None
    assert error.partial.text == got
    assert TEXT.startswith(got)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_fault_that_passes_costs_nothing_that_was_said(row: Row, over: Over) -> None:
    async with (
        ScriptedServer([row.reply(), stream(*EVENTS)]) as server,
        client_of(server, row.timeouts, over=over) as client,
    ):
        reader, got, error = await read(client)
        if row.error is not None and row.once == 1:
            assert_typed(row, got, error)
        else:
            assert_exact(reader, got, error, row.text)
            assert {name: getattr(reader.report, name) for name in row.report} == row.report
        assert len(server.requests) == reader.report.attempts == row.once


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("row", [row for row in ROWS if row.always > 1], ids=lambda row: row.name)
async def test_a_fault_that_stays_is_named(row: Row, over: Over) -> None:
    async with ScriptedServer([row.reply()]) as server, client_of(server, row.timeouts, over=over) as client:
        _, got, error = await read(client)
        assert_typed(row, got, error)
        assert len(server.requests) == row.always


# -- what the table cannot say -----------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_server_that_refuses_for_ever_is_named() -> None:
    async with Client("deepseek", base_url=f"http://127.0.0.1:{free_port()}", random=Nought()) as client:
        _, got, error = await read(client)
    assert (type(error), got) == (ConnectError, "")
    assert error is not None
    assert error.attempts == 4


async def test_a_server_that_comes_up_late_is_found() -> None:
    port, refused, servers = free_port(), asyncio.Event(), list[asyncio.Server]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(content_type="text/event-stream", connection="close") + BODY)
        await writer.drain()
        writer.close()

    class OnceBack:
        """Waits long enough for the server to come up: a fifth of the 1 s that full jitter may take."""

        def random(self) -> float:
            return 0.2

    async def come_up() -> None:
        await refused.wait()
        servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    def hear(moment: Moment) -> None:
        if isinstance(moment, Retrying):
            refused.set()

    url = f"http://127.0.0.1:{port}"
    async with Client("deepseek", base_url=url, random=OnceBack(), listeners=[hear]) as client:
        (reader, got, error), _ = await asyncio.gather(read(client), come_up())
    assert_exact(reader, got, error)
    assert reader.report.attempts == 2
    servers[0].close()
    await servers[0].wait_closed()


@pytest.mark.parametrize("told", [1, 30, "date", 60], ids=lambda told: f"Retry-After {told}")
async def test_nobody_comes_back_before_the_time_that_was_told(told: int | str, clock: FakeClock) -> None:
    after = format_datetime(clock.wall() + timedelta(seconds=45), usegmt=True) if told == "date" else told
    replies = [respond(status=429, retry_after=after), stream(*EVENTS)]
    async with ScriptedServer(replies) as server, client_of(server, clock=clock) as client:
        assert_exact(*await read(client))
        assert len(server.requests) == 2
    assert clock.slept == [pytest.approx(45 if told == "date" else told, abs=0.5)]


@pytest.mark.parametrize("over", OVER)
async def test_a_line_without_an_end_is_refused_in_bounded_memory(over: Over) -> None:
    async with ScriptedServer(lambda _: endless_line()) as server, client_of(server, over=over) as client:
        await read(client)  # everything that is made once has been made
        tracemalloc.start()
        try:
            _, got, error = await read(client)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (type(error), got) == (DecodeError, "")
    assert peak < 3 * 8 * 1024 * 1024  # the limit of a line is 8 MiB


WIRE_CUTS: list[f.Fault] = [
    f.ResetMidStream(after=20),
    f.CleanCut(after=20),
    f.FinInsideChunk(after=20),
    f.StallBehindPings(after=20, ping=0.02),
    f.ErrorEvent(after=20),
]


@pytest.mark.parametrize("fault", WIRE_CUTS, ids=str)
async def test_with_ids_nothing_is_read_twice(fault: f.Fault) -> None:
    schedule = Schedule(streams={"tides?": (fault, fault)})
    async with (
        ChaosServer(schedule=schedule, mode="ids") as upstream,
        client_of(upstream.server, Timeouts(progress=SHORT)) as client,
    ):
        reader, got, error = await read(client)
    assert_exact(reader, got, error, upstream.answer("tides?").text)
    assert [served.last_event_id for served in upstream.served] == ["", "20", "40"]
    assert str(reader.report.verdict) == "RESUMED (2 seams, exact)"
    assert reader.report.dropped == 0
    assert [seam.swallowed for seam in reader.report.seams] == [0, 0]


@pytest.mark.parametrize("fault", WIRE_CUTS, ids=str)
async def test_without_ids_the_same_answer_is_compared_and_continued(fault: f.Fault) -> None:
    schedule = Schedule(streams={"tides?": (fault,)})
    async with (
        ChaosServer(schedule=schedule) as upstream,
        client_of(upstream.server, Timeouts(progress=SHORT)) as client,
    ):
        reader, got, error = await read(client)
    assert_exact(reader, got, error, upstream.answer("tides?").text)
    assert str(reader.report.verdict) == "RESUMED (1 seam, verified)"


@pytest.mark.parametrize("fault", WIRE_CUTS, ids=str)
async def test_nothing_of_another_answer_is_handed_over(fault: f.Fault) -> None:
    schedule = Schedule(streams={"tides?": (fault,)})
    async with (
        ChaosServer(schedule=schedule, mode="divergent") as upstream,
        client_of(upstream.server, Timeouts(progress=SHORT)) as client,
    ):
        reader, got, error = await read(client)
    assert isinstance(error, StreamError)
    assert error.partial is not None
    assert error.partial.text == got
    assert got
    assert upstream.answer("tides?").text.startswith(got)
    assert reader.report.diverged == 1
    assert reader.report.verdict is None


async def test_a_server_that_forgets_its_ids_is_not_taken_for_a_continuation() -> None:
    replies = [begun(Reset(), sent=NUMBERED[:CUT]), stream(*NUMBERED)]
    async with ScriptedServer(replies) as server, client_of(server) as client:
        assert_exact(*await read(client))
        assert server.requests[1].headers["last-event-id"] == str(CUT)


@pytest.mark.parametrize("again", [True, False])
async def test_a_digest_that_gives_a_wrong_word_away_is_not_gone_on_from(again: bool) -> None:  # noqa: FBT001 - a parameter of the table
    told = {"content_digest": digest(b"".join(NUMBERED))}
    spoilt = [event.replace(b"kelp", b"help") for event in NUMBERED]
    replies = [plain(*spoilt, **told), plain(*(spoilt if again else NUMBERED), **told)]
    async with ScriptedServer(replies) as server, client_of(server) as client:
        _, got, error = await read(client)
    assert not any("last-event-id" in request.headers for request in server.requests)
    assert isinstance(error, IntegrityError if again else StreamBroken)
    assert got == TEXT.replace("kelp", "help")


def tool_chunks(answer: str) -> list[dict[str, Any]]:
    """Two tool calls; their ids are drawn anew for every answer, as providers do."""

    def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        function = {"arguments": arguments} | ({"name": first.pop("name")} if first else {})
        return chunk({"tool_calls": [{"index": index, **first, "function": function}]}, answer=answer)

    return [
        chunk({"role": "assistant", "content": None}, answer=answer),
        call(0, "", id=f"{answer}-0", name="tide"),
        call(0, '{"wh'),
        call(0, 'ere": "杭'),
        call(0, '州"}'),
        call(1, "", id=f"{answer}-1", name="wind"),
        call(1, '{"knots"'),
        call(1, ": 12}"),
        chunk({}, finish="tool_calls", answer=answer),
    ]


@pytest.mark.parametrize("cut", range(2, 10))
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_a_cut_inside_a_tool_call_resumes(cut: int, ids: bool) -> None:  # noqa: FBT001 - a parameter of the table
    first = events(*tool_chunks("first"), ids=ids)
    again = first[cut:] if ids else events(*tool_chunks("again"))
    async with (
        ScriptedServer([begun(Reset(), sent=first[:cut]), stream(*again)]) as server,
        client_of(server) as client,
    ):
        reader, _, error = await read(client)
    assert error is None
    calls = [(call.id, call.name, call.input) for call in reader.completion.tool_calls]
    assert [(name, values) for _, name, values in calls] == [("tide", {"where": "杭州"}), ("wind", {"knots": 12})]
    second = "again-1" if not ids and cut <= 5 else "first-1"  # an id that was delivered stands
    assert [id_ for id_, _, _ in calls] == ["first-0", second]
    assert reader.completion.finish_reason == "tool_calls"


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_a_cut_after_one_of_two_choices_resumes(ids: bool) -> None:  # noqa: FBT001 - a parameter of the table
    chunks = [
        chunk({"role": "assistant", "content": "潮"}),
        chunk({"role": "assistant", "content": "ebb"}, index=1),
        chunk({"content": "起"}),
        chunk({}, finish="stop"),
        chunk({"content": " and"}, index=1),
        chunk({"content": " flow"}, index=1),
        chunk({}, finish="length", index=1),
    ]
    sent = events(*chunks, ids=ids)
    replies = [stream(*sent[:5]), stream(*(sent[5:] if ids else sent))]
    async with ScriptedServer(replies) as server, client_of(server) as client:
        reader, _, error = await read(client, n=2)
        assert len(server.requests) == 2
    assert error is None
    choices = [(choice.text, choice.finish_reason) for choice in reader.completion.choices]
    assert choices == [("潮起", "stop"), ("ebb and flow", "length")]


async def test_a_hundred_streams_at_once_keep_apart() -> None:
    streams = {f"q{n}": (f.ResetMidStream(after=n % 60 + 2),) for n in range(100)}
    async with ChaosServer(schedule=Schedule(streams=streams)) as upstream:
        async with Client("deepseek", base_url=upstream.url, random=Nought()) as client:
            asked = [{"messages": [{"role": "user", "content": prompt}]} for prompt in streams]
            answers = await asyncio.gather(*map(client.complete, asked))
        assert await upstream.server.all_closed()
    assert [answer.text for answer in answers] == [upstream.answer(prompt).text for prompt in streams]


async def test_a_server_that_cuts_every_twenty_events_is_read_to_the_end() -> None:
    schedule = Schedule(streams={"tides?": (f.ResetMidStream(after=20),) * 20})
    async with ChaosServer(schedule=schedule, mode="ids") as upstream, client_of(upstream.server) as client:
        reader, got, error = await read(client)
    assert_exact(reader, got, error, upstream.answer("tides?").text)
    assert len(upstream.served) == reader.report.attempts == len(reader.report.seams) + 1
    assert 5 <= len(upstream.served) <= 8


async def test_a_server_that_cuts_every_two_events_is_left_with_what_came() -> None:
    schedule = Schedule(streams={"tides?": (f.ResetMidStream(after=2),) * 20})
    async with ChaosServer(schedule=schedule, mode="ids") as upstream, client_of(upstream.server) as client:
        reader, got, error = await read(client)
    assert isinstance(error, StreamBroken)
    assert error.attempts == len(upstream.served) == 8
    assert error.partial is not None
    assert error.partial.last_event_id == "16"
    assert reader.partial.answer.reasoning
    assert upstream.answer("tides?").reasoning.startswith(reader.partial.answer.reasoning)
    assert got == ""


OURS = re.compile(r"/holdfast/(layers|sources|client|_\w+)[./]")
"""A task of the library's, in its representation; the server and asyncio have some of their own."""


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("mode", ["ids", "no-ids"])
async def test_given_up_at_any_moment_nothing_stays_open(mode: Mode, over: Over) -> None:
    schedule = Schedule(streams={"tides?": (f.Refused(status=503), f.ResetMidStream(after=6))})
    # Where time is short, one mode has the even moments and one the odd ones.
    turns, step, finished = (0, 1, False) if DEEP else (int(mode == "ids"), 2, False)
    while not finished:
        async with ChaosServer(schedule=schedule, mode=mode, sentences=1) as upstream:
            async with client_of(upstream.server, over=over) as client:
                reading = asyncio.create_task(read(client))
                for _ in range(turns):
                    await asyncio.sleep(0)
                finished = reading.done()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            assert not [task for task in asyncio.all_tasks() if OURS.search(repr(task))]
        turns += step
    assert turns > 20
