"""A tool called over MCP's streamable HTTP, whose answer is a stream of events: progress first, then the result."""

from __future__ import annotations

from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from bench.scoreboard.ask import TOTAL, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from bench.sdks.tools import VERSION
from holdfast import mounts

PACKAGES = ("mcp",)
CATCH = (MCPError, ValidationError, httpx2.TransportError)
"""What a server says, a result that is none, and a connection that was not to be had."""


async def _called(ask: Ask, line: Line) -> Any:
    """Calls the tool. A lost connection ends the block instead, with a group of errors."""

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        """Shows nothing: what is asked for is the result."""

    transport = streamable_http_client(f"{ask.base_url}/mcp", **line)
    async with Client(transport, mode=VERSION, read_timeout_seconds=TOTAL) as client:
        try:
            return await client.call_tool("write", {"prompt": ask.key}, progress_callback=heard)
        except Exception as error:  # noqa: BLE001 - raised below: who calls a tool catches it inside the block
            return error


async def _read(ask: Ask, show: Show, line: Line) -> None:
    try:
        result = await _called(ask, line)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group
    if isinstance(result, Exception):
        raise result
    for part in result.content:
        show(part.text)


WAYS = {"async": in_a_loop(_read, lambda: {"http_client": mounts.httpx2_client(**SETTINGS)})}
