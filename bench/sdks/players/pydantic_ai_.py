"""pydantic-ai's agents, over the openai they stand on. Its blocking calls drive an event loop of their own."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from holdfast import mounts

PACKAGES = ("pydantic-ai-slim", "openai")
CATCH = (AgentRunError,)


def _agent(ask: Ask, line: Line) -> Any:
    provider = OpenAIProvider(base_url=f"{ask.base_url}/v1", api_key="k", **line)
    return Agent(OpenAIChatModel("m", provider=provider), model_settings={"timeout": IDLE})


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async with _agent(ask, line).run_stream(ask.key) as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            show(text)


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    result = _agent(ask, line).run_stream_sync(ask.key)
    for text in result.stream_text(delta=True, debounce_by=None):
        show(text)


def _line() -> Line:
    return {"http_client": mounts.httpx2_client(**SETTINGS)}


WAYS = {"async": in_a_loop(_read, _line), "sync": (_read_blocking, _line)}
