"""Every source of the house keeps the contract of a stream, over real TCP where it speaks it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from holdfast._types import Request
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.testing import check_source
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
