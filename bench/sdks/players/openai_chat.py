"""openai's chat completions: of major version 3 over httpx2, of those before over httpx."""

from __future__ import annotations

import openai

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from holdfast import mounts

PACKAGES = ("openai",)
CATCH = (openai.APIError,)
NEW = int(openai.__version__.partition(".")[0]) >= 3


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{ask.base_url}/v1", timeout=IDLE, **line) as client:
        stream = await client.chat.completions.create(**ask.body)
        async for chunk in stream:
            if chunk.choices and (content := chunk.choices[0].delta.content):
                show(content)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{ask.base_url}/v1", timeout=IDLE, **line) as client:
        stream = client.chat.completions.create(**ask.body)
        for chunk in stream:
            if chunk.choices and (content := chunk.choices[0].delta.content):
                show(content)


def _line() -> Line:
    return {"http_client": (mounts.httpx2_client if NEW else mounts.httpx_client)(**SETTINGS)}


def _line_blocking() -> Line:
    return {"http_client": (mounts.httpx2_sync_client if NEW else mounts.httpx_sync_client)(**SETTINGS)}


WAYS = {"async": in_a_loop(_read, _line), "sync": (_read_blocking, _line_blocking)}
