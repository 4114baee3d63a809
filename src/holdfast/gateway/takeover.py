"""Going on with streams that another node has left: killed, frozen, cut off, or told to stop.

The journal is the truth: what was shown is folded out of its records, and the upstream is resumed behind that, over the
ladder. So a reader on any node gets the rest of the very same text, or all of them the same error event. A node looks
now and then for streams whose lease is gone; of several that do, the journal lets one have it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from holdfast._clock import system_random
from holdfast._errors import StreamBroken, StreamError
from holdfast._pipe import Pipe, unheard
from holdfast._types import Partial
from holdfast.dialects import Dialect, Teller
from holdfast.gateway.journal import Entry, JournalError, LeaseLost, Writer
from holdfast.gateway.journal.redis import RedisJournal, Taken
from holdfast.gateway.log import Ending, EndKind
from holdfast.gateway.production import Answer
from holdfast.gateway.records import block, record
from holdfast.gateway.refusals import Refusal, Refused, error_event
from holdfast.gateway.streams import Streams
from holdfast.gateway.surfaces import SURFACES
from holdfast.gateway.upstreams import Upstreams, asked_of, request_of
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.verify import verify
from holdfast.machines.cursor import Cursor
from holdfast.machines.ladder import Seams
from holdfast.moments import Moment, Opened, Resumed, Resuming
from holdfast.sources.memory import MemorySource

MOST = 5
"""How often a stream may be lost by its node: what kills one after another is the stream itself."""
_AT_ONCE = 16
_FOLDED = 64
"""Blocks that are folded before others get their turn."""

AnswerOf = Callable[[Writer, Partial | None, Teller | None], Answer]
"""Makes the answer that a writer writes: from its beginning, or behind what was told."""


class Takeover:
    """Looks for streams that nobody writes, and goes on with them. `start()` and `aclose()` it once."""

    def __init__(self, journal: RedisJournal, streams: Streams, upstreams: Upstreams, answer: AnswerOf) -> None:
        self._answer = answer
        self._freed = asyncio.Event()
        self._journal = journal
        self._random = system_random()
        self._streams = streams
        self._task: asyncio.Task[None] | None = None
        self._upstreams = upstreams

    def start(self) -> None:
        """Begins to look."""
        self._journal.freed = self._freed.set
        self._task = asyncio.create_task(self._run(), name="holdfast-takeover")

    async def aclose(self) -> None:
        """Takes nothing over any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            # Nodes must not look in step: each would ask for the same streams, and all but one in vain.
            pause = self._journal.lease / 4 * (0.75 + self._random.random() / 2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._freed.wait()
            self._freed.clear()
            with contextlib.suppress(JournalError):
                # Where none can be had they are due again at once, and a Redis that refuses must not be asked for ever.
                while due := await self._journal.due(_AT_ONCE):
                    if not any(await asyncio.gather(*(self._take(stream) for stream in due))):
                        break

    async def _take(self, stream: str) -> bool:
        try:
            taken = await self._journal.take(stream)
        except JournalError:
            return False  # it is due again when that lease is over
        if taken is None:
            return False
        try:
            await self._go_on(taken)
        except LeaseLost:
            pass  # another one has it
        except JournalError:
            taken.writer.let_go()  # else we would keep the lease of what we do not write
        except asyncio.CancelledError:
            await taken.writer.release()  # as above, and other nodes need not wait
            raise
        except Exception as error:  # noqa: BLE001 - one stream that cannot be gone on with must not keep us from others
            told = {"message": "a stream could not be taken over", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            with contextlib.suppress(LeaseLost, JournalError):
                words = f"the gateway failed: {type(error).__name__}"
                await _end(taken.writer, Refusal(500, "internal_error", words))
        return True

    async def _go_on(self, taken: Taken) -> None:
        writer = taken.writer
        if taken.cancelled:
            await _end(writer, Refusal(499, "cancelled", "the stream was cancelled"), "cancelled")
        elif taken.takeovers > MOST:
            await _end(writer, Refusal(502, "taken_over_too_often", f"{MOST} nodes that wrote this stream were lost"))
        elif writer.shelved.log.head is None:
            self._streams.produce(writer)  # nothing of it was shown to anybody
        elif not taken.last:
            self._streams.produce(writer, self._answer(writer, None, None))
        else:
            await self._resume(taken)

    async def _resume(self, taken: Taken) -> None:
        writer, entry = taken.writer, taken.writer.shelved.entry
        try:
            blocks = await self._blocks(entry.stream, taken.last)
            dialect = self._dialect(entry, str(taken.notes.get("upstream", "")))
        except LookupError:
            await _end(writer, Refusal(502, "journal_trimmed", "the beginning of this stream is no longer kept"))
            return
        except Refused as error:
            await _end(writer, error.refusal)
            return
        teller = dialect.wire.teller()
        partial = await fold(entry, dialect, blocks, teller)
        if partial is None:
            await _finish(writer, teller)
        else:
            self._streams.produce(writer, self._answer(writer, _noted(partial, taken), teller))

    async def _blocks(self, stream: str, last: int) -> list[bytes]:
        """Gives what was told, block by block. Raises `LookupError` where the journal has let go of some of it."""
        blocks: list[bytes] = []
        number = 1
        while number <= last:
            begun = number
            for first, records in await self._journal.entries(stream, number):
                if first > number:
                    raise LookupError(number)
                for one in records[number - first : last + 1 - first]:
                    if one:  # else a number that is left out
                        blocks.append(block(stream, number, one))
                    number += 1
            if number == begun:
                raise LookupError(number)
        return blocks

    def _dialect(self, entry: Entry, upstream: str) -> Dialect:
        """Gives the dialect of who answered. Raises `Refused` where nobody here would."""
        serving = self._upstreams.serving(asked_of(entry))
        return next((one.dialect for one in serving.fallback.upstreams if one.name == upstream), serving.dialect)


async def fold(entry: Entry, dialect: Dialect, blocks: list[bytes], teller: Teller) -> Partial | None:
    """Gives where an answer stood behind its blocks, None where they prove it whole; the teller has told them then."""
    told = [b"".join(blocks[place : place + _FOLDED]) for place in range(0, len(blocks), _FOLDED)]
    broken = StreamBroken("the node that wrote this stream is gone", retryable=False)
    pipe = Pipe(MemorySource([*told, broken])) | parse_sse(comments=True) | verify(dialect, relay=True)
    pipe = pipe | Reconnect(seams=Seams(rungs=()))
    request, out = request_of(asked_of(entry), dialect, {}, entry.body), list[bytes]()
    async with unheard(pipe, request) as reader:  # it was told of when it was written
        try:
            while batch := await reader.read():
                teller.feed(batch, out)
                out.clear()
                await asyncio.sleep(0)
        except StreamError as error:
            if error.partial is None:
                raise
            return error.partial
    return None


def _noted(partial: Partial, taken: Taken) -> Partial:
    """Adds what the records do not tell."""
    state, notes = dict(partial.state), taken.notes
    state["call"] = str(notes.get("call", "")) or state["call"]
    if notes.get("upstream"):
        state["upstream"] = notes["upstream"]
    if notes.get("seamed"):  # of no one request is this the answer: no place of one leads on
        state = {name: value for name, value in state.items() if name not in ("place", "offset", "proof")}
        state |= {"seamed": True, "cursor": Cursor().state()}
    return replace(partial, request=None, state=state)


async def _finish(writer: Writer, teller: Teller) -> None:
    """The answer had been proven: only its end was missing, and maybe the mark before it."""
    blocks: list[bytes] = []
    teller.end(blocks)
    shelved = writer.shelved
    if blocks:
        first = shelved.log.last + 1
        await writer.write([record(shelved.entry.stream, number, one) for number, one in enumerate(blocks, first)])
    await writer.end(Ending(kind="complete"))


async def _end(writer: Writer, refusal: Refusal, kind: EndKind = "failed") -> None:
    """Ends a stream with an error event, the last record that it has."""
    entry, log = writer.shelved.entry, writer.shelved.log
    if log.head is None:
        await writer.drop()
        return
    await writer.write([record(entry.stream, log.last + 1, error_event(SURFACES[entry.surface], refusal))])
    await writer.end(Ending(kind=kind, error=refusal.code))


class Notes:
    """Hears a call, and has noted what whoever takes it over must know and no record tells."""

    __slots__ = ("_asked", "_resuming", "_writer")

    def __init__(self, writer: Writer) -> None:
        self._asked = ""
        self._resuming = False
        self._writer = writer

    def __call__(self, moment: Moment) -> None:
        match moment:
            case Opened():
                self._asked = moment.upstream
                if not self._resuming:
                    self._writer.note(upstream=self._asked)
            case Resuming():
                self._resuming = True
            case Resumed():
                self._resuming = False
                self._writer.note(upstream=self._asked)
                if moment.guarantee == "seamed":
                    self._writer.note(seamed=True)


__all__ = ["MOST", "Notes", "Takeover", "fold"]
