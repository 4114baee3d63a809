"""The model of an upstream: regions with limits, a queue, and brown-outs.

A region judges at the head as OpenAI does: a bucket of requests and one of tokens that refill all the while, told in
`x-ratelimit-*` with every answer, and so many streams at a time. Of those it answers as many as it has workers, and who
comes later waits for its first token. It shares no code with the layers that are measured against it.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal
from urllib.parse import urlsplit

from holdfast import ConnectError, EndOfStream, Head, Request, StatusError, Stream
from holdfast._clock import Clock
from holdfast.machines.statuses import status_error

DELTAS, BATCHES = 20, 4
WORDS = tuple(f"word{number} " for number in range(DELTAS))
TEXT = "".join(WORDS)
OUTPUT_TOKENS = DELTAS
MAX_TOKENS = 40
"""What clients allow an answer; OpenAI counts that, not what comes."""
OPENING, FIRST, PACE = 0.05, 0.4, 0.4
"""Seconds: to the head; to the first token (median) once a worker is free; from one batch of deltas to the next."""
SPREAD = 0.25
ANSWER_SECONDS = FIRST * math.exp(SPREAD**2 / 2) + (BATCHES - 1) * PACE
"""How long an answer keeps a worker, in the mean."""
Kind = Literal["outage", "slow", "half-dead"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one region takes: in `window` seconds, at a time (who waits for a worker included), and of workers."""

    requests: float = 900.0
    tokens: float = 1e6
    places: int = 60
    workers: int = 40
    window: float = 60.0


@dataclass(frozen=True)
class BrownOut:
    """A bad time of one region, "" for all: an outage answers nothing, `slow` takes four times as long.

    Half-dead, half of all requests end badly: in a 500, in silence, or at a crawl.
    """

    kind: Kind
    begin: float
    end: float
    region: str = ""


class Bucket:
    """An amount that refills to its limit within `window` seconds."""

    def __init__(self, limit: float, window: float) -> None:
        self.limit = self._left = limit
        self.rate = limit / window
        self._at = 0.0

    def left(self, now: float) -> float:
        self._left = min(self.limit, self._left + (now - self._at) * self.rate)
        self._at = now
        return self._left

    def take(self, amount: float) -> None:
        self._left -= amount

    def reset(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.limit - self.left(now)) / self.rate

    def headers(self, name: str, now: float) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{name}": f"{self.limit:.0f}",
            f"x-ratelimit-remaining-{name}": f"{math.floor(max(0.0, self.left(now)))}",
            f"x-ratelimit-reset-{name}": duration(self.reset(now)),
        }


def duration(seconds: float) -> str:
    """Writes seconds as OpenAI's headers do: 120ms, 7.66s, 1m3.57s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.3g}s" if minutes else f"{rest:.4g}s"


@dataclass(kw_only=True)
class Region:
    """One place that answers. `asked` has the time and the status of each request, 0 for one without an answer."""

    name: str
    limits: Limits
    clock: Clock
    chance: Random
    brown_outs: Sequence[BrownOut] = ()
    tail: float = 0.0
    """The share of answers whose first token takes ten times as long."""
    haste: float = 1.0
    """How many times as fast as usual it answers."""
    asked: list[tuple[float, int]] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    def __post_init__(self) -> None:
        window = self.limits.window
        self.requests, self.tokens = Bucket(self.limits.requests, window), Bucket(self.limits.tokens, window)
        self.workers = asyncio.Semaphore(self.limits.workers)

    def weather(self) -> str:
        now = self.clock.now()
        bad = (one for one in self.brown_outs if one.region in ("", self.name) and one.begin <= now < one.end)
        return next((one.kind for one in bad), "fair")

    async def open(self, request: Request) -> Stream[bytes]:
        await self.clock.sleep(OPENING / self.haste)
        weather, chance = self.weather(), self.chance
        if weather == "outage":
            if chance.random() < 0.5:
                self.asked.append((self.clock.now(), 0))
                raise ConnectError("connection refused")
            raise self._refuse(503, "service_unavailable", {})
        self._admit(prompt_tokens(request) + MAX_TOKENS)
        fate = chance.choice(("500", "silent", "crawl")) if weather == "half-dead" and chance.random() < 0.5 else ""
        if fate == "500":
            raise self._refuse(500, "server_error", {})
        self.asked.append((self.clock.now(), 200))
        first = FIRST * chance.lognormvariate(0, SPREAD) * (10 if chance.random() < self.tail else 1)
        slow = (4.0 if weather == "slow" else 1.0) / self.haste
        waits = [first * slow, *[PACE * slow] * (BATCHES - 1)]
        if fate == "silent":
            waits[chance.randrange(BATCHES) :] = [math.inf]
        elif fate == "crawl":
            waits[1:] = [20.0] * (BATCHES - 1)
        return _Answer(self, self._head(), waits, body(prompt_tokens(request)))

    def _admit(self, tokens: float) -> None:
        now = self.clock.now()
        if self.open_now >= self.limits.places:
            raise self._refuse(429, "concurrency_limit_exceeded", {})
        for bucket, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            if bucket.left(now) < amount:
                wait = (amount - bucket.left(now)) / bucket.rate
                raise self._refuse(429, "rate_limit_exceeded", {**self._limits(), "retry-after": f"{wait:.3f}"})
        self.requests.take(1.0)
        self.tokens.take(tokens)

    def _limits(self) -> dict[str, str]:
        now = self.clock.now()
        return {**self.requests.headers("requests", now), **self.tokens.headers("tokens", now)}

    def _head(self) -> Head:
        return Head(headers={"content-type": "text/event-stream", **self._limits()})

    def _refuse(self, status: int, code: str, headers: dict[str, str]) -> StatusError:
        self.asked.append((self.clock.now(), status))
        said = json.dumps({"error": {"message": "refused", "code": code}}).encode()
        error = status_error(Head(status=status, headers=headers), said, self.clock.wall())
        error.code = code
        return error


class _Answer:
    """One stream: it holds a place from its head on, and a worker from when one is free."""

    def __init__(self, region: Region, head: Head, waits: list[float], parts: Sequence[bytes]) -> None:
        self.head = head
        self._region = region
        self._left = list(zip(waits, parts, strict=False))
        self._working = False
        self._open = True
        region.open_now += 1
        region.most_open = max(region.most_open, region.open_now)

    async def receive(self) -> Sequence[bytes]:
        if not self._left:
            self._over()
            raise EndOfStream
        if not self._working:
            await self._region.workers.acquire()
            self._working = True
        seconds, part = self._left[0]
        if seconds == math.inf:
            await asyncio.Event().wait()
        await self._region.clock.sleep(seconds)
        self._left.pop(0)
        return [part]

    def _over(self) -> None:
        if self._open:
            self._open = False
            self._region.open_now -= 1
            if self._working:
                self._region.workers.release()

    async def aclose(self) -> None:
        self._over()


@dataclass
class Upstreams:
    """The source of all clients: the host of a request's address names the region."""

    regions: dict[str, Region]

    async def open(self, request: Request) -> Stream[bytes]:
        return await self.regions[str(urlsplit(request.url).hostname)].open(request)


def prompt_tokens(request: Request) -> int:
    """What the upstream's own tokenizer makes of a prompt: a token for each word."""
    asked = request.body if isinstance(request.body, dict) else {}
    return int(asked["messages"][0]["content"].count(" ")) + 1


_BODIES: dict[int, list[bytes]] = {}


def body(prompt: int) -> list[bytes]:
    """The parts of an answer's body. Every answer is the same, so that anything lost or doubled shows."""
    parts = _BODIES.get(prompt)
    if parts is None:
        size = DELTAS // BATCHES
        parts = [
            b"".join(_event({"choices": [{"index": 0, "delta": {"content": word}}]}) for word in WORDS[at : at + size])
            for at in range(0, DELTAS, size)
        ]
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": prompt + OUTPUT_TOKENS,
        }
        parts[-1] += _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        parts[-1] += _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        _BODIES[prompt] = parts
    return parts


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
