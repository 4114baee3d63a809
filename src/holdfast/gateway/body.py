"""The body of one streamed answer on its way to a reader: written at once while its connection takes bytes.

aiohttp's own `write()` is a coroutine per event. Who has something to show hands it over here without one, in HTTP's
chunks, and waits (with aiohttp's `write()`, which bounds what piles up) only where a reader lags. Never more than
`ROOM` and one batch is held for a reader.
"""

from __future__ import annotations

from aiohttp import HttpVersion11, web

ROOM = 16 * 1024
"""Bytes that may wait for a connection to take them: behind that, who writes waits."""


class Body:
    """Where the bytes of a prepared answer go."""

    __slots__ = ("_chunked", "_response", "_transport")

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        self._chunked = request.version >= HttpVersion11  # else it is what comes until the connection's end
        self._response = response
        self._transport = request.transport

    @property
    def has_room(self) -> bool:
        """True where `push()` may be called: the connection is there, and takes what it is given."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() < ROOM

    def push(self, data: bytes) -> None:
        """Sends bytes without waiting."""
        if self._transport is not None and data:  # a chunk of nothing would be the end
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def write(self, data: bytes) -> None:
        """Sends bytes, and waits while the reader takes none. Raises `ConnectionError` where it is gone."""
        await self._response.write(data)

    def cut(self) -> None:
        """Ends the connection inside the body: a stream that broke must not look like one that ended."""
        if self._transport is not None:
            self._transport.close()


async def begun(request: web.BaseRequest, response: web.StreamResponse) -> Body:
    """Sends an answer's head and gives its body."""
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    return Body(request, response)
