"""The floor for a relay in Python: an aiohttp handler that copies `iter_any` to `write`, and checks nothing.

`python -m bench.gateway.naive UPSTREAM PORT uvloop|asyncio`.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web


async def _serve(upstream: str, port: int) -> None:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with session.post(upstream + request.path, data=body, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[3] == "asyncio":
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
    else:
        import uvloop

        uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
