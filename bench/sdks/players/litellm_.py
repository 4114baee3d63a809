"""litellm over its openai-compatible route. It is given one client for the whole process."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched from the network

from functools import cache
from typing import Any

import litellm
import openai

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_one_loop
from holdfast import mounts

PACKAGES = ("litellm", "openai")
CATCH = (openai.APIError,)  # its own errors are kinds of these
litellm.suppress_debug_info = True


def _asked(ask: Ask) -> dict[str, Any]:
    body = {**ask.body, "model": "openai/m"}
    return {**body, "api_key": "k", "base_url": f"{ask.base_url}/v1", "timeout": IDLE}


async def _read(ask: Ask, show: Show, _line: Line) -> None:
    stream: Any = await litellm.acompletion(**_asked(ask))
    async for chunk in stream:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            show(content)


def _read_blocking(ask: Ask, show: Show, _line: Line) -> None:
    stream: Any = litellm.completion(**_asked(ask))
    for chunk in stream:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            show(content)


@cache
def _line() -> Line:
    litellm.aclient_session = mounts.httpx_client(**SETTINGS)
    return {}


@cache
def _line_blocking() -> Line:
    litellm.client_session = mounts.httpx_sync_client(**SETTINGS)
    return {}


WAYS = {"async": in_one_loop(_read, _line), "sync": (_read_blocking, _line_blocking)}
