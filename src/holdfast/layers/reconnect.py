"""The reconnector: owns the stream from its first item on, and when it breaks opens it again where it stopped.

What to do is the ladder's decision (`machines/ladder.py`), whether a replay agrees the transcript's
(`machines/transcript.py`), what is new the cursor's; here is only opening, waiting, closing. It never hands over what
it cannot vouch for, and each seam is a `Resumed` moment with its guarantee and its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from holdfast._core import Call, Source, Stream
from holdfast._errors import BudgetExhausted, CircuitOpen, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._tasks import Opening
from holdfast._types import Delta, Head, Request
from holdfast.machines.backoff import Backoff, Jitter
from holdfast.machines.ladder import RUNGS, Ladder, Rung, Situation, Step
from holdfast.machines.transcript import DivergenceError, Replay
from holdfast.moments import Diverged, Resumed, Resuming

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class Reconnect:
    """Resumes broken streams by climbing the resume ladder.

    `max_barren` re-openings in a row may bring nothing new (content resets the count), `max_seams` seams one stream may
    have. `max_repaid_tokens` bounds what verified replays may cost again, None for twice what was delivered. `rungs`
    are the rungs allowed. Delays are `jitter` between 0 and `base`, doubling up to `cap` seconds; a server that sends
    `retry:` or `Retry-After` is not asked earlier, and is left when it wants more than 60 s.
    """

    max_barren: int = 5
    max_seams: int = 20
    max_repaid_tokens: int | None = None
    rungs: tuple[Rung, ...] = RUNGS
    base: float = 1.0
    cap: float = 10.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        for name in ("max_barren", "max_seams"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")
        if self.max_repaid_tokens is not None and self.max_repaid_tokens < 0:
            raise ValueError(f"max_repaid_tokens must be None or not negative: {self.max_repaid_tokens}")
        for rung in self.rungs:
            if rung not in RUNGS:
                raise ValueError(f"rungs must be of {', '.join(RUNGS)}, not {rung!r}")
        self.ladder()  # tells bad delays here

    def ladder(self) -> Ladder:
        """Makes the machine that decides for one stream."""
        return Ladder(
            rungs=self.rungs,
            max_barren=self.max_barren,
            max_seams=self.max_seams,
            max_repaid_tokens=self.max_repaid_tokens,
            backoff=Backoff(base=self.base, cap=self.cap, jitter=self.jitter),
        )

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ReconnectSource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        names = {type(layer).__name__ for layer in right}
        return [
            f"{name} belongs left of Reconnect: {why}"
            for name, why in (("Verify", "it tells a cut answer from a whole one"),)
            if name in names
        ]


@dataclass(slots=True)
class _ReconnectSource(Generic[T]):
    inner: Source[T]
    layer: Reconnect

    async def open(self, request: Request) -> Stream[T]:
        request.call.cursor.asked = "start"
        request.call.recorded = True
        return _ReconnectStream(self.inner, request, await self.inner.open(request), self.layer.ladder())


class _ReconnectStream(Generic[T]):
    __slots__ = (
        "_broke_at",
        "_call",
        "_diverging",
        "_dropped",
        "_end",
        "_failure",
        "_head",
        "_inner",
        "_ladder",
        "_mending",
        "_opening",
        "_replay",
        "_request",
        "_resume_at",
        "_source",
        "_started",
        "_step",
    )

    def __init__(self, source: Source[T], request: Request, inner: Stream[T], ladder: Ladder) -> None:
        self._source = source
        self._request = request
        self._call: Call = request.call
        self._inner: Stream[T] | None = inner
        self._head = inner.head
        self._ladder = ladder
        self._end: Exception | None = None
        self._started = False
        # Set while a seam is being made, from the failure to the first new item:
        self._step: Step | None = None
        self._failure: StreamError | None = None
        self._replay: Replay | None = None
        self._diverging = False
        self._broke_at = 0.0
        self._resume_at = 0.0
        self._dropped = 0
        self._opening: Opening[T] | None = None
        self._mending = False  # a reader is between two inner streams, where no inner one turns a second reader away

    @property
    def head(self) -> Head:
        return self._head if self._inner is None else self._inner.head

    async def receive(self) -> Sequence[T]:
        while True:
            if self._end is not None:
                raise self._end
            try:
                if self._inner is None:
                    await self._reopen()
                batch = taken = await self._inner.receive()  # type: ignore[union-attr]  # _reopen() set it
                if self._step is not None:
                    batch = self._across_the_seam(taken)
            except EndOfStream as end:
                cut_short = self._finish(end)
                if cut_short is not None:
                    await self._broken(cut_short)
                continue
            except StreamError as failure:
                await self._broken(failure)
                continue
            if self._call.cursor.numbered:
                self._call.cursor.commit(taken)  # what a replay only repeats is delivered, too
            if batch:
                self._started = True
                self._call.answer.add(batch)
                return batch

    # -- the end of an attempt -----------------------------------------------------------------

    def _finish(self, end: EndOfStream) -> StreamError | None:
        """A clean end, unless it came before a replay had said all that was delivered."""
        if self._step is not None and self._call.cursor.mode == "replay":
            try:
                (self._replay or self._call.answer.replay()).end()
            except DivergenceError as difference:
                return self._diverged(difference.position)
        self._note_seam()
        self._end = end
        return None

    async def _broken(self, failure: StreamError) -> None:
        """Decides what a failure means: another step, a proven end, or the failure itself."""
        call, inner = self._call, self._inner
        step = self._ladder.next(failure, self._situation()) if self._started else None
        if step is not None and step.finish:
            self._end = EndOfStream()
            return
        if step is None:
            self._end = self._give_up(failure)
            return
        now = call.clock.now()
        if self._step is None:
            self._broke_at = now
        self._resume_at = now + step.delay
        self._diverging = False
        self._step, self._failure, self._inner, self._replay = step, failure, None, None
        call.note(Resuming(error=failure, rung=step.rung or "", delay=step.delay))
        if inner is not None:
            self._head = inner.head
            self._mending = True
            try:
                await inner.aclose()
            finally:
                self._mending = False

    def _situation(self) -> Situation:
        call = self._call
        evidence, cursor = call.evidence, call.cursor
        return Situation(
            last_event_id=cursor.last_event_id,
            replayable=call.dialect is not None and call.dialect.replayable,
            complete=evidence is not None
            and evidence.complete
            and not self._diverging
            and (self._replay is None or self._replay.caught_up),
            usage_known=evidence is not None and evidence.usage is not None,
            may_request=call.may_request,
            delivered_tokens=call.answer.tokens,
            server_retry=None if cursor.retry is None else cursor.retry / 1000,
            u=call.random.random(),
        )

    def _give_up(self, failure: StreamError) -> StreamError:
        """The last real failure is what the reader wants to know; that we refused to go on is a note on it."""
        if isinstance(failure, BudgetExhausted | CircuitOpen) and self._failure is not None:
            self._failure.add_note(f"it was not resumed: {failure}")
            return self._failure
        return failure

    # -- the next attempt ----------------------------------------------------------------------

    async def _reopen(self) -> None:
        """Waits and opens. Cancelled, it leaves the step where it was, and the next `receive()` goes on from it."""
        step, call = self._step, self._call
        if step is None:
            raise EndOfStream
        if self._mending:
            raise UsageError("this stream has a reader already")
        self._mending = True
        try:
            if self._opening is None:
                await call.clock.sleep(self._resume_at - call.clock.now())
                cursor = call.cursor
                request = self._request
                if step.mode == "continue":
                    request = request.with_headers({"Last-Event-ID": cursor.last_event_id})
                cursor.asked = step.mode
                self._dropped = cursor.dropped
                self._opening = Opening(self._source, request)
            try:
                stream = await self._opening.stream()
            except StreamError:
                self._opening = None
                raise
            self._opening = None
            if self._end is not None:  # somebody else closed us while we waited for the head
                await stream.aclose()
                raise self._end
            self._inner = stream
        finally:
            self._mending = False

    def _across_the_seam(self, batch: Sequence[T]) -> Sequence[T]:
        """Lets through what is new in the first batches after a re-opening, and notes the seam once something is.

        A server that was asked to continue may begin another answer instead: the cursor and the dialect's reader say so
        by turning the mode to `replay`, and from then on it is compared like one.
        """
        if self._call.cursor.mode == "replay":
            if self._call.dialect is None:
                raise StreamBroken(
                    "the server did not continue at our Last-Event-ID, and nothing can compare its answer"
                )
            replay = self._replay = self._replay or self._call.answer.replay()
            fresh: list[Delta] = []
            try:
                replay.feed(cast("Sequence[Delta]", batch), fresh)
            except DivergenceError as difference:
                raise self._diverged(difference.position) from None
            batch = cast("Sequence[T]", fresh)
            if not replay.caught_up:
                return ()
            self._call.cursor.vouched = True
        if any(not isinstance(item, Delta) or not item.empty for item in batch):
            self._note_seam()
        return batch

    def _note_seam(self) -> None:
        step, call = self._step, self._call
        if step is None:
            return
        replayed = self._replay is not None
        call.note(
            Resumed(
                rung="replay" if replayed else step.rung or "",
                guarantee="verified" if replayed else step.guarantee,
                gap=call.clock.now() - self._broke_at,
                swallowed=self._replay.swallowed if self._replay is not None else call.cursor.dropped - self._dropped,
                repaid_tokens=call.answer.tokens if replayed else 0,
            )
        )
        self._ladder.made_progress()
        self._step, self._failure, self._replay = None, None, None

    def _diverged(self, position: int) -> StreamBroken:
        """The replay is of another answer. Nothing of it was handed over; the next rung is the ladder's to name."""
        self._diverging = True  # what the dialect has seen of this attempt proves nothing of ours
        self._ladder.diverged()
        self._call.note(Diverged(position=position))
        return StreamBroken(
            f"the stream broke, and the answer sent again differs after {position} characters:"
            " nothing of it was handed over; .partial has what had arrived"
        )

    async def aclose(self) -> None:
        self._end = self._end or UsageError("this stream is closed")
        inner, self._inner = self._inner, None
        opening, self._opening = self._opening, None
        self._step = None
        try:
            if opening is not None:
                await opening.aclose()
        finally:
            if inner is not None:
                self._head = inner.head
                await inner.aclose()
