"""What type checkers must infer. Never run: tests/test_typing.py checks it with mypy --strict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_type

import aiohttp
import httpx
import httpx2
import pybreaker

import holdfast
from holdfast import (
    AiohttpSource,
    Buffer,
    CircuitBreaker,
    Client,
    Completion,
    Costs,
    Deadline,
    Delta,
    Event,
    EventLog,
    MemorySource,
    Partial,
    Pipe,
    ReadAhead,
    Reader,
    Reconnect,
    Record,
    Report,
    Request,
    Retry,
    Source,
    Stream,
    Timeouts,
    Usage,
    Verdict,
    decode_utf8,
    mounts,
    parse_sse,
    transform,
    verify,
)

T = TypeVar("T")


def pipes(session: aiohttp.ClientSession, breaker: pybreaker.CircuitBreaker) -> None:
    wire = Pipe(AiohttpSource(session))
    assert_type(wire, Pipe[bytes])
    assert_type(wire | Record("answer.sse"), Pipe[bytes])
    assert_type(wire | decode_utf8(), Pipe[str])
    assert_type(wire | parse_sse(), Pipe[Event])
    assert_type(wire | parse_sse() | verify("deepseek"), Pipe[Delta])
    whole = (
        wire
        | parse_sse()
        | verify("deepseek")
        | Deadline(open=30, first_token=600, progress=60)
        | CircuitBreaker(breaker)
        | Retry()
        | Reconnect()
        | Deadline(total=1800)
        | ReadAhead()
        | Buffer(sentences=True)
    )
    assert_type(whole, Pipe[Delta])
    assert_type(whole.stream(Request(url="http://localhost")), Reader[Delta])
    # A layer that passes its items through keeps their kind, wherever it stands.
    assert_type(wire | Retry() | Deadline(open=1.0), Pipe[bytes])
    assert_type(wire | parse_sse() | Retry() | Reconnect(), Pipe[Event])


async def reading(pipe: Pipe[Delta]) -> None:
    async with pipe.stream(Request()) as deltas:
        async for delta in deltas:
            assert_type(delta, Delta)
            assert_type(delta.text, str)
            assert_type(delta.raw, Event)
            assert_type(delta.usage, Usage | None)
    async with pipe.stream() as deltas:
        async for batch in deltas.batches():
            assert_type(batch, Sequence[Delta])
    async with pipe.stream() as deltas:
        async for text in deltas.text():
            assert_type(text, str)
    assert_type(deltas.report, Report)
    assert_type(deltas.completion, Completion)
    assert_type(deltas.partial, Partial)


async def facade(client: Client) -> None:
    async with client.stream({"messages": []}) as deltas:
        assert_type(deltas, Reader[Delta])
    assert_type(await client.complete({"messages": []}), Completion)
    assert_type(client.pipe, Pipe[Delta])


def offline(chunks: list[bytes]) -> None:
    completion = holdfast.assemble(chunks, dialect="openai")
    assert_type(completion, Completion)
    assert_type(completion.verdict, Verdict | None)
    assert_type(completion.tool_calls[0].input, Any)
    log = holdfast.parse_events(b"data: 1\n\n")
    assert_type(log, EventLog)
    assert_type(log.retry, float | None)


def mounted(costs: Costs) -> None:
    assert_type(mounts.httpx2_client(timeouts=Timeouts(open=5), headers={"x": "y"}, proxy=None), httpx2.AsyncClient)
    assert_type(mounts.httpx_sync_client(listeners=[costs], traffic=[Retry()]), httpx.Client)
    mounts.aiohttp_middleware(listeners=[costs])


async def chunks() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"


def sources() -> None:
    assert_type(Pipe(MemorySource([b"data: 1\n\n"])) | parse_sse(), Pipe[Event])
    assert_type(Pipe(MemorySource(chunks())) | parse_sse(), Pipe[Event])
    assert_type(MemorySource.replay("answer.sse"), MemorySource[bytes])


# A user's own layers: a machine, a function, and a configured one. None of them inherits from anything.


class Lengths:
    """A machine: events in, numbers out."""

    def feed(self, batch: Sequence[Event], out: list[int]) -> None:
        out += [len(event.payload) for event in batch]

    def end(self, out: list[int]) -> None:
        pass


def lengths(request: Request) -> Lengths:
    return Lengths()


@dataclass(slots=True, frozen=True, kw_only=True)
class Twice:
    """Opens every stream a second time."""

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _TwiceSource(inner)


@dataclass(slots=True)
class _TwiceSource(holdfast.Source[T]):
    inner: Source[T]

    async def open(self, request: Request) -> Stream[T]:
        await (await self.inner.open(request)).aclose()
        return await self.inner.open(request)


def own_layers(source: Source[bytes]) -> None:
    assert_type(Pipe(source) | parse_sse() | transform(lengths), Pipe[int])
    assert_type(Pipe(source) | Twice() | parse_sse() | verify("openai") | Twice(), Pipe[Delta])
