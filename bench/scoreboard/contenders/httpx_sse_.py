"""httpx-sse as its own page uses it, over one pooled httpx client whose read timeout is set."""

from __future__ import annotations

import httpx
import httpx_sse

from bench.scoreboard.ask import IDLE, Ask, Show

PACKAGES = ("httpx-sse", "httpx")
CATCH = (httpx.HTTPError, httpx_sse.SSEError)
CLIENT = httpx.Client(timeout=IDLE)


def read(ask: Ask, show: Show) -> None:
    with httpx_sse.connect_sse(CLIENT, "POST", ask.url, json=ask.body, headers=ask.headers) as source:
        source.response.raise_for_status()
        for event in source.iter_sse():
            if event.data == "[DONE]":
                break
            chunk = event.json()
            if chunk["choices"] and (content := chunk["choices"][0]["delta"].get("content")):
                show(content)
