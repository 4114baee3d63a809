"""An upstream with limits of its own, which counts what it is sent: for layers that are to stay within them.

It judges at the head, tells in its headers what providers tell, and answers with one item after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast._clock import Clock
from holdfast._errors import EndOfStream, StatusError
from holdfast._types import Head, Request
from holdfast.machines.statuses import status_error

Semantics = Literal["bucket", "window"]


@dataclass(slots=True, kw_only=True)
class LimitedUpstream:
    """Takes `per_minute` requests a minute and `places` at once; what is more is a 429.

    `semantics`: a bucket that refills all the while, with a reset that says when it is full, or a window that begins
    anew every minute. `tells`: "headers" with every answer, a "retry-after" with a 429, or "nothing".
    """

    clock: Clock
    per_minute: float = 600.0
    places: int = 1_000_000
    semantics: Semantics = "bucket"
    tells: Literal["headers", "retry-after", "nothing"] = "headers"
    seconds: float = 2.0
    opening: float = 0.3
    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    _level: float = -1.0
    _at: float = 0.0

    def _left(self) -> float:
        now = self.clock.now()
        if self._level < 0:
            self._level, self._at = self.per_minute, now
        if self.semantics == "bucket":
            self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
            self._at = now
        elif now // 60 != self._at // 60:
            self._level, self._at = self.per_minute, now
        return self._level

    def _headers(self) -> dict[str, str]:
        left, now = self._left(), self.clock.now()
        full = (self.per_minute - left) / self.per_minute * 60 if self.semantics == "bucket" else 60 - now % 60
        if self.tells != "headers":
            return {}
        return {
            "x-ratelimit-limit-requests": f"{self.per_minute:.0f}",
            "x-ratelimit-remaining-requests": f"{int(left)}",
            "x-ratelimit-reset-requests": f"{full:.3f}s",
        }

    async def open(self, request: Request) -> _Answer:
        await asyncio.sleep(0)
        if self._left() < 1 or self.open_now >= self.places:
            raise self._refusal(of_rate=self._left() < 1)
        self._level -= 1
        self.taken.append(self.clock.now())
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        head = Head(headers=self._headers())
        try:
            await self.clock.sleep(self.opening)
        except BaseException:
            self.open_now -= 1
            raise
        return _Answer(self, head)

    def _refusal(self, *, of_rate: bool) -> StatusError:
        self.refused.append(self.clock.now())
        headers = self._headers() if of_rate else {}
        if of_rate and self.tells != "nothing":
            wait = 60 / self.per_minute if self.semantics == "bucket" else 60 - self.clock.now() % 60
            headers["retry-after"] = f"{wait:.3f}"
        words = b'{"error": {"message": "too much", "code": "%b"}}'
        code = b"rate_limit_exceeded" if of_rate else b"concurrency_limit"
        error = status_error(Head(status=429, headers=headers), words % code, self.clock.wall())
        error.code = code.decode()
        return error


class _Answer:
    def __init__(self, owner: LimitedUpstream, head: Head) -> None:
        self.head = head
        self._owner = owner
        self._left = ["first", "last"]
        self._open = True

    async def receive(self) -> Sequence[Any]:
        if not self._left:
            self._over()
            raise EndOfStream
        await self._owner.clock.sleep(self._owner.seconds / 2)
        return [self._left.pop(0)]

    def _over(self) -> None:
        if self._open:
            self._open = False
            self._owner.open_now -= 1

    async def aclose(self) -> None:
        self._over()
        await asyncio.sleep(0)
