"""The fleet's model of an upstream behind a real socket: its limits, its headers and its bad times over TCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from bench.fleet.upstream import Region
from holdfast import ConnectError, EndOfStream, Request, StatusError
from holdfast.testing.server import (
    LAST_CHUNK,
    ReceivedRequest,
    Reset,
    ScriptedServer,
    Send,
    Step,
    chunked,
    head,
    respond,
)


def limited_server(region: Region) -> ScriptedServer:
    """Makes a server that answers as the region does, whatever the path."""

    async def reply(received: ReceivedRequest) -> AsyncGenerator[Step, None]:
        try:
            answer = await region.open(Request(body=received.json()))
        except ConnectError:
            yield Reset()
            return
        except StatusError as error:
            for step in respond(error.body, error.status, **_named(error.head.headers)):
                yield step
            return
        try:
            yield Send(head(**_named({"transfer-encoding": "chunked", **answer.head.headers})))
            while True:
                try:
                    parts = await answer.receive()
                except EndOfStream:
                    break
                for part in parts:
                    yield Send(chunked(part))
            yield Send(LAST_CHUNK)
        finally:
            await answer.aclose()

    return ScriptedServer(reply)


def _named(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in headers.items()}
