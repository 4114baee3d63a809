"""Mends the streams of a plain aiohttp session. Needs DEEPSEEK_API_KEY; BASE_URL names another server of that shape."""

import asyncio
import json
import os

import aiohttp

from holdfast import mounts

URL = os.environ.get("BASE_URL", "https://api.deepseek.com") + "/chat/completions"
BODY = {
    "model": "deepseek-chat",
    "stream": True,
    "messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}],
}


async def main() -> None:
    session = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {os.environ['DEEPSEEK_API_KEY']}"},
        timeout=aiohttp.ClientTimeout(total=None),  # aiohttp's own ends every answer after five minutes
        middlewares=[mounts.aiohttp_middleware()],
    )
    async with session, session.post(URL, json=BODY) as response:
        response.raise_for_status()
        try:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
        except aiohttp.ClientError as error:
            print(f"\n{type(error).__name__}: {error}")
            raise SystemExit(1) from error
        print(f"\n{mounts.report(response)}")


asyncio.run(main())
