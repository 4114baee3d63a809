"""openai's client with Holdfast under it: one line more. Needs DEEPSEEK_API_KEY; BASE_URL names another server."""

import asyncio
import os

import openai

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.deepseek.com")


async def main() -> None:
    key = os.environ["DEEPSEEK_API_KEY"]
    async with openai.AsyncOpenAI(api_key=key, base_url=BASE_URL, http_client=mounts.httpx2_client()) as client:
        try:
            stream = await client.chat.completions.create(
                model="deepseek-flash",
                messages=[{"role": "user", "content": "Why does kelp hold on to rocks?"}],
                stream=True,
            )
            async for part in stream:
                if part.choices:
                    print(part.choices[0].delta.content or "", end="", flush=True)
        except openai.APIError as error:  # as ever; error.__cause__ has what arrived, and the report
            print(f"\n{type(error).__name__}: {error}")
            raise SystemExit(1) from error
        print(f"\n{mounts.report(stream)}")


asyncio.run(main())
