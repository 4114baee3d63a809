"""The client that tutorials teach, for the demo's left column.

It is written as such clients are found in the wild, and better than many: it checks the status, it reads whole lines,
so no character is torn, and it has a timeout. It must not be mended further: what it does with a fault is what the
demo is there to show.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import aiohttp


async def naive_stream(url: str, prompt: str, show: Callable[[str], None], *, timeout: float) -> None:
    """Asks, and shows the text as it comes. `timeout` is seconds for the whole answer; aiohttp's own is 300.

    Raises what aiohttp does: a status that is no success, a connection that is lost, `TimeoutError`.
    """
    body = {"model": "deepseek-flash", "messages": [{"role": "user", "content": prompt}], "stream": True}
    limits = aiohttp.ClientTimeout(total=timeout)
    async with (
        aiohttp.ClientSession(timeout=limits) as session,
        session.post(f"{url}/chat/completions", json=body) as response,
    ):
        response.raise_for_status()
        async for raw in response.content:
            line = raw.decode("utf-8").strip()
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            try:
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
            except Exception:  # noqa: BLE001, S112 - "skip what does not parse": the habit that swallows error events
                continue
            if content:
                show(content)


__all__ = ["naive_stream"]
