"""A filter in three lines and a retry in twelve: any layer can be your own. Needs DEEPSEEK_API_KEY, or BASE_URL."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast import (
    AiohttpSource,
    Delta,
    Pipe,
    Request,
    Source,
    Stream,
    StreamError,
    parse_sse,
    transform,
    verify,
)


class OnlyText:
    """Lets deltas with text through."""

    def feed(self, batch: Sequence[Delta], out: list[Delta]) -> None:
        out += [delta for delta in batch if delta.text]

    def end(self, out: list[Delta]) -> None:
        """Holds nothing back."""


@dataclass
class Again:
    """Opens once more when the first try fails."""

    inner: Source[Delta]

    async def open(self, request: Request) -> Stream[Delta]:
        try:
            return await self.inner.open(request)
        except StreamError as error:
            if not error.retryable:
                raise
            await request.call.clock.sleep(1.0)
            return await self.inner.open(request)


async def main() -> None:
    url = os.environ.get("BASE_URL", "https://api.deepseek.com") + "/chat/completions"
    headers = {"Authorization": f"Bearer {os.environ.get('DEEPSEEK_API_KEY', '')}"}
    body = {
        "model": "deepseek-flash",
        "stream": True,
        "messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}],
    }
    async with AiohttpSource() as source:
        pipe = Pipe(source) | parse_sse() | verify("deepseek") | transform(lambda _: OnlyText()) | Again
        print(pipe)
        async with pipe.stream(Request(url=url, headers=headers, body=body)) as deltas:
            async for delta in deltas:
                print(delta.text, end="", flush=True)
        print(f"\n{deltas.report}")


asyncio.run(main())
