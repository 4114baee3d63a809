"""The rig: gateway processes over one Redis, an upstream that counts, and readers that come back.

A reader does what a client does that can resume: it reads events, remembers the last id, and when its connection is cut
it asks any other node for the rest. What it has in the end is held against the truth of the upstream.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from holdfast.testing.chaos import ChaosServer

_HEARTBEAT = b": still here\n"


class Node:
    """A gateway process on a port of its own."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.port = port
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it, and waits until it serves."""
        told = json.dumps({"port": self.port, **self.settings})
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.nodes.node", told, stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        if line != b"ready\n":
            raise RuntimeError(f"a node did not start: {line!r}")

    def signal(self, number: int) -> None:
        """Sends a signal."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """Kills it, without a word."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> None:
        """Tells it to drain, and waits until it is gone."""
        self.signal(signal.SIGTERM)
        await self.ended()

    async def ended(self) -> None:
        """Waits until it is gone."""
        if self.process is not None:
            await asyncio.wait_for(self.process.wait(), 30)
            self.process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - else it warns in the end
            self.process = None


@asynccontextmanager
async def nodes(*ports: int, **settings: Any) -> AsyncIterator[list[Node]]:
    """Starts nodes, and kills them in the end."""
    made = [Node(port, **settings) for port in ports]
    try:
        await asyncio.gather(*(node.start() for node in made))
        yield made
    finally:
        for node in made:
            node.signal(signal.SIGCONT)
        await asyncio.gather(*(node.kill() for node in made))


@dataclass(slots=True)
class Story:
    """What one reader saw. `data` are the bytes of all blocks, `cuts` how often its connection ended too soon."""

    prompt: str
    stream: str = ""
    data: bytes = b""
    last_id: str = ""
    cuts: int = 0
    error: str = ""
    """The code of the error event that ended it, empty for a whole one."""
    done: bool = False
    longest_gap: float = 0.0
    text: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def take(self, block: bytes) -> None:
        """Takes one whole block in."""
        block = block.replace(_HEARTBEAT, b"")
        self.data += block
        for line in block.splitlines():
            if line.startswith(b"id: ") and line.rpartition(b"-")[0] == b"id: " + self.stream.encode():
                self.last_id = line[4:].decode()
                self.numbers.append(int(self.last_id.rpartition("-")[2]))
            elif line.startswith(b"data: {"):
                self._said(json.loads(line[6:]))
            elif line == b"data: [DONE]":
                self.done = True

    def _said(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error = str(event["error"].get("code") or "error")
            self.done = True
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            self.text.append((delta.get("reasoning_content") or "") + (delta.get("content") or ""))

    @property
    def in_order(self) -> bool:
        """Whether no number came twice, or too late."""
        return all(one < other for one, other in zip(self.numbers, self.numbers[1:], strict=False))


class Reader:
    """Reads streams from nodes, and comes back to another one when it is cut."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str], *, patience: float = 40.0) -> None:
        self._session = session
        self._urls = urls
        self._patience = patience

    async def read(self, prompt: str, place: int, *, model: str = "m") -> Story:
        """Reads an answer to its end, beginning at the node of that place. Raises `TimeoutError`."""
        story = Story(prompt)
        async with asyncio.timeout(self._patience):
            while not story.done:
                url = self._urls[place % len(self._urls)]
                try:
                    if story.last_id:
                        ended = await self._again(url, story)
                    else:
                        ended = await self._ask(url, story, model)
                except (aiohttp.ClientError, ConnectionError):
                    ended = False
                if ended and not story.done:
                    raise AssertionError(f"a stream ended cleanly without an end: {story.data[-300:]!r}")
                if not story.done:
                    story.cuts += 1
                    place += 1
                    await asyncio.sleep(0.05)
        return story

    async def _ask(self, url: str, story: Story, model: str) -> bool:
        body = {"model": model, "messages": [{"role": "user", "content": story.prompt}], "stream": True}
        headers = {"Idempotency-Key": story.prompt}
        async with self._session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            if response.status != 200:
                return False
            story.stream = response.headers["X-Holdfast-Stream"]
            story.data = b""
            return await self._take(response, story)

    async def _again(self, url: str, story: Story) -> bool:
        headers = {"Last-Event-ID": story.last_id}
        async with self._session.get(f"{url}/v1/streams/{story.stream}", headers=headers) as response:
            if response.status == 204:
                story.done = True
            if response.status != 200:
                return story.done
            return await self._take(response, story)

    async def _take(self, response: aiohttp.ClientResponse, story: Story) -> bool:
        left, last = b"", time.monotonic()
        async for data in response.content.iter_any():
            now = time.monotonic()
            story.longest_gap, last = max(story.longest_gap, now - last), now
            *blocks, left = (left + data).split(b"\n\n")
            for block in blocks:
                story.take(block + b"\n\n")
        return True

    async def whole(self, place: int, stream: str) -> bytes:
        """Reads a stream that ended from its beginning."""
        data = b""
        try:
            async with (
                asyncio.timeout(self._patience),
                self._session.get(f"{self._urls[place]}/v1/streams/{stream}") as response,
            ):
                async for more in response.content.iter_any():
                    data += more
        except aiohttp.ClientPayloadError:
            pass  # one that broke ends so
        return data.replace(_HEARTBEAT, b"")


def truth(upstream: ChaosServer, prompt: str) -> str:
    """Gives what the upstream's answer says, thoughts and text."""
    answer = upstream.answer(prompt)
    return answer.reasoning + answer.text


def truths(upstream: ChaosServer, prompt: str) -> list[str]:
    """Gives what each of the upstream's answers says: more than one only where it answers otherwise each time."""
    return [answer.reasoning + answer.text for answer in upstream.answers(prompt)]


def paid(upstream: ChaosServer, prompts: list[str]) -> tuple[int, int]:
    """Gives how many tokens answers have, and how many more than those the upstream generated for them."""
    asked = set(prompts)
    needed = sum(upstream.answer(prompt).tokens for prompt in asked)
    return needed, sum(one.tokens for one in upstream.served if one.key in asked) - needed
