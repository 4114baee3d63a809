"""A page in Chromium that asks for a stream and reads it with `EventSource`, over a network that is cut twice.

The page is of another origin than the gateway, which was told to let it in. Nothing in it knows of cuts: the browser
comes back by itself, and stops at the end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from holdfast.testing.server import Close, Pause, ReceivedRequest, Reply, ScriptedServer, sse, stream
from tests.binaries import binary
from tests.gateway.cutting import Cutting, cutting
from tests.gateway.serving import serving, settings

PAGE = """<!doctype html><meta charset="utf-8"><title>a stream</title><p id="text"></p><script>
const gateway = "GATEWAY", place = document.getElementById("text");
let opened = 0;
const ask = { model: "m", messages: [{ role: "user", content: "kelp" }], stream: true };
fetch(gateway + "/v1/chat/completions", { method: "POST", body: JSON.stringify(ask) }).then((response) => {
  const stream = response.headers.get("X-Holdfast-Stream"), token = response.headers.get("X-Holdfast-Read-Token");
  response.body.cancel();  // from here on the browser sees to it
  const source = new EventSource(`${gateway}/v1/streams/${stream}?token=${token}`);
  source.onopen = () => { opened += 1; };
  source.onmessage = ({ data }) => {
    if (data.startsWith("{")) place.textContent += JSON.parse(data).choices[0].delta.content;
  };
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return;
    fetch("/done", { method: "POST", body: JSON.stringify({ text: place.textContent, opened }) });
  };
});
</script>"""
WORDS = [f"第{n} word, 🌊 " for n in range(200)]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
]


def answer(cut: int | None = None) -> Reply:
    """Gives all words, or as many and a cut. EventSource is told to come back at once, else it waits for seconds."""
    said = [{"content": word} for word in WORDS]
    made = [{"id": "c", "choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in said]
    made[-1]["choices"][0]["finish_reason"] = "stop"  # type: ignore[index]  # a list
    head, *chunks, end = stream(b"retry: 50\n\n", *(sse(json.dumps(one)) for one in made), sse("[DONE]"))
    paced = [step for chunk in chunks for step in (chunk, Pause(0.001))]
    return [head, *paced, end] if cut is None else [head, *paced[: 2 * cut], Close()]


@pytest.mark.timeout(60)
async def test_the_page_is_whole_after_the_network_was_cut_twice(tmp_path: Path) -> None:
    async def upstream(_: ReceivedRequest) -> Reply:
        return answer(None if len(server.requests) > 1 else 80)

    server = ScriptedServer(upstream)
    async with (
        site() as (origin, said, network_of),
        server,
        serving(settings(f"{server.url}/v1", cors=(origin,))) as served,
        # The POST, of which the page wants no more than its head, and two of the browser's own.
        cutting(served.url, (10**9, 6000, 4000)) as network,
    ):
        network_of.set_result(network)
        async with browsing(origin, tmp_path), asyncio.timeout(30):
            told = await said
    assert told["text"] == "".join(WORDS)
    assert told["opened"] == 3
    assert network.connections == 4  # the POST, and three of EventSource: the last is asked once more, and says 204
    assert len(server.requests) == 2


@asynccontextmanager
async def site() -> AsyncIterator[tuple[str, asyncio.Future[Any], asyncio.Future[Cutting]]]:
    """Serves the page, and takes what it says at the end."""
    said, network = asyncio.Future[Any](), asyncio.Future[Cutting]()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE.replace("GATEWAY", (await network).url), content_type="text/html")

    async def done(request: web.Request) -> web.Response:
        if not said.done():
            said.set_result(json.loads(await request.read()))
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", page), web.post("/done", done)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", said, network
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browsing(url: str, profile: Path) -> AsyncIterator[None]:
    """Opens a page, until the block is left."""
    nowhere = asyncio.subprocess.DEVNULL
    command = (binary("chromium"), *FLAGS, f"--user-data-dir={profile}", url)
    process = await asyncio.create_subprocess_exec(*command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
