"""What all players share: the mount's keywords, and a reader of events for those who read by hand."""

from __future__ import annotations

import asyncio
import codecs
import functools
import json
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from bench.scoreboard.ask import IDLE, TOTAL, Ask, Show
from holdfast.dialects import Timeouts

SETTINGS: dict[str, Any] = {"timeouts": Timeouts(open=IDLE, first_token=IDLE, progress=IDLE, total=TOTAL)}
"""The clocks that contenders of the scoreboard are given, where a library has a setting for them."""
Line = dict[str, Any]
Reading = Callable[[Ask, Show, Line], None]
Way = tuple[Reading, Callable[[], Line]]

_ENDS = re.compile("\r\n|\n|\r")


def in_a_loop(read: Callable[[Ask, Show, Line], Awaitable[None]], line: Callable[[], Line]) -> Way:
    """Gives an asynchronous way, each stream in an event loop of its own."""

    @functools.wraps(read)
    def reading(ask: Ask, show: Show, line: Line) -> None:
        async def run() -> None:
            await read(ask, show, line)

        asyncio.run(run())

    return reading, line


def in_one_loop(read: Callable[[Ask, Show, Line], Coroutine[Any, Any, None]], line: Callable[[], Line]) -> Way:
    """Gives an asynchronous way, all streams in one event loop: for SDKs whose clients outlive a call."""

    def reading(ask: Ask, show: Show, line: Line) -> None:
        asyncio.run_coroutine_threadsafe(read(ask, show, line), _loop()).result()

    return reading, line


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class Words:
    """A simple and correct reader of chat completions: UTF-8 first, then lines that end as the standard says."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self.done = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Gives the text of what has come."""
        self._rest += self._decoder.decode(data)
        held = "\r" if self._rest.endswith("\r") else ""  # its LF may be on its way
        *lines, rest = _ENDS.split(self._rest.removesuffix(held))
        self._rest = rest + held
        for line in lines:
            if line.startswith("data:"):
                yield from self._said(line[5:].removeprefix(" "))

    def _said(self, data: str) -> Iterator[str]:
        if data == "[DONE]":
            self.done = True
        elif data:
            for choice in json.loads(data)["choices"]:
                if content := choice["delta"].get("content"):
                    yield content
