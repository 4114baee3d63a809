"""The world a property is tried in: a model of a server in memory, a pipe over it, and what may come of it.

A `Scenario` is drawn; `play()` runs it and gives a `Run`, all that a property needs to judge. The `House` is the
assembly under test: the library's own by default, a deliberately broken one (broken.py) to show that a property bites.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from hypothesis import strategies as st

from holdfast._core import Stream, transform
from holdfast._errors import EndOfStream, StreamError, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Completion, Delta, Head, Request
from holdfast.dialects import OPENAI
from holdfast.layers.deadline import Deadline
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.moments import Moment, Report
from holdfast.telemetry.logs import configure_logs
from holdfast.testing import FakeClock
from holdfast.testing.faults_layer import Faults
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import TrueAnswer, completions, retellings, schedules

Mode = Literal["ids", "no ids", "divergent"]
MODES: tuple[Mode, ...] = ("ids", "no ids", "divergent")


@dataclass(slots=True, frozen=True, kw_only=True)
class Scenario:
    """One drawn world. `tellings` are what the server says to attempt 1, 2, 3..., the last one from then on."""

    mode: Mode = "no ids"
    tellings: tuple[TrueAnswer, ...]
    schedule: Schedule = field(default_factory=Schedule)
    sizes: tuple[int, ...] = (1_000_000,)
    """The bytes of each chunk as the parser gets it, one size after another."""
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
        again = [draw(retellings(draw(altered(first))))]
    return Scenario(
        mode=mode,
        tellings=(first, *again),
        schedule=draw(schedules(min_faults=1) if met is None else met),
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
    rest = draw(st.sampled_from((part.text[keep + 1 :], "", "else")))
    other = type(part)(part.channel, part.text[:keep] + "≠" + rest, part.name)
    changed = type(plan)((*plan.parts[:place], other, *plan.parts[place + 1 :]), plan.finish_reason)
    plans = (*answer.plans[:number], changed, *answer.plans[number + 1 :])
    return type(answer)(completion=answer.completion, payloads=(), request=answer.request, plans=plans)


READ = 300
"""Bytes of a healthy read."""

# -- the server --------------------------------------------------------------------------------


class ModelServer:
    """A source that says what the scenario's server says, without a fault; it honours Last-Event-ID where it has ids.

    `served` has the place where each attempt began; `live` counts streams that are open now.
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
        self._open = True

    async def receive(self) -> Sequence[bytes]:
        if not self._open:
            raise UsageError("this stream is closed")
        await asyncio.sleep(0)
        if not self._data:
            raise EndOfStream
        chunk, self._data = self._data[:READ], self._data[READ:]
        return (chunk,)

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._server.live -= 1
        await asyncio.sleep(0)


class _Cutter:
    """The network's way with chunks: a machine that cuts what comes into pieces of the given sizes."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._count = 0

    def feed(self, batch: Sequence[bytes], out: list[bytes]) -> None:
        for chunk in batch:
            left = chunk
            while left:
                size = self._sizes[self._count % len(self._sizes)]
                self._count += 1
                out.append(left[:size])
                left = left[size:]

    def end(self, out: list[bytes]) -> None:
        pass


# -- the house, and what comes of it -----------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class House:
    """The layers under test, from the wire to the reader. A broken house replaces one of them."""

    parse: Any = field(default_factory=parse_sse)
    verify: Any = field(default_factory=lambda: verify(OPENAI))
    clocks: Any = field(default_factory=lambda: Deadline(open=5, first_token=5, progress=2))
    retry: Any = field(default_factory=Retry)
    reconnect: Any = field(default_factory=Reconnect)
    total: float = 1_000.0
    max_requests: int = 8
    more: tuple[Any, ...] = ()
    """Layers between Reconnect and the last Deadline."""

    def pipe(self, source: Any, clock: FakeClock, seed: int) -> Pipe[Delta]:
        """Builds it."""
        pipe: Pipe[Any] = Pipe(source, clock=clock, random=Random(seed), max_requests=self.max_requests)
        layers = (self.parse, self.verify, self.clocks, self.retry, self.reconnect, *self.more)
        for layer in (*layers, Deadline(total=self.total)):
            pipe = pipe | layer
        return pipe


@dataclass(slots=True, kw_only=True)
class Run:
    """What came of a scenario. `faults` is what each attempt met, `live` counts streams left open."""

    scenario: Scenario
    deltas: list[Delta] = field(default_factory=list)
    error: StreamError | None = None
    completion: Completion | None = None
    report: Report = field(default_factory=Report)
    moments: list[Moment] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    live: int = 0
    seconds: float = 0.0


def play(scenario: Scenario, house: House | None = None, *, logs: bool = False) -> Run:
    """Runs a scenario to its end, in no time."""
    run = Run(scenario=scenario)
    written = io.StringIO()
    if logs:
        configure_logs(written, json=True, level="debug")
    try:
        asyncio.run(_play(scenario, house or House(), run))
    finally:
        configure_logs(level=None)
    run.lines = [json.loads(line) for line in written.getvalue().splitlines()]
    return run


async def _play(scenario: Scenario, house: House, run: Run) -> None:
    server = ModelServer(scenario)
    source = transform(lambda _: _Cutter(scenario.sizes))(Faults(scenario.schedule)(server))
    async with FakeClock() as clock:
        reader = house.pipe(source, clock, scenario.seed).stream(scenario.request, listeners=[run.moments.append])
        try:
            async with reader:
                async for delta in reader:
                    run.deltas.append(delta)
                run.completion = reader.completion
        except StreamError as error:
            run.error = error
        run.report, run.served, run.live, run.seconds = reader.report, server.served, server.live, clock.now()
