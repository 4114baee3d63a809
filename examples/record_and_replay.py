"""Records a stream's bytes and plays them again without a network. Needs DEEPSEEK_API_KEY, or BASE_URL."""

import asyncio
import os
import sys
from pathlib import Path

import holdfast
from holdfast import MemorySource, Record, default_layers


async def main(path: Path) -> None:
    request = {"messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}]}
    async with holdfast.Client(
        "deepseek", base_url=os.environ.get("BASE_URL"), layers=[Record(path), *default_layers("deepseek")]
    ) as client:
        recorded = await client.complete(request)

    # The recording has every attempt, the broken ones too, and the second client lives through them again.
    async with holdfast.Client("deepseek", source=MemorySource.replay(path)) as client:
        replayed = await client.complete(request)
    print(replayed.text)
    print("the same answer" if replayed.text == recorded.text else "another answer", "from", path)


asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "answer.sse")))
