"""A hedge over several upstreams: what each order of Fallback and Hedge means."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._errors import ConnectError, StatusError, StreamBroken
from holdfast._types import Head
from holdfast.layers.fallback import Fallback
from holdfast.layers.hedge import Hedge
from holdfast.layers.retry import Retry
from holdfast.moments import HedgeEnded, Moment
from holdfast.testing import FakeClock, cancel_everywhere
from tests.layers.test_fallback import Several, asking, over, status
from tests.puppet import Puppet, Script, Wait, drain

SLOW = Script(Wait(9.0), "slow")


def hedge() -> Hedge:
    return Hedge(delay=1.0, share=1.0)


@pytest.mark.parametrize("choose", ["first", "weighted", "least-loaded"])
async def test_a_hedge_goes_to_another_upstream_where_fallback_stands_left_of_it(clock: FakeClock, choose: Any) -> None:
    moments: list[Moment] = []
    for _ in range(8):
        source = Several(a=Puppet(SLOW, repeat=True), b=Puppet(SLOW, repeat=True), c=Puppet(SLOW, repeat=True))
        request = asking(clock, moments=moments)
        stream = await hedge()(over("a", "b", "c", choose=choose)(source)).open(request)
        assert len(source.asked) == len(set(source.asked)) == 2
        await stream.aclose()
        assert source.live == 0
    assert {moment.upstream for moment in moments if isinstance(moment, HedgeEnded)} <= {"a", "b", "c"}


async def test_it_goes_to_the_same_where_no_other_is_well(clock: FakeClock) -> None:
    layer: Fallback = over("a", "b", eject_after=1)
    source = Several(a=Puppet(SLOW, Script(Wait(0.1), "quick")), b=Puppet(ConnectError("gone")))
    visit = layer.routes.begin(1, clock.now())
    layer.routes.end(visit, clock.now(), good=False)
    stream = await hedge()(layer(source)).open(asking(clock))
    assert await drain(stream) == ["quick"]
    assert source.asked == ["a", "a"]
    await stream.aclose()


async def test_the_answer_and_its_route_are_the_winners(clock: FakeClock) -> None:
    source = Several(a=Puppet(SLOW), b=Puppet(["quick"]))
    request = asking(clock)
    stream = await hedge()(over("a", "b")(source)).open(request)
    assert await drain(stream) == ["quick"]
    call = request.call
    assert call.report.upstream == "b"
    assert call.attempt is not None
    assert call.attempt.upstream == "b"
    assert call.route is not None
    assert call.route.request.upstream == "b"
    await stream.aclose()
    assert source.live == 0


async def test_each_racer_falls_back_by_itself(clock: FakeClock) -> None:
    source = Several(a=Puppet(status(503), Script("late")), b=Puppet(SLOW, repeat=True), c=Puppet(["quick"]))
    stream = await hedge()(over("a", "b", "c")(source)).open(asking(clock))
    assert await drain(stream) == ["late"]
    assert source.asked == ["a", "b", "a"], "the first fell back to b, and a, refusing once, is well still"
    await stream.aclose()
    assert source.live == 0


async def test_another_round_begins_where_the_order_says(clock: FakeClock) -> None:
    source = Several(
        a=Puppet(Script(Wait(5.0), StreamBroken("cut")), ["again"]),
        b=Puppet(ConnectError("gone")),
    )
    fallback = over("a", "b", eject_after=9)
    stream = await Retry()(hedge()(fallback(source))).open(asking(clock))
    assert await drain(stream) == ["again"]
    await stream.aclose()
    assert source.live == 0


async def test_right_of_it_fallback_asks_another_when_both_racers_failed(clock: FakeClock) -> None:
    refused = StatusError("no", head=Head(status=503), retryable=True)
    source = Several(a=Puppet(Script(Wait(3.0), StreamBroken("cut")), refused), b=Puppet(["there"]))
    layer = hedge()
    stream = await over("a", "b")(layer(source)).open(asking(clock))
    assert await drain(stream) == ["there"]
    assert source.asked == ["a", "a", "b"]
    assert {upstream for upstream, _, _ in layer._usual._kinds} == {"a", "b"}, "each is learned of by itself"
    await stream.aclose()


@pytest.mark.parametrize("left", [True, False])
async def test_cancelled_anywhere_nothing_is_open(clock: FakeClock, *, left: bool) -> None:
    made: list[Several] = []

    async def scenario() -> None:
        made.append(
            Several(a=Puppet(SLOW, repeat=True), b=Puppet(status(503), Script(Wait(0.5), "b"), SLOW, repeat=True))
        )
        fallback = over("a", "b")
        source: Any = hedge()(fallback(made[-1])) if left else fallback(hedge()(made[-1]))
        stream = await source.open(asking(clock))
        try:
            await drain(stream)
        finally:
            await stream.aclose()

    def check() -> None:
        assert made[-1].live == 0

    assert await cancel_everywhere(scenario, check=check) > 5
