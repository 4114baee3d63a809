"""langchain-openai's ChatOpenAI, over the openai it stands on. It shares connections between its models."""

from __future__ import annotations

from typing import Any

import openai
from langchain_openai import ChatOpenAI

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_one_loop
from holdfast import mounts

PACKAGES = ("langchain-openai", "langchain-core", "openai")
CATCH = (openai.APIError,)  # its documentation has no errors of its own


def _model(ask: Ask, line: Line) -> Any:
    return ChatOpenAI(model="m", api_key="k", base_url=f"{ask.base_url}/v1", timeout=IDLE, **line)


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async for chunk in _model(ask, line).astream(ask.key):
        if chunk.text:
            show(chunk.text)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    for chunk in _model(ask, line).stream(ask.key):
        if chunk.text:
            show(chunk.text)


WAYS = {
    "async": in_one_loop(_read, lambda: {"http_async_client": mounts.httpx2_client(**SETTINGS)}),
    "sync": (_read_blocking, lambda: {"http_client": mounts.httpx2_sync_client(**SETTINGS)}),
}
