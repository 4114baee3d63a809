"""The journal in a real Redis: leases, fences, silence, and what other nodes see."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from holdfast._types import Head
from holdfast.gateway.journal import Entry, JournalError, LeaseLost, Shelved, redis
from holdfast.gateway.journal._line import connect
from holdfast.gateway.journal.redis import LEFT_OUT, RedisJournal, RedisWriter
from holdfast.gateway.log import Ending, Log
from holdfast.gateway.records import new_stream
from tests.redis_server import RedisServer, redis_server

HEAD = Head(headers={"content-type": "text/event-stream"})
LEASE = 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def node(
    server: RedisServer, max_stream: int = 1_000_000, keep: float = 600.0, lease: float = LEASE
) -> AsyncIterator[RedisJournal]:
    journal = RedisJournal(server.url, lease=lease, max_stream=max_stream, keep=keep)
    await journal.start(lambda _: None)
    try:
        yield journal
    finally:
        await journal.aclose()


def entry(key: str = "") -> Entry:
    return Entry(
        stream=new_stream(),
        owner="",
        surface="chat",
        url="/",
        headers={},
        body=b"{}",
        digest="d",
        idempotency_key=key,
    )


async def opened(journal: RedisJournal, *records: bytes) -> RedisWriter:
    writer = await journal.begin(entry())
    assert isinstance(writer, RedisWriter)
    await writer.start(HEAD)
    if records:
        await writer.write(records)
    return writer


async def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.01)


async def whole(journal: RedisJournal, shelved: Shelved) -> bytes:
    """Gives all there is of a stream, as a reader who comes late would read it."""
    place, data = 0, b""
    while place < shelved.log.last:
        try:
            more, place_ = shelved.log.after(place)
        except LookupError:
            more, place_ = await journal.read(shelved, place)
        assert place_ > place
        data, place = data + more, place_
    return data


async def test_another_node_reads_from_the_beginning_and_follows_to_the_end(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a", b"b")
        shelved = await two.find(writer.shelved.entry.stream)
        assert shelved is not None
        assert shelved.log.head == HEAD
        assert await whole(two, shelved) == b"ab"
        await writer.write([b"c"])
        await writer.write([b"d", b"e"])
        await writer.end(Ending(kind="complete"))
        await until(lambda: shelved.log.ending)
        assert await whole(two, shelved) == b"abcde"
        assert await two.find(new_stream()) is None


async def test_an_idempotency_key_joins_on_any_node(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        first = await one.begin(entry("k1"))
        again = await two.begin(entry("k1"))
        assert isinstance(first, RedisWriter)
        assert isinstance(again, Shelved)
        assert again.entry.stream == first.shelved.entry.stream
        await first.drop()
        assert isinstance(await two.begin(entry("k1")), RedisWriter)


async def test_of_two_nodes_one_gets_a_lease_that_is_over_and_the_stale_one_writes_nothing(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two, node(server) as three:
        writer = await opened(one, b"a")
        stream = writer.shelved.entry.stream
        assert await two.take(stream) is None
        one._renewal.cancel()  # type: ignore[union-attr]  # what a frozen node does not do
        await asyncio.sleep(LEASE + 0.05)
        assert stream in await two.due(100)
        got = await asyncio.gather(two.take(stream), three.take(stream))
        (taken,) = [one_ for one_ in got if one_ is not None]
        assert (taken.last, taken.takeovers) == (1, 1)
        with pytest.raises(LeaseLost):
            writer.check()
        with pytest.raises(LeaseLost):
            await writer.write([b"stale"])
        await taken.writer.write([b"b"])
        await taken.writer.end(Ending(kind="complete"))
        await until(lambda: writer.shelved.log.ending)
        assert await whole(one, writer.shelved) == b"ab"
        assert await whole(two if got[0] else three, taken.writer.shelved) == b"ab"


async def test_an_answer_that_comes_behind_a_silence_makes_no_stream_due(server: RedisServer) -> None:
    """Whoever writes it could not renew its lease meanwhile, and is to have the time for it."""
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a")
        stream = writer.shelved.entry.stream
        one._renewal.cancel()  # type: ignore[union-attr]  # what a frozen node does not do
        await asyncio.sleep(LEASE + 0.05)
        with server.frozen():
            asking = asyncio.create_task(two.due(100))
            await until(lambda: two._line.silent)
        assert await asking == []
        assert await two.due(100) == []
        await asyncio.sleep(LEASE + 0.05)
        assert stream in await two.due(100)


async def test_a_stale_append_is_refused_even_where_the_node_believes_in_its_lease(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a")
        one._renewal.cancel()  # type: ignore[union-attr]  # what a frozen node does not do
        await asyncio.sleep(LEASE + 0.05)
        assert await two.take(writer.shelved.entry.stream) is not None
        writer.renewed(time.monotonic() + 100)
        writer.check()
        with pytest.raises(LeaseLost):
            await writer.write([b"stale"])
        assert await whole(one, writer.shelved) == b"a"


async def test_a_lease_that_nobody_took_is_renewed_after_a_silence(server: RedisServer) -> None:
    async with node(server) as one:
        writer = await opened(one, b"a")
        with server.frozen():
            await asyncio.sleep(2 * LEASE)
            with contextlib.suppress(LeaseLost):
                await writer.write([b"b"])
            assert await asyncio.wait_for(_shown(writer.shelved.log, 2), 10)
        await until(lambda: writer.acked == 2)
        await asyncio.sleep(LEASE)
        writer.check()
        await writer.write([b"c"])
        assert await whole(one, writer.shelved) == b"abc"


async def _shown(log: Log, number: int) -> bool:
    await until(lambda: log.last >= number)
    return True


async def test_while_redis_is_silent_readers_here_are_fed_and_the_journal_catches_up_in_order(
    server: RedisServer,
) -> None:
    async with node(server, lease=10) as one, node(server, lease=10) as two:
        writer = await opened(one, b"0;")
        shelved = await two.find(writer.shelved.entry.stream)
        assert shelved is not None
        with server.frozen():
            began = time.monotonic()
            for number in range(1, 200):
                await writer.write([b"%d;" % number])
            assert 0.2 < time.monotonic() - began < 10
            assert writer.shelved.log.last == 200
            assert shelved.log.last == 1
        await until(lambda: shelved.log.last == 200)
        assert await whole(two, shelved) == b"".join(b"%d;" % number for number in range(200))


async def test_what_was_shown_in_a_silence_and_never_written_is_withdrawn_and_its_numbers_are_left_out(
    server: RedisServer,
) -> None:
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a")
        stream = writer.shelved.entry.stream
        one._line.silent, one._line.silent_since = True, asyncio.get_running_loop().time()
        one._renewal.cancel()  # type: ignore[union-attr]  # cut off from Redis, as far as it can tell
        one._line._task.cancel()  # type: ignore[union-attr]  # as above
        await writer.write([b"x"])
        assert writer.shelved.log.last == 2
        await asyncio.sleep(LEASE + 0.05)
        taken = await two.take(stream)
        assert taken is not None
        await taken.writer.write([b"b"])
        await taken.writer.end(Ending(kind="complete"))
        with pytest.raises(LeaseLost):
            writer.check()
        await until(lambda: writer.shelved.log.ending)
        log = writer.shelved.log
        assert log.is_left_out(2)
        assert not log.is_left_out(1)
        assert log.last == 1 + LEFT_OUT + 1
        assert taken.writer.shelved.log.is_left_out(2)
        assert await whole(one, writer.shelved) == b"ab"
        one._line._task = None


async def test_a_cancel_is_heard_where_the_stream_is_written(server: RedisServer) -> None:
    heard: list[str] = []
    one = RedisJournal(server.url, lease=LEASE)
    await one.start(heard.append)
    async with node(server) as two:
        writer = await opened(one, b"a")
        shelved = await two.find(writer.shelved.entry.stream)
        assert shelved is not None
        await two.cancel(shelved)
        await until(lambda: heard)
    assert heard[0] == writer.shelved.entry.stream
    await one.aclose()


async def test_readers_elsewhere_are_known_of(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a")
        assert not await writer.read_elsewhere()
        one.held(writer.shelved, 1)
        assert not await writer.read_elsewhere()
        shelved = await two.find(writer.shelved.entry.stream)
        assert shelved is not None
        two.held(shelved, 1)
        await asyncio.sleep(0.05)
        assert await writer.read_elsewhere()


async def test_a_stream_keeps_its_newest_bytes_and_an_old_one_goes(server: RedisServer) -> None:
    async with node(server, max_stream=1000, keep=1.2) as one, node(server) as two:
        writer = await opened(one)
        for _ in range(50):
            await writer.write([b"x" * 100])
        writer.shelved.log.begin_at(51)
        with pytest.raises(JournalError):
            await one.read(writer.shelved, 0)
        data, place = await one.read(writer.shelved, 45)
        assert (data, place) == (b"x" * 500, 50)
        await writer.end(Ending(kind="complete"))
        await asyncio.sleep(1.3)
        assert await two.find(writer.shelved.entry.stream) is None


async def test_what_is_handed_over_is_free_at_once(server: RedisServer) -> None:
    freed = asyncio.Event()
    async with node(server) as one, node(server) as two:
        two.freed = freed.set
        writer = await opened(one, b"a")
        await asyncio.sleep(0.1)
        await writer.release()
        await asyncio.wait_for(freed.wait(), 10)
        taken = await two.take(writer.shelved.entry.stream)
        assert taken is not None
        assert taken.takeovers == 0


async def test_all_nodes_sign_with_one_secret(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        assert await one.secret() == await two.secret()


async def test_a_journal_without_redis_says_so() -> None:
    journal = RedisJournal("redis://127.0.0.1:1/0")
    with pytest.raises(JournalError, match="Redis cannot be had"):
        await journal.start(lambda _: None)
    await journal.aclose()


async def test_where_redis_has_lost_a_stream_its_readers_here_are_told(server: RedisServer) -> None:
    async with node(server) as one:
        writer = await opened(one, b"a")
        client = connect(server.url, socket_timeout=1)
        await client.execute_command("FLUSHALL")
        await client.aclose()
        with pytest.raises(JournalError, match="lost this stream"):
            await writer.write([b"b"])
        await writer.write([b"error"])
        await writer.end(Ending(kind="failed"))
        assert await whole(one, writer.shelved) == b"aberror"
        assert await one.find(writer.shelved.entry.stream) is None
        await opened(one, b"another")


async def test_readers_are_fed_alone_only_so_far_and_so_long(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "_ALONE", 1.0)
    monkeypatch.setattr(redis, "_AHEAD", 1_000)
    async with node(server, lease=10) as one:
        writer = await opened(one, b"a")
        with server.frozen():
            with pytest.raises(JournalError, match="silent"):
                await _write_on(writer)
            assert 5 < writer.shelved.log.last < 15
            await writer.write([b"error"])
            await writer.end(Ending(kind="failed"))
            assert writer.shelved.log.ending is not None
            assert one._line.waiting < 3_000


async def _write_on(writer: RedisWriter) -> None:
    for _ in range(100):
        await writer.write([b"x" * 100])
