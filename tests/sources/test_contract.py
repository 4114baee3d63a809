"""Every source of the house keeps the contract of a stream, over real TCP where it speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast._errors import StatusError, StreamBroken
from holdfast._pipe import Pipe
from holdfast._types import Head, Request
from holdfast.layers.record import Record
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.sources.aiohttp_sse_client import AiohttpSseClientSource
from holdfast.sources.memory import MemorySource
from holdfast.testing import check_source
from holdfast.testing.inner import Inner
from holdfast.testing.server import LAST_CHUNK, STREAM_HEAD, Reset, ScriptedServer, Send, chunked, respond, sse, stream

PIECES = [sse("one"), b": ping\n\n", sse("two")]


@pytest.mark.parametrize(
    ("reply", "arrives", "fails"),
    [
        (stream(*PIECES), b"".join(PIECES), False),
        ([Send(STREAM_HEAD), Send(chunked(PIECES[0])), Reset()], PIECES[0], True),
        ([Send(STREAM_HEAD + chunked(PIECES[0]) + b"5\r\nda"), Reset()], PIECES[0] + b"da", True),
        (respond(b"{}", status=429), b"", True),
        ([Reset()], b"", True),
        ([Send(STREAM_HEAD + LAST_CHUNK)], b"", False),
    ],
    ids=["whole", "reset", "cut in a chunk", "refused", "reset before the head", "empty"],
)
async def test_aiohttp(reply: Any, arrives: bytes, *, fails: bool) -> None:
    async with ScriptedServer([reply]) as server, aiohttp.ClientSession() as session:
        connector: Any = session.connector
        await check_source(
            lambda: AiohttpSource(session),
            expected=[arrives] if arrives else [],
            fails=fails,
            request=Request(url=f"{server.url}/v1", body={}),
            opened=lambda: len(connector._acquired),
        )


def broken() -> StreamBroken:
    return StreamBroken("cut")


class Slowly:
    """An asynchronous iterable that can be read again, and counts how often it is being read."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.opened = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.opened += 1
        try:
            for piece in PIECES:
                await asyncio.sleep(0)
                yield piece
            if self.fails:
                raise broken()
        finally:
            await asyncio.sleep(0)
            self.opened -= 1


@pytest.mark.parametrize("fails", [False, True])
async def test_memory(*, fails: bool) -> None:
    there: Any = [*PIECES, broken()] if fails else PIECES
    await check_source(lambda: MemorySource(there), expected=PIECES, fails=fails)
    slowly = Slowly(fails=fails)
    await check_source(lambda: MemorySource(slowly), expected=PIECES, fails=fails, opened=lambda: slowly.opened)


async def test_memory_that_refuses() -> None:
    await check_source(lambda: MemorySource(b"no", head=Head(status=503)), expected=[], fails=True)
    await check_source(lambda: MemorySource(StatusError("no", head=Head(status=503))), expected=[], fails=True)


async def test_memory_of_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    async with (Pipe[bytes](MemorySource(PIECES)) | Record(file)).stream() as recorded:
        assert b"".join([piece async for piece in recorded]) == b"".join(PIECES)
    await check_source(lambda: MemorySource.replay(file), expected=PIECES, fails=False)


class Payloads:
    """Says what each event says: an event also tells where it was. It hides nothing else."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def head(self) -> Any:
        return self.inner.head

    async def open(self, request: Request) -> Payloads:
        return Payloads(await self.inner.open(request))

    async def receive(self) -> list[str]:
        return [event.data for event in await self.inner.receive()]

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.parametrize("ticks", [0, 2])
@pytest.mark.parametrize("fails", [False, True])
async def test_aiohttp_sse_client(ticks: int, *, fails: bool) -> None:
    inner = Inner(batches=[[piece] for piece in PIECES], ticks=ticks, failure=broken if fails else None)
    await check_source(
        lambda: Payloads(AiohttpSseClientSource(inner)),
        expected=["one", "two"],
        fails=fails,
        request=Request(url="http://upstream/v1", body={}),
        opened=lambda: inner.opened,
    )


async def test_aiohttp_sse_client_that_is_refused() -> None:
    refused = Inner[bytes](batches=[], refusal=broken, ticks=2)
    await check_source(
        lambda: AiohttpSseClientSource(refused),
        expected=[],
        fails=True,
        request=Request(url="http://upstream/v1", body={}),
        opened=lambda: refused.opened,
    )
