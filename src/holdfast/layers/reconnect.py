"""The reconnector: owns the stream from its first item on, and when it breaks opens it again where it stopped.

What to do is the ladder's decision (`machines/ladder.py`), what it asks for the dialect's
(`dialects/_ways.py`), whether a replay agrees the replay's (`machines/replay.py`), where a prefix joins the seam's
(`machines/seam.py`), what is new the cursor's; here is only opening, waiting, closing. It never hands over what
it cannot vouch for, and each seam is a `Resumed` moment with its guarantee and its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

from holdfast._clock import Alarm
from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._tasks import Opening
from holdfast._types import Delta, Head, Partial, Request, Usage
from holdfast.dialects import Dialect, Evidence
from holdfast.dialects._ways import Place, behind_event_id, behind_place, behind_prefix, effects_of, same_model
from holdfast.machines.backoff import Backoff, Jitter
from holdfast.machines.ladder import RUNGS, Ladder, Rung, Seams, Situation, Step
from holdfast.machines.replay import DivergenceError, Replay
from holdfast.machines.seam import Extension, join_usage, joint, with_usage
from holdfast.machines.settings import check_kind
from holdfast.moments import Diverged, Outlived, Resumed, Resuming

T = TypeVar("T")
_MAX_REFUSED = 1_024
_MAX_WAITING = 256
"""Pieces that say nothing and wait for one that does: a server that sends no other must not fill the memory."""
_CANCEL_WAIT = 2.0
"""Seconds that leaving a stream may take for telling the provider of it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Reconnect:
    """Resumes broken streams by climbing the resume ladder.

    `seams` is the policy: which rungs, how many seams, what they may cost; see `Seams`. Delays are `jitter` between 0
    and `base`, doubling up to `cap` seconds; a server that sends `retry:` or `Retry-After` is not asked earlier, and
    is left when it wants more than 60 s. `refused` remembers the models that do not take a prefix: layers that are
    given the same set share what they learned.
    """

    seams: Seams = Seams()  # noqa: RUF009 - it is frozen
    base: float = 1.0
    cap: float = 10.0
    jitter: Jitter = "full"
    refused: set[str] = field(default_factory=set, repr=False, compare=False)
    resumes: ClassVar[bool] = True
    """A pipe with such a layer can go on from a `Partial`."""

    def __post_init__(self) -> None:
        check_kind("Reconnect(seams=...)", self.seams, Seams, "Seams(...)")
        self.ladder()  # tells bad delays here

    def ladder(self) -> Ladder:
        """Makes the machine that decides for one stream."""
        return Ladder(self.seams, backoff=Backoff(base=self.base, cap=self.cap, jitter=self.jitter))

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ReconnectSource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        late, early = ({type(layer).__name__ for layer in side} for side in (right, left))
        return [
            f"{name} belongs {side} of Reconnect: {why}"
            for name, names, side, why in (
                ("Verify", late, "left", "it tells a cut answer from a whole one"),
                ("Buffer", early, "right", "left of it, groups end where attempts do"),
                ("ReadAhead", early, "right", "left of it, it begins anew with every attempt"),
            )
            if name in names
        ]


@dataclass(slots=True)
class _ReconnectSource(Generic[T]):
    inner: Source[T]
    layer: Reconnect

    async def open(self, request: Request) -> Stream[T]:
        call = request.call
        call.recorded = True
        resuming = call.resuming
        call.resuming = None
        stream: _ReconnectStream[T] = _ReconnectStream(self.inner, request, self.layer)
        call.where = stream.where
        if resuming is None:
            call.cursor.asked = "start"
            await stream.begin()
            return stream
        try:
            await stream.take_up(resuming)
        except BaseException:
            await stream.aclose()
            raise
        return stream


class _ReconnectStream(Generic[T]):
    __slots__ = (
        "_asking",
        "_away",
        "_broke",
        "_broke_at",
        "_call",
        "_current",
        "_diverging",
        "_dropped",
        "_end",
        "_extension",
        "_failure",
        "_head",
        "_inner",
        "_join",
        "_ladder",
        "_layer",
        "_mending",
        "_moved",
        "_opening",
        "_origin",
        "_place",
        "_replay",
        "_request",
        "_resume_at",
        "_source",
        "_started",
        "_step",
        "_waiting",
    )

    def __init__(self, source: Source[T], request: Request, layer: Reconnect) -> None:
        self._source = source
        self._layer = layer
        self._request = request
        self._current: Request | None = None  # set after a prefix: the one whose answer is being read
        self._moved: Request | None = None  # set after a seam to another upstream: the whole request as that one has it
        self._away = False  # asking another upstream than that of which the answer was delivered
        self._asking = request  # the one that is on its way
        self._call: Call = request.call
        self._inner: Stream[T] | None = None
        self._head = Head()
        self._ladder = layer.ladder()
        self._end: Exception | None = None
        self._started = False
        self._join: Callable[[Usage], Usage] | None = None  # set after a prefix: makes one usage of two requests'
        self._place = Place()  # behind what was delivered
        self._origin = 0  # bytes of the whole body before this attempt's first
        # Set while a seam is being made, from the failure to the first new item:
        self._step: Step | None = None
        self._failure: StreamError | None = None
        self._broke: StreamError | None = None  # what ended the attempt that was being delivered
        self._replay: Replay | None = None
        self._extension: Extension | None = None
        self._waiting: list[T] = []  # pieces that say nothing, behind all that was delivered
        self._diverging = False
        self._broke_at = 0.0
        self._resume_at = 0.0
        self._dropped = 0
        self._opening: Opening[T] | None = None
        self._mending = False  # a reader is between two inner streams, where no inner one turns a second reader away

    async def begin(self) -> None:
        """Opens the first attempt."""
        self._inner = await self._source.open(self._request)

    async def take_up(self, partial: Partial) -> None:
        """Opens where another stream broke. Raises what the last rung raised when none leads on."""
        self._started = True
        self._place = Place(partial.state)
        self._take_step(StreamBroken("the answer broke elsewhere, and no way leads on"))
        while self._inner is None:
            if isinstance(self._end, EndOfStream):
                self._inner = _Over(self._head)
            elif self._end is not None:
                raise self._end
            else:
                try:
                    await self._reopen()
                except StreamError as failure:
                    await self._broken(failure)

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
            if self._step is None or self._vouched:
                self._place.item, self._place.origin = taken[-1], self._origin
            if batch:
                self._started = True
                if self._join is not None:
                    batch = self._joined(batch, self._join)
                self._call.answer.add(batch)
                return batch

    @property
    def _vouched(self) -> bool:
        """True while what this attempt told is of the answer that was delivered: only then do place and proof count."""
        if self._step is None:
            return True
        judge = self._extension or self._replay
        return judge.caught_up if judge is not None else self._call.cursor.mode == "continue"

    # -- the end of an attempt -----------------------------------------------------------------

    def _finish(self, end: EndOfStream) -> StreamError | None:
        """A clean end, unless it came before an answer had said again all that was delivered."""
        if self._step is not None:
            try:
                if self._extension is not None:
                    self._extension.end([])
                elif self._call.cursor.mode == "replay":
                    (self._replay or self._call.answer.replay()).end()
            except DivergenceError as difference:
                return self._diverged(difference.position)
        self._note_seam()
        self._end = end
        return None

    async def _broken(self, failure: StreamError) -> None:
        """Decides what a failure means: another step, a proven end, or the failure itself."""
        call, inner = self._call, self._inner
        if self._vouched:  # which it may be before the seam is noted: a continuation may bring empty deltas alone
            call.proven = deepcopy(call.evidence)
        if self._step is not None and self._step.rung == "prefix" and isinstance(failure, StatusError):
            self._remember_refusal(failure)
        if self._step is None:
            self._broke, self._broke_at = failure, call.clock.now()
        step = self._ladder.next(failure, self._situation(failure)) if self._started else None
        if step is None or step.finish:
            self._settle(step, failure)
            return
        self._climb(step, failure, step.delay)
        if inner is not None:
            self._head = inner.head
            self._mending = True
            try:
                await inner.aclose()
            finally:
                self._mending = False

    def _take_step(self, unresumed: StreamError) -> None:
        """Takes the first step of an answer that broke in another process: who comes later has waited already."""
        self._call.proven = deepcopy(self._call.evidence)
        self._broke_at = self._call.clock.now()
        step = self._ladder.next(unresumed, self._situation(unresumed))
        if step is None or step.finish:
            self._settle(step, unresumed)
        else:
            self._climb(step, None, 0.0)

    def _climb(self, step: Step, failure: StreamError | None, delay: float) -> None:
        call = self._call
        if step.elsewhere and call.route is not None:
            why = failure or self._broke or StreamBroken("the answer broke elsewhere")
            self._moved, self._away = replace(call.route.move(why), call=call), True
        self._resume_at = call.clock.now() + delay
        self._diverging = False
        self._step, self._failure, self._inner, self._replay, self._extension = step, failure, None, None, None
        self._waiting = []
        call.note(Resuming(error=failure, rung=step.rung or "", delay=delay))

    def _settle(self, step: Step | None, failure: StreamError) -> None:
        """No step leads on: the answer had been proven, or the failure is the end."""
        if step is not None:
            self._call.note(Outlived(error=failure))
            self._end = EndOfStream()
            return
        self._disown()
        self._end = self._give_up(failure)

    def _situation(self, failure: StreamError) -> Situation:
        call = self._call
        evidence, cursor = call.evidence, call.cursor
        effects = effects_of(self._whole)
        return Situation(
            last_event_id="" if self._away or (effects and self._repeats_for_event_ids) else cursor.last_event_id,
            cursor=self._cursor_request() is not None,
            replayable=self._replayable(self._whole),
            prefix=self._prefix_request(self._whole) is not None,
            elsewhere=self._rungs_elsewhere(failure),
            effects=effects,
            complete=evidence is not None
            and evidence.complete
            and not self._diverging
            and (self._replay is None or self._replay.caught_up)
            and (self._extension is None or self._extension.caught_up),
            usage_known=evidence is not None and evidence.usage is not None,
            no_request=call.why_no_request,
            delivered_tokens=call.answer.tokens,
            server_retry=None if cursor.retry is None else cursor.retry / 1000,
            u=call.random.random(),
        )

    def _disown(self) -> None:
        """Forgets what an attempt seemed to prove that was not vouched for: a partial must not call itself whole."""
        call = self._call
        if not self._vouched:
            call.evidence = deepcopy(call.proven)
            if call.route is not None:
                call.dialect = call.route.request.dialect or call.dialect

    def _give_up(self, failure: StreamError) -> StreamError:
        """The failure that broke the answer is what the reader wants to know; why it was not resumed is a note on it.

        That a rung was refused says nothing of the request: who was told "400" would look for the mistake there.
        """
        ours = isinstance(failure, BudgetExhausted | CircuitOpen)
        told = (self._failure if ours else self._broke if self._ladder.blames_rung else None) or failure
        if told is not failure:
            told.add_note(f"it was not resumed: {failure}")
        if self._ladder.why:
            told.add_note(f"it was not resumed{' any more' if self._step is not None else ''}: {self._ladder.why}")
        return told

    # -- the next request ----------------------------------------------------------------------

    @property
    def _whole(self) -> Request:
        """The whole request, as the upstream has it that is asked."""
        route = self._call.route
        if self._moved is not None or route is None or self._request.upstream:
            return self._moved or self._request
        return replace(route.request, call=self._call)

    def _dialect_of(self, request: Request) -> Dialect | None:
        return request.dialect or self._call.dialect

    def _request_for(self, step: Step) -> Request:
        call, place, current = self._call, self._place, self._current or self._whole
        dialect = self._dialect_of(current)
        call.cursor.overlap = ""
        if step.rung == "last-event-id":
            return behind_event_id(dialect, current, call.cursor.last_event_id)
        if step.rung == "cursor":
            self._origin = place.offset(dialect)
            if dialect is not None and dialect.cursor is not None and dialect.cursor.overlaps:
                call.cursor.overlap = place.proof
            return self._cursor_request() or current
        if step.rung == "prefix":
            request = self._prefix_request(self._whole) or self._whole
            text, _ = call.answer.said() or ("", "")
            self._extension = Extension(text, joint(text))
            return request
        return self._whole

    def where(self) -> dict[str, Any]:
        """Gives, as JSON values, what a cursor of the provider's own goes on from behind what was delivered."""
        route = self._call.route
        return self._place.told(self._dialect_of(self._whole if route is None else route.request))

    def _cursor_request(self) -> Request | None:
        if self._away:
            return None
        current = self._current or self._whole
        return behind_place(self._dialect_of(current), current, self._place, self._call.proven)

    def _replayable(self, request: Request) -> bool:
        """Says whether the answer could come again: only the same model, asked the same, may say the same."""
        call, dialect = self._call, self._dialect_of(request)
        first = self._whole if call.route is None else call.route.request
        if dialect is None or not dialect.replayable or call.seamed:
            return False
        return same_model(request, first) and not effects_of(request)

    @property
    def _repeats_for_event_ids(self) -> bool:
        """True where a `Last-Event-ID` goes out with the same request: who does not know the header runs it anew."""
        dialect = self._dialect_of(self._whole)
        return dialect is None or dialect.event_ids == "post"

    def _prefix_request(self, request: Request) -> Request | None:
        policy = self._layer.seams
        if "prefix" not in policy.rungs or _model(request) in self._layer.refused or effects_of(request):
            return None
        return behind_prefix(self._dialect_of(request), request, self._call.answer, inside_json=policy.inside_json)

    def _remember_refusal(self, failure: StatusError) -> None:
        if failure.status in (400, 422) and len(self._layer.refused) < _MAX_REFUSED:
            self._layer.refused.add(_model(self._whole))

    def _rungs_elsewhere(self, failure: StreamError) -> tuple[Rung, ...]:
        """Gives the rungs that exist at another upstream. An answer's later legs stay where they are.

        A limit that is over all upstreams refuses at the others, too.
        """
        call, route = self._call, self._call.route
        if route is None or call.legs:
            return ()
        ours = isinstance(failure, BudgetExhausted | CircuitOpen)
        there = route.elsewhere() if route.knows(failure) or not ours else None
        if there is None:
            return ()
        exists = {"replay": self._replayable(there), "prefix": self._prefix_request(there) is not None}
        return tuple(rung for rung in RUNGS if exists.get(rung, False))

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
                self._origin = 0
                self._asking = self._request_for(step)
                call.cursor.asked = step.mode
                if step.mode == "continue":
                    call.evidence = deepcopy(call.proven)
                self._dropped = call.cursor.dropped
                self._opening = Opening(self._source, self._asking)
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
        cursor = self._call.cursor
        try:
            if self._extension is not None:
                fresh: list[Delta] = []
                self._extension.feed(cast("Sequence[Delta]", batch), fresh)
                if not self._extension.caught_up:
                    return ()
                batch = cast("Sequence[T]", fresh)
                cursor.vouched = True
            elif cursor.mode == "replay":
                batch = cast("Sequence[T]", self._compared(cast("Sequence[Delta]", batch)))
                if self._replay is None or not self._replay.caught_up:
                    return ()
                cursor.vouched = True
        except DivergenceError as difference:
            raise self._diverged(difference.position) from None
        finally:
            self._count_repeated()
        says = any(not isinstance(item, Delta) or not item.empty for item in batch)
        if says or self._replay is not None or self._extension is not None:
            batch = self._waiting = [*self._waiting, *batch]  # of another answer: not to be told before the seam is
            if not says and len(batch) <= _MAX_WAITING:
                return ()
            self._note_seam()
        return batch

    def _count_repeated(self) -> None:
        judge, attempt = self._extension or self._replay, self._call.attempt
        if judge is not None and attempt is not None:
            attempt.repeated = judge.swallowed

    def _compared(self, batch: Sequence[Delta]) -> list[Delta]:
        call = self._call
        if call.dialect is None or call.seamed:
            raise StreamBroken("the server did not continue at our Last-Event-ID, and nothing can compare its answer")
        replay = self._replay = self._replay or call.answer.replay()
        fresh: list[Delta] = []
        replay.feed(batch, fresh)
        return fresh

    def _note_seam(self) -> None:
        step, call = self._step, self._call
        if step is None:
            return
        replayed, extension = self._replay is not None, self._extension
        delivered = call.answer.tokens
        swallowed = call.cursor.dropped - self._dropped
        if extension is not None:
            swallowed = extension.swallowed
            self._extend(delivered)
        elif self._replay is not None:
            swallowed = self._replay.swallowed
        call.note(
            Resumed(
                rung="replay" if replayed else step.rung or "",
                guarantee="verified" if replayed else step.guarantee,
                gap=call.clock.now() - self._broke_at,
                swallowed=swallowed,
                repaid_tokens=delivered if replayed or extension is not None else 0,
            )
        )
        self._ladder.made_progress()
        if call.route is not None:
            call.route.arrived()
        self._away = False
        self._step, self._failure, self._replay, self._extension = None, None, None, None
        self._waiting = []

    def _extend(self, delivered: int) -> None:
        """From here on the answer is the other request's: its ids count, and a replay of the first proves nothing."""
        call = self._call
        call.seamed = True
        self._current = self._asking
        # Some tell the prompt's tokens where their answer begins, and that is no part of what was delivered.
        told = call.proven.usage if call.proven is not None else None
        known = call.answer.usage or told
        asked = known.input_tokens if known is not None else None
        again = self._extension.swallowed if self._extension is not None else 0
        self._join = partial(join_usage, asked, delivered, said_again=again)
        call.join = self._join

    def _joined(self, batch: Sequence[T], join: Callable[[Usage], Usage]) -> Sequence[T]:
        return [
            cast("T", with_usage(item, join(item.usage))) if isinstance(item, Delta) and item.usage else item
            for item in batch
        ]

    def _diverged(self, position: int) -> StreamBroken:
        """What came is another answer. Nothing of it was handed over; the next rung is the ladder's to name."""
        self._diverging = True  # what the dialect has seen of this attempt proves nothing of ours
        self._ladder.diverged(self._replay.swallowed if self._replay is not None else 0)
        self._call.note(Diverged(position=position))
        return StreamBroken(
            f"the stream broke, and the answer sent again differs after {position} characters:"
            " nothing of it was handed over; .partial has what had arrived"
        )

    async def aclose(self) -> None:
        abandoned = self._end is None and self._started
        self._end = self._end or UsageError("this stream is closed")
        inner, self._inner = self._inner, None
        opening, self._opening = self._opening, None
        running = self._call.evidence  # that of the answer which is being made, vouched for or not
        self._disown()
        self._step = None
        try:
            if opening is not None:
                await opening.aclose()
        finally:
            try:
                if inner is not None:
                    self._head = inner.head
                    await inner.aclose()
            finally:
                if abandoned and self._layer.seams.cancel_abandoned:
                    await self._cancel_upstream(running)

    async def _cancel_upstream(self, running: Evidence | None) -> None:
        """Stops an answer that the provider would finish without a reader: asked once, and not waited for long."""
        call = self._call
        current, evidence = self._current or self._whole, call.evidence
        dialect = self._dialect_of(current)
        if dialect is None or dialect.cursor is None or running is None or not call.may_request:
            return
        request = dialect.cursor.cancel(current, running.answer_id)
        if request is None:
            return
        alarm = Alarm(call.clock)
        alarm.arm(call.clock.now() + _CANCEL_WAIT)
        opening: Opening[T] = Opening(self._source, request)
        try:
            await opening.stream()
        except (StreamError, UsageError):
            alarm.disarm()
        except BaseException:
            if not alarm.disarm():
                raise
        else:
            alarm.disarm()
        finally:
            alarm.close()
            await opening.aclose()
            call.evidence = evidence


def _model(request: Request) -> str:
    """Names a model and who serves it."""
    body = request.body
    return f"{request.url} {body.get('model', '') if isinstance(body, Mapping) else ''}"


@dataclass(slots=True)
class _Over(Generic[T]):
    """A stream of which everything had been delivered before."""

    head: Head

    async def receive(self) -> Sequence[T]:
        raise EndOfStream

    async def aclose(self) -> None:
        pass
