"""What would leave readers waiting for ever, or a stream without its end: each was found by trying."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import aiohttp
import pytest

from holdfast.gateway.journal import JournalError
from holdfast.gateway.journal._line import connect
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.journal.redis import LEFT_OUT, RedisJournal
from holdfast.gateway.log import Ending
from holdfast.gateway.streams import Streams
from holdfast.testing.server import STREAM_HEAD, ReceivedRequest, Reply, ScriptedServer, Send, Stall, chunked
from tests.gateway.acting import ScriptedAnswer
from tests.gateway.serving import serving
from tests.gateway.test_redis_journal import LEASE, entry, node, opened, until
from tests.gateway.test_takeover import ANSWER, BODY, Upstream, leave, over, rest, said
from tests.redis_server import RedisServer, redis_server

BLOCK = b"data: one\n\n"
PREFIX = "holdfast:gateway:"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def streams(journal: RedisJournal, *steps: list[bytes] | asyncio.Event) -> Streams:
    answer = ScriptedAnswer(steps)
    return Streams(journal, lambda _: answer, grace=60, patience=15, max_streams=10)


async def tell(server: RedisServer, *words: str | int) -> object:
    client = connect(server.url, socket_timeout=2)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


async def answers_once(request: ReceivedRequest) -> Reply:
    return [Send(STREAM_HEAD), Send(chunked(ANSWER[0])), Stall()]


async def test_a_cancel_while_the_end_is_written_comes_too_late(server: RedisServer) -> None:
    """It would write behind the end, which the journal refuses, and wait for that for ever."""
    last = asyncio.Event()
    async with node(server) as one:
        made = streams(one, [BLOCK], last)
        running = await made.open(entry())
        await until(lambda: running.shelved.log.last)
        await tell(server, "CLIENT", "PAUSE", 150, "ALL")
        last.set()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            await made.cancel(running)
        await until(lambda: running.shelved.log.ending)
        assert running.shelved.log.ending == Ending(kind="complete")


async def test_who_cancels_twice_does_not_cut_off_the_last_words(server: RedisServer) -> None:
    async with node(server) as one:
        made = streams(one, [BLOCK], asyncio.Event())
        running = await made.open(entry())
        await until(lambda: running.shelved.log.last)
        await tell(server, "CLIENT", "PAUSE", 150, "ALL")
        first = asyncio.create_task(made.cancel(running))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            await asyncio.gather(first, made.cancel(running))
        await until(lambda: running.shelved.log.ending)
        assert not one._writers, "its lease would be kept for ever"


async def test_a_reader_elsewhere_of_what_redis_has_lost_is_told(server: RedisServer) -> None:
    async with (
        ScriptedServer(answers_once) as http,
        serving(over(http, server, drain=0.1)) as one,
        serving(over(http, server, drain=0.1)) as two,
        aiohttp.ClientSession() as session,
        session.post(f"{one.url}/v1/chat/completions", data=BODY) as first,
    ):
        await first.content.readuntil(b"\n\n")
        reading = asyncio.create_task(rest(two.url, first.headers["X-Holdfast-Stream"]))
        await asyncio.sleep(0.1)
        await tell(server, "FLUSHALL")
        status, data = await reading
        assert (status, b"journal_unavailable" in data, data.endswith(b"(cut)")) == (200, True, True)
        _, again = await rest(two.url, first.headers["X-Holdfast-Stream"], 1)
        assert b"journal_unavailable" in again, "and no 204: that would be an end"
        async with session.delete(f"{one.url}/v1/streams/{first.headers['X-Holdfast-Stream']}") as deleted:
            assert deleted.status == 204, "who writes it knows of it still"


def silence(journal: RedisJournal, seconds: float) -> None:
    """Has a node find that Redis has been silent for so long."""
    journal._line.silent, journal._line.silent_since = True, asyncio.get_running_loop().time() - seconds


async def test_a_reader_elsewhere_does_not_wait_for_a_redis_that_stays_away(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        shelved = await two.find((await opened(one, b"a")).shelved.entry.stream)
        assert shelved is not None
        two.held(shelved, 1)
        silence(two, 29)
        two.sweep()
        assert not shelved.log.lost
        silence(two, 31)
        two.sweep()
        assert shelved.log.lost


async def test_a_takeover_that_fails_in_its_middle_leaves_readers_here_following(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise JournalError("Redis does not answer")

    async with node(server) as one, node(server) as two, node(server) as three:
        stream = (await opened(one, b"a")).shelved.entry.stream
        shelved = await two.find(stream)
        assert shelved is not None
        assert one._renewal is not None
        one._renewal.cancel()
        two._follower.discard(stream)  # it is behind
        shelved.log.withdraw(0)
        await asyncio.sleep(LEASE + 0.1)
        with monkeypatch.context() as patch:
            patch.setattr(two, "entries", refused)
            with pytest.raises(JournalError):
                await two.take(stream)
        await asyncio.sleep(LEASE + 0.1)
        taken = await three.take(stream)
        assert taken is not None
        await taken.writer.end(Ending(kind="complete"))
        await until(lambda: shelved.log.ending)


async def test_a_redis_that_lost_what_it_had_acknowledged_takes_no_end_for_it(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two:
        writer = await opened(one, b"a")
        await writer.write([b"b"])
        stream = writer.shelved.entry.stream
        await tell(server, "HSET", f"{PREFIX}s:{stream}", "last", 1)
        await tell(server, "XDEL", f"{PREFIX}r:{stream}", "2-0")
        with contextlib.suppress(Exception):
            await writer.end(Ending(kind="complete"))
        shelved = await two.find(stream)
        assert shelved is not None
        assert shelved.log.ending is None


async def test_who_has_read_what_redis_lost_gets_nothing_of_what_comes_instead(server: RedisServer) -> None:
    async with node(server) as one, node(server) as two, node(server) as three:
        writer = await opened(one, b"a")
        stream = writer.shelved.entry.stream
        shelved = await two.find(stream)
        assert shelved is not None
        await writer.write([b"b", b"c", b"d"])
        await until(lambda: shelved.log.last == 4)
        await tell(server, "HSET", f"{PREFIX}s:{stream}", "last", 1)
        await tell(server, "DEL", f"{PREFIX}r:{stream}")
        await tell(server, "XADD", f"{PREFIX}r:{stream}", "1-0", "d", b"\x91\xc4\x01a")  # type: ignore[arg-type]
        assert one._renewal is not None
        one._renewal.cancel()
        await asyncio.sleep(LEASE + 0.1)
        taken = await three.take(stream)
        assert taken is not None
        await taken.writer.write([b"b", b"c", b"d", b"e"])
        await until(lambda: shelved.log.last > LEFT_OUT)
        with pytest.raises(JournalError, match="none of this stream"):
            await two.read(shelved, 4)
        assert await two.read(shelved, 1) == (b"bcde", 1 + LEFT_OUT + 4)


async def test_while_redis_is_gone_nothing_piles_up(server: RedisServer) -> None:
    async with node(server) as one:
        shelved = (await opened(one, b"a")).shelved
        silence(one, 5)
        for _ in range(100):
            with pytest.raises(JournalError):
                await one.begin(entry("k"))
            one.held(shelved, 1)
            one.held(shelved, 0)
        assert not one._line._queue


async def test_a_redis_that_is_full_is_not_asked_without_a_pause(server: RedisServer) -> None:
    upstream = Upstream(*ANSWER)
    async with ScriptedServer(upstream) as http, serving(over(http, server)) as served:
        left = await leave(server, ANSWER[:1])
        await tell(server, "CONFIG", "SET", "maxmemory", 1)
        try:
            await asyncio.sleep(LEASE)
            pulse = served.gateway.journal.pulse if served.gateway.journal is not None else None
            assert pulse is not None
            before = pulse.exchanges
            await asyncio.sleep(0.5)
            assert pulse.exchanges - before < 50
            assert upstream.asked == []
        finally:
            await tell(server, "CONFIG", "SET", "maxmemory", 0)
        _, data = await rest(served.url, left.stream)
    assert said(data) == "one two three"


async def test_a_takeover_that_is_given_up_in_its_middle_leaves_it_to_others_at_once(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def slow(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, server)) as served:
        monkeypatch.setattr(served.gateway.journal, "entries", slow)
        left = await leave(server, ANSWER[:1])
        await asyncio.wait_for(begun.wait(), 20)
        assert served.gateway.takeover is not None
        await served.gateway.takeover.aclose()
        async with node(server) as other:
            await asyncio.sleep(0.05)
            assert await other.take(left.stream) is not None


async def test_what_piled_up_goes_out_in_parts(server: RedisServer) -> None:
    """All of one part must be answered within seconds, or it is said again from its beginning, for ever."""
    async with node(server, lease=10) as one:
        writers = [await opened(one) for _ in range(8)]
        with server.frozen():
            await asyncio.gather(*(writer.write([b"x" * 400_000]) for writer in writers))
            await asyncio.sleep(0.3)
        sizes = [sum(said.size for said in one._line._sent)]
        while one._line.waiting:
            sizes.append(sum(said.size for said in one._line._sent))
            await asyncio.sleep(0)
        assert max(sizes) <= 1024 * 1024 + 1_000
        assert [writer.acked for writer in writers] == [1] * 8


async def test_who_lost_its_lease_before_redis_fell_silent_shows_nothing_by_itself(server: RedisServer) -> None:
    """A node that was frozen wakes up and is slow to hear of Redis: another one may write the stream by then."""
    async with node(server) as one:
        writer = await opened(one, b"a")
        assert one._renewal is not None
        one._renewal.cancel()
        with server.frozen():
            writer.renewed(one._now() - 1)
            writing = asyncio.create_task(writer.write([b"b"]))
            await until(lambda: one._line.silent)
            await asyncio.sleep(0.05)
            assert writer.shelved.log.last == 1
        await asyncio.wait_for(writing, 30)
        assert writer.shelved.log.last == 2


async def test_a_drain_waits_for_what_is_opened_in_its_middle() -> None:
    """Whose request was being read when the signal came."""
    first, second = asyncio.Event(), asyncio.Event()
    answers = [ScriptedAnswer([[BLOCK], first]), ScriptedAnswer([[BLOCK], second])]
    made = Streams(MemoryJournal(), lambda _: answers.pop(0), grace=60, patience=15, max_streams=10)
    with await made.open(entry()):
        draining = asyncio.create_task(made.drain(5))
        await asyncio.sleep(0)
        with await made.open(entry()) as other:
            first.set()
            await asyncio.sleep(0.01)
            assert not draining.done()
            second.set()
            await asyncio.wait_for(draining, 10)
            assert other.shelved.log.ending == Ending(kind="complete")


async def test_a_redis_that_wants_its_replicas_is_waited_for_as_one_that_is_silent(server: RedisServer) -> None:
    async with node(server) as one:
        writer = await opened(one, b"a")
        await tell(server, "CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            await asyncio.wait_for(writer.write([b"b"]), 20)
            assert writer.shelved.log.last == 2
            assert writer.acked == 1
        finally:
            await tell(server, "CONFIG", "SET", "min-replicas-to-write", 0)
        await until(lambda: writer.acked == 2)


async def test_who_waits_at_a_place_that_never_comes_is_told(server: RedisServer) -> None:
    async with ScriptedServer(Upstream(*ANSWER)) as http, serving(over(http, server)) as served:
        left = await leave(server, ANSWER[:1])
        beyond = asyncio.create_task(rest(served.url, left.stream, 10_000))
        _, data = await rest(served.url, left.stream)
        assert said(data) == "one two three"
        status, told = await beyond
        assert (status, b"journal_unavailable" in told, told.endswith(b"(cut)")) == (200, True, True)
