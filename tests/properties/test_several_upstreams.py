"""Safety over several upstreams: each with its own faults, its own telling of the answer and its own kind of server.

Whoever answers, fails, comes back or says something else: what was handed over is the beginning of one true answer, an
end means all of it, and everything else is a typed error whose partial says what was handed over, and of whom it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import Source, Stream, transform
from holdfast._errors import StreamError
from holdfast._pipe import Pipe
from holdfast._types import Completion, Delta, Request
from holdfast.dialects import OPENAI
from holdfast.layers.deadline import Deadline
from holdfast.layers.fallback import Fallback
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import Seams
from holdfast.machines.routes import CHOICES, Choose
from holdfast.moments import FellBack, Moment, Opening, Outlived, Report, Resumed, Resuming, Retrying
from holdfast.testing import FakeClock
from holdfast.testing.faults import EVIDENT, AnotherAnswer
from holdfast.testing.faults_layer import Faults
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import completions, retellings, schedules
from holdfast.upstreams import Upstream
from tests.properties.judge import begins, said, truth
from tests.properties.laws import said_of, said_of_deltas
from tests.properties.model import MODES, ModelServer, Scenario, _Cutter, altered
from tests.properties.profile import examples

MET = schedules([fault for fault in EVIDENT if not isinstance(fault, AnotherAnswer)], min_faults=1)


@dataclass(slots=True, frozen=True, kw_only=True)
class World:
    """Several upstreams: what each of them would say, and what befalls it."""

    places: tuple[Scenario, ...]
    choose: Choose
    leave_after: int
    eject_after: int
    seed: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    first = draw(completions(OPENAI, max_choices=2))
    places = []
    for _ in range(draw(st.integers(2, 3))):
        mode = draw(st.sampled_from(MODES[:2]))
        tellings = [draw(retellings(draw(altered(first)))) if draw(st.integers(0, 3)) == 0 else first]
        if mode == "no ids":
            tellings += draw(st.lists(retellings(tellings[0]), max_size=1))
        places.append(Scenario(mode=mode, tellings=tuple(tellings), schedule=draw(MET), sizes=(200,)))
    return World(
        places=tuple(places),
        choose=draw(st.sampled_from(CHOICES)),
        leave_after=draw(st.integers(0, 2)),
        eject_after=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 3)),
    )


@dataclass(slots=True)
class Several:
    """Hands each request to the server of its upstream."""

    sources: dict[str, Source[bytes]]
    asked: Counter[str] = field(default_factory=Counter)

    async def open(self, request: Request) -> Stream[bytes]:
        self.asked[request.upstream] += 1
        return await self.sources[request.upstream].open(request)


@dataclass(slots=True, kw_only=True)
class Run:
    deltas: list[Delta] = field(default_factory=list)
    error: StreamError | None = None
    completion: Completion | None = None
    report: Report = field(default_factory=Report)
    moments: list[Moment] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    live: int = 0
    load: Sequence[int] = ()


def play(world: World) -> Run:
    run = Run()
    asyncio.run(_play(world, run))
    return run


async def _play(world: World, run: Run) -> None:
    servers = [ModelServer(scenario) for scenario in world.places]
    sources: dict[str, Any] = {}
    for place, (server, scenario) in enumerate(zip(servers, world.places, strict=True)):
        cut = transform(lambda _: _Cutter((200,)))
        sources[f"u{place}"] = cut(Faults(scenario.schedule)(server))
    source = Several(sources)
    fallback = Fallback(
        upstreams=[Upstream("openai", api_key="k", name=name, layers=()) for name in sources],
        choose=world.choose,
        eject_after=world.eject_after,
    )
    async with FakeClock() as clock:
        pipe: Pipe[Any] = Pipe(source, clock=clock, random=Random(world.seed))
        reconnect = Reconnect(seams=Seams(leave_after=world.leave_after))
        clocks = Deadline(open=5, first_token=5, progress=2)
        for layer in (parse_sse(), verify(OPENAI), clocks, fallback, Retry(), reconnect, Deadline(total=1_000)):
            pipe = pipe | layer
        reader = pipe.stream(world.places[0].request, listeners=[run.moments.append])
        try:
            async with reader:
                async for delta in reader:
                    run.deltas.append(delta)
                run.completion = reader.completion
        except StreamError as error:
            run.error = error
        run.report, run.asked = reader.report, source.asked
    run.live = sum(server.live for server in servers)
    run.load = [fallback.routes.load(place) for place in range(len(servers))]


@examples(80)
@given(worlds())
def test_whoever_answers_it_is_one_true_answer_or_a_typed_error(world: World) -> None:
    run = play(world)
    heard = said(run.deltas)
    truths = [truth(telling) for scenario in world.places for telling in scenario.tellings]
    assert any(begins(heard, whole) for whole in truths), f"no beginning of a true answer: {heard}"
    assert run.live == 0
    assert list(run.load) == [0] * len(world.places)
    if run.error is None:
        assert heard in truths
        assert run.completion is not None
        assert said_of(run.completion) == said_of_deltas(run.deltas)
    else:
        partial = run.error.partial
        assert said_of(partial.answer) == said_of_deltas(run.deltas)
        assert partial.dialect == "openai"
        assert partial.state["upstream"] in run.asked
    _one_story(run)


def _one_story(run: Run) -> None:
    """Report, moments and what the servers counted agree."""
    kinds = Counter(type(moment) for moment in run.moments)
    falls = [moment for moment in run.moments if isinstance(moment, FellBack)]
    early = sum(not moment.midstream for moment in falls)
    assert run.report.attempts == sum(run.asked.values()) == kinds[Opening]
    assert run.report.fallbacks == len(falls)
    assert set(run.report.upstreams) == set(run.asked)
    ended = kinds[Retrying] + kinds[Resuming] + kinds[Outlived] + (run.error is not None)
    assert len(run.report.faults) == ended + early
    assert len(run.report.seams) == kinds[Resumed]
    assert all(seam.guarantee != "seamed" for seam in run.report.seams)


@examples(40)
@given(worlds(), st.data())
def test_as_long_as_one_is_well_the_answer_is_whole(world: World, data: st.DataObject) -> None:
    well = data.draw(st.integers(0, len(world.places) - 1))
    told = world.places[0].tellings[0]
    places = [
        Scenario(mode=one.mode, tellings=(told,), schedule=one.schedule if place != well else Schedule(), sizes=(200,))
        for place, one in enumerate(world.places)
    ]
    run = play(World(places=tuple(places), choose="first", leave_after=0, eject_after=1, seed=world.seed))
    if run.error is None or said(run.deltas) == truth(told):
        return
    # What a provider reports of the request itself leads nowhere, and 8 requests are 8 requests.
    assert not run.error.retryable or run.report.attempts >= 4, repr(run.error)
