"""The openai SDK inside stamina's decorator, each piece shown as it comes: a retry begins at the first word again."""

from __future__ import annotations

import openai
import stamina

from bench.scoreboard.ask import Ask, Show
from bench.scoreboard.contenders import openai_alone

PACKAGES = ("stamina", "openai")
CATCH = (openai.OpenAIError,)


@stamina.retry(on=openai.APIError, attempts=4, timeout=12.0)
def read(ask: Ask, show: Show) -> None:
    openai_alone.read(ask, show)
