"""What a long answer leaves in memory while it streams: 128,000 tokens through the whole pipe, from memory."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

from bench.upstream import CHUNK, LAST, TEXT
from holdfast import MemorySource, Pipe, default_layers
from holdfast._types import Head


async def _body(tokens: int, per_read: int) -> AsyncIterator[bytes]:
    for _ in range(tokens // per_read):
        yield CHUNK * per_read
        await asyncio.sleep(0)
    yield LAST + b"data: [DONE]\n\n"


async def measure(tokens: int = 128_000, *, keep: bool = True) -> tuple[int, int]:
    """Gives bytes held more at the last delta than after the first thousand, and bytes of text delivered since."""
    pipe: Pipe[Any] = Pipe(MemorySource(_body(tokens, 16), head=Head(headers={"content-type": "text/event-stream"})))
    for layer in default_layers("openai"):
        pipe = pipe | layer
    seen, start = 0, 0
    async with pipe.stream(keep=keep) as stream:
        async for _ in stream:
            seen += 1
            if seen == 1_000:
                gc.collect()
                tracemalloc.start()
                start = tracemalloc.get_traced_memory()[0]
            elif seen == tokens:
                gc.collect()
                held = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    return held, (tokens - 1_000) * len(TEXT)
