"""What would leave readers waiting for ever, or a stream without its end: each was found by trying."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from holdfast.gateway.journal._line import connect
from holdfast.gateway.journal.redis import RedisJournal
from holdfast.gateway.log import Ending
from holdfast.gateway.streams import Streams
from tests.gateway.acting import ScriptedAnswer
from tests.gateway.test_redis_journal import entry, node, until
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
        async with asyncio.timeout(3):
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
        async with asyncio.timeout(3):
            await asyncio.gather(first, made.cancel(running))
        await until(lambda: running.shelved.log.ending)
        assert not one._writers, "its lease would be kept for ever"
