"""Plays a recording through the layers it was made with, in no time: what became of every attempt, and of the stream.

The layers a `Client` has by default judge, and nothing here does: the verdict is the one that the reader then had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast._clock import Timer
from holdfast._defaults import default_layers
from holdfast._errors import StreamError
from holdfast._pipe import Pipe
from holdfast._types import Completion, Request, Verdict
from holdfast.dialects import Dialect
from holdfast.machines.recording import Story
from holdfast.moments import Moment, Opening, Resuming, Retrying
from holdfast.sources.memory import MemorySource


@dataclass(slots=True, kw_only=True)
class Played:
    """What a recorded stream came to. `ends` has each attempt's end by its number, as far as the replay used it."""

    answer: Completion = field(default_factory=Completion)
    verdict: Verdict | None = None
    error: StreamError | None = None
    ends: dict[int, StreamError | Verdict] = field(default_factory=dict)

    @property
    def end(self) -> StreamError | Verdict | None:
        """How the whole ended."""
        return self.error or self.verdict


def play(path: Path, stories: Sequence[Story], dialect: Dialect) -> Played:
    """Plays all attempts of the recording whose first one is `path`."""
    return asyncio.run(_play(path, stories, dialect))


async def _play(path: Path, stories: Sequence[Story], dialect: Dialect) -> Played:
    played, clock = Played(), _Then()

    def hear(moment: Moment) -> None:
        if isinstance(moment, Opening):
            clock.then = stories[moment.attempt - 1].ended_at or clock.then
        elif isinstance(moment, Retrying | Resuming) and moment.error is not None:
            played.ends[moment.attempt] = moment.error

    # What was recorded is all there is: the source would play its last attempt again.
    pipe = Pipe(MemorySource.replay(path), clock=clock, max_requests=len(stories), listeners=[hear])
    for layer in default_layers(dialect):
        pipe = pipe | layer
    body = stories[0].request.body
    reader = pipe.stream(Request(url=stories[0].request.url, body=body if isinstance(body, dict) else None))
    try:
        async with reader as deltas:
            async for _ in deltas.batches():
                pass
        played.verdict = reader.report.verdict
    except StreamError as error:
        played.error = error
    played.answer = reader.partial.answer
    if played.end is not None:
        played.ends[reader.report.attempts] = played.end
    return played


class _Then:
    """A clock that never waits. `then` is the date of the attempt being played: servers name times to wait until."""

    def __init__(self) -> None:
        self.then = datetime.now(UTC)
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self.then

    async def sleep(self, seconds: float) -> None:
        self._now += max(0.0, seconds)
        await asyncio.sleep(0)

    def call_at(self, when: float, call: object) -> Timer:
        return _Never()


class _Never:
    def cancel(self) -> None:
        """Nothing was going to happen."""


__all__ = ["Played", "play"]
