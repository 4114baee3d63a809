"""Two gateway processes and one Redis: nodes are killed, frozen and restarted, and every reader has the same text."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import get_args

import aiohttp
import pytest

from bench.nodes.rig import Node, Reader, Story, nodes, truth
from holdfast.testing.chaos import ChaosServer, Mode
from tests.binaries import free_port
from tests.redis_server import RedisServer, redis_server

STREAMS = 20


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Rig:
    def __init__(self, upstream: ChaosServer, made: list[Node], reader: Reader) -> None:
        self.upstream = upstream
        self.nodes = made
        self.reader = reader

    async def read(self, prompts: list[str]) -> list[Story]:
        return await asyncio.gather(*(self.reader.read(prompt, n) for n, prompt in enumerate(prompts)))

    async def check(self, stories: list[Story], places: list[int]) -> None:
        """Every reader has the whole text once, and it is the same that any node gives to who comes late."""
        for story in stories:
            assert story.error == ""
            assert story.in_order
            assert "".join(story.text) == truth(self.upstream, story.prompt)
            for place in places:
                assert await self.reader.whole(place, story.stream) == story.data


@asynccontextmanager
async def rig(redis: RedisServer, **settings: object) -> AsyncIterator[Rig]:
    modes: dict[str, Mode] = {f"{mode} {n}": mode for mode in get_args(Mode) for n in range(STREAMS)}
    upstream = ChaosServer(modes=modes, every=0.02, sentences=3, seed=redis.port)
    async with upstream, aiohttp.ClientSession() as session:
        one = {"dialect": "openai", "base_url": upstream.url, "api_key": "sk-upstream"}
        set_ = {"journal": redis.url, "lease": 0.8, "drain": 0.1, "upstreams": [one], **settings}
        async with nodes(free_port(), free_port(), **set_) as made:
            yield Rig(upstream, made, Reader(session, [node.url for node in made], patience=25))


async def test_a_node_is_killed_and_every_reader_has_the_identical_text_or_the_same_error(redis: RedisServer) -> None:
    """Upstreams that go on behind an id, that answer the same again, and one that answers something else."""
    async with rig(redis) as there:
        prompts = [f"{mode} {n}" for n in range(STREAMS // 2) for mode in ("ids", "no-ids")]
        others = [f"divergent {n}" for n in range(4)]
        reading = asyncio.create_task(there.read([*prompts, *others]))
        await asyncio.sleep(0.5 + 0.3 * Random(redis.port).random())
        await there.nodes[0].kill()
        stories = await reading
        whole, rest = stories[: len(prompts)], stories[len(prompts) :]
        assert sum(story.cuts for story in whole) >= 5
        await there.check(whole, [1])
        for story in rest:
            assert (story.error == "") == (story.cuts == 0), story
            assert truth(there.upstream, story.prompt).startswith("".join(story.text))
            assert await there.reader.whole(1, story.stream) == story.data


async def test_both_nodes_are_restarted_under_load_and_nothing_is_lost(redis: RedisServer) -> None:
    async with rig(redis) as there:
        prompts = [f"ids {n}" for n in range(STREAMS)]
        reading = asyncio.create_task(there.read(prompts))
        await asyncio.sleep(0.4)
        for node in there.nodes:
            await node.stop()
            await node.start()
        await there.check(await reading, [0, 1])


async def test_a_node_that_was_frozen_past_its_lease_writes_and_asks_nothing_more(redis: RedisServer) -> None:
    async with rig(redis) as there:
        prompts = [f"ids {n}" for n in range(STREAMS)]
        reading = asyncio.create_task(there.read(prompts))
        await asyncio.sleep(0.5)
        there.nodes[0].signal(signal.SIGSTOP)
        await until_all(there, 1)
        asked = len(there.upstream.served)
        there.nodes[0].signal(signal.SIGCONT)
        stories = await reading
        assert len(there.upstream.served) == asked
        assert max(story.cuts for story in stories) == 0, "who reads at the frozen node is not even cut"
        await there.check(stories, [0, 1])


async def until_all(there: Rig, attempts: int) -> None:
    """Waits until every stream of the frozen node was asked for again, and for a moment more."""
    async with asyncio.timeout(10):
        while sum(n > attempts for n in there.upstream.attempts.values()) < STREAMS // 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)


async def test_redis_is_silent_for_three_seconds_and_nothing_that_runs_stops(redis: RedisServer) -> None:
    async with rig(redis) as there:
        there.upstream.every, there.upstream.sentences = 0.05, 5
        prompts = [f"ids {n}" for n in range(STREAMS)]
        reading = asyncio.create_task(there.read(prompts))
        await asyncio.sleep(0.5)
        with redis.frozen():
            await asyncio.sleep(3)
        stories = await reading
        assert max(story.longest_gap for story in stories) < 1.5
        assert max(story.cuts for story in stories) == 0
        assert set(there.upstream.attempts.values()) == {1}
        await asyncio.sleep(0.1)
        await there.check(stories, [0, 1])
