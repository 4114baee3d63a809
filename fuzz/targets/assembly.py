"""The whole assembly: `offline.assemble()` and a pipe over the same chunks tell one story, whichever way it is cut."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fuzz.engine import Target
from fuzz.oracle import same_however_cut, told
from fuzz.targets.dialects import TARGETS as READERS
from fuzz.targets.dialects import plain
from holdfast import Pipe
from holdfast._errors import StreamError
from holdfast._types import Completion, Delta, Request
from holdfast.dialects import DIALECTS, Dialect
from holdfast.layers.parse import parse_sse
from holdfast.layers.verify import verify
from holdfast.machines.transcript import Transcript
from holdfast.offline import assemble
from holdfast.sources.memory import MemorySource


def offline(chunks: list[bytes], dialect: Dialect) -> tuple[Any, ...]:
    """Gives the answer and how it ended, put together without a pipe."""
    try:
        answer = assemble(chunks, dialect)
    except StreamError as error:
        return arrived(error), told(error, chunks)
    return said(answer), str(answer.verdict)


def said(answer: Completion) -> tuple[Any, ...]:
    return answer.choices, answer.usage


def arrived(error: StreamError) -> tuple[Any, ...]:
    """Every error carries what arrived."""
    assert error.partial is not None, "an error without its partial"
    return said(error.partial.answer)


async def online(chunks: list[bytes], dialect: Dialect, deltas: list[Delta]) -> tuple[Any, ...]:
    """Gives the same of a pipe, and its deltas."""
    pipe = Pipe(MemorySource(chunks)) | parse_sse() | verify(dialect)
    try:
        async with pipe.stream(Request()) as stream:
            async for batch in stream.batches():
                deltas += batch
            return said(stream.completion), str(stream.completion.verdict)
    except StreamError as error:
        return arrived(error), told(error, chunks)


def check(data: bytes) -> None:
    """Raises what is a finding."""
    dialects = list(DIALECTS.values())
    dialect = dialects[len(data) % len(dialects)]
    deltas = list[Delta]()

    story = same_however_cut(data, partial(offline, dialect=dialect))
    with asyncio.Runner() as runner:

        def piped(chunks: list[bytes]) -> Any:
            deltas.clear()
            return runner.run(online(chunks, dialect, deltas)), [plain(d) for d in deltas]

        assert same_however_cut(data, piped)[0] == story, "offline and pipe disagree"
    replays(deltas, cut=len(data) * 7 % (len(deltas) + 1))


def replays(deltas: list[Delta], *, cut: int) -> None:
    """An answer that is sent again agrees with its own beginning, and only what is new of it comes through."""
    before, whole, joined = Transcript(), Transcript(), Transcript()
    if speaks_after_its_end(deltas):
        return  # such an answer may differ from itself: a typed error, and safe
    before.add(deltas[:cut])
    whole.add(deltas)
    joined.add(deltas[:cut])
    rest = list[Delta]()
    replay = before.replay()
    replay.feed(deltas, rest)
    replay.end()
    joined.add(rest)
    assert joined.completion() == whole.completion(), "a replay said something else than the answer"


def speaks_after_its_end(deltas: list[Delta]) -> bool:
    """Says whether a choice goes on after its finish reason."""
    ended = set[int]()
    for delta in deltas:
        if delta.choice in ended and (delta.text or delta.reasoning or delta.refusal or delta.tool_calls):
            return True
        if delta.finish_reason is not None:
            ended.add(delta.choice)
    return False


TARGETS = [
    Target(
        name="assembly",
        check=check,
        seeds=READERS[0].seeds,
        words=READERS[0].words,
        recordings=True,
        longest=2_048,
    )
]
