"""aiohttp by the hand of somebody careful: the status is looked at, and the clocks are set."""

from __future__ import annotations

import asyncio

import aiohttp

from bench.scoreboard.ask import IDLE, TOTAL, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, Words, in_a_loop
from holdfast import mounts

PACKAGES = ("aiohttp",)
CATCH = (aiohttp.ClientError, asyncio.TimeoutError)  # its documentation names both


async def _read(ask: Ask, show: Show, line: Line) -> None:
    words, timeout = Words(), aiohttp.ClientTimeout(total=2 * TOTAL, sock_read=IDLE)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True, **line) as session,
        session.post(ask.url, json=ask.body) as response,
    ):
        async for data in response.content.iter_any():
            for text in words.feed(data):
                show(text)
            if words.done:
                break


WAYS = {"async": in_a_loop(_read, lambda: {"middlewares": [mounts.aiohttp_middleware(**SETTINGS)]})}
