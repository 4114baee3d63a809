"""What type checkers must refuse. Each line that ends in `# E: <code>` is an error of that code, and no other line is.

Never run: tests/test_typing.py checks it with mypy --strict.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast import (
    Buffer,
    Client,
    Deadline,
    Delta,
    Event,
    MemorySource,
    Pipe,
    Reconnect,
    Record,
    Request,
    Retry,
    Seams,
    Source,
    Timeouts,
    decode_utf8,
    mounts,
    parse_sse,
    transform,
    verify,
)


def wrong_orders(source: Source[bytes]) -> None:
    Pipe(source) | verify("deepseek")  # E: operator
    Pipe(source) | parse_sse() | parse_sse()  # E: operator
    Pipe(source) | decode_utf8() | parse_sse()  # E: operator
    Pipe(source) | parse_sse() | Record("answer.sse")  # E: operator
    (
        Pipe(source)
        | Retry()
        | verify("deepseek")  # E: operator
        | Reconnect()
    )
    Pipe(source) | parse_sse  # E: operator
    Retry() | Pipe(source)  # E: operator
    Pipe(parse_sse())  # E: arg-type


def wrong_settings() -> None:
    Retry(4)  # E: call-arg
    Retry(attempts="4")  # E: arg-type
    Reconnect(Seams())  # E: call-arg
    Deadline(30)  # E: call-arg
    Deadline(idle=30)  # E: call-arg
    Buffer(sentences="yes")  # E: arg-type
    Timeouts(30)  # E: call-arg
    verify(7)  # E: arg-type
    Client("deepseek", "sk-secret")  # E: call-arg
    Client(timeouts=30)  # E: arg-type


def values_are_not_changed(layer: Retry, request: Request) -> None:
    layer.attempts = 7  # E: misc
    request.url = "http://localhost"  # E: misc


async def wrong_reading(pipe: Pipe[Delta]) -> None:
    pipe.stream({"messages": []})  # E: arg-type
    for delta in pipe.stream():  # E: attr-defined
        print(delta)
    async with pipe.stream() as deltas:
        async for delta in deltas:
            print(delta.content)  # E: attr-defined
            text: bytes = delta.text  # E: assignment
            print(text)


def wrong_mounts() -> None:
    mounts.httpx2_client(timeouts=30)  # E: arg-type
    mounts.httpx_sync_client(trafic=[])  # E: call-arg
    mounts.RequestsAdapter(pool_maxsize=3)  # E: call-arg


class Backwards:
    """A machine from text to events, where bytes come in."""

    def feed(self, batch: Sequence[str], out: list[Event]) -> None: ...

    def end(self, out: list[Event]) -> None: ...


def backwards(request: Request) -> Backwards:
    return Backwards()


def wrong_machines() -> None:
    Pipe(MemorySource([b""])) | transform(backwards)  # E: arg-type
    transform(Backwards)  # E: arg-type
