"""What comes over a connection to the gateway: any bytes are answered or refused, and never a failure of ours.

The whole path of a request runs, from the guard of the connection to the upstreams' layers, over a transport and an
answer in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from random import Random
from typing import Any

from fuzz.engine import Target
from holdfast._types import Head, Request
from holdfast.gateway.bounds import BoundedRunner
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.server import Gateway
from holdfast.gateway.settings import KeySettings, Limits, Settings, UpstreamSettings
from holdfast.gateway.upstreams import Upstreams
from holdfast.sources.memory import MemorySource

CANARY = "sk-canary-0123456789"
KEY = "hf-fuzz-0123456789"
ANSWERS = {
    "openai": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n",
    "anthropic": b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n',
}
_STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)
_TURNS = 400
"""Turns of the loop in which a connection that was closed must be done with: nothing waits for time here."""


def streams(body: Any) -> bool:
    """Says whether a request asks for a stream."""
    return b'"stream":true' in body if isinstance(body, bytes) else bool(body and body.get("stream"))


class _Source:
    """The upstreams' transport: says the same to everybody."""

    async def open(self, request: Request) -> Any:
        dialect = request.dialect.name if request.dialect is not None else ""
        if not streams(request.body):
            head = Head(headers={"content-type": "application/json"})
            return await MemorySource(b'{"choices":[],"usage":{}}', head=head).open(request)
        return await MemorySource(ANSWERS.get(dialect, ANSWERS["openai"])).open(request)

    async def aclose(self) -> None:
        pass


class _Transport(asyncio.Transport):
    """One end of a connection in memory."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.said = bytearray()
        self.closed = False
        self._protocol = protocol

    def write(self, data: Any) -> None:
        if not self.closed:
            self.said += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Failures(logging.Handler):
    """Whatever the gateway calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


class _Stage:
    """A gateway that is there for as long as the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.failures = _Failures()
        logging.getLogger("holdfast.gateway").addHandler(self.failures)
        logging.getLogger("holdfast.gateway").propagate = False
        self.loop.set_exception_handler(lambda _, context: self.failures.seen.append(repr(context)))
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        settings = Settings(
            upstreams=(
                UpstreamSettings(dialect="openai", api_key=CANARY),
                UpstreamSettings(dialect="anthropic", api_key=CANARY),
            ),
            keys=(KeySettings(name="fuzz", sha256=hashlib.sha256(KEY.encode()).hexdigest(), scopes=("stream", "ui")),),
            limits=Limits(max_body=4_096, max_header=2_048),
            cors=("https://named.example",),
            grace=0.05,
            max_requests=1,
        )
        upstreams = Upstreams(settings)
        source: Any = _Source()
        upstreams.source = source
        self.journal = MemoryJournal(keep=0.05, max_bytes=1_000_000)
        self.gateway = Gateway(settings, journal=self.journal, upstreams=upstreams)
        self.runner = BoundedRunner(self.gateway.app, settings.limits, handler_cancellation=True)
        await self.runner.setup()

    async def play(self, data: bytes) -> bytes:
        """Gives what is said to these bytes, however they are cut."""
        random = Random(hashlib.sha256(data).digest())
        protocol = self.runner.server()
        transport = _Transport(protocol)
        protocol.connection_made(transport)
        while data and not transport.closed:
            size = random.choice((1, 7, 64, len(data)))
            protocol.data_received(data[:size])
            data = data[size:]
            if random.random() < 0.1:
                await asyncio.sleep(0)
        for _ in range(random.randrange(_TURNS)):
            await asyncio.sleep(0)
        transport.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.journal.sweep()
        return bytes(transport.said)


_STAGE: list[_Stage] = []


def check(data: bytes) -> None:
    """Raises what is a finding."""
    if not _STAGE:
        _STAGE.append(_Stage())
    stage = _STAGE[0]
    stage.failures.seen.clear()
    said = stage.loop.run_until_complete(stage.play(data))
    assert not stage.failures.seen, stage.failures.seen
    assert CANARY.encode() not in said, "an upstream's key was told"
    statuses = {int(status) for status in _STATUS.findall(said)}
    assert not {status for status in statuses if status >= 500 and status not in (501, 502, 503)}, statuses
    assert b"\r\nX-Evil" not in said, "a client has written a header of ours"
    assert len(stage.runner.guards) == 0, "a connection was kept"


TARGETS = [
    Target(
        name="gateway",
        check=check,
        seeds=("gateway",),
        words=(
            *(b"GET ", b"POST ", b"DELETE ", b"OPTIONS ", b"HEAD ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n"),
            *(b"Host: localhost\r\n", b"Authorization: Bearer hf-fuzz-0123456789\r\n", b"Connection: close\r\n"),
            *(b"Content-Length: 0\r\n", b"Content-Length: 70\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            *(
                b"Last-Event-ID: ",
                b"Idempotency-Key: k\r\n",
                b"Origin: https://named.example\r\n",
                b"Expect: 100-continue\r\n",
            ),
            *(b"Access-Control-Request-Method: POST\r\n", b"Content-Encoding: gzip\r\n", b"Upgrade: websocket\r\n"),
            *(b"/v1/chat/completions", b"/v1/messages", b"/v1/responses", b"/v1/streams/", b"/v1/models", b"/metrics"),
            *(
                b"/v1beta/models/m:streamGenerateContent?alt=sse",
                b"?token=1.0",
                b"?key=x",
                b"00000000000000000000000000000000",
            ),
            *(
                b'{"model":"m","stream":true}',
                b'{"model":"m"}',
                b'"model":',
                b'"stream":true',
                b"[[[[",
                b"\xff",
                b"\\ud800",
            ),
            *(b"\r\nX-Evil: 1\r\n", b"%0d%0a", b"%2f..", b"\0", b"\x80", b": ", b"-1", b"-99999999999999"),
        ),
        longest=2_048,
    )
]
