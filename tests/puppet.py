"""A source that does what a script says: the double for an upstream, or for any layer's inner side.

    puppet = Puppet(
        ConnectError("refused"),                      # the first open() fails
        ["a", Wait(2.0), ["b", "c"], Truncated("")],  # the second: three batches by and by, then a failure
        Script("a", opening=(Wait(3.0),)),            # the third takes 3 s to open and ends cleanly after "a"
    )

It counts opens and closes and knows which streams are still open, so a test can ask for leaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast._clock import Clock
from holdfast._core import Call
from holdfast._errors import EndOfStream, UsageError
from holdfast._types import Head, Request
from holdfast.testing import FakeClock


@dataclass(slots=True, frozen=True)
class Wait:
    """Pauses for so many seconds of the call's clock; without a number, for ever. A cancelled wait goes on later."""

    seconds: float | None = None


@dataclass(slots=True)
class Script:
    """What one `open()` leads to.

    A step is an exception to raise, a `Wait`, an `asyncio.Event` to wait for, a list (one batch), or anything else
    (a batch of that one item). `opening` happens before the head; after the last step the stream ends cleanly.
    """

    steps: tuple[Any, ...]
    opening: tuple[Any, ...] = ()
    head: Head = field(default_factory=Head)

    def __init__(self, *steps: Any, opening: Sequence[Any] = (), head: Head | None = None) -> None:
        self.steps = steps
        self.opening = tuple(opening)
        self.head = head or Head()


class Puppet:
    """A scripted source: one script per `open()`, in order. `repeat=True` uses the last one again and again."""

    def __init__(self, *scripts: Script | Sequence[Any] | Exception, repeat: bool = False) -> None:
        self.scripts = [_script(given) for given in scripts]
        self.repeat = repeat
        self.requests: list[Request] = []
        self.opened_at: list[float] = []
        self.closes = 0
        self.live: set[PuppetStream] = set()

    @property
    def opens(self) -> int:
        """How often `open()` was called, whatever came of it."""
        return len(self.requests)

    async def open(self, request: Request) -> PuppetStream:
        turn = min(self.opens, len(self.scripts) - 1) if self.repeat else self.opens
        assert turn < len(self.scripts), f"opened {turn + 1} times, scripted for {len(self.scripts)}"
        script = self.scripts[turn]
        self.requests.append(request)
        self.opened_at.append(request.call.clock.now())
        stream = PuppetStream(self, script, request.call.clock)
        self.live.add(stream)
        try:
            await stream.play_opening()
        except BaseException:
            await stream.aclose()
            raise
        return stream


class PuppetStream:
    """One scripted stream. `received` counts finished batches, `reads` calls of `receive()`."""

    def __init__(self, puppet: Puppet, script: Script, clock: Clock) -> None:
        self.puppet = puppet
        self.head = script.head
        self.received = 0
        self.reads = 0
        self._opening = script.opening
        self._steps = list(script.steps)[::-1]
        self._clock = clock
        self._until: float | None = None
        self._end: Exception | None = None
        self._reading = False

    async def play_opening(self) -> None:
        for step in self._opening:
            if isinstance(step, Exception):
                raise step
            await self._pause(step)
        await asyncio.sleep(0)  # a place to be cancelled at, as every real open() has many

    async def receive(self) -> list[Any]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        if self not in self.puppet.live:
            raise UsageError("this stream is closed")
        self.reads += 1
        self._reading = True
        try:
            return await self._play()
        finally:
            self._reading = False

    async def _play(self) -> list[Any]:
        while self._end is None:
            step = self._steps[-1] if self._steps else EndOfStream()
            if isinstance(step, Exception):
                self._end = step
            elif isinstance(step, Wait | asyncio.Event):
                await self._pause(step)
                self._steps.pop()
            else:
                self._steps.pop()
                self.received += 1
                return list(step) if isinstance(step, list) else [step]
        raise self._end

    async def _pause(self, step: Wait | asyncio.Event) -> None:
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif step.seconds is None:
            await asyncio.get_running_loop().create_future()
        else:
            if self._until is None:
                self._until = self._clock.now() + step.seconds
            await self._clock.sleep(self._until - self._clock.now())
            self._until = None

    async def aclose(self) -> None:
        if self in self.puppet.live:
            self.puppet.live.remove(self)
            self.puppet.closes += 1
        await asyncio.sleep(0)  # closing takes a moment, in which a closer can be cancelled


def _script(given: Script | Sequence[Any] | Exception) -> Script:
    if isinstance(given, Script):
        return given
    if isinstance(given, Exception):
        return Script(opening=(given,))
    return Script(*given)


def request_on(clock: FakeClock | None = None, **settings: Any) -> Request:
    """Gives a request with a call of its own, for layers that are tested without a pipe."""
    return Request(url="http://upstream/v1", call=Call(clock=clock or FakeClock(), **settings))


async def drain(stream: Any) -> list[Any]:
    """Reads to the clean end and gives all items."""
    items: list[Any] = []
    while True:
        try:
            items += await stream.receive()
        except EndOfStream:
            return items
