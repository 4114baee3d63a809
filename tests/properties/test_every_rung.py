"""The promise on every rung of every dialect: cut at every event, twice at every pair of events, and at every byte.

Here one dialect stands for those that share its wire where the places are many; the deep profile leaves none out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Completion, Partial
from holdfast.machines.ladder import Seams
from holdfast.moments import Ended
from holdfast.testing import FakeClock
from holdfast.testing.answers import Answer, CalledTool
from tests.properties.laws import said_of_deltas
from tests.properties.profile import DEEP, examples
from tests.properties.rungs import ENDINGS, FEW, WAYS, Ending, Told, Way, cut, cut_at_byte, hold, play

TINY = Answer(
    reasoning_pieces=("先",),
    pieces=("潮", " up"),
    tools=(CalledTool(id="call_0a", name="f", pieces=('{"a"', ":1}")),),
)


async def uncut(way: Way, clock: FakeClock) -> Completion:
    """The answer as it is when nothing happens to it."""
    told = await play(way, clock, way.server())
    assert told.completion is not None, told.error
    hold(told, told.completion)
    return told.completion


def blind(way: Way, how: Ending) -> bool:
    """Where nothing but the framing proves an answer, one that was cut between two events by the book looks whole."""
    return way.dialect == "sse" and how == "clean"


# -- once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cut_behind_any_event_costs_nothing(way: Way, how: Ending, clock: FakeClock) -> None:
    if blind(way, how):
        return
    whole = await uncut(way, clock)
    resumed = 0
    for place in range(len(way.healthy()) + 1):
        told = await play(way, clock, way.server([cut(place, how)]), at_once=1 + place % 4)
        hold(told, whole, may_fail=way.rung == "prefix")
        resumed += bool(told.report.seams)
    assert resumed >= len(way.healthy()) // (4 if way.rung == "prefix" else 2)


@pytest.mark.parametrize("way", [way for way in WAYS if DEEP or way in FEW], ids=str)
async def test_a_cut_behind_any_byte_costs_nothing(way: Way, clock: FakeClock) -> None:
    if way.rung == "prefix":
        if not DEEP and way.continuing != "rest":
            return
    elif way.dialect not in ("mcp", "replicate", "sse"):
        way = way.with_answer(TINY)
    whole = await uncut(way, clock)
    ends = list(itertools.accumulate(map(len, way.healthy())))
    for byte in places(ends):
        for how in ("reset", "clean") if DEEP else (("reset", "clean")[byte % 2],):
            if blind(way, how) and byte in ends:
                continue
            told = await play(way, clock, way.server([cut_at_byte(byte, how)]), at_once=1 + byte % 3)
            hold(told, whole, may_fail=way.rung == "prefix")


def places(ends: list[int]) -> Iterator[int]:
    """Every byte; where time is short those round the end of each event, and one in seventeen of the others."""
    for byte in range(ends[-1] + 1):
        if DEEP or byte % 17 == 0 or any(-2 <= byte - end <= 2 for end in ends):
            yield byte


# -- twice, and more -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if DEEP or way in FEW], ids=str)
async def test_two_cuts_behind_any_two_events_cost_nothing(way: Way, clock: FakeClock) -> None:
    if not DEEP and way.continuing != "rest":
        return
    whole = await uncut(way, clock)
    events = range(len(way.healthy()) + 1)
    for first, second in itertools.product(events, events):
        how = ENDINGS[(first + second) % 3]
        if blind(way, how):
            continue
        met = [cut(first, how), cut(second, ENDINGS[first % 2 and not blind(way, "clean")])]
        told = await play(way, clock, way.server(met))
        hold(told, whole, may_fail=way.rung == "prefix")


@examples(40)
@given(
    st.sampled_from(WAYS),
    st.lists(st.tuples(st.integers(0, 34), st.sampled_from(ENDINGS)), min_size=3, max_size=6),
    st.integers(1, 9),
)
def test_many_cuts_cost_nothing(way: Way, met: list[tuple[int, Ending]], at_once: int) -> None:
    async def check() -> None:
        async with FakeClock() as clock:
            whole = await uncut(way, clock)
            faults = [cut(place, how) for place, how in met if not blind(way, how)]
            told = await play(way, clock, way.server(faults), at_once=at_once)
            # Five times in a row without anything new is often enough: what is left then is a typed error.
            hold(told, whole, may_fail=way.rung == "prefix" or len(faults) > 5)

    asyncio.run(check())


# -- another answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if way.rung == "replay"], ids=str)
async def test_nothing_of_another_answer_is_mixed_in(way: Way, clock: FakeClock) -> None:
    way = replace(way, mode="divergent")
    whole = await uncut(way, clock)
    diverged = 0
    for place in range(len(way.healthy()) + 1):
        for at_once in (1, 100):
            told = await play(way, clock, way.server([cut(place, "reset")]), at_once=at_once)
            hold(told, whole, may_fail=True)
            diverged += told.report.diverged
    assert diverged


# -- in another process --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_another_client_goes_on_from_any_cut(way: Way, clock: FakeClock) -> None:
    whole = await uncut(way, clock)
    carried = 0
    for place in range(1, len(way.healthy()) + 1):
        server = way.server([cut(place, "reset")])
        first = await play(way, clock, server, seams=Seams(rungs=()))
        hold(first, whole, may_fail=True, alone=True)
        if first.error is None:
            continue  # all had been proven, and only the end mark was missing
        partial = Partial.from_json(first.partial.to_json())
        assert partial == first.partial
        second = await play(way, clock, server, resume=partial)
        hold(second, whole, before=first.deltas, may_fail=way.rung == "prefix")
        carried += second.error is None
    assert carried >= len(way.healthy()) // (4 if way.rung == "prefix" else 2)


# -- what a seam costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", FEW, ids=str)
async def test_what_a_seam_cost_is_what_the_server_counted(way: Way, clock: FakeClock) -> None:
    whole = await play(way, clock, way.server())
    for place in range(1, len(way.healthy())):
        told = await play(way, clock, way.server([cut(place, "reset")]))
        if told.error is None and told.report.seams:
            costs(told, whole.server.served[0].tokens)


def costs(told: Told, tokens: int) -> None:
    """The report's figures against the books of the server, which had `tokens` to say; estimates within bounds."""
    (seam,), way, report = told.report.seams, told.way, told.report
    first, again = told.server.served
    assert again.rung == way.rung
    assert report.attempts == 2
    assert seam.gap > 0
    (ended,) = [moment for moment in told.moments if isinstance(moment, Ended)]
    assert (ended.billed_tokens, ended.usage) == (report.billed_tokens, report.usage)
    if seam.guarantee == "exact":
        # A server that goes on inside an event, or behind one without an id, says at most one event again.
        assert seam.swallowed == again.events_again <= 1
        assert seam.repaid_tokens == 0
        assert first.tokens + again.tokens == tokens
        assert report.usage is None or report.billed_tokens == (report.usage.total_tokens or 0)
        return
    assert report.usage is not None
    heard = sum(map(len, said_of_deltas(told.deltas).values()))
    total, asked = report.usage.total_tokens or 0, report.usage.input_tokens or 0
    assert report.billed_tokens == total + asked + seam.repaid_tokens
    assert report.billed_estimated
    # A piece is about a token, where pieces are long a quarter of the characters. What a server goes on generating when
    # nobody reads it any more cannot be known here.
    assert seam.repaid_tokens <= max(first.tokens + 1, heard // 4)
    assert first.tokens == tokens or first.tokens - 1 <= seam.repaid_tokens
    if seam.rung == "replay":
        assert again.tokens == tokens
        assert again.events_again >= first.events - 1
        assert seam.swallowed >= seam.repaid_tokens > 0 or first.tokens <= 1 or first.tokens == tokens
    else:
        assert abs((report.usage.output_tokens or 0) - tokens) <= max(4, heard // 8)
