"""Two gateway processes and one Redis: nodes are killed, frozen and restarted, and every reader has the same text."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from random import Random

import aiohttp
import pytest
import pytest_asyncio

from bench.nodes.rig import Node, Reader, Story, nodes, truth, truths
from holdfast.testing.chaos import ChaosServer, Mode
from tests.binaries import free_port
from tests.redis_server import RedisServer, redis_server

STREAMS = 20
LEASE = 1.0
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Rig:
    """What all tests here share, because nodes take a while to start: each leaves both nodes running."""

    def __init__(self, redis: RedisServer, upstream: ChaosServer, made: list[Node], reader: Reader) -> None:
        self.redis = redis
        self.upstream = upstream
        self.nodes = made
        self.reader = reader

    def prompts(self, name: str, *modes: Mode, count: int = STREAMS) -> list[str]:
        """Makes so many prompts of each kind."""
        made = [(f"{name} {mode} {n}", mode) for n in range(count) for mode in modes]
        self.upstream.modes = {**self.upstream.modes, **dict(made)}
        return [prompt for prompt, _ in made]

    async def asked(self, prompts: list[str], times: int = 1) -> None:
        """Waits until the upstream was asked for each of them so often."""
        async with asyncio.timeout(15):
            while any(self.upstream.attempts.get(one, 0) < times for one in prompts):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    async def read(self, prompts: list[str]) -> list[Story]:
        return await asyncio.gather(*(self.reader.read(prompt, n // 2) for n, prompt in enumerate(prompts)))

    async def check(self, stories: list[Story], places: list[int]) -> None:
        """Every reader has the whole text once, and it is the same that any node gives to who comes late."""
        for story in stories:
            assert story.error == ""
            assert story.in_order
            assert "".join(story.text) == truth(self.upstream, story.prompt)
            for place in places:
                assert await self.reader.whole(place, story.stream) == story.data


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there() -> AsyncIterator[Rig]:
    upstream = ChaosServer(every=0.02, sentences=3, seed=free_port())
    with redis_server() as redis:
        async with upstream, aiohttp.ClientSession() as session:
            one = {"dialect": "openai", "base_url": upstream.url, "api_key": "sk-upstream"}
            set_ = {"journal": redis.url, "lease": LEASE, "drain": 0.1, "upstreams": [one]}
            async with nodes(free_port(), free_port(), **set_) as made:
                yield Rig(redis, upstream, made, Reader(session, [node.url for node in made], patience=25))


async def test_a_node_is_killed_and_every_reader_has_the_identical_text_or_the_same_error(there: Rig) -> None:
    """Upstreams that go on behind an id, that answer the same again, and one that answers something else."""
    prompts = there.prompts("kill", "ids", "no-ids", count=STREAMS // 2)
    others = there.prompts("kill", "divergent", count=4)
    reading = asyncio.create_task(there.read([*prompts, *others]))
    await there.asked([*prompts, *others])
    await asyncio.sleep(0.1 + 0.3 * Random(there.upstream.seed).random())
    await there.nodes[0].kill()
    restarted = asyncio.create_task(there.nodes[0].start())
    stories = await reading
    await restarted
    whole, rest = stories[: len(prompts)], stories[len(prompts) :]
    assert sum(story.cuts for story in whole) >= 5
    await there.check(whole, [0, 1])
    for story in rest:
        assert story.error or "".join(story.text) in truths(there.upstream, story.prompt)
        assert any(one.startswith("".join(story.text)) for one in truths(there.upstream, story.prompt))
        assert await there.reader.whole(1, story.stream) == story.data


async def test_both_nodes_are_restarted_under_load_and_nothing_is_lost(there: Rig) -> None:
    prompts = there.prompts("roll", "ids")
    reading = asyncio.create_task(there.read(prompts))
    await there.asked(prompts)
    for node in there.nodes:
        await node.stop()
        await node.start()
    await there.check(await reading, [0, 1])


async def test_a_node_that_was_frozen_past_its_lease_writes_and_asks_nothing_more(there: Rig) -> None:
    prompts = there.prompts("freeze", "ids")
    reading = asyncio.create_task(there.read(prompts))
    await there.asked(prompts)
    there.nodes[0].signal(signal.SIGSTOP)
    await there.asked([one for n, one in enumerate(prompts) if n // 2 % 2 == 0], times=2)
    there.nodes[0].signal(signal.SIGCONT)
    stories = await reading
    assert max(there.upstream.attempts[prompt] for prompt in prompts) == 2
    assert max(story.cuts for story in stories) == 0, "who reads at the frozen node is not even cut"
    await there.check(stories, [0, 1])


async def test_redis_is_silent_for_longer_than_a_lease_and_nothing_that_runs_stops(there: Rig) -> None:
    there.upstream.every = 0.04
    prompts = there.prompts("silence", "ids", count=STREAMS // 2)
    reading = asyncio.create_task(there.read(prompts))
    await there.asked(prompts)
    with there.redis.frozen():
        await asyncio.sleep(1.5 * LEASE)
    stories = await reading
    assert max(story.longest_gap for story in stories) < 1.5 * LEASE
    assert max(story.cuts for story in stories) == 0
    assert {there.upstream.attempts[prompt] for prompt in prompts} == {1}
    await asyncio.sleep(0.1)
    await there.check(stories, [0, 1])
