"""Who plays, in the order of the page.

A player's module lives in the environment that has its SDK. It has `CATCH`, the errors that the SDK's documentation
tells users to catch, `PACKAGES`, whose versions the page names, and `WAYS`: by `async` and `sync`, a function
`read(ask, show, line)` that asks once and shows each piece of text, and another that makes the one line: the keywords
with the mount in them.
"""

from __future__ import annotations

from dataclasses import dataclass

NEWEST, OLDER, LITELLM = ".venv-sdks-newest", ".venv-sdks-older", ".venv-sdks-litellm"


@dataclass(slots=True, frozen=True, kw_only=True)
class Player:
    """One SDK: its module, the title of its column, its environment, and the ways that it can be used."""

    module: str
    title: str
    environment: str = NEWEST
    ways: tuple[str, ...] = ("async", "sync")


PLAYERS = {
    player.title: player
    for player in (
        Player(module="openai_chat", title="openai 3"),
        Player(module="openai_responses", title="openai 3, Responses"),
        Player(module="openai_chat", title="openai 2", environment=OLDER),
        Player(module="anthropic_", title="anthropic 2"),
        Player(module="anthropic_", title="anthropic 0", environment=OLDER),
        Player(module="genai", title="google-genai"),
        Player(module="langchain", title="langchain-openai"),
        Player(module="pydantic_ai_", title="pydantic-ai"),
        Player(module="litellm_", title="litellm", environment=LITELLM),
        Player(module="mcp_", title="mcp 2", ways=("async",)),
        Player(module="httpx2_hand", title="httpx2 by hand"),
        Player(module="httpx_hand", title="httpx by hand"),
        Player(module="aiohttp_hand", title="aiohttp by hand", ways=("async",)),
        Player(module="requests_hand", title="requests by hand", ways=("sync",)),
    )
}
