"""The openai SDK inside stamina, everything held back until the answer has ended: nothing twice, and nothing early."""

from __future__ import annotations

import openai
import stamina

from bench.scoreboard.ask import Ask, Show
from bench.scoreboard.contenders import openai_alone

PACKAGES = ("stamina", "openai")
CATCH = (openai.OpenAIError,)


@stamina.retry(on=openai.APIError, attempts=4, timeout=12.0)
def _whole(ask: Ask) -> str:
    pieces: list[str] = []
    openai_alone.read(ask, pieces.append)
    return "".join(pieces)


def read(ask: Ask, show: Show) -> None:
    show(_whole(ask))
