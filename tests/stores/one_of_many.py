"""One of several processes that share a circuit breaker: at each line it is told, `CALLERS` streams are opened at once.

It answers with a line for each of them, as soon as it knows: answered, refused by the breaker, or the name of an error.
"""

from __future__ import annotations

import asyncio
import sys

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

    async def ask() -> None:
        try:
            await pipe.stream(request)
        except CircuitOpen:
            say("refused")
        except StreamError as error:
            say(type(error).__name__)
        else:
            say("answered")

    say("ready")
    while await asyncio.to_thread(sys.stdin.readline):
        await asyncio.gather(*(ask() for _ in range(CALLERS)))
    await source.aclose()
    await shared.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
