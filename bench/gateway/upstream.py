"""The upstream behind every relay of this benchmark: paced chat streams, as cheap as Python makes them.

`python -m bench.gateway.upstream RATE` prints its port. Each POST gets as many events as its `max_tokens` say, RATE a
second, each with the nanosecond at which it was sent (`@` and 19 digits, on the clock that all processes here share),
then a proper end. The first event goes out with the head.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

MARK, DIGITS = b"@", 19
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
_BEFORE = (
    b'data: {"id":"chatcmpl-5b1f0c2e9a","object":"chat.completion.chunk","created":1787150112,"model":"gpt-4o-mini",'
    b'"system_fingerprint":"fp_8b330d02d0","choices":[{"index":0,"delta":{%b"content":"'
)
_AFTER = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
_LAST = (
    b'data: {"id":"chatcmpl-5b1f0c2e9a","object":"chat.completion.chunk","created":1787150112,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


def framed(data: bytes) -> bytes:
    """Gives one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(role: bytes) -> bytes:
    before = _BEFORE % role
    size = len(before) + len(MARK) + DIGITS + len(_AFTER)
    return b"%x\r\n%b%b%%019d%b\r\n" % (size, before, MARK, _AFTER)


_FIRST, _NEXT = _event(b'"role":"assistant",'), _event(b"")
_END = framed(_LAST) + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection: one answer after another."""

    def __init__(self, rate: float) -> None:
        self._pause = 1 / rate
        self._asked = b""
        self._left = 0
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._asked += data
        head, blank, body = self._asked.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        self._asked = b""
        asked = json.loads(body) if body.strip() else {}
        self._left = int(asked.get("max_tokens", 16)) - 1
        self._due = self._loop.time() + self._pause
        self._transport.write(_HEAD + _FIRST % time.monotonic_ns())
        self._loop.call_at(self._due, self._next)

    def _next(self) -> None:
        if self._transport.is_closing():
            return
        if self._left <= 0:
            self._transport.write(_END)
            return
        self._left -= 1
        self._due += self._pause
        self._transport.write(_NEXT % time.monotonic_ns())
        self._loop.call_at(self._due, self._next)


async def _serve(rate: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(rate), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(float(sys.argv[1])))
