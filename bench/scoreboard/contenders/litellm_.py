"""litellm as its own page uses it, with a timeout and two retries."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched from the network

import litellm
import openai

from bench.scoreboard.ask import IDLE, Ask, Show

PACKAGES = ("litellm", "openai")
CATCH = (openai.OpenAIError,)
litellm.suppress_debug_info = True


def read(ask: Ask, show: Show) -> None:
    stream = litellm.completion(
        **{**ask.body, "model": "openai/deepseek-flash"},
        api_key="k",
        base_url=ask.base_url,
        timeout=IDLE,
        num_retries=2,
        extra_headers=ask.headers,
    )
    for chunk in stream:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            show(content)
