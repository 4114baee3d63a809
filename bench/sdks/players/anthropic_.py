"""anthropic's Messages: of major version 1 on over httpx2, of those before over httpx."""

from __future__ import annotations

import anthropic

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from holdfast import mounts

PACKAGES = ("anthropic",)
CATCH = (anthropic.APIError,)
NEW = int(anthropic.__version__.partition(".")[0]) >= 1


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async with (
        anthropic.AsyncAnthropic(api_key="k", base_url=ask.base_url, timeout=IDLE, **line) as client,
        client.messages.stream(model="m", max_tokens=9_999, messages=[{"role": "user", "content": ask.key}]) as stream,
    ):
        async for text in stream.text_stream:
            show(text)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    with (
        anthropic.Anthropic(api_key="k", base_url=ask.base_url, timeout=IDLE, **line) as client,
        client.messages.stream(model="m", max_tokens=9_999, messages=[{"role": "user", "content": ask.key}]) as stream,
    ):
        for text in stream.text_stream:
            show(text)


def _line() -> Line:
    return {"http_client": (mounts.httpx2_client if NEW else mounts.httpx_client)(**SETTINGS)}


def _line_blocking() -> Line:
    return {"http_client": (mounts.httpx2_sync_client if NEW else mounts.httpx_sync_client)(**SETTINGS)}


WAYS = {"async": in_a_loop(_read, _line), "sync": (_read_blocking, _line_blocking)}
