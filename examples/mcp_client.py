"""A tool called over MCP, whose answer goes on by Last-Event-ID where its line broke. BASE_URL names the server."""

import asyncio
import os

from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "http://localhost:8000")


async def heard(progress: float, total: float | None, message: str | None) -> None:
    print(f"{progress:g} of {total or '?'}", message or "")


async def main() -> None:
    async with mounts.httpx2_client() as http:
        transport = streamable_http_client(f"{BASE_URL}/mcp", http_client=http)
        async with Client(transport, mode="2026-07-28") as client:
            try:
                asked = {"prompt": "Why does kelp hold on to rocks?"}
                result = await client.call_tool("write", asked, progress_callback=heard)
            except MCPError as error:
                print(f"{type(error).__name__}: {error}")
            else:
                print("".join(part.text for part in result.content))


asyncio.run(main())
