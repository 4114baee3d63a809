"""Budget refuses what would pass the limit, stops what passes it, and books what was billed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._errors import BudgetExhausted, ConnectError, StreamBroken
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Request
from holdfast.client import Client
from holdfast.dialects import find
from holdfast.layers.budget import STEP, Budget
from holdfast.layers.hedge import Hedge
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines import ledger
from holdfast.machines.ladder import Seams
from holdfast.moments import Moment
from holdfast.prices import Prices
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from holdfast.upstreams import Upstream
from tests.puppet import Puppet, Script, Wait
from tests.test_bill import ASKED, BODY, URL, chunk, cut, read, whole

PRICES = Prices(shipped=False).with_("deepseek-v4-pro", input="1000", output="1000")
"""A token is a tenth of a cent, so that a handful of them is money."""
ONE = Decimal("0.015")
"""What one whole answer costs: 10 tokens of prompt and 5 of answer."""
LONG = "x" * 2_000


def pipe_over(puppet: Puppet, clock: FakeClock, budget: Budget, *traffic: Any) -> Pipe[Any]:
    pipe: Pipe[Any] = Pipe(puppet, clock=clock) | parse_sse() | verify("deepseek")
    for layer in traffic:
        pipe |= layer
    return pipe | Retry() | Reconnect(seams=Seams(max_repaid_tokens=100_000)) | budget


# -- refusing ------------------------------------------------------------------------------------


async def test_streams_pass_until_the_limit_and_then_nothing_is_sent(clock: FakeClock) -> None:
    budget, puppet = Budget(limit="0.035", prices=PRICES), Puppet(whole(), repeat=True)
    for _ in range(2):
        assert await read(pipe_over(puppet, clock, budget).stream(ASKED)) is None
    assert budget.spent() == 2 * ONE
    error = await read(pipe_over(puppet, clock, budget).stream(ASKED))
    assert isinstance(error, BudgetExhausted)
    assert "Budget(0.035 USD) is spent, and nothing was sent" in str(error)
    assert (error.retryable, error.reason) == (False, "spent")
    assert (puppet.opens, budget.spent(), error.report.billed_tokens) == (2, 2 * ONE, 0)


async def test_asking_whether_a_request_would_be_refused_spends_nothing(clock: FakeClock) -> None:
    budget = Budget(limit="0.012", prices=PRICES)
    long = {**BODY, "messages": [{"role": "user", "content": "word " * 400}]}
    short = replace(ASKED, call=Call(clock=clock), dialect=find("deepseek"))
    for _ in range(3):
        await budget.check(short)
    assert budget.spent() == 0
    for body, reason in ((long, "spent"), ({"model": "house-model"}, "unpriced")):
        with pytest.raises(BudgetExhausted) as refused:
            await budget.check(replace(short, body=body))
        assert refused.value.reason == reason


async def test_a_limit_of_nothing_refuses_everything(clock: FakeClock) -> None:
    puppet = Puppet(whole())
    assert isinstance(
        await read(pipe_over(puppet, clock, Budget(limit=0, prices=PRICES)).stream(ASKED)), BudgetExhausted
    )
    assert puppet.opens == 0


async def test_it_is_booked_when_the_answer_has_ended_and_not_when_it_is_left(clock: FakeClock) -> None:
    budget = Budget(limit=1, prices=PRICES)
    async with pipe_over(Puppet(whole()), clock, budget).stream(ASKED) as stream:
        assert budget.spent() == Decimal("0.009")  # what the prompt is thought to cost
        async for _ in stream:
            pass
        assert budget.spent() == ONE
    assert budget.spent() == ONE


async def test_streams_that_run_have_what_they_asked_for_booked(clock: FakeClock) -> None:
    """Ten that begin at once must not all see a full purse."""
    budget, puppet = Budget(limit="0.030", prices=PRICES), Puppet(Script(Wait(1.0), *whole()), repeat=True)
    errors = await asyncio.gather(*(read(pipe_over(puppet, clock, budget).stream(ASKED)) for _ in range(10)))
    assert sum(error is None for error in errors) == puppet.opens == 3  # 9 tokens each at first
    assert budget.spent() == 3 * ONE


async def test_what_has_no_price_is_refused_unless_it_is_allowed(clock: FakeClock) -> None:
    puppet, other = Puppet(whole()), Request(url=URL, body={"model": "house-model", "messages": []})
    error = await read(pipe_over(puppet, clock, Budget(limit=1, prices=PRICES)).stream(other))
    assert isinstance(error, BudgetExhausted)
    assert "'house-model' has no price" in str(error)
    assert "under the dialect 'deepseek'" in str(error)
    assert error.reason == "unpriced"
    assert "name the maker by dialect=, give it a price by Prices().with_(...)" in str(error)
    allowing = Budget(limit=1, prices=PRICES, unpriced="allow")
    assert await read(pipe_over(puppet, clock, allowing).stream(other)) is None
    assert (puppet.opens, allowing.spent()) == (1, Decimal(0))
    nothing = Budget(limit=0, prices=PRICES, unpriced="allow")
    assert isinstance(await read(pipe_over(puppet, clock, nothing).stream(other)), BudgetExhausted)


async def test_a_dialect_that_the_address_tells_has_its_prices(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=1), Puppet(whole())
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("auto") | budget
    reader = pipe.stream(ASKED)
    assert await read(reader) is None
    assert budget.spent() == Prices().cost(reader.report).amount == Decimal("0.000013948")


async def test_an_upstream_whose_budget_is_spent_is_left_for_the_next(clock: FakeClock) -> None:
    first = Upstream("deepseek", api_key="one", name="first", layers=[Budget(limit=0)])
    second = Upstream("openai", api_key="two", name="second", model="gpt-4.1")
    stream = Client(upstreams=[first, second], source=Puppet(whole()), clock=clock).stream(BODY)
    assert await read(stream) is None
    assert (stream.report.upstream, stream.report.fallbacks, stream.report.attempts) == ("second", 1, 1)


async def test_no_upstream_is_asked_for_a_model_without_a_price(clock: FakeClock) -> None:
    """Which one that is says the upstream: the request names another."""
    budget, puppet = Budget(limit=1, prices=PRICES), Puppet(ConnectError("down"), repeat=True)
    first = Upstream("deepseek", api_key="one", name="first")
    unpriced = Upstream("deepseek", api_key="two", name="second", model="house-model")
    priced = Upstream("deepseek", api_key="two", name="third")
    stream = Client(upstreams=[first, unpriced], source=puppet, clock=clock, traffic=[budget]).stream(BODY)
    assert isinstance(await read(stream), ConnectError)
    assert {request.upstream for request in puppet.requests} == {"first"}
    puppet = Puppet(ConnectError("down"), whole())
    stream = Client(upstreams=[first, unpriced, priced], source=puppet, clock=clock, traffic=[budget]).stream(BODY)
    assert await read(stream) is None
    assert ([request.upstream for request in puppet.requests], budget.spent()) == (["first", "third"], ONE)


async def test_an_upstream_that_names_a_priced_model_is_asked_whatever_the_request_names(clock: FakeClock) -> None:
    budget = Budget(limit=1, prices=PRICES)
    only = Upstream("deepseek", api_key="one", model="deepseek-v4-pro")
    stream = Client(upstreams=[only], source=Puppet(whole()), clock=clock, traffic=[budget]).stream(
        {**BODY, "model": "ours"}
    )
    assert await read(stream) is None
    assert budget.spent() == ONE


async def test_over_one_upstream_it_holds_and_books_that_one_alone(clock: FakeClock) -> None:
    budget = Budget(limit=1, prices=PRICES)
    first = Upstream("deepseek", api_key="one", name="first", layers=[budget])
    second = Upstream("deepseek", api_key="two", name="second", model="house-model", layers=[])
    puppet = Puppet(ConnectError("down"), whole())
    assert await read(Client(upstreams=[first, second], source=puppet, clock=clock).stream(BODY)) is None
    assert (puppet.opens, budget.spent()) == (2, Decimal(0))


async def test_an_answer_without_a_price_is_stopped(clock: FakeClock) -> None:
    """Its events tell whose it is, and that one's model has no price."""
    prices = Prices(shipped=False).with_("deepseek-v4-pro", input="1", output="1", dialect="auto")
    request = Request(url="http://localhost/ask", body=BODY)
    pipe = Pipe(Puppet(endless()), clock=clock) | parse_sse() | verify("auto") | Budget(limit=9, prices=prices)
    error = await read(pipe.stream(request))
    assert isinstance(error, BudgetExhausted)
    assert "has no price" in str(error)
    assert "the answer was stopped" in str(error)


async def test_a_stream_that_outlasts_its_hour_leaves_the_next_one_as_it_is(clock: FakeClock) -> None:
    budget = Budget(limit=1, per="hour", prices=PRICES)
    slow = pipe_over(Puppet(Script(Wait(3700.0), *whole())), clock, budget).stream(ASKED)
    began, task = clock.wall(), asyncio.create_task(read(slow))
    await clock.sleep(3650.0)
    assert await read(pipe_over(Puppet(whole()), clock, budget).stream(ASKED)) is None
    now = clock.wall()
    assert await task is None
    assert now.hour != began.hour
    assert (budget.spent(now=began), budget.spent(now=now)) == (ONE, ONE)


async def test_each_day_has_the_limit_anew(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=ONE, per="day", prices=PRICES), Puppet(whole(), repeat=True)
    outcomes = []
    for hours in (0, 12, 12, 1):
        await clock.sleep(hours * 3600.0)
        outcomes.append(await read(pipe_over(puppet, clock, budget).stream(ASKED)) is None)
    assert outcomes == [True, False, True, False]
    assert budget.spent(now=clock.wall()) == budget.spent() == budget.total() == ONE
    await clock.sleep(24 * 3600.0)
    assert budget.spent() == 0  # of the day that it is for calls


@pytest.mark.parametrize(
    ("per", "now", "left"),
    [
        ("hour", "2026-02-03T04:59:30+00:00", 30.0),
        ("day", "2026-02-03T04:00:00+00:00", 20 * 3600.0),
        ("month", "2026-02-27T00:00:00+00:00", 2 * 86400.0),
        ("month", "2026-12-31T23:00:00+00:00", 3600.0),
    ],
)
async def test_a_budget_that_is_spent_says_whose_it_is_and_when_there_is_more(per: Any, now: str, left: float) -> None:
    async with FakeClock(wall=datetime.fromisoformat(now)) as clock:
        budget, puppet = Budget(limit=ONE, per=per, label="team", prices=PRICES), Puppet(whole(), repeat=True)
        for _ in range(2):
            error = await read(pipe_over(puppet, clock, budget).stream(ASKED, labels={"team": "search"}))
        assert isinstance(error, BudgetExhausted)
        assert error.retry_after == left
        assert f"per='{per}', label='team') is spent for 'search', and nothing was sent" in str(error)
        assert await read(pipe_over(puppet, clock, budget).stream(ASKED, labels={"team": "other"})) is None
        assert (budget.spent("search"), budget.spent("other"), budget.total()) == (ONE, ONE, 2 * ONE)
        await clock.sleep(left)
        assert await read(pipe_over(puppet, clock, budget).stream(ASKED, labels={"team": "search"})) is None


async def test_a_budget_for_good_names_no_time_at_which_there_is_more(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=ONE, prices=PRICES), Puppet(whole(), repeat=True)
    for _ in range(2):
        error = await read(pipe_over(puppet, clock, budget).stream(ASKED))
    assert isinstance(error, BudgetExhausted)
    assert error.retry_after is None


async def test_budgets_by_different_labels_do_not_book_into_each_other(clock: FakeClock) -> None:
    store = Store()
    for label in ("team", "user"):
        budget = Budget(limit=1, label=label, prices=PRICES, shared=store)
        assert await read(pipe_over(Puppet(whole()), clock, budget).stream(ASKED, labels={label: "a"})) is None
    assert list(store.left) == ["budget 1 USD team a", "budget 1 USD user a"]


async def test_each_value_of_a_label_has_the_limit_for_itself(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=ONE, label="team", prices=PRICES), Puppet(whole(), repeat=True)

    async def ask(**labels: str) -> bool:
        return await read(pipe_over(puppet, clock, budget).stream(ASKED, labels=labels)) is None

    assert [await ask(team="a"), await ask(team="a"), await ask(team="b"), await ask(), await ask()] == [
        *(True, False),
        *(True, True, False),
    ]
    assert (budget.spent("a"), budget.spent("b"), budget.spent("")) == (ONE, ONE, ONE)


# -- stopping ------------------------------------------------------------------------------------


def endless() -> list[bytes]:
    return [chunk(LONG) for _ in range(200)]


async def test_a_stream_that_passes_the_limit_is_stopped_with_what_had_come(clock: FakeClock) -> None:
    budget, puppet = Budget(limit="20", prices=PRICES), Puppet(endless())
    reader = pipe_over(puppet, clock, budget).stream(ASKED)
    error = await read(reader)
    assert isinstance(error, BudgetExhausted)
    assert "stopped in its middle" in str(error)
    spent, step = budget.spent(), Decimal(STEP // 4 + 2_000) / 1000
    assert 20 < spent < 20 + step
    assert error.partial.text == LONG * (len(error.partial.text) // len(LONG))
    assert spent == PRICES.cost(error.report).amount
    assert (puppet.opens, puppet.live) == (1, set())
    with pytest.raises(BudgetExhausted):
        await anext(aiter(reader))  # and it stays stopped


async def test_a_replay_is_paid_for_out_of_the_same_budget(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=1, prices=PRICES), Puppet(cut(3), cut(4), whole())
    reader = pipe_over(puppet, clock, budget).stream(ASKED)
    assert await read(reader) is None
    assert budget.spent() == Decimal("0.042") == PRICES.cost(reader.report).amount


@pytest.mark.parametrize("place", ["left of Retry", "right of Reconnect"])
async def test_wherever_it_stands_it_books_what_was_billed(place: str, clock: FakeClock) -> None:
    budget = Budget(limit=1, prices=PRICES)
    hedge, slow = Hedge(delay=1.0, share=1.0), Script(Wait(9.0), *whole())
    puppet = Puppet(StreamBroken("reset"), slow, cut(2), whole())
    pipe: Pipe[Any] = Pipe(puppet, clock=clock) | parse_sse() | verify("deepseek")
    if place == "left of Retry":
        pipe = pipe | budget | hedge | Retry() | Reconnect(seams=Seams(max_repaid_tokens=1_000))
    else:
        pipe = pipe | hedge | Retry() | Reconnect(seams=Seams(max_repaid_tokens=1_000)) | budget
    reader = pipe.stream(ASKED)
    assert await read(reader) is None
    assert [bill.part for bill in reader.report.bills] == ["hedge", "again", "answer"]
    assert budget.spent() == PRICES.cost(reader.report).amount


async def test_a_request_that_was_not_answered_costs_nothing(clock: FakeClock) -> None:
    budget, puppet = Budget(limit=1, prices=PRICES), Puppet(StreamBroken("reset"), repeat=True)
    assert isinstance(await read(pipe_over(puppet, clock, budget).stream(ASKED)), StreamBroken)
    assert budget.spent() == 0


async def test_cancelled_anywhere_it_has_booked_what_was_billed(clock: FakeClock) -> None:
    budget = Budget(limit=1000, prices=PRICES)
    readers: list[Reader[Any]] = []

    async def scenario() -> None:
        readers.append(pipe_over(Puppet(Script(Wait(1.0), *cut(2)), whole()), clock, budget).stream(ASKED))
        await read(readers[-1])

    def check() -> None:
        billed = sum((PRICES.cost(reader.report).known for reader in readers), Decimal(0))
        assert budget.spent() == billed

    await cancel_everywhere(scenario, check=check)
    assert budget.spent() > 0


async def test_it_is_a_layer_like_others(clock: FakeClock) -> None:
    await check_layer(Budget(limit=1, unpriced="allow"), items=["a", "b", "c", "d"])
    shared = Store()
    await check_layer(Budget(limit=1, unpriced="allow", shared=shared), items=["a", "b", "c", "d"])


# -- several processes ---------------------------------------------------------------------------


class Store:
    """One bucket for each name; `gone` makes it a store that does not answer."""

    def __init__(self, *, late: bool = False, clock: FakeClock | None = None) -> None:
        self.left: dict[str, float] = {}
        self.clock = clock  # a store that takes its time: 10 ms before it decides, 10 ms after
        self.late = late  # it has decided before its answer comes
        self.gone = False
        self.asked = 0
        self.kept = set[float | None]()
        self.most: dict[str, float] = {}

    async def take(
        self, name: str, amount: float, *, rate: float, burst: float, seconds: float | None = None, force: bool = False
    ) -> float | None:
        self.asked += 1
        self.kept.add(seconds)
        if self.clock is not None:
            await self.clock.sleep(0.01)
            answer = self._decide(name, amount, burst)
            await self.clock.sleep(0.01)
            return answer
        if self.late:
            answer = self._decide(name, amount, burst)
            await asyncio.sleep(0)
            return answer
        await asyncio.sleep(0)
        if self.gone:
            return None
        assert rate == 0.0
        return self._decide(name, amount, burst)

    def _decide(self, name: str, amount: float, burst: float) -> float:
        assert amount == int(amount)
        left = self.left.setdefault(name, burst)
        if amount > left and not (amount > burst and left >= burst):
            return float("inf")
        self.left[name] = min(burst, left - amount)
        self.most[name] = burst
        return 0.0

    def taken(self, name: str) -> Decimal:
        return (Decimal(self.most[name]) - Decimal(self.left[name])) / 1_000_000_000

    def news(self) -> list[Moment]:
        return []

    async def hold(self, name: str, holder: str, *, places: int, seconds: float) -> bool | None:
        raise NotImplementedError

    async def release(self, name: str, holder: str) -> None:
        raise NotImplementedError

    async def tell(self, name: str, values: Mapping[str, float], *, seconds: float) -> None:
        raise NotImplementedError

    async def told(self, name: str) -> Mapping[str, float] | None:
        raise NotImplementedError


async def test_processes_that_share_a_store_share_the_limit(clock: FakeClock) -> None:
    store, puppet = Store(), Puppet(whole(), repeat=True)
    ours, theirs = (Budget(limit="0.035", prices=PRICES, shared=store, name="house") for _ in range(2))
    assert await read(pipe_over(puppet, clock, ours).stream(ASKED)) is None
    assert await read(pipe_over(puppet, clock, theirs).stream(ASKED)) is None
    assert store.left == {"house 0.035 USD": 5_000_000.0}  # half a cent, in billionths
    assert isinstance(await read(pipe_over(puppet, clock, ours).stream(ASKED)), BudgetExhausted)
    assert isinstance(await read(pipe_over(puppet, clock, theirs).stream(ASKED)), BudgetExhausted)
    assert (ours.spent(), theirs.spent(), puppet.opens) == (ONE, ONE, 2)


async def test_a_day_has_a_name_of_its_own_in_the_store(clock: FakeClock) -> None:
    store, puppet = Store(), Puppet(whole(), repeat=True)
    budget = Budget(limit=1, per="day", label="team", prices=PRICES, shared=store)
    assert await read(pipe_over(puppet, clock, budget).stream(ASKED, labels={"team": "a"})) is None
    assert list(store.left) == [f"budget 1 USD day team {clock.wall():%Y-%m-%d} a"]
    assert store.kept == {25 * 3600.0}  # it is forgotten when no call that began in it can still run


async def test_what_was_spent_over_the_limit_leaves_nothing_in_the_store(clock: FakeClock) -> None:
    store = Store()
    budget = Budget(limit="20", prices=PRICES, shared=store)
    error = await read(pipe_over(Puppet(endless()), clock, budget).stream(ASKED))
    assert isinstance(error, BudgetExhausted)
    assert (
        store.left["budget 20 USD"] < 1e3
    )  # less than a millionth: else one after another would be let in for the rest
    assert budget.spent() > 20


async def test_without_its_store_each_process_has_the_limit_for_itself(clock: FakeClock) -> None:
    store, puppet = Store(), Puppet(whole(), repeat=True)
    store.gone = True
    budget = Budget(limit="0.035", prices=PRICES, shared=store)
    outcomes = [await read(pipe_over(puppet, clock, budget).stream(ASKED)) for _ in range(3)]
    assert [type(error) for error in outcomes] == [type(None), type(None), BudgetExhausted]


@pytest.mark.parametrize("script", [cut(2), whole()], ids=["broken", "whole"])
@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_anywhere_the_store_has_booked_what_was_billed(
    script: list[Any],
    late: bool,  # noqa: FBT001 - a parameter of the test
    clock: FakeClock,
) -> None:
    store = Store(late=late)
    budget = Budget(limit=1000, prices=PRICES, shared=store)
    readers: list[Reader[Any]] = []

    async def scenario() -> None:
        readers.append(pipe_over(Puppet(script, whole()), clock, budget).stream(ASKED))
        await read(readers[-1])

    def check() -> None:
        billed = sum((PRICES.cost(reader.report).known for reader in readers), Decimal(0))
        assert (
            Decimal(1000) - Decimal(store.left.get("budget 1000 USD", 1e12)) / 1_000_000_000 == billed == budget.spent()
        )

    await cancel_everywhere(scenario, check=check)


async def test_racers_take_the_same_money_once(clock: FakeClock) -> None:
    """Both stand right of the same tab, and both asked the store before either had its answer."""
    for delay in (0.005, 0.015, 0.05):
        store = Store(clock=clock)
        budget = Budget(limit=1, prices=PRICES, shared=store)
        pipe: Pipe[Any] = (
            Pipe(Puppet(Script(Wait(0.3), *whole()), repeat=True), clock=clock) | parse_sse() | verify("deepseek")
        )
        reader = (pipe | budget | Hedge(delay=delay, share=1.0)).stream(ASKED)
        assert await read(reader) is None
        assert reader.report.hedges == 1
        await clock.sleep(1.0)
        assert budget.spent() == PRICES.cost(reader.report).amount == store.taken("budget 1 USD")


async def test_cancelled_from_another_task_it_gives_back_what_was_not_spent(clock: FakeClock) -> None:
    store = Store(clock=clock)
    budget = Budget(limit=1, prices=PRICES, shared=store)
    for after in (0.005, 0.015, 0.025, 0.5):
        reader = pipe_over(Puppet(Script(*whole()[:1], Wait(1.0), *whole()[1:])), clock, budget).stream(ASKED)
        before, task = budget.spent(), asyncio.create_task(read(reader))
        await clock.sleep(after)
        await reader.cancel()
        await task
        await clock.sleep(1.0)
        assert budget.spent() - before == PRICES.cost(reader.report).known
        assert budget.spent() == store.taken("budget 1 USD")


async def test_who_makes_up_labels_gets_no_limit_for_each_in_the_store_either(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_ACCOUNTS", 3)
    store, puppet = Store(), Puppet(whole(), repeat=True)
    budget = Budget(limit=ONE, label="user", prices=PRICES, shared=store)
    outcomes = [
        await read(pipe_over(puppet, clock, budget).stream(ASKED, labels={"user": f"u{number}"})) is None
        for number in range(9)
    ]
    assert outcomes == [True] * 4 + [False] * 5
    assert len(store.left) == 4


async def test_budgets_in_other_money_have_a_name_of_their_own(clock: FakeClock) -> None:
    store = Store()
    yuan = Prices(currency="CNY", shipped=False).with_("deepseek-v4-pro", input="1000", output="1000")
    for prices, limit in ((PRICES, "1"), (PRICES, "1.00"), (PRICES, 2), (yuan, 1)):
        budget = Budget(limit=limit, prices=prices, shared=store)
        assert await read(pipe_over(Puppet(whole()), clock, budget).stream(ASKED)) is None
    assert store.left == {"budget 1 USD": 97e7, "budget 2 USD": 1985e6, "budget 1 CNY": 985e6}


async def test_counts_that_cannot_be_are_no_credit_and_break_nothing(clock: FakeClock) -> None:
    for wrong in (-1_000_000, 10**400):
        budget = Budget(limit=10**9, prices=PRICES, shared=Store())
        usage = {"prompt_tokens": 10, "completion_tokens": wrong, "total_tokens": wrong}
        reader = pipe_over(Puppet([chunk("One ", "stop", usage)]), clock, budget).stream(ASKED)
        await read(reader)
        assert budget.spent() >= Decimal("0.010")
        assert 10 <= reader.report.billed_tokens <= 3e9


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"limit": 5.0}, r"Budget\(limit=...\) must be a text such as"),
        ({"limit": "-1"}, r"Budget\(limit=...\) must be a number from 0"),
        ({"limit": "5", "per": "week"}, r"Budget\(per=...\) must be 'hour', 'day', 'month' or None, not 'week'"),
        ({"limit": "5", "unpriced": "maybe"}, r"must be 'refuse' or 'allow'"),
    ],
)
def test_settings_that_cannot_be_are_named(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Budget(**wrong)


def test_it_can_be_read() -> None:
    assert repr(Budget(limit="5.00", per="day", label="team")) == "Budget(5.00 USD, per='day', label='team')"
