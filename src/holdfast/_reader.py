"""The user's edge of one stream: where batches become items, and a clean end becomes a verdict.

It decides nothing about the stream; it says once how it ended, and hangs on the error what one will want to know.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from holdfast._bill import bills
from holdfast._core import Source, Stream
from holdfast._errors import EndOfStream, StreamError, UsageError
from holdfast._tasks import Opening
from holdfast._types import Completion, Delta, Head, Partial, Request, Verdict
from holdfast.dialects import Dialect, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.redact import clean_url
from holdfast.moments import (
    Delivered,
    Dropped,
    Ended,
    FirstDelta,
    Repaired,
    Report,
    Started,
)

T = TypeVar("T")


_closing: set[asyncio.Task[None]] = set()
"""Of streams that nobody closed: a loop alone does not keep its tasks."""


def _close(loop: asyncio.AbstractEventLoop, reader: Reader[Any]) -> None:
    task = loop.create_task(reader.aclose(), name="holdfast-abandoned")
    _closing.add(task)
    task.add_done_callback(_closing.discard)


class Reader(Generic[T]):
    """The user's edge of one stream: an asynchronous context manager and iterator.

    Iteration ends when the answer is proven whole and raises a `StreamError` otherwise; read again, it says the same.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_call",
        "_cancelled",
        "_cancelling",
        "_closed",
        "_end",
        "_entered",
        "_first_seen",
        "_interrupted",
        "_items",
        "_longest_gap",
        "_loop",
        "_now",
        "_opening",
        "_reader",
        "_ready",
        "_request",
        "_source",
        "_started",
        "_stream",
    )

    def __init__(self, source: Source[T], request: Request) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # asked once: on Python 3.11 that costs as much as a layer
        self._now = request.call.clock.now
        self._source = source
        self._request = request
        self._call = request.call
        self._begun = False
        """True once everybody was told that it began: who never began, ends nothing."""
        self._stream: Stream[T] | None = None
        self._opening: Opening[T] | None = None
        """On its way since `start()`, until it is entered."""
        self._ready: Iterator[T] = iter(())
        self._end: Exception | None = None
        self._closed = False
        self._entered = False
        self._reader: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._cancelling = 0
        self._interrupted = False
        self._items = 0
        self._longest_gap = 0.0
        self._first_seen = False
        self._started = 0.0

    # -- opening and closing -------------------------------------------------------------------

    def start(self) -> Self:
        """Opens the stream in a task of its own, before it is entered; entering it waits only for what is left of that.

        How far it is read meanwhile its layers say: `ReadAhead` reads. Who starts a stream and never enters it closes
        it. Raises `UsageError` for one that was opened before, and outside of an event loop.
        """
        if self._opening is not None or self._is_used():
            raise UsageError("a stream is opened once; ask the pipe or the client for another")
        self._begin()
        self._opening = Opening(self._source, self._request)
        return self

    def _is_used(self) -> bool:
        return self._entered or self._closed or self._end is not None

    def _begin(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("a stream is opened in a running event loop; holdfast.sync does without one") from None
        self._begun = True
        call = self._call
        self._request = call.begin(self._request)
        self._started = call.clock.now()
        dialect = call.dialect.name if call.dialect is not None else ""
        call.note(Started(url=clean_url(self._request.url), dialect=dialect, labels=call.labels))

    async def __aenter__(self) -> Self:
        if self._is_used():
            raise UsageError("a stream is entered once; ask the pipe or the client for another")
        if self._opening is None:
            self._begin()
        self._entered = True  # before anything is waited for: two tasks that enter at once would open two
        self._reader = task = asyncio.current_task(self._loop)
        self._cancelling = 0 if task is None else task.cancelling()
        try:
            if self._opening is None:
                self._stream = await self._source.open(self._request)
            else:
                self._stream = await self._opening.stream()
                self._opening = None
        except StreamError as failure:
            self._opening = None
            self._settle(failure)
            raise
        except BaseException as stop:
            if self._interrupted and isinstance(stop, asyncio.CancelledError) and self._was_ours(task):
                if self._cancelled:
                    return self  # cancel() came while the head was waited for: there is nothing to iterate over
                raise UsageError("the stream was closed while it was being opened") from None
            self._settle(None, cancelled=True)
            self._closed = True
            if self._opening is not None:
                await self._opening.aclose()
            raise
        finally:
            self._reader = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the stream; one that was not read to its end counts as given up. Idempotent.

        A task that still waits in this stream is let go with a `UsageError`.
        """
        self._closed = True
        if self._end is None:
            self._settle(None, cancelled=True)
            self._ready = iter(())
            self._end = UsageError("the stream was closed before its end; report and partial say what it was")
        self._interrupt()
        try:
            if self._opening is not None:
                await self._opening.aclose()
        finally:
            if self._stream is not None:
                await self._stream.aclose()

    async def cancel(self) -> None:
        """Gives the stream up from any task: a waiting reader's iteration ends, and the connection is closed."""
        self._cancelled = True
        if self._end is None:
            self._settle(None, cancelled=True)
        self._ready = iter(())
        await self.aclose()

    def _interrupt(self) -> None:
        """Wakes the task that waits in this stream, if it is another one; once."""
        reader = self._reader
        if reader is not None and not self._interrupted and reader is not asyncio.current_task(self._loop):
            self._interrupted = True
            reader.cancel()

    def _let_go(self) -> Exception:
        """What the interrupted reader meets: the end of its iteration after `cancel()`, an error after `aclose()`."""
        return StopAsyncIteration() if self._cancelled or self._end is None else self._end

    def _was_ours(self, task: asyncio.Task[Any] | None) -> bool:
        """Says whether a cancellation was `_interrupt()`'s and nobody else's."""
        return task is not None and task.uncancel() <= self._cancelling

    def __del__(self) -> None:
        # An unopened reader, or one half made, has nothing to close.
        if (getattr(self, "_stream", None) or getattr(self, "_opening", None)) is not None and not self._closed:
            self._abandon()
            warnings.warn(
                f"{self!r} was never closed: use it with `async with`", ResourceWarning, stacklevel=2, source=self
            )

    def _abandon(self) -> None:
        """Has it closed by its loop: it would be running for ever, hold its connection, and cost nothing.

        The collector may come in any thread and in the middle of anything, with a lock of a listener's held: nothing
        is told here.
        """
        loop = self._loop
        if loop is not None and loop.is_running():
            with suppress(RuntimeError):  # it ends at this moment
                loop.call_soon_threadsafe(_close, loop, self)

    # -- reading -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._ready:
            return item
        self._ready = iter(await self._receive())
        return next(self._ready)

    async def batches(self) -> AsyncIterator[Sequence[T]]:
        """Iterates over what arrives in the batches it arrives in: cheaper per item, and no later."""
        while batch := await self.read():
            yield batch

    async def read(self) -> Sequence[T]:
        """Returns the next batch as it arrives, and an empty one at the proven end. Cancelled, it loses nothing."""
        left = list(self._ready)
        if left:
            return left
        try:
            return await self._receive()
        except StopAsyncIteration:
            return ()

    async def _receive(self) -> Sequence[T]:
        if self._end is not None:
            if isinstance(self._end, EndOfStream):
                raise StopAsyncIteration
            raise self._end
        if self._stream is None:
            raise UsageError("enter the stream first: async with ... as stream")
        if self._reader is not None:
            raise UsageError("this stream has a reader already")
        self._reader = task = asyncio.current_task(self._loop)
        self._cancelling = 0 if task is None else task.cancelling()
        asked = self._now()
        try:
            batch = await self._stream.receive()
        except EndOfStream:
            self._settle(None)
            raise StopAsyncIteration from None
        except StreamError as failure:
            self._settle(failure)
            raise
        except UsageError:
            raise
        except Exception as bug:
            self._settle(None, cancelled=True)
            self._end = bug  # somebody's layer broke: reading on would skip what it lost
            raise
        except asyncio.CancelledError:
            if self._interrupted and self._was_ours(task):
                raise self._let_go() from None
            raise
        finally:
            self._reader = None
        gap = self._now() - asked
        if gap > self._longest_gap:
            self._longest_gap = gap
        self._items += len(batch)
        if not self._first_seen:
            self._look_for_first(batch)
        if not self._call.recorded:
            self._call.answer.add(batch)
        return batch

    def _look_for_first(self, batch: Sequence[T]) -> None:
        for item in batch:
            if not isinstance(item, Delta) or not item.empty:
                self._first_seen = True
                self._longest_gap = 0.0  # the wait for the first is first_delta_seconds, not a gap
                self._call.note(FirstDelta(seconds=self._call.clock.now() - self._started))
                return

    def __await__(self) -> Generator[Any, None, Completion]:
        """Reads it all, and returns the whole answer: `await` instead of `async with`."""
        return self._read_all().__await__()

    async def _read_all(self) -> Completion:
        async with self:
            async for _ in self.batches():
                pass
            return self.completion

    async def text(self: Reader[Delta]) -> AsyncIterator[str]:
        """Iterates over the text of the first choice, piece by piece."""
        async for delta in self:
            if delta.text and not delta.choice:
                yield delta.text

    # -- the end -------------------------------------------------------------------------------

    def _settle(self, failure: StreamError | None, *, cancelled: bool = False) -> None:
        """Says once how it ended, and hangs on the error what the reader will want to know."""
        if self._end is not None:
            return  # it ended before, from another task
        call, cursor = self._call, self._call.cursor
        self._end = failure or EndOfStream()
        if not self._begun:
            call.report.cancelled = True
            call.report.close()
            return
        cursors = [*(leg.cursor for leg in call.legs), cursor]
        if repaired := sum(one.repaired for one in cursors):
            call.note(Repaired(what="utf-8", count=repaired))
        if dropped := sum(one.dropped for one in cursors):
            call.note(Dropped(count=dropped))
        if self._items:
            call.note(Delivered(items=self._items, longest_gap=self._longest_gap))
            self._items = 0
        evidence = call.evidence
        usage = call.usage
        verdict = None
        if failure is None and not cancelled and evidence is not None:
            verdict = self._verdict()
        billed = bills(call)
        for bill in billed:
            call.note(bill)
        call.note(
            Ended(
                verdict=verdict,
                error=failure,
                cancelled=cancelled,
                usage=usage,
                finish_reason=evidence.finish_reason if evidence is not None else None,
                bytes_received=cursor.received,
                billed_tokens=sum(bill.total_tokens for bill in billed),
                billed_estimated=any(bill.estimated for bill in billed),
            )
        )
        call.report.close()
        if failure is not None:
            failure.attempts = call.requests
            failure.partial = self.partial
            failure.report = call.report
            if call.requests > 1:
                failure.add_note(f"{call.requests} requests were sent; error.report tells their story")

    def _verdict(self) -> Verdict:
        seams = self._call.report.seams
        if not seams:
            return Verdict()
        weakest = max((seam.guarantee for seam in seams), key=("exact", "verified", "seamed").index)
        return Verdict("resumed", len(seams), weakest)

    # -- what it was ---------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """Status and headers of the attempt now being read."""
        if self._stream is None:
            raise UsageError("enter the stream first: async with ... as stream")
        return self._stream.head

    @property
    def dialect(self) -> Dialect | None:
        """Whose stream it is; None while nobody knows."""
        return self._call.dialect

    @property
    def report(self) -> Report:
        """The story so far."""
        return self._call.report

    @property
    def completion(self) -> Completion:
        """The whole answer, once it is proven whole. Raises the stream's error, or `UsageError` before its end."""
        if not self._call.keep:
            raise UsageError(
                "keep=False keeps a digest, not the answer; report has its verdict, usage and finish reason"
            )
        if self.report.verdict is None:
            if isinstance(self._end, StreamError):
                raise self._end
            if self._call.evidence is None and isinstance(self._end, EndOfStream):
                raise UsageError("nothing in this pipe judges answers: put verify() into its layers")
            raise UsageError("the answer has not been read to its proven end; .partial has what arrived")
        return self._answer()

    @property
    def partial(self) -> Partial:
        """What has arrived, and all that going on from there needs."""
        call = self._call
        sent = self._request if call.route is None else call.route.request
        dialect, body = sent.dialect or call.dialect, sent.body
        return Partial(
            dialect=dialect.name if dialect is not None else "",
            url=clean_url(sent.url),
            request=body if isinstance(body, Mapping) else None,
            last_event_id=call.cursor.last_event_id,
            offset=call.cursor.received,
            answer=self._answer(),
            state=self._state(),
        )

    def _state(self) -> dict[str, Any]:
        """What another process needs to go on; see `Call.take_up()`."""
        call = self._call
        several = call.answer.before is not None  # no one request has this answer: only its text can be gone on from
        where = call.where() if call.where is not None and not call.seamed and not several else {}
        return {
            "call": call.id,
            "keep": call.keep,
            "seamed": call.seamed or several,
            **where,
            **(call.route.told() if call.route is not None else {}),
            "cursor": (Cursor() if several or call.seamed else call.cursor).state(),
            "answer": call.answer.state(),
            "evidence": state_of(call.evidence) if call.evidence is not None else None,
        }

    def _answer(self) -> Completion:
        call = self._call
        return call.answer.completion(
            usage=call.usage,
            verdict=call.report.verdict,
            cut_reasons=call.dialect.unfinished_reasons if call.dialect is not None else (),
        )
