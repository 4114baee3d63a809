"""The bytes of an answer as they stand on the wire: in chunks, or bare for those who speak HTTP/1.0."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, stream
from tests.gateway.serving import serving, settings
from tests.gateway.test_server import ANSWER, BODY


async def raw(url: str, version: str) -> tuple[bytes, bytes]:
    """Gives head and body of an answer, as they came."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(BODY).encode()
    lines = ["Host: 127.0.0.1", "Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    writer.write("\r\n".join([f"POST /v1/chat/completions HTTP/{version}", *lines, "", ""]).encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[0], answer.partition(b"\r\n\r\n")[2]


def dechunked(body: bytes) -> bytes:
    """Takes chunks apart, and checks them."""
    out = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            assert body == b"\r\n"
            return out
        out += body[: int(size, 16)]
        assert body[int(size, 16) :][:2] == b"\r\n"
        body = body[int(size, 16) + 2 :]


@pytest.mark.parametrize("journal", ["none", "memory"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_every_version_gets_the_same_bytes(journal: str, version: str) -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal=journal)) as served,
    ):
        head, body = await raw(served.url, version)
        chunked = b"transfer-encoding: chunked" in head.lower()
        assert chunked is (version == "1.1")
        body = dechunked(body) if chunked else body
        lines = [line for line in body.splitlines(keepends=True) if not line.startswith(b"id: ")]
        assert b"".join(lines) == b"".join(ANSWER)
