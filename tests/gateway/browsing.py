"""A real browser for tests: Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from tests.binaries import binary

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
_PATIENCE = 20.0


class Tab:
    """One page. `said` is what it complained of: exceptions, errors, and what its policy forbade."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        self._line = line
        self._loaded = asyncio.Event()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Has something done, and gives the answer."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._line.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_PATIENCE):
            await asyncio.wait([answer])
        return answer.result()

    async def open(self, url: str) -> None:
        """Goes to a page, and waits until it is loaded."""
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        await self._load("Page.navigate", url=url)

    async def reload(self) -> None:
        """Loads the page anew."""
        await self._load("Page.reload")

    async def _load(self, method: str, **params: Any) -> None:
        self._loaded.clear()
        await self.command(method, **params)
        async with asyncio.timeout(_PATIENCE):
            await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """Runs a script in the page, and gives what it is worth."""
        got = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    async def until(self, script: str) -> Any:
        """Waits until a script is worth something true, and gives it."""
        ask = f"const ask = () => {{ const got = {script}; got ? done(got) : setTimeout(ask, 10); }}; ask();"
        return await self.run(f"new Promise((done) => {{ {ask} }})")

    async def picture(self) -> bytes:
        """Gives what is to be seen as a PNG."""
        got = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(got["data"])

    async def aclose(self) -> None:
        """Leaves the page alone."""
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        await self._line.close()

    async def _read(self) -> None:
        async for message in self._line:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._answers.pop(told["id"])
                if "error" in told:
                    waiting.set_exception(RuntimeError(told["error"]["message"]))
                else:
                    waiting.set_result(told.get("result", {}))
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] == "Runtime.exceptionThrown":
                self.said.append(str(told["params"]["exceptionDetails"]))
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.said.append(told["params"]["entry"]["text"])


@asynccontextmanager
async def browsing(*, width: int = 1280, height: int = 900) -> AsyncIterator[Tab]:
    """Runs a browser with one empty page until the block is left."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            binary("chromium"),
            *FLAGS,
            f"--window-size={width},{height}",
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            port = await _port(process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    [page] = [one for one in await response.json() if one["type"] == "page"]
                tab = Tab(await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=64 * 1024 * 1024))
                try:
                    yield tab
                finally:
                    await tab.aclose()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async with asyncio.timeout(_PATIENCE):
        while line := await process.stderr.readline():
            if line.startswith(b"DevTools listening on ws://"):
                return int(line.split(b"/")[2].rsplit(b":")[-1])
    raise AssertionError("the browser did not start")
