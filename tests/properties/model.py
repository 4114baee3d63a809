"""The world a property is tried in: a model of a server in memory, a pipe over it, and what may come of it.

A `Scenario` is drawn; `play()` runs it and gives a `Run`, all that a property needs to judge. The `House` is the
assembly under test: the library's own by default, a deliberately broken one (broken.py) to show that a property bites.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

from holdfast._core import Stream
from holdfast._errors import EndOfStream, UsageError
from holdfast._types import Head, Request
from holdfast.dialects import OPENAI
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import TrueAnswer, completions, retellings, schedules

Mode = Literal["ids", "no ids", "divergent"]
MODES: tuple[Mode, ...] = ("ids", "no ids", "divergent")
TOTAL = 1_000.0
"""Seconds that a call may take in all, and the tightest of its clocks per attempt."""
PROGRESS = 20.0


@dataclass(slots=True, frozen=True, kw_only=True)
class Scenario:
    """One drawn world. `tellings` are what the server says to attempt 1, 2, 3..., the last one from then on."""

    mode: Mode = "no ids"
    tellings: tuple[TrueAnswer, ...]
    schedule: Schedule = field(default_factory=Schedule)
    sizes: tuple[int, ...] = (1_000_000,)
    """How many bytes a read gives, one size after another."""
    seed: int = 0

    def telling(self, attempt: int) -> TrueAnswer:
        """What attempt number `attempt` would say in full."""
        return self.tellings[0 if self.mode == "ids" else min(attempt, len(self.tellings)) - 1]

    @property
    def request(self) -> Request:
        """The request that asks for it."""
        return Request(url="memory://upstream/v1", body={"messages": [], **self.tellings[0].request})


@st.composite
def scenarios(
    draw: st.DrawFn,
    *,
    modes: Sequence[Mode] = MODES,
    met: st.SearchStrategy[Schedule] | None = None,
    max_choices: int = 2,
) -> Scenario:
    """Draws worlds; `met` are the schedules, of evident faults by default."""
    mode = draw(st.sampled_from(modes))
    first = draw(completions(OPENAI, max_choices=max_choices))
    again: list[TrueAnswer] = []
    if mode == "no ids":
        again = draw(st.lists(retellings(first), max_size=2))
    elif mode == "divergent":
        again = [draw(retellings(draw(altered(first))) | completions(OPENAI, max_choices=max_choices))]
    return Scenario(
        mode=mode,
        tellings=(first, *again),
        schedule=draw(schedules() if met is None else met),
        sizes=tuple(draw(st.sampled_from([(1_000_000,), (1,), (7, 64), (40, 1, 300), (200,)]))),
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def altered(draw: st.DrawFn, answer: TrueAnswer) -> TrueAnswer:
    """Another answer that begins like this one: what a comparison must not be too lazy to find."""
    number = draw(st.integers(0, len(answer.plans) - 1))
    plan = answer.plans[number]
    if not plan.parts:
        return answer
    place = draw(st.integers(0, len(plan.parts) - 1))
    part = plan.parts[place]
    keep = draw(st.integers(0, len(part.text)))
    other = type(part)(part.channel, part.text[:keep] + "≠" + part.text[keep + 1 :], part.name)
    changed = type(plan)((*plan.parts[:place], other, *plan.parts[place + 1 :]), plan.finish_reason)
    plans = (*answer.plans[:number], changed, *answer.plans[number + 1 :])
    return type(answer)(completion=answer.completion, payloads=(), request=answer.request, plans=plans)


# -- the server --------------------------------------------------------------------------------


class ModelServer:
    """A source that says what the scenario's server says, without a fault; it honours Last-Event-ID where it has ids.

    `served` counts attempts and says where each began; `live` counts streams that are open now.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.served: list[int] = []
        self.live = 0

    async def open(self, request: Request) -> Stream[bytes]:
        scenario = self.scenario
        await asyncio.sleep(0)
        ids = scenario.mode == "ids"
        events = scenario.telling(len(self.served) + 1).events(ids=ids)
        last = request.headers.get("Last-Event-ID", "") if ids else ""
        begin = int(last) if last else 0
        self.served.append(begin)
        self.live += 1
        return _ModelStream(self, b"".join(events[begin:]))


class _ModelStream:
    def __init__(self, server: ModelServer, data: bytes) -> None:
        self.head = Head(headers={"content-type": "text/event-stream"})
        self._server = server
        self._data = data
        self._reads = 0
        self._open = True

    async def receive(self) -> Sequence[bytes]:
        if not self._open:
            raise UsageError("this stream is closed")
        await asyncio.sleep(0)
        if not self._data:
            raise EndOfStream
        sizes = self._server.scenario.sizes
        size = sizes[self._reads % len(sizes)]
        self._reads += 1
        chunk, self._data = self._data[:size], self._data[size:]
        return (chunk,)

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._server.live -= 1
        await asyncio.sleep(0)
