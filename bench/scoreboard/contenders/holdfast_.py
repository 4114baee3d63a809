"""Holdfast as its own page uses it: the client and its default layers, with the same clocks as everybody."""

from __future__ import annotations

import asyncio

import holdfast
from bench.scoreboard.ask import IDLE, TOTAL, Ask, Show
from holdfast.dialects import Timeouts

PACKAGES = ("holdfast", "aiohttp")
CATCH = (holdfast.StreamError,)
CLOCKS = Timeouts(open=IDLE, first_token=IDLE, progress=IDLE, total=TOTAL)


def read(ask: Ask, show: Show) -> None:
    asyncio.run(_read(ask, show))


async def _read(ask: Ask, show: Show) -> None:
    async with (
        holdfast.Client("deepseek", api_key="k", base_url=ask.base_url, timeouts=CLOCKS, headers=ask.headers) as client,
        client.stream(ask.body) as deltas,
    ):
        async for delta in deltas:
            if delta.text:
                show(delta.text)
