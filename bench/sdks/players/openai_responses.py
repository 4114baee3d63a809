"""openai's Responses, over httpx2."""

from __future__ import annotations

import openai

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from holdfast import mounts

PACKAGES = ("openai",)
CATCH = (openai.APIError,)


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{ask.base_url}/v1", timeout=IDLE, **line) as client:
        stream = await client.responses.create(model="m", input=ask.key, stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                show(event.delta)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{ask.base_url}/v1", timeout=IDLE, **line) as client:
        stream = client.responses.create(model="m", input=ask.key, stream=True)
        for event in stream:
            if event.type == "response.output_text.delta":
                show(event.delta)


WAYS = {
    "async": in_a_loop(_read, lambda: {"http_client": mounts.httpx2_client(**SETTINGS)}),
    "sync": (_read_blocking, lambda: {"http_client": mounts.httpx2_sync_client(**SETTINGS)}),
}
