"""aiohttp by the hand of somebody careful: the status is looked at, and both clocks are set."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from bench.scoreboard.ask import IDLE, TOTAL, Ask, Show

PACKAGES = ("aiohttp",)
CATCH = (aiohttp.ClientError, asyncio.TimeoutError)


def read(ask: Ask, show: Show) -> None:
    asyncio.run(_read(ask, show))


async def _read(ask: Ask, show: Show) -> None:
    timeout = aiohttp.ClientTimeout(total=TOTAL, sock_read=IDLE)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.post(ask.url, json=ask.body, headers=ask.headers) as response,
    ):
        async for raw in response.content:
            line = raw.decode().strip()
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                break
            chunk = json.loads(data)
            if chunk["choices"] and (content := chunk["choices"][0]["delta"].get("content")):
                show(content)
