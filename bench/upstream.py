"""The upstream of the benchmark, in a process of its own so that its cost is nobody's: chat streams, busy or paced.

`python -m bench.upstream` prints its port. `GET/POST /?events=N&rate=R`: N events, R a second (0: as fast as it can).
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

CHUNK = (
    b'data: {"id":"chatcmpl-5b1f0c2e9a","object":"chat.completion.chunk","created":1787150112,"model":"deepseek-flash",'
    b'"system_fingerprint":"fp_8b330d02d0","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-5b1f0c2e9a","object":"chat.completion.chunk","created":1787150112,"model":"deepseek-flash",'
    b'"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1000,"total_tokens":1009}}\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
TEXT = " token"


def framed(data: bytes) -> bytes:
    """Gives one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


EVENT = framed(CHUNK)
TAIL = framed(LAST) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next((line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")), "0")
            await reader.readexactly(int(length))
            asked = {name: float(v[0]) for name, v in parse_qs(urlsplit(head.split(" ", 2)[1]).query).items()}
            await _answer(writer, int(asked.get("events", 100)), asked.get("rate", 0.0))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(writer: asyncio.StreamWriter, events: int, rate: float) -> None:
    writer.write(HEAD)
    if not rate:
        for _ in range(0, events, 100):
            writer.write(EVENT * min(100, events))
            await writer.drain()
    else:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for n in range(events):
            await asyncio.sleep(max(0.0, start + n / rate - loop.time()))
            writer.write(EVENT)
    writer.write(TAIL)
    await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
