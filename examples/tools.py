"""Runs a tool that the model asks for, once its arguments are whole. Needs DEEPSEEK_API_KEY, or BASE_URL."""

import asyncio
import os

import holdfast

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def main() -> None:
    async with holdfast.Client("deepseek", base_url=os.environ.get("BASE_URL")) as client:
        completion = await client.complete(
            {"messages": [{"role": "user", "content": "What is the weather in Kiel?"}], "tools": [WEATHER]}
        )
    # complete() raises unless the answer is proven whole: what is here may be run.
    for call in completion.tool_calls:
        print(f"{call.name}({call.input})")
    print(completion.text or f"finished with {completion.finish_reason}, {completion.verdict}")


asyncio.run(main())
