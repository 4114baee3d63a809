"""The openai SDK as its own page uses it, with a timeout and its default of two retries."""

from __future__ import annotations

from functools import cache
from typing import Any

import openai

from bench.scoreboard.ask import IDLE, Ask, Show

PACKAGES = ("openai",)
CATCH = (openai.OpenAIError,)


@cache
def _client(base_url: str) -> Any:
    return openai.OpenAI(api_key="k", base_url=base_url, timeout=IDLE)


def read(ask: Ask, show: Show) -> None:
    stream = _client(ask.base_url).chat.completions.create(**ask.body, extra_headers=ask.headers)
    for chunk in stream:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            show(content)
