"""Streams one answer and says how it went. Needs DEEPSEEK_API_KEY; BASE_URL names another server of that shape."""

import asyncio
import os

import holdfast


async def main() -> None:
    async with holdfast.Client("deepseek", base_url=os.environ.get("BASE_URL")) as client:
        request = {"messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}]}
        try:
            async with client.stream(request, labels={"example": "stream"}) as deltas:
                async for delta in deltas:
                    print(delta.text, end="", flush=True)
        except holdfast.StreamError as error:
            print(f"\n{type(error).__name__}: {error}")
            print(f"{len(error.partial.text)} characters had arrived; {error.report}")
            raise SystemExit(1) from error
        print(f"\n{deltas.report}")


asyncio.run(main())
