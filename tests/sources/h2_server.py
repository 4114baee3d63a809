"""An HTTP/2 server over plain TCP that plays one script to every request, for a client that knows it speaks HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Literal, Self

import h2.config
import h2.connection
import h2.events

Part = bytes | Literal["end", "reset", "goaway", "break", "stall"]


class H2Server:
    """Answers each request with the parts, one write each: bytes are data, words are ends."""

    def __init__(self, *parts: Part) -> None:
        self._parts: Sequence[Part] = parts
        self._tasks: set[asyncio.Task[None]] = set()
        self.open_connections = 0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._start(self._serve(reader, writer))

    def _start(self, serving: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        self.open_connections += 1
        try:
            while data := await reader.read(65_536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.StreamEnded):
                        self._start(self._play(connection, writer, event.stream_id))
                writer.write(connection.data_to_send())
        except ConnectionError:
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _play(self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter, number: int) -> None:
        connection.send_headers(number, [(":status", "200"), ("content-type", "text/event-stream")])
        for part in self._parts:
            writer.write(connection.data_to_send())
            await asyncio.sleep(0.002)  # each part arrives in a read of its own
            match part:
                case bytes():
                    connection.send_data(number, part)
                case "end":
                    connection.end_stream(number)
                case "reset":
                    connection.reset_stream(number, error_code=2)
                case "goaway":
                    connection.close_connection()
                case "break":
                    writer.write(b"\0\0\5\0\0\0\0\0\0zzzzz")  # data on the stream 0, which cannot be
                case _:
                    await asyncio.Event().wait()
        writer.write(connection.data_to_send())
