"""A mount over a transport of your own, with its proxy, certificates and limits. PROXY names the proxy.

Needs DEEPSEEK_API_KEY; BASE_URL names another server. The events come as the server sent them, for you to read.
"""

import asyncio
import json
import os

import httpx2

from holdfast import Seams, Timeouts, mounts

URL = os.environ.get("BASE_URL", "https://api.deepseek.com") + "/chat/completions"
BODY = {
    "model": "deepseek-flash",
    "messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}],
    "stream": True,
}


async def main() -> None:
    yours = httpx2.AsyncHTTPTransport(proxy=os.environ.get("PROXY"), limits=httpx2.Limits(max_connections=20))
    transport = mounts.Httpx2Transport(
        yours, dialect="deepseek", timeouts=Timeouts(progress=20), seams=Seams(max_seams=2)
    )
    headers = {"Authorization": f"Bearer {os.environ['DEEPSEEK_API_KEY']}"}
    async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=600) as client:
        async with client.stream("POST", URL, json=BODY) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
        print(f"\n{mounts.report(response)}")


asyncio.run(main())
