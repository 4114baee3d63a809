"""A network that is cut: a TCP proxy which resets connections where it is told, whatever is on its way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Cutting:
    """Stands before a server. `cuts`: after how many bytes from it each of the first connections is reset."""

    cuts: Sequence[int]
    url: str = ""
    connections: int = 0
    """That carried a request."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)


@asynccontextmanager
async def cutting(upstream: str, cuts: Sequence[int]) -> AsyncIterator[Cutting]:
    """Serves until the block is left."""
    at = urlsplit(upstream)
    proxy = Cutting(cuts)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(65536)  # a browser opens connections that it then leaves alone
        if not asked:
            writer.close()
            return
        most = proxy.cuts[proxy.connections] if proxy.connections < len(proxy.cuts) else None
        proxy.connections += 1
        there, back = await asyncio.open_connection(at.hostname, at.port)
        back.write(asked)
        sending = asyncio.create_task(_pump(reader, back))
        try:
            while data := await there.read(4096):
                if most is not None and len(data) >= most:
                    writer.write(data[:most])
                    await writer.drain()
                    _reset(writer)
                    return
                most = None if most is None else most - len(data)
                writer.write(data)
                await writer.drain()
        finally:
            sending.cancel()
            back.close()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(carry(reader, writer)))
        proxy._tasks.add(task)
        task.add_done_callback(proxy._tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        tasks = tuple(proxy._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _quietly(carrying: object) -> None:
    with contextlib.suppress(OSError):
        await carrying  # type: ignore[misc]  # a coroutine


def _reset(writer: asyncio.StreamWriter) -> None:
    """What was sent before it has left; one more FIN would let half a chunk look like the end of a short answer."""
    there = writer.get_extra_info("socket")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    writer.transport.abort()
