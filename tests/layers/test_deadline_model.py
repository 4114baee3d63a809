"""Deadline and its alarm against a model: a list of waits with their times, from which follows what ends each.

A wait ends with its item, with the clock that runs out first, or with somebody else's cancellation; then and no other
time. Times are drawn so that no two ends fall together: what happens then is in test_deadline.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from holdfast._core import Stream
from holdfast._errors import DeadlineExceeded
from holdfast._types import Delta, Event, Head, Request
from holdfast.layers.deadline import Deadline
from holdfast.testing import FakeClock
from tests.properties.profile import examples
from tests.puppet import request_on

FULL, EMPTY = Delta(Event(), "x"), Delta(Event())
GAPS = st.integers(0, 12).map(float)
GIVE_UPS = st.sampled_from([None, None, 1 / 1024, 3 + 1 / 1024, 8 + 1 / 1024])  # so that no sum of them is a half
CLOCKS = st.sampled_from([4.5, 9.5, 20.5, None])


async def _next(stream: Stream[Delta]) -> Delta:
    (item,) = await stream.receive()
    return item


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


class Due:
    """A source and its stream, whose next item comes at a given time whether or not somebody waits."""

    head = Head()

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.at = 0.0
        self.item = FULL
        self.closed = 0

    async def open(self, request: Request) -> Stream[Delta]:
        await self.clock.sleep(self.at)
        return self

    async def receive(self) -> Sequence[Delta]:
        await self.clock.sleep(self.at - self.clock.now())
        return (self.item,)

    async def aclose(self) -> None:
        self.closed += 1


class DeadlineAgainstModel(RuleBasedStateMachine):
    stream: Stream[Delta] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.due = Due(self.clock)

    def teardown(self) -> None:
        async def close() -> None:
            if self.stream is not None:
                await self.stream.aclose()
            assert self.clock._next() is None, "a timer was left behind"
            self.clock.close()

        self.runner.run(close())
        self.runner.close()

    @initialize(first=CLOCKS, progress=CLOCKS, total=st.sampled_from([30.75, 100.75, None]), opening=st.integers(0, 3))
    def begin(self, first: float | None, progress: float | None, total: float | None, opening: int) -> None:
        self.first, self.progress = first or math.inf, progress or math.inf
        self.total_at = total or math.inf
        layer = Deadline(first_token=first, progress=progress, total=total)
        self.due.at = float(opening)
        self.stream = self.runner.run(layer(self.due).open(request_on(self.clock)))
        self.left, self.waiting = self.first - opening, "first_token"
        self.ended: DeadlineExceeded | None = None

    @precondition(lambda self: self.stream is not None)
    @rule(seconds=GAPS)
    def dawdle(self, seconds: float) -> None:
        """The reader is busy: no clock runs but the one over everything."""
        self.runner.run(self.clock.advance(seconds))

    @precondition(lambda self: self.stream is not None)
    @rule(gap=GAPS, empty=st.booleans(), give_up=GIVE_UPS)
    def wait(self, *, gap: float, empty: bool, give_up: float | None) -> None:
        started = self.clock.now()
        self.due.at, self.due.item = started + gap, EMPTY if empty else FULL
        outcome = self.runner.run(self.receive(give_up))
        took = self.clock.now() - started
        if self.ended is not None:
            assert (outcome, took) == (self.ended, 0.0), "the end is sticky"
            return
        allowed = min(self.left, self.total_at - started)
        if allowed <= min(gap, give_up or math.inf):
            assert isinstance(outcome, DeadlineExceeded)
            assert outcome.clock == ("total" if self.total_at - started <= self.left else self.waiting)
            assert took == max(0.0, allowed)
            self.ended = outcome
        elif give_up is not None and give_up < gap:
            assert (outcome, took) == ("cancelled", give_up)
            self.left -= took
        else:
            assert (outcome, took) == (self.due.item, gap)
            self.left -= took
            if not empty:
                self.left, self.waiting = self.progress, "progress"

    async def receive(self, give_up: float | None) -> Any:
        assert self.stream is not None
        task = asyncio.create_task(_next(self.stream))
        timer = self.clock.call_at(self.clock.now() + give_up, partial(_cancel, task)) if give_up is not None else None
        try:
            item = await task
        except DeadlineExceeded as error:
            return error
        except asyncio.CancelledError:
            return "cancelled"
        else:
            return item
        finally:
            if timer is not None:
                timer.cancel()


TestDeadlineAgainstModel = DeadlineAgainstModel.TestCase
TestDeadlineAgainstModel.settings = settings(examples(80), stateful_step_count=20)
