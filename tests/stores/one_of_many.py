"""One of several processes that share a circuit breaker: at each line it is told, `CALLERS` streams are opened at once.

It answers with a line of counts: streams that were read to their end, streams refused by the breaker, and others.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import pybreaker

from holdfast import AiohttpSource, CircuitBreaker, CircuitOpen, Pipe, Request, StreamError, parse_sse, verify
from holdfast.stores import RedisState

CALLERS = 100


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(redis_url: str, upstream: str, reset_timeout: float) -> None:
    shared = RedisState(redis_url, timeout=5)
    breaker = pybreaker.CircuitBreaker(
        fail_max=5, reset_timeout=reset_timeout, state_storage=shared.storage("upstream"), name="upstream"
    )
    source = AiohttpSource()
    pipe = Pipe(source) | parse_sse() | verify("openai") | CircuitBreaker(breaker, shared=shared)
    request = Request(url=upstream, body={"model": "m", "messages": [], "stream": True})

    async def ask() -> str:
        try:
            await pipe.stream(request)
        except CircuitOpen:
            return "refused"
        except StreamError as error:
            return type(error).__name__
        return "answered"

    say("ready")
    while await asyncio.to_thread(sys.stdin.readline):
        counts = Counter(await asyncio.gather(*(ask() for _ in range(CALLERS))))
        say(json.dumps(counts))
    await source.aclose()
    await shared.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
