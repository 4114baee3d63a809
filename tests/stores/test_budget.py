"""One limit in money for several processes, over a real Redis."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from holdfast._errors import BudgetExhausted
from holdfast.layers.budget import Budget
from holdfast.stores import RedisState
from holdfast.testing import FakeClock
from tests.layers.test_budget import ONE, PRICES, endless, pipe_over
from tests.puppet import Puppet
from tests.redis_server import redis_server
from tests.test_bill import ASKED, read, whole


async def test_two_processes_spend_one_limit_and_not_a_cent_is_left_to_slip_through(clock: FakeClock) -> None:
    with redis_server() as server:
        states = [RedisState(server.url, prefix="money", timeout=2) for _ in range(2)]
        budgets = [Budget(limit=ONE * 10, prices=PRICES, shared=state) for state in states]
        puppet = Puppet(whole(), repeat=True)
        try:
            outcomes = [await read(pipe_over(puppet, clock, budgets[n % 2]).stream(ASKED)) for n in range(12)]
            assert [isinstance(one, BudgetExhausted) for one in outcomes] == [False] * 10 + [True] * 2
            assert [budget.spent() for budget in budgets] == [5 * ONE, 5 * ONE]

            big = Budget(limit=20, prices=PRICES, shared=states[0], name="big")
            error = await read(pipe_over(Puppet(endless()), clock, big).stream(ASKED))
            assert isinstance(error, BudgetExhausted)
            late = [Budget(limit=20, prices=PRICES, shared=states[1], name="big") for _ in range(5)]
            refused = await asyncio.gather(*(read(pipe_over(puppet, clock, one).stream(ASKED)) for one in late))
            assert all(isinstance(one, BudgetExhausted) for one in refused)
            assert [one.spent() for one in late] == [Decimal(0)] * 5
        finally:
            for state in states:
                await state.aclose()
