"""Hedge sends a request once more when its first content is late; the winner never waits for the loser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._defaults import default_layers
from holdfast._errors import ConnectError, StreamBroken, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Delta, Event, Head, Request
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.deadline import Deadline
from holdfast.layers.expect_json import ExpectJson
from holdfast.layers.hedge import MAX_HELD, Hedge
from holdfast.layers.parse import parse_sse
from holdfast.layers.rate_limit import RateLimit
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.machines.retry_budget import RetryBudget
from holdfast.moments import Hedged, HedgeEnded, Moment
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.testing import FakeClock, cancel_everywhere, check_layer, check_source
from tests.puppet import Puppet, Script, Wait, drain, request_on

ROLE = Delta(raw=Event())
ALWAYS: dict[str, Any] = {"share": 1.0}


def piece(text: str) -> Delta:
    return Delta(raw=Event(), text=text)


def text_of(items: list[Any]) -> str:
    return "".join(item.text if isinstance(item, Delta) else item for item in items)


async def drained(reader: Any) -> None:
    async with reader as items:
        assert [item async for item in items]


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


# -- who wins ------------------------------------------------------------------------------------


async def test_a_prompt_answer_is_not_hedged(clock: FakeClock) -> None:
    puppet = Puppet(["a", "b"])
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert await drain(stream) == ["a", "b"]
    await stream.aclose()
    assert (puppet.opens, puppet.live, clock.now()) == (1, set(), 0.0)


async def test_a_second_request_is_sent_when_content_is_late_and_may_win(clock: FakeClock) -> None:
    puppet = Puppet(
        Script(ROLE, Wait(10.0), "slow", head=Head(headers={"x": "1"})),
        Script(ROLE, Wait(0.5), "fast", "er", head=Head(headers={"x": "2"})),
    )
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert clock.now() == 1.5
    assert stream.head.headers == {"x": "2"}
    assert text_of(await drain(stream)) == "faster"
    assert clock.now() == 1.5
    await stream.aclose()
    assert not puppet.live


async def test_neither_a_head_nor_a_role_is_content(clock: FakeClock) -> None:
    puppet = Puppet(Script(ROLE, ROLE, Wait(2.0), piece("late")), Script(Wait(0.2), piece("second")))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert text_of(await drain(stream)) == "second"
    await stream.aclose()


async def test_a_request_that_changes_something_at_the_provider_has_no_second_one(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(10.0), "slow"))
    request = replace(request_on(clock), body={"conversation": "c"})
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request)
    assert text_of(await drain(stream)) == "slow"
    await stream.aclose()
    assert puppet.opens == 1


async def test_the_first_may_still_win_the_race_it_has_made_others_run(clock: FakeClock) -> None:
    puppet = Puppet(Script(ROLE, Wait(1.2), piece("first")), Script(Wait(5.0), piece("second")))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert clock.now() == 1.2
    assert await drain(stream) == [ROLE, piece("first")]
    await stream.aclose()
    assert not puppet.live


async def test_a_clean_end_without_content_is_an_answer(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(9.0), "late"), Script(ROLE))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert await drain(stream) == [ROLE]
    assert await drain(stream) == []
    await stream.aclose()


async def test_what_is_held_back_while_a_race_runs_is_bounded(clock: FakeClock) -> None:
    puppet = Puppet(Script(*[ROLE] * (MAX_HELD + 9), Wait(9.0), "late"))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert len(await stream.receive()) == MAX_HELD
    await stream.aclose()


# -- the loser -----------------------------------------------------------------------------------


async def test_the_winner_never_waits_for_a_loser_that_closes_slowly(clock: FakeClock) -> None:
    closing, may_close = asyncio.Event(), asyncio.Event()

    class Sticky(Puppet):
        async def open(self, request: Request) -> Any:
            stream = await super().open(request)
            if self.opens == 1:
                close = stream.aclose

                async def aclose() -> None:
                    closing.set()
                    await may_close.wait()
                    await close()

                stream.aclose = aclose  # type: ignore[method-assign]  # the first one takes its time
            return stream

    puppet = Sticky(Script(Wait(10.0), "slow"), Script("a", Wait(1.0), "b"))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert await drain(stream) == ["a", "b"]
    assert closing.is_set()
    assert clock.now() == 2.0
    closer = asyncio.create_task(stream.aclose())
    await settle()
    assert not closer.done(), "aclose() waits for the loser, so that nothing runs on behind it"
    may_close.set()
    await closer
    assert not puppet.live


async def test_a_loser_that_has_no_head_yet_is_cancelled_at_once(clock: FakeClock) -> None:
    puppet = Puppet(Script("slow", opening=(Wait(10.0),)), Script("fast"))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    await settle()
    assert len(puppet.live) == 1
    assert clock.now() == 1.0
    await stream.aclose()
    assert not puppet.live


async def test_a_loser_whose_cancelled_wait_fails_is_no_failure(clock: FakeClock) -> None:
    class Grumpy:
        opens = 0

        async def open(self, request: Request) -> Any:
            self.opens += 1
            if self.opens == 1:
                try:
                    await clock.sleep(10.0)
                except asyncio.CancelledError:
                    raise StreamBroken("cut while it was cancelled") from None
            return await Puppet(["fast"]).open(request)

    stream = await Hedge(delay=1.0, **ALWAYS)(Grumpy()).open(request_on(clock))
    assert await drain(stream) == ["fast"]
    await stream.aclose()


# -- failures ------------------------------------------------------------------------------------


async def test_a_first_request_that_fails_before_the_delay_is_no_race(clock: FakeClock) -> None:
    puppet = Puppet(ConnectError("refused"))
    with pytest.raises(ConnectError, match="refused"):
        await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert puppet.opens == 1


@pytest.mark.parametrize("place", ["opening", "reading"])
async def test_when_the_first_fails_the_second_decides(clock: FakeClock, place: str) -> None:
    failing = Script(opening=(Wait(2.0), ConnectError("one"))) if place == "opening" else None
    puppet = Puppet(failing or Script(ROLE, Wait(2.0), StreamBroken("one")), Script(Wait(3.0), "two"))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert await drain(stream) == ["two"]
    assert clock.now() == 4.0
    await stream.aclose()
    assert not puppet.live


async def test_when_the_second_fails_the_first_decides(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(5.0), "one"), ConnectError("two"))
    stream = await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert await drain(stream) == ["one"]
    await stream.aclose()


async def test_when_both_fail_the_failure_is_that_of_the_first(clock: FakeClock) -> None:
    puppet = Puppet(Script(ROLE, Wait(5.0), StreamBroken("one")), ConnectError("two"))
    with pytest.raises(StreamBroken, match="one"):
        await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert not puppet.live


async def test_retry_right_of_it_runs_another_race(clock: FakeClock) -> None:
    puppet = Puppet(
        Script(Wait(5.0), StreamBroken("one")), ConnectError("two"), Script(Wait(9.0), "three"), Script("four")
    )
    stream = await Retry()(Hedge(delay=1.0, **ALWAYS)(puppet)).open(request_on(clock))
    assert await drain(stream) == ["four"]
    await stream.aclose()
    assert (puppet.opens, puppet.live) == (4, set())


async def test_a_bug_is_not_raced_past(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(5.0), "one"), ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await Hedge(delay=1.0, **ALWAYS)(puppet).open(request_on(clock))
    assert not puppet.live


# -- what is spent -------------------------------------------------------------------------------


async def test_hedges_are_a_share_of_the_calls(clock: FakeClock) -> None:
    hedge, opens = Hedge(delay=0.1), 0
    for _ in range(60):
        puppet = Puppet(Script(Wait(1.0), "a"), repeat=True)
        stream = await hedge(puppet).open(request_on(clock))
        await stream.aclose()
        opens += puppet.opens
    assert opens == 63
    assert hedge.budget.hedges == 3


async def test_a_call_that_may_send_no_more_is_not_hedged(clock: FakeClock) -> None:
    hedge = Hedge(delay=0.1, **ALWAYS)
    puppet = Puppet(Script(Wait(1.0), "a"))
    async with (Pipe(puppet, clock=clock, max_requests=1) | hedge).stream() as items:
        assert [item async for item in items] == ["a"]
    assert (items.report.hedges, hedge.budget.hedges) == (0, 0)


async def test_a_hedge_is_a_request_of_the_retry_budget(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0, floor=0, burst=1)
    pipe = Pipe(Puppet(Script(Wait(1.0), "a"), repeat=True), clock=clock, retry_budget=budget)
    requests = []
    for _ in range(3):
        async with (pipe | Hedge(delay=0.1, **ALWAYS)).stream() as items:
            assert [item async for item in items] == ["a"]
        requests.append(items.report.attempts)
    assert requests == [2, 1, 1]
    assert (budget.first, budget.retries) == (3, 1)


# -- what is learned -----------------------------------------------------------------------------


async def answer(hedge: Hedge, clock: FakeClock, seconds: float, *, request: Request | None = None) -> Puppet:
    """One call whose first request takes so long, and any other 10 ms."""
    puppet = Puppet(Script(Wait(seconds), "a"), Script(Wait(0.01), "a"))
    request = request or Request(url="http://upstream/v1")
    call = Call(clock=clock)
    stream = await hedge(puppet).open(Request(url=request.url, body=request.body, call=call))
    await stream.aclose()
    return puppet


async def test_the_delay_is_learned_from_what_calls_took(clock: FakeClock) -> None:
    hedge = Hedge(quantile=0.9, least=10, **ALWAYS)
    for number in range(10):
        assert (await answer(hedge, clock, 1.0 + number / 10)).opens == 1, "nothing is known yet"
    assert hedge.usual(Request(url="http://upstream/v1")).value == pytest.approx(1.8)
    assert (await answer(hedge, clock, 1.7)).opens == 1
    started = clock.now()
    assert (await answer(hedge, clock, 60.0)).opens == 2
    assert clock.now() - started == pytest.approx(1.81)


async def test_a_first_request_that_lost_counts_as_one_that_took_long(clock: FakeClock) -> None:
    hedge = Hedge(quantile=0.9, least=10, window=10, **ALWAYS)
    for _ in range(10):
        await answer(hedge, clock, 1.0)
    for _ in range(9):  # were the losers left out, the winners' 10 ms would become what is usual
        await answer(hedge, clock, 60.0)
    usual = hedge.usual(Request(url="http://upstream/v1")).value
    assert usual is not None
    assert usual > 1.0


async def test_models_are_learned_of_apart(clock: FakeClock) -> None:
    hedge = Hedge(least=3, **ALWAYS)
    small, large = (Request(url="http://upstream", body={"model": name}) for name in ("small", "large"))
    for _ in range(3):
        await answer(hedge, clock, 0.1, request=small)
    assert (await answer(hedge, clock, 2.0, request=large)).opens == 1
    assert (await answer(hedge, clock, 2.0, request=small)).opens == 2


async def test_failures_teach_nothing(clock: FakeClock) -> None:
    hedge = Hedge()
    with pytest.raises(ConnectError):
        await hedge(Puppet(Script(opening=(Wait(1.0), ConnectError("refused"))))).open(request_on(clock))
    assert len(hedge.usual(request_on(clock))) == 0


# -- its place -----------------------------------------------------------------------------------


async def test_what_goes_on_from_somewhere_is_not_raced(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(60.0), "b"))
    request = request_on(clock)
    request.call.cursor.asked = "continue"
    stream = await Hedge(delay=0.1, **ALWAYS)(puppet).open(request)
    assert await drain(stream) == ["b"]
    await stream.aclose()


async def test_the_place_and_the_attempts_are_told_as_they_were(clock: FakeClock) -> None:
    told: list[Moment] = []
    puppet = Puppet(Script(Wait(9.0), "one"), Script(Wait(0.5), "two"))
    pipe = Pipe(puppet, clock=clock, listeners=[told.append]) | Hedge(delay=1.0, **ALWAYS) | Retry() | Reconnect()
    async with pipe.stream() as items:
        assert [item async for item in items] == ["two"]
    call = items._call
    assert [attempt.number for attempt in call.attempts] == [1, 2]
    assert call.attempt is call.attempts[1]
    (hedged,) = (moment for moment in told if isinstance(moment, Hedged))
    (ended,) = (moment for moment in told if isinstance(moment, HedgeEnded))
    assert (hedged.delay, hedged.attempt) == (1.0, 1)
    assert (ended.winner, ended.loser, ended.at) == (2, 1, 1.5)
    assert (items.report.attempts, items.report.hedges, items.report.outcome) == (2, 1, "ended")


async def test_each_racer_has_clocks_of_its_own(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(), "one"), Script(Wait(1.5), "two"))
    pipe = Pipe(puppet, clock=clock) | Deadline(first_token=2.0) | Hedge(delay=1.0, **ALWAYS)
    async with pipe.stream() as items:
        assert [item async for item in items] == ["two"]
        assert clock.now() == 2.5


async def test_the_loser_is_cancelled_once_and_cleans_up_in_peace(clock: FakeClock) -> None:
    cleaned = []

    class Slow:
        opens = 0

        async def open(self, request: Request) -> Any:
            Slow.opens += 1
            if Slow.opens == 2:
                return await Puppet(["fast"]).open(request)
            try:
                await request.call.clock.sleep(100.0)
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                cleaned.append(True)

    stream = await Hedge(delay=1.0, **ALWAYS)(Slow()).open(request_on(clock))
    assert await drain(stream) == ["fast"]
    await stream.aclose()
    assert cleaned == [True]


def test_it_warns_of_places_where_it_cannot_work() -> None:
    drawn = str(Pipe(Puppet()) | Retry() | Hedge() | Deadline(open=3))
    assert "! Hedge belongs left of Retry" in drawn
    assert "! Hedge belongs right of Deadline(open=..., first_token=...)" in drawn
    assert "!" not in str(Pipe(Puppet()) | Deadline(open=3) | Hedge() | Retry() | Deadline(total=9))


@pytest.mark.parametrize("writes", [Reconnect(), AutoContinue(prompt="go on"), ExpectJson()])
def test_right_of_a_layer_that_writes_the_answer_it_is_refused(writes: Any) -> None:
    """Both racers would write into one answer, which would hold everything twice and count as proven."""
    deltas = Pipe(Puppet()) | parse_sse() | verify("openai")
    with pytest.raises(UsageError, match=f"Hedge belongs left of {type(writes).__name__}: it writes one answer"):
        deltas | writes | Retry() | Hedge()
    assert "Hedge" in str(deltas | Hedge() | writes)


def test_racers_have_an_answer_of_their_own_and_the_winners_is_the_calls() -> None:
    call = Call()
    first, second = call.fork(), call.fork()
    first.answer.add([piece("slow")])
    second.answer.add([piece("fast")])
    second.recorded = second.seamed = True
    call.adopt(second)
    second.answer.add([piece("er")])
    assert call.answer.completion(usage=None, verdict=None).text == "faster"
    assert (call.recorded, call.seamed) == (True, True)


@pytest.mark.parametrize("wrong", [{"delay": 0}, {"share": 2}, {"quantile": 1}, {"least": 0}, {"window": 3}])
def test_settings_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Hedge(**wrong)


# -- the contract --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit",
    [Concurrency(ConcurrencyLimiter(limit=2)), RateLimit(RateLimiter(requests_per_minute=24, burst=2))],
    ids=["places", "rate"],
)
async def test_its_clock_stands_still_while_a_limit_of_this_side_holds_the_request_back(
    clock: FakeClock, limit: Any
) -> None:
    puppet = Puppet(Script(Wait(5.0), "a"), repeat=True)
    hedge = Hedge(delay=6.0, **ALWAYS)
    pipe = Pipe(puppet, clock=clock) | limit | hedge
    readers = [pipe.stream() for _ in range(6)]
    await asyncio.gather(*(drained(reader) for reader in readers))
    assert max(reader.report.waited_seconds for reader in readers) >= 9.9
    assert sum(reader.report.hedges for reader in readers) == 0
    assert len(puppet.requests) == 6
    usual = hedge.usual(puppet.requests[0])
    assert list(usual._sorted) == pytest.approx([5.0] * 6), "what is learned leaves the line out"


async def test_behind_the_line_its_clock_goes_on(clock: FakeClock) -> None:
    puppet = Puppet(Script(Wait(5.0), "a"), Script(Wait(99.0), "b"), Script("c"))
    limit = RateLimit(RateLimiter(requests_per_minute=60, burst=1))
    pipe = Pipe(puppet, clock=clock) | limit | Hedge(delay=6.0, **ALWAYS)
    one, two = pipe.stream(), pipe.stream()
    await asyncio.gather(drained(one), drained(two))
    assert (one.report.hedges, two.report.hedges) == (0, 1)
    assert clock.now() == pytest.approx(7.0, abs=0.05), "a second in line, and six that it took to be late"


def test_orders_among_limits_that_do_not_count_are_told() -> None:
    places, pace = Concurrency(), RateLimit()
    assert "!" not in str(Pipe(Puppet()) | places | pace | Hedge())
    drawn = str(Pipe(Puppet()) | Hedge() | pace | places | Hedge() | pace)
    assert "! Hedge belongs right of Concurrency: left of it" in drawn
    assert "! Hedge belongs right of RateLimit: left of it" in drawn
    assert "! Hedge twice" in drawn
    assert "! Concurrency belongs left of RateLimit" in drawn
    assert "! the same RateLimiter twice" in drawn
    with pytest.raises(UsageError, match="twice"):
        _ = Pipe(Puppet()) | places | Concurrency(places.limiter)


@pytest.mark.parametrize("layer", [Hedge(), Hedge(delay=0.01, **ALWAYS)], ids=["learning", "racing"])
async def test_it_keeps_the_contract(layer: Hedge) -> None:
    await check_layer(layer, items=[piece(text) for text in "abcde"])


A, B, X = piece("a"), piece("b"), piece("x")
RACES = {
    "the second wins": (Script(ROLE, Wait(9.0), X), Script(ROLE, Wait(0.5), A, Wait(1.0), B)),
    "the second wins before the first has a head": (Script(X, opening=(Wait(9.0),)), Script(A, B)),
    "the first wins": (Script(Wait(1.5), A, Wait(1.0), B), Script(Wait(3.0), X, opening=(Wait(0.2),))),
    "the first fails": (Script(Wait(1.5), StreamBroken("cut")), Script(Wait(1.0), A, B)),
    "the second fails": (Script(Wait(2.0), A, B), ConnectError("refused")),
}


@pytest.mark.parametrize("scripts", RACES.values(), ids=RACES.keys())
async def test_it_keeps_the_contract_while_it_races(scripts: tuple[Any, ...]) -> None:
    made: list[Puppet] = []

    def fresh() -> Any:
        made.append(Puppet(*scripts))
        return Hedge(delay=1.0, **ALWAYS)(made[-1])

    class WithoutRoles:
        """A race holds them back, and drops those of the loser."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def open(self, request: Request) -> WithoutRoles:
            return WithoutRoles(await self.inner.open(request))

        async def receive(self) -> list[Any]:
            return [item for item in await self.inner.receive() if item is not ROLE]

        async def aclose(self) -> None:
            await self.inner.aclose()

        @property
        def head(self) -> Head:
            head: Head = self.inner.head
            return head

    async with FakeClock() as clock:
        await check_source(
            lambda: WithoutRoles(fresh()),
            expected=[A, B],
            fails=False,
            clock=clock,
            opened=lambda: sum(len(puppet.live) for puppet in made),
        )


@pytest.mark.parametrize("scripts", RACES.values(), ids=RACES.keys())
async def test_cancelled_anywhere_it_leaves_nothing_open(clock: FakeClock, scripts: tuple[Any, ...]) -> None:
    made: list[Puppet] = []
    before = asyncio.all_tasks()

    async def scenario() -> None:
        made.append(Puppet(*scripts))
        async with (Pipe(made[-1], clock=clock) | Hedge(delay=1.0, **ALWAYS) | Retry()).stream() as items:
            async for _ in items:
                pass

    def check() -> None:
        assert not made[-1].live
        assert {task for task in asyncio.all_tasks() - before if task.get_name().startswith("holdfast")} == set()

    assert await cancel_everywhere(scenario, check=check) > 5


@pytest.mark.parametrize("after", [0.5, 1.2])
async def test_who_closes_it_while_it_races_leaves_nothing_open(clock: FakeClock, after: float) -> None:
    puppet = Puppet(Script(Wait(9.0), A), Script(A, opening=(Wait(9.0),)))
    reader = (Pipe(puppet, clock=clock) | Hedge(delay=1.0, **ALWAYS) | Retry()).stream()
    entering = asyncio.create_task(reader.__aenter__())
    await clock.sleep(after)
    assert len(puppet.live) == (1 if after < 1.0 else 2)
    await reader.aclose()
    with pytest.raises(UsageError, match="closed while it was being opened"):
        await entering
    assert not puppet.live


# -- in the whole pipe ---------------------------------------------------------------------------


def chat(text: str, finish: str = "null", usage: str = "") -> bytes:
    return (
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]%b}\n\n'
        % (text.encode(), finish.encode(), usage.encode())
    )


USAGE = ',"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13}'
ANSWER = [chat(""), chat("Hel"), chat("lo"), chat("", '"stop"', USAGE), b"data: [DONE]\n\n"]


def whole(puppet: Puppet, clock: FakeClock, dialect: str = "openai-compatible", **settings: Any) -> Pipe[Delta]:
    pipe: Pipe[Any] = Pipe(puppet, clock=clock, **settings)
    for layer in default_layers(dialect, traffic=[Hedge(delay=1.0, **ALWAYS)]):
        pipe = pipe | layer
    return pipe


ASKED = Request(url="http://upstream/v1/chat/completions", body={"model": "m", "messages": [], "stream": True})


@pytest.mark.parametrize("dialect", ["openai-compatible", "auto"])
@pytest.mark.parametrize("winner", [1, 2])
async def test_the_answer_of_either_is_proven_whole(clock: FakeClock, dialect: str, winner: int) -> None:
    late = Script(chat(""), Wait(1.5 if winner == 1 else 9.0), *ANSWER[1:])
    puppet = Puppet(late, Script(Wait(3.0 if winner == 1 else 0.1), *ANSWER))
    async with whole(puppet, clock, dialect).stream(ASKED) as deltas:
        async for _ in deltas:
            pass
    report = deltas.report
    assert (deltas.completion.text, str(report.verdict)) == ("Hello", "COMPLETE")
    assert (report.attempts, report.hedges, report.retries) == (2, 1, 0)
    assert report.usage is not None
    assert report.usage.total_tokens == 13
    assert report.bytes_received == len(b"".join(ANSWER))
    assert report.losers == [3 - winner]
    assert not puppet.live


async def test_a_winner_that_breaks_is_resumed_from_its_own_place(clock: FakeClock) -> None:
    puppet = Puppet(
        Script(Wait(9.0), *ANSWER),
        Script(Wait(0.1), *ANSWER[:2], StreamBroken("reset")),
        Script(*ANSWER),
    )
    async with whole(puppet, clock).stream(ASKED) as deltas:
        async for _ in deltas:
            pass
    assert (deltas.completion.text, str(deltas.report.verdict)) == ("Hello", "RESUMED (1 seam, verified)")
    assert (deltas.report.attempts, deltas.report.hedges) == (3, 1)
    assert not puppet.live


async def test_a_winner_that_numbers_its_events_is_resumed_at_its_last_id(clock: FakeClock) -> None:
    def numbered(first: int, last: int) -> list[bytes]:
        return [b"id: %d\ndata: %d\n\n" % (number, number) for number in range(first, last)]

    puppet = Puppet(
        Script(b"id: 900\ndata: other\n\n"[:9], Wait(9.0)),
        Script(*numbered(0, 5), StreamBroken("reset")),
        Script(*numbered(5, 9)),
    )
    pipe = Pipe(puppet, clock=clock) | parse_sse() | Hedge(delay=1.0, **ALWAYS) | Retry() | Reconnect()
    async with pipe.stream() as events:
        assert [event.data async for event in events] == [*"012345678"]
    assert puppet.requests[2].headers == {"Last-Event-ID": "4"}
    assert str(events.report.seams[0].guarantee) == "exact"


async def test_the_partial_of_a_race_that_failed_is_the_first_ones(clock: FakeClock) -> None:
    puppet = Puppet(Script(chat(""), Wait(2.0), StreamBroken("one")), StreamBroken("two"), repeat=True)
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai-compatible") | Hedge(delay=1.0, **ALWAYS)
    with pytest.raises(StreamBroken, match="one") as raised:
        await pipe.stream(ASKED)
    assert (raised.value.partial.text, raised.value.partial.offset) == ("", len(chat("")))
    assert raised.value.attempts == 2


async def test_cancelled_anywhere_the_whole_pipe_leaves_nothing_open(clock: FakeClock) -> None:
    made: list[Puppet] = []

    async def scenario() -> None:
        made.append(Puppet(Script(Wait(9.0), *ANSWER), Script(*ANSWER[:2], StreamBroken("reset")), Script(*ANSWER)))
        async with whole(made[-1], clock).stream(ASKED) as deltas:
            async for _ in deltas:
                pass

    def check() -> None:
        assert not made[-1].live

    assert await cancel_everywhere(scenario, check=check) > 10


async def test_a_hedge_over_tcp_closes_the_connection_of_the_loser() -> None:
    """With real sockets: an upstream whose first answer says nothing for long, and knows who hung up."""
    hung_up = asyncio.Event()
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(1)
        first = len(served) == 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + chat(""))
        if first:
            await reader.read()
            hung_up.set()
        else:
            writer.write(b"".join(ANSWER))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AiohttpSource() as source:
        pipe: Pipe[Any] = Pipe(source)
        for layer in default_layers("openai-compatible", traffic=[Hedge(delay=0.05, **ALWAYS)]):
            pipe = pipe | layer
        deltas = pipe.stream(Request(url=f"http://127.0.0.1:{port}/v1", body={"model": "m"}))
        assert (await deltas).text == "Hello"
        await asyncio.wait_for(hung_up.wait(), 5.0)
    assert deltas.report.losers == [1]
