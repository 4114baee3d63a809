"""anthropic's client with Holdfast under it: one line more. Needs ANTHROPIC_API_KEY; BASE_URL names another server."""

import asyncio
import os

import anthropic

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.anthropic.com")


async def main() -> None:
    key = os.environ["ANTHROPIC_API_KEY"]
    async with anthropic.AsyncAnthropic(api_key=key, base_url=BASE_URL, http_client=mounts.httpx2_client()) as client:
        try:
            async with client.messages.stream(
                model="claude-sonnet-5",
                max_tokens=1024,
                messages=[{"role": "user", "content": "Why does kelp hold on to rocks?"}],
            ) as stream:
                async for text in stream.text_stream:
                    print(text, end="", flush=True)
        except anthropic.APIError as error:  # as ever; error.__cause__ has what arrived, and the report
            print(f"\n{type(error).__name__}: {error}")
            raise SystemExit(1) from error
        print(f"\n{mounts.report(stream)}")


asyncio.run(main())
