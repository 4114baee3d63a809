"""The promise on every rung of every dialect: cut at every event, twice at pairs of events, and at every byte.

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
from holdfast.testing.answers import Answer, CalledTool, write_answer
from holdfast.testing.faults import AnotherAnswer, Fault, IgnoresLastEventId, RepeatedAfterResume, ResumeRefused
from tests.properties.laws import said_of_deltas
from tests.properties.profile import DEEP, examples
from tests.properties.rungs import ANSWER, ENDINGS, FEW, WAYS, Ending, Told, Way, cut, cut_at_byte, hold, play

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


def every(way: Way, first: int, begin: int = 0) -> range:
    """The places behind every event; where time is short one in five for those whose wire another dialect speaks."""
    step = 1 if DEEP or way in FEW else 5
    return range(first + begin % step, len(way.healthy()) + 1, step)


def short(way: Way) -> Way:
    """The same way to a shorter answer, where it is not long that it has to be."""
    return way if way.rung == "prefix" or way.home.answer is not ANSWER else way.with_answer(TINY)


# -- once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cut_behind_any_event_costs_nothing(way: Way, how: Ending, clock: FakeClock) -> None:
    if blind(way, how):
        return
    whole = await uncut(way, clock)
    resumed, behind = 0, every(way, 0, ENDINGS.index(how))
    for place in behind:
        told = await play(way, clock, way.server([cut(place, how)]), at_once=1 + place % 4)
        hold(told, whole, may_fail=way.rung == "prefix")
        resumed += bool(told.report.seams)
    assert resumed >= len(behind) // (4 if way.rung == "prefix" else 2)


@pytest.mark.parametrize("way", [way for way in WAYS if DEEP or way in FEW], ids=str)
async def test_a_cut_behind_any_byte_costs_nothing(way: Way, clock: FakeClock) -> None:
    if way.rung == "prefix" and way.continuing != "rest" and not DEEP:
        return
    way = short(way)
    whole = await uncut(way, clock)
    ends = list(itertools.accumulate(map(len, way.healthy())))
    for byte in places(ends):
        for how in ("reset", "clean") if DEEP else (("reset", "clean")[byte % 2],):
            if blind(way, how) and byte in ends:
                continue
            told = await play(way, clock, way.server([cut_at_byte(byte, how)]), at_once=1 + byte % 3)
            hold(told, whole, may_fail=way.rung == "prefix")


def places(ends: list[int]) -> Iterator[int]:
    """Every byte; where time is short those round the end of each event, and one in 41 of the others."""
    for byte in range(ends[-1] + 1):
        if DEEP or byte % 41 == 0 or any(-1 <= byte - end <= 1 for end in ends):
            yield byte


# -- twice, and more -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if DEEP or way in FEW], ids=str)
async def test_two_cuts_behind_any_two_events_cost_nothing(way: Way, clock: FakeClock) -> None:
    if not DEEP and way.continuing != "rest":
        return
    way = way if DEEP else short(way)
    whole = await uncut(way, clock)
    events, continues = range(len(way.healthy()) + 1), way.rung in ("last-event-id", "cursor")
    for first, second in itertools.product(events, events):
        if continues and first + second > len(events):
            continue  # so many are not left: it is as if there were no second cut
        if (first - second) % 3 and not DEEP:
            continue  # where time is short, each place is met by every third other, and in turn by each ending
        how = ENDINGS[(first + second) % 3]
        if blind(way, how):
            continue
        met = [cut(first, how), cut(second, ENDINGS[first % 2 and not blind(way, "clean")])]
        told = await play(way, clock, way.server(met))
        hold(told, whole, may_fail=way.rung == "prefix")


@examples(60)
@given(
    st.sampled_from(WAYS),
    st.lists(st.tuples(st.integers(0, 34), st.sampled_from(ENDINGS)), min_size=3, max_size=6),
    st.integers(1, 9),
    st.none() | st.tuples(st.integers(0, 99), st.integers(0, 2), st.integers(0, 2)),
)
def test_many_cuts_cost_nothing(
    way: Way, met: list[tuple[int, Ending]], at_once: int, answer: tuple[int, int, int] | None
) -> None:
    if answer is not None and way.home.answer is ANSWER:
        seed, thoughts, tools = answer
        way = way.with_answer(write_answer(seed, sentences=2, thoughts=thoughts, tools=tools))

    async def check() -> None:
        async with FakeClock() as clock:
            whole = await uncut(way, clock)
            faults = [cut(place, how) for place, how in met if not blind(way, how)]
            told = await play(way, clock, way.server(faults), at_once=at_once)
            # Five times in a row without anything new is often enough: what is left then is a typed error.
            hold(told, whole, may_fail=way.rung == "prefix" or len(faults) > 5)

    asyncio.run(check())


# -- a rung that breaks ---------------------------------------------------------------------------

BROKEN_RUNGS = (
    ResumeRefused(status=204),
    ResumeRefused(status=400),
    ResumeRefused(status=410),
    IgnoresLastEventId(),
    RepeatedAfterResume(events=1),
    RepeatedAfterResume(events=3),
    AnotherAnswer(),
)


@pytest.mark.parametrize("met", BROKEN_RUNGS, ids=str)
@pytest.mark.parametrize("way", [way for way in FEW if way.rung in ("last-event-id", "cursor")], ids=str)
async def test_where_a_server_does_not_go_on_a_replay_is_compared(way: Way, met: Fault, clock: FakeClock) -> None:
    way = way if DEEP else short(way)
    whole, events = await uncut(way, clock), way.healthy()
    for place in range(1, len(events)):
        if isinstance(met, AnotherAnswer) and not any(map(way.idiom.tokens, events[:place])):
            continue  # nothing was said before: another answer is as good
        seams = Seams(rungs=(way.rung, "replay"), max_repaid_tokens=100_000)
        told = await play(way, clock, way.server([cut(place, "reset"), met]), seams=seams)
        hold(told, whole, rungs=("replay",), may_fail=not way.of.replayable or isinstance(met, AnotherAnswer))


async def test_behind_its_window_a_background_answer_is_compared(clock: FakeClock) -> None:
    (way,) = [way for way in FEW if way.dialect == "openai-responses" and way.rung == "cursor"]
    whole = await uncut(way, clock)
    for place in range(1, len(way.healthy())):
        server = way.server([cut(place, "stall")])
        server.clock, server.window = clock, 1.0
        told = await play(way, clock, server, seams=Seams(max_repaid_tokens=100_000))
        hold(told, whole, rungs=("replay",))
        assert [seam.rung for seam in told.report.seams] == ["replay"]


# -- another answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if way.rung == "replay"], ids=str)
async def test_nothing_of_another_answer_is_mixed_in(way: Way, clock: FakeClock) -> None:
    way = replace(way, mode="divergent")
    whole = await uncut(way, clock)
    diverged = 0
    for place in every(way, 0):
        for at_once in (1, 100):
            told = await play(way, clock, way.server([cut(place, "reset")]), at_once=at_once)
            hold(told, whole, may_fail=True)
            diverged += told.report.diverged
    assert diverged


# -- in another process --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_another_client_goes_on_from_any_cut(way: Way, clock: FakeClock) -> None:
    whole = await uncut(way, clock)
    carried, behind = 0, every(way, 1)
    for place in behind:
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
    assert carried >= len(behind) // (4 if way.rung == "prefix" else 2)


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
    assert report.billed_tokens == sum(bill.total_tokens for bill in report.bills)
    assert sum(bill.total_tokens for bill in report.bills if bill.part == "answer") == total
    cut, *rest = report.bills
    assert (cut.attempt, cut.input_tokens, {bill.attempt for bill in rest}) == (1, asked, {2})
    # Some tell what they have counted so far while they answer.
    assert seam.repaid_tokens <= (cut.output_tokens or 0) <= max(seam.repaid_tokens, first.tokens + 1)
    if seam.rung == "replay":
        assert (cut.part, report.billed_tokens) == ("again", total + cut.total_tokens)
    else:  # the model read the prompt and the prefix, and what it said of it again was no news
        assert sum(bill.input_tokens or 0 for bill in rest) > asked
        assert sum(bill.output_tokens or 0 for bill in rest) == again.tokens
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
