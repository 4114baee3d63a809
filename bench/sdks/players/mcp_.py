"""A tool called over MCP's streamable HTTP, whose answer is a stream of events: progress first, then the result."""

from __future__ import annotations

from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from bench.scoreboard.ask import TOTAL, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, in_a_loop
from bench.sdks.tools import VERSION
from holdfast import mounts

PACKAGES = ("mcp",)
CATCH = (MCPError,)


async def _read(ask: Ask, show: Show, line: Line) -> None:
    async def heard(progress: float, total: float | None, message: str | None) -> None:
        """Shows nothing: what is asked for is the result."""

    failed: Exception | None = None
    transport = streamable_http_client(f"{ask.base_url}/mcp", **line)
    async with Client(transport, mode=VERSION, read_timeout_seconds=TOTAL) as client:
        try:
            result = await client.call_tool("write", {"prompt": ask.key}, progress_callback=heard)
        except Exception as error:  # noqa: BLE001 - what leaves the block is a group: whoever calls a tool catches here
            failed = error
    if failed is not None:
        raise failed
    for part in result.content:
        show(part.text)


WAYS = {"async": in_a_loop(_read, lambda: {"http_client": mounts.httpx2_client(**SETTINGS)})}
