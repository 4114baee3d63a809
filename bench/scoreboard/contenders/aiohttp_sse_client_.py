"""aiohttp-sse-client as its own page uses it: it reconnects by itself. Pauses begin at a tenth of a second."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import aiohttp
from aiohttp_sse_client.client import EventSource  # type: ignore[import-untyped]  # it ships no types

from bench.scoreboard.ask import IDLE, TOTAL, Ask, Show

PACKAGES = ("aiohttp-sse-client", "aiohttp")
CATCH = (ConnectionError, aiohttp.ClientError, asyncio.TimeoutError)


def read(ask: Ask, show: Show) -> None:
    asyncio.run(_read(ask, show))


async def _read(ask: Ask, show: Show) -> None:
    async with EventSource(
        ask.url,
        option={"method": "POST"},
        reconnection_time=timedelta(seconds=0.1),
        json=ask.body,
        headers=ask.headers,
        timeout=aiohttp.ClientTimeout(total=TOTAL, sock_read=IDLE),
    ) as source:
        async for event in source:
            if event.data == "[DONE]":
                break
            chunk = json.loads(event.data)
            if chunk["choices"] and (content := chunk["choices"][0]["delta"].get("content")):
                show(content)
