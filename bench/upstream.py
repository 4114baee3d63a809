"""The upstream of the benchmark, in a process of its own so that its cost is nobody's: chat streams, busy or paced.

`python -m bench.upstream [CERT.pem]` prints its port. With a file that holds a private key
and its certificate it speaks TLS. `GET/POST /?events=N&rate=R&burst=B&delay=S&coding=C`: N events, R a second (0: as
fast as it can), B of them at a time, the first after S seconds; C is `gzip`, flushed after each event, or `gzip-held`,
as a proxy that never flushes. At `/v1/messages` it speaks as Anthropic does, without coding.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import zlib
from collections.abc import Callable
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
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%btransfer-encoding: chunked\r\n\r\n"
TEXT = " token"


def framed(data: bytes) -> bytes:
    """Gives one HTTP chunk; nothing for nothing, which would end the body."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


EVENT = framed(CHUNK)
END = b"0\r\n\r\n"


def _named(*events: str) -> bytes:
    """Writes events as Anthropic does: the name stands in the data, too."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (json.loads(data)["type"].encode(), data.encode()) for data in events)


MESSAGE = framed(
    _named(
        '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m",'
        '"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    )
)
MESSAGE_EVENT = framed(_named('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" token"}}'))
MESSAGE_LAST = framed(
    _named(
        '{"type":"content_block_stop","index":0}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":9}}',
        '{"type":"message_stop"}',
    )
)
Coder = Callable[[bytes], bytes]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next((line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")), "0")
            await reader.readexactly(int(length))
            asked = {name: v[0] for name, v in parse_qs(urlsplit(head.split(" ", 2)[1]).query).items()}
            await _answer(writer, asked, messages="/v1/messages" in head.split(" ", 2)[1])
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _coders(coding: str) -> tuple[Coder, Callable[[], bytes]]:
    if not coding:
        return lambda data: data, lambda: b""
    deflate = zlib.compressobj(wbits=31)
    if coding == "gzip-held":
        return deflate.compress, deflate.flush
    return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH), deflate.flush


async def _answer(writer: asyncio.StreamWriter, asked: dict[str, str], *, messages: bool) -> None:
    events, rate, coding = int(asked.get("events", 100)), float(asked.get("rate", 0)), asked.get("coding", "")
    burst, event = int(asked.get("burst", 1)), MESSAGE_EVENT if messages else EVENT
    code, flush = _coders(coding)
    writer.write(HEAD % (b"content-encoding: gzip\r\n" if coding else b""))
    await asyncio.sleep(float(asked.get("delay", 0)))
    if messages:
        writer.write(MESSAGE)
    if not rate:
        for _ in range(0, events, 100):
            some = min(100, events)
            writer.write(b"".join(framed(code(CHUNK)) for _ in range(some)) if coding else event * some)
            await writer.drain()
    else:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for n in range(0, events, burst):
            await asyncio.sleep(max(0.0, start + n / rate - loop.time()))
            writer.write(framed(code(CHUNK)) if coding else event * min(burst, events - n))
    last = MESSAGE_LAST if messages else framed(code(LAST)) + framed(code(DONE)) + framed(flush())
    writer.write(last + END)
    await writer.drain()


async def main(pem: str = "") -> None:
    tls = None
    if pem:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pem)
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2]))
