"""google-genai's generate_content_stream, over httpx2. Its timeout is for the whole call where that is aiohttp's."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
import httpx2
from google import genai
from google.genai import errors, types

from bench.scoreboard.ask import TOTAL, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from holdfast import mounts

PACKAGES = ("google-genai",)
CATCH = (errors.APIError, httpx2.TransportError, aiohttp.ClientError, TimeoutError)
"""It has errors only for what a provider says; for a lost line it lets those of its HTTP client through.

That is httpx2, and aiohttp for what is asynchronous, unless it is given a client.
"""


def _client(ask: Ask, line: Line) -> Any:
    options = types.HttpOptions(base_url=ask.base_url, timeout=int(TOTAL * 1000), **line)
    return genai.Client(api_key="k", http_options=options)


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for given in line.values():  # it closes only what it made
            await stack.enter_async_context(given)
        client = await stack.enter_async_context(_client(ask, line).aio)
        async for chunk in await client.models.generate_content_stream(model="m", contents=ask.key):
            if chunk.text:
                show(chunk.text)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    with contextlib.ExitStack() as stack:
        for given in line.values():
            stack.enter_context(given)
        client = stack.enter_context(_client(ask, line))
        for chunk in client.models.generate_content_stream(model="m", contents=ask.key):
            if chunk.text:
                show(chunk.text)


WAYS = {
    "async": in_a_loop(_read, lambda: {"httpx_async_client": mounts.httpx2_client(**SETTINGS)}),
    "sync": (_read_blocking, lambda: {"httpx_client": mounts.httpx2_sync_client(**SETTINGS)}),
}
