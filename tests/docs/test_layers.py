"""What docs/layers.md says of each layer, and the figures it gives for their order."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import (
    Buffer,
    ConnectError,
    Deadline,
    DeadlineExceeded,
    Delta,
    MemorySource,
    Pipe,
    ReadAhead,
    Reconnect,
    Retry,
    Seams,
    Source,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
    decode_utf8,
    parse_sse,
    verify,
)
from holdfast.testing import FakeClock
from tests.pages import ROOT, printed, run, untrue, write_files

PAGE = ROOT / "docs/layers.md"


async def test_the_programs_print_what_the_page_says(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    assert await untrue(printed(PAGE), lambda block: run(block.file, cwd=tmp_path), at_once=2) == {}


def _home(name: str) -> str:
    return str(getattr(getattr(holdfast, name), "__module__", ""))


def test_every_layer_has_its_section_with_order_and_limits() -> None:
    layers = {name for name in holdfast.__all__ if _home(name).startswith("holdfast.layers.")}
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    assert layers == sections.keys()
    for name, text in sections.items():
        assert "**Order.**" in text, name
        assert "**It does not**" in text, name
        assert "```python layers.py" in text, name


# -- the figures -------------------------------------------------------------------------------


class Longest:
    """Draws the longest pause."""

    def random(self) -> float:
        return 0.999_999_999


@dataclass
class Seen:
    """What one reader saw: texts, the seconds it took, the error and the number of requests."""

    texts: list[str]
    seconds: float
    error: StreamError | None
    requests: int


def chunk(text: str, finish: str | None = None) -> bytes:
    return (
        b"data: %b\n\n"
        % json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).encode()
    )


WORDS = ("Kelp ", "holds ", "on ", "to ", "rocks.")
ANSWER: list[bytes] = [*map(chunk, WORDS), chunk("", "stop"), b"data: [DONE]\n\n"]
CUT: list[bytes | Exception] = [*ANSWER[:3], StreamBroken("reset")]
GONE = ConnectError("nobody listens")


async def read(clock: FakeClock, source: Source[bytes], build: Callable[[Pipe[bytes]], Pipe[Any]]) -> Seen:
    texts: list[str] = []
    error = None
    stream = build(Pipe(source, clock=clock, random=Longest())).stream()
    try:
        async with stream as items:
            async for item in items:
                texts += [item.text if isinstance(item, Delta) else str(item)]
    except StreamError as failure:
        error = failure
    return Seen(texts, clock.now(), error, stream.report.attempts)


def deltas(pipe: Pipe[bytes]) -> Pipe[Delta]:
    return pipe | parse_sse() | verify("openai-compatible")


async def pings(clock: FakeClock) -> AsyncIterator[bytes]:
    for _ in range(20):
        await clock.sleep(15)
        yield b": ping\n\n"


async def paced(clock: FakeClock, number: int) -> AsyncIterator[bytes]:
    """Gives deltas, 50 a second."""
    for _ in range(number):
        await clock.sleep(0.02)
        yield chunk("x")
    yield ANSWER[-2]
    yield ANSWER[-1]


async def silence(clock: FakeClock) -> AsyncIterator[bytes]:
    await clock.sleep(100_000)
    yield b""


class Silent:
    """Opens and says nothing, any number of times."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def open(self, request: holdfast.Request) -> holdfast.Stream[bytes]:
        return await MemorySource(silence(self.clock)).open(request)


async def test_pings_are_progress_on_the_wire_and_none_among_events(clock: FakeClock) -> None:
    left = await read(clock, MemorySource(pings(clock)), lambda p: p | Deadline(first_token=60) | parse_sse())
    assert (left.error, left.seconds) == (None, 300)
    right = await read(clock, MemorySource(pings(clock)), lambda p: p | parse_sse() | Deadline(first_token=60))
    assert isinstance(right.error, DeadlineExceeded)
    assert right.seconds == 300 + 60


async def test_text_is_not_resumed(clock: FakeClock) -> None:
    seen = await read(clock, MemorySource(CUT, ANSWER), lambda p: p | decode_utf8() | Reconnect())
    assert isinstance(seen.error, StreamBroken)
    assert seen.requests == 1


async def test_what_verify_finds_reaches_those_right_of_it(clock: FakeClock) -> None:
    busy = MemorySource(b'data: {"error": {"message": "busy", "code": 503}}\n\n')
    right = await read(clock, busy, lambda p: p | parse_sse() | verify("deepseek") | Retry())
    left = await read(clock, busy, lambda p: p | parse_sse() | Retry() | verify("deepseek"))
    assert isinstance(left.error, UpstreamError)
    assert (right.requests, left.requests) == (4, 1)


async def test_a_truncation_is_resumed_right_of_verify_only(clock: FakeClock) -> None:
    right = await read(clock, MemorySource(ANSWER[:3], ANSWER), lambda p: deltas(p) | Reconnect())
    assert (right.error, "".join(right.texts)) == (None, "".join(WORDS))
    left = await read(
        clock, MemorySource(ANSWER[:3], ANSWER), lambda p: p | parse_sse() | Reconnect() | verify("openai-compatible")
    )
    assert isinstance(left.error, Truncated)


async def test_retries_are_four_in_seven_seconds_and_two_in_a_row_eight(clock: FakeClock) -> None:
    once = await read(clock, MemorySource[bytes](GONE), lambda p: p | Retry())
    assert (once.requests, round(once.seconds, 3)) == (4, 7)
    twice = await read(clock, MemorySource[bytes](GONE), lambda p: p | Retry() | Retry())
    assert twice.requests == 8


async def test_reconnecting_to_an_upstream_that_is_gone(clock: FakeClock) -> None:
    both = await read(clock, MemorySource(CUT, GONE), lambda p: deltas(p) | Retry() | Reconnect())
    assert (both.requests, round(both.seconds, 3)) == (8, 13)
    alone = await read(clock, MemorySource(CUT, GONE), lambda p: deltas(p) | Reconnect())
    assert (alone.requests, round(alone.seconds - both.seconds, 3)) == (6, 25)


async def test_an_answer_that_always_breaks_at_one_place_is_asked_for_twice_more(clock: FakeClock) -> None:
    assert (await read(clock, MemorySource(CUT), lambda p: deltas(p) | Reconnect())).requests == 3
    forbidden = await read(clock, MemorySource(CUT), lambda p: deltas(p) | Reconnect(seams=Seams(max_repaid_tokens=0)))
    assert forbidden.requests == 1


async def test_a_clock_left_of_retry_runs_per_attempt(clock: FakeClock) -> None:
    left = await read(clock, Silent(clock), lambda p: deltas(p) | Deadline(first_token=60) | Retry())
    assert round(left.seconds, 3) == 4 * 60 + 7
    right = await read(clock, Silent(clock), lambda p: deltas(p) | Retry() | Deadline(first_token=60))
    assert round(right.seconds - left.seconds, 3) == 60


async def test_a_stall_is_resumed_by_a_reconnect_right_of_the_clock_only(clock: FakeClock) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        for piece in ANSWER[:3]:
            yield piece
        await clock.sleep(1000)

    right = await read(clock, MemorySource(stalls(), ANSWER), lambda p: deltas(p) | Deadline(progress=60) | Reconnect())
    assert (right.error, "".join(right.texts)) == (None, "".join(WORDS))
    left = await read(clock, MemorySource(stalls(), ANSWER), lambda p: deltas(p) | Reconnect() | Deadline(progress=60))
    assert isinstance(left.error, DeadlineExceeded)


@pytest.mark.parametrize(("ahead", "seconds"), [(False, 24.0), (True, 20.0)])
async def test_reading_ahead_of_a_reader_that_rests(clock: FakeClock, ahead: bool, seconds: float) -> None:  # noqa: FBT001 - a parameter of the test
    pipe = deltas(Pipe(MemorySource(paced(clock, 200)), clock=clock))
    async with (pipe | ReadAhead() if ahead else pipe).stream() as stream:
        await anext(stream)
        await clock.sleep(20)
        assert len([delta async for delta in stream]) == 200
    assert round(clock.now(), 1) == seconds


async def test_a_buffer_of_eight_at_fifty_a_second(clock: FakeClock) -> None:
    pipe = deltas(Pipe(MemorySource(paced(clock, 100)), clock=clock)) | Buffer(count=8)
    async with pipe.stream() as stream:
        seen = [(round(clock.now(), 2), len(batch)) async for batch in stream.batches()]
    assert len(seen) == 14
    assert sum(size for _, size in seen) == 101
    assert seen[:3] == [(0.02, 1), (0.18, 8), (0.34, 8)]
