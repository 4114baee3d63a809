"""The contenders, in the order of the page: name of the module, title, environment."""

from __future__ import annotations

CONTENDERS: dict[str, tuple[str, str]] = {
    "requests_posts": ("requests, as posts have it", ".venv-scoreboard"),
    "aiohttp_hand": ("aiohttp by hand", ".venv-scoreboard"),
    "httpx_sse_": ("httpx-sse", ".venv-scoreboard"),
    "aiohttp_sse_client_": ("aiohttp-sse-client", ".venv-scoreboard"),
    "launchdarkly": ("launchdarkly-eventsource", ".venv-scoreboard"),
    "openai_alone": ("openai SDK", ".venv-scoreboard"),
    "openai_stamina": ("openai in stamina, shown", ".venv-scoreboard"),
    "openai_stamina_held": ("openai in stamina, held back", ".venv-scoreboard"),
    "litellm_": ("litellm", ".venv-scoreboard-litellm"),
    "holdfast_": ("Holdfast", ".venv-scoreboard"),
}
