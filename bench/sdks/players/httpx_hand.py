"""httpx by the hand of somebody careful: the status is looked at, and a clock is set."""

from __future__ import annotations

import httpx

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, Words, in_a_loop
from holdfast import mounts

PACKAGES = ("httpx",)
CATCH = (httpx.HTTPError,)


async def _read(ask: Ask, show: Show, line: Line) -> None:
    words = Words()
    async with (
        line.get("client") or httpx.AsyncClient(timeout=IDLE) as client,
        client.stream("POST", ask.url, json=ask.body, timeout=IDLE) as response,
    ):
        response.raise_for_status()
        async for data in response.aiter_bytes():
            for text in words.feed(data):
                show(text)
            if words.done:
                break


def _read_blocking(ask: Ask, show: Show, line: Line) -> None:
    words = Words()
    with (
        line.get("client") or httpx.Client(timeout=IDLE) as client,
        client.stream("POST", ask.url, json=ask.body, timeout=IDLE) as response,
    ):
        response.raise_for_status()
        for data in response.iter_bytes():
            for text in words.feed(data):
                show(text)
            if words.done:
                break


WAYS = {
    "async": in_a_loop(_read, lambda: {"client": mounts.httpx_client(**SETTINGS)}),
    "sync": (_read_blocking, lambda: {"client": mounts.httpx_sync_client(**SETTINGS)}),
}
