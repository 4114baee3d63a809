"""An agent of pydantic-ai with Holdfast under it. Needs DEEPSEEK_API_KEY; BASE_URL names another server."""

import asyncio
import os

import openai
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.deepseek.com")


async def main() -> None:
    client = openai.AsyncOpenAI(
        api_key=os.environ["DEEPSEEK_API_KEY"],
        base_url=BASE_URL,
        max_retries=0,  # what is sent again, the mount sends
        http_client=mounts.httpx2_client(),
    )
    async with client:
        agent = Agent(OpenAIChatModel("deepseek-flash", provider=OpenAIProvider(openai_client=client)))
        try:
            async with agent.run_stream("Why does kelp hold on to rocks?") as result:
                async for text in result.stream_text(delta=True):
                    print(text, end="", flush=True)
        except AgentRunError as error:
            print(f"\n{type(error).__name__}: {error}")
            raise SystemExit(1) from error


asyncio.run(main())
