"""What a gateway makes of a stream that another node has left: at every place, of every kind of upstream."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator, Sequence

import aiohttp
import msgspec
import pytest

from holdfast import _pipe, parse_events
from holdfast._types import Head
from holdfast.gateway import Settings
from holdfast.gateway.journal import Entry, JournalError
from holdfast.gateway.journal.redis import RedisJournal, RedisWriter
from holdfast.gateway.records import new_stream, record
from holdfast.gateway.takeover import MOST
from holdfast.moments import Ended, Moment, Started
from holdfast.telemetry import logs
from holdfast.telemetry.logs import configure_logs
from holdfast.telemetry.timeline import LogReader
from holdfast.testing.server import (
    STREAM_HEAD,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    sse,
    stream,
)
from tests.gateway.serving import serving, settings
from tests.redis_server import RedisServer, redis_server

LEASE = 0.3
HEAD = Head(headers={"content-type": "text/event-stream"})
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})


def chunk(text: str, finish: str | None = None, *, id: str | None = None, of: str = "c") -> bytes:
    end = f'"{finish}"' if finish else "null"
    return sse(f'{{"id":"{of}","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{end}}}]}}', id=id)


ANSWER = [chunk("one "), chunk("two "), chunk("three", "stop"), sse("[DONE]")]
OTHER = [chunk("eins ", of="d"), chunk("zwei", "stop", of="d"), sse("[DONE]")]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Upstream:
    """Answers with what it is given, and keeps what it was asked."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = blocks
        self.asked: list[ReceivedRequest] = []

    def __call__(self, request: ReceivedRequest) -> Reply:
        self.asked.append(request)
        return stream(*self.blocks)


async def leave(
    redis: RedisServer,
    blocks: Sequence[bytes] = (),
    *,
    head: bool = True,
    max_stream: int = 1_000_000,
    opened: float = 0.0,
    **notes: str | bool,
) -> Entry:
    """Does what a node does that is killed: it opened a stream, and wrote some of it."""
    entry = Entry(
        stream=new_stream(),
        owner="",
        surface="chat",
        url="/v1/chat/completions",
        headers={},
        body=BODY,
        digest="d",
        opened=opened,
    )
    journal = RedisJournal(redis.url, lease=LEASE, max_stream=max_stream)
    await journal.start(lambda _: None)
    writer = await journal.begin(entry)
    assert isinstance(writer, RedisWriter)
    if head:
        await writer.start(HEAD)
    writer.note(**notes)
    for number, block in enumerate(blocks, 1):
        await writer.write([record(entry.stream, number, block)])
    await journal.aclose()
    return entry


def over(upstream: ScriptedServer, redis: RedisServer, *, drain: float = 30.0) -> Settings:
    return settings(f"{upstream.url}/v1", journal=redis.url, lease=LEASE, drain=drain)


async def rest(url: str, stream: str, after: int = 0) -> tuple[int, bytes]:
    """Reads to the end, and gives the status with it."""
    data, headers = b"", {"Last-Event-ID": f"{stream}-{after}"} if after else {}
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/streams/{stream}", headers=headers) as response,
    ):
        try:
            async for more in response.content.iter_any():
                data += more
        except aiohttp.ClientPayloadError:
            data += b"(cut)"
        return response.status, data


def said(data: bytes) -> str:
    events = [event for event in parse_events(data).events if event.payload.startswith(b"{")]
    return "".join(event.json()["choices"][0]["delta"]["content"] for event in events if "choices" in event.json())


async def test_a_stream_that_is_taken_over_is_told_of_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Moment] = []
    log = io.StringIO()
    configure_logs(log)
    monkeypatch.setattr(_pipe, "listener_factories", [lambda: heard.append, logs.listener])
    entry = await leave(redis, ANSWER[:1], opened=time.time() - 7.79)
    try:
        async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, redis)) as served:
            await rest(served.url, entry.stream)
    finally:
        configure_logs(level=None)
    assert sum(isinstance(moment, Started) for moment in heard) == 1
    assert not any(upstream.faults for upstream in served.gateway.watch.upstreams.values())
    assert [moment.error for moment in heard if isinstance(moment, Ended)] == [None]
    reader = LogReader()
    (life,) = [life for line in log.getvalue().encode().splitlines() for life in reader.feed(line)]
    times = [step.at for step in life.steps]
    assert times == sorted(times)
    assert life.seconds >= 7.79
    assert (life.id, life.outcome, life.faults, reader.late) == (entry.stream, "resumed", [], 0)
    assert life.steps[0].event == "gateway.taken_over"


@pytest.mark.parametrize("shown", [1, 2])
async def test_an_answer_that_comes_again_the_same_goes_on_where_it_was(redis: RedisServer, shown: int) -> None:
    upstream = Upstream(*ANSWER)
    entry = await leave(redis, ANSWER[:shown])
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
        _, behind = await rest(served.url, entry.stream, shown)
    assert said(data) == "one two three"
    assert data.endswith(b"\n\n")
    assert data.count(b"[DONE]") == 1
    assert data.endswith(behind)
    assert said(behind) == "".join(("one ", "two ")[shown:]) + "three"
    assert len(upstream.asked) == 1


async def test_a_server_with_ids_is_asked_for_the_rest_alone(redis: RedisServer) -> None:
    upstream = Upstream(chunk("three", "stop", id="3"), sse("[DONE]", id="4"))
    entry = await leave(redis, [chunk("one ", id="1"), chunk("two ", id="2")])
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
    assert said(data) == "one two three"
    assert [request.headers.get("last-event-id") for request in upstream.asked] == ["2"]


async def test_another_answer_is_never_let_through_and_readers_are_told(redis: RedisServer) -> None:
    entry = await leave(redis, ANSWER[:2])
    async with ScriptedServer(Upstream(*OTHER)) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
        again = await rest(served.url, entry.stream)
    assert data.endswith(b"(cut)")
    assert said(data) == "one two "
    assert b'"error"' in data
    assert again == (200, data)


@pytest.mark.parametrize(("head", "asked"), [(False, 1), (True, 1)])
async def test_where_nothing_was_shown_it_is_asked_for_anew(redis: RedisServer, *, head: bool, asked: int) -> None:
    upstream = Upstream(*ANSWER)
    entry = await leave(redis, head=head)
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
    assert said(data) == "one two three"
    assert len(upstream.asked) == asked


@pytest.mark.parametrize("shown", [3, 4])
async def test_where_only_the_end_was_missing_nobody_is_asked(redis: RedisServer, shown: int) -> None:
    upstream = Upstream(*ANSWER)
    entry = await leave(redis, ANSWER[:shown])
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        status, data = await rest(served.url, entry.stream)
    assert (status, said(data), data.count(b"[DONE]")) == (200, "one two three", 1)
    assert not data.endswith(b"(cut)")
    assert upstream.asked == []


async def test_of_a_seamed_answer_no_request_is_asked_again(redis: RedisServer) -> None:
    upstream = Upstream(*ANSWER)
    entry = await leave(redis, [chunk("one ", id="1"), chunk("two ", id="2")], seamed=True)
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
    assert data.endswith(b"(cut)")
    assert said(data) == "one two "
    assert upstream.asked == []


async def test_a_journal_that_was_trimmed_ends_in_an_error(redis: RedisServer) -> None:
    entry = await leave(redis, ANSWER[:2] * 20, max_stream=1_000)
    async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream, 38)
        _, early = await rest(served.url, entry.stream)
    assert b"journal_trimmed" in data
    assert b"no longer kept" in early
    assert early.endswith(b"(cut)")


async def test_what_kills_one_node_after_another_is_given_up(redis: RedisServer) -> None:
    entry = await leave(redis, ANSWER[:1])
    for _ in range(MOST):
        journal = RedisJournal(redis.url, lease=0.05)
        await journal.start(lambda _: None)
        while await journal.take(entry.stream) is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        await journal.aclose()
    upstream = Upstream(*ANSWER)
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
    assert b"taken_over_too_often" in data
    assert upstream.asked == []


async def test_one_that_was_cancelled_is_not_gone_on_with(redis: RedisServer) -> None:
    entry = await leave(redis, ANSWER[:1])
    journal = RedisJournal(redis.url, lease=LEASE)
    await journal.start(lambda _: None)
    shelved = await journal.find(entry.stream)
    assert shelved is not None
    await journal.cancel(shelved)
    await journal.aclose()
    upstream = Upstream(*ANSWER)
    async with ScriptedServer(upstream) as http, serving(over(http, redis)) as served:
        _, data = await rest(served.url, entry.stream)
    assert b'"cancelled"' in data
    assert upstream.asked == []


async def test_a_reader_of_what_was_never_written_is_told_so(redis: RedisServer) -> None:
    entry = await leave(redis, ANSWER[:1])
    async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, redis)) as served:
        _, whole = await rest(served.url, entry.stream)
        status, data = await rest(served.url, entry.stream, 2)
    assert said(whole) == "one two three"
    assert status == 200
    assert b"journal_unavailable" in data
    assert said(data) == ""


async def test_one_that_cannot_be_read_now_is_tried_again_and_its_lease_not_kept(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, failed = RedisJournal.entries, asyncio.Event()

    async def at_second(self: RedisJournal, stream: str, number: int) -> list[tuple[int, list[bytes]]]:
        if not failed.is_set():
            failed.set()
            raise JournalError("Redis does not answer")
        return await entries(self, stream, number)

    monkeypatch.setattr(RedisJournal, "entries", at_second)
    entry = await leave(redis, ANSWER[:2])
    async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, redis)) as served:
        await failed.wait()
        _, data = await rest(served.url, entry.stream)
    assert said(data) == "one two three"


async def test_a_key_joins_and_a_cancel_is_heard_on_another_node(redis: RedisServer) -> None:
    async def slow(request: ReceivedRequest) -> Reply:
        return [Send(STREAM_HEAD), Send(chunked(ANSWER[0])), Stall()]

    key = {"Idempotency-Key": new_stream()}
    async with (
        ScriptedServer(slow) as http,
        serving(over(http, redis)) as one,
        serving(over(http, redis)) as two,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
        session.post(f"{one.url}/v1/chat/completions", data=BODY, headers=key) as first,
        session.post(f"{two.url}/v1/chat/completions", data=BODY, headers=key) as joined,
    ):
        name = first.headers["X-Holdfast-Stream"]
        assert joined.headers["X-Holdfast-Stream"] == name
        assert first.headers["X-Holdfast-Read-Token"].count(".") == 1
        event = await first.content.readuntil(b"\n\n")
        assert event == await joined.content.readuntil(b"\n\n")
        other = msgspec.json.encode({"model": "other", "messages": [], "stream": True})
        async with session.post(f"{two.url}/v1/chat/completions", data=other, headers=key) as conflict:
            assert conflict.status == 409
        token = {"token": first.headers["X-Holdfast-Read-Token"]}
        async with session.get(f"{two.url}/v1/streams/{name}", params=token) as read:
            assert await read.content.readuntil(b"\n\n") == event
            async with session.delete(f"{two.url}/v1/streams/{name}") as cancelled:
                assert cancelled.status == 204
            for reader in (first, joined, read):
                assert b'"cancelled"' in await reader.content.readuntil(b"\n\n")
        while http.open_connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
