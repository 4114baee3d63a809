"""Asks on where an answer ended because of its token limit, until it ends by itself: one stream, one usage, one end.

Each continuation is a leg of the call, with Retry and Reconnect of its own left of this layer. It must never ask on
after a natural end (docs/auto-continue.md says why), never inside tool calls, thoughts or JSON, and never hand over
what does not take up the words that were delivered: such a leg is dropped, and the answer ends as it had ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Generic, TypeVar, cast

from holdfast._core import Call, Source, Stream
from holdfast._errors import EndOfStream, StatusError, StreamError, UsageError
from holdfast._tasks import Opening
from holdfast._types import Delta, Event, Head, Request
from holdfast.dialects import Said
from holdfast.dialects._turns import another_turn
from holdfast.dialects._ways import same_model
from holdfast.dialects._wire import asked
from holdfast.machines.replay import DivergenceError
from holdfast.machines.routes import leads_on
from holdfast.machines.seam import MIN_PREFIX, Extension, joint, with_usage
from holdfast.machines.settings import check_bool, check_count, check_kind
from holdfast.moments import Continued, Diverged

T = TypeVar("T")
_REFUSALS = (400, 404, 405, 413, 422, 501)
"""Statuses that refuse to continue an answer, and say nothing against the caller."""


@dataclass(slots=True, frozen=True, kw_only=True)
class AutoContinue:
    """Continues answers that were cut at their token limit, and turns that were paused, at most `times` times.

    The dialect's prefix rung asks on. `prompt` is a user turn ("Continue exactly where you stopped...") for providers
    without one, and for models that refuse it. The limit in the request holds for each leg; `max_total_tokens` bounds
    what all of them may answer together. An answer in JSON is continued only with `inside_json`.
    """

    times: int = 3
    prompt: str | None = None
    max_total_tokens: int | None = None
    inside_json: bool = False

    def __post_init__(self) -> None:
        check_count("AutoContinue(times=...)", self.times)
        check_count("AutoContinue(max_total_tokens=...)", self.max_total_tokens, optional=True)
        check_bool("AutoContinue(inside_json=...)", self.inside_json)
        check_kind("AutoContinue(prompt=...)", self.prompt, (str, NoneType), "a text or None")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(f"AutoContinue(prompt=...) must say something or be None, not {self.prompt!r}")

    @classmethod
    def of(cls, allowed: AutoContinue | bool | None) -> AutoContinue | None:  # noqa: FBT001 - as `Seams.of` takes it
        """Gives the layer that `auto_continue=` names: True is one with its defaults. Raises `UsageError`."""
        if allowed is None or isinstance(allowed, bool):
            return cls() if allowed else None
        check_kind("auto_continue=", allowed, AutoContinue, "True, False or AutoContinue(...)")
        return allowed

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _AutoContinueSource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        late = [type(layer).__name__ for layer in right if type(layer).__name__ in ("Verify", "Retry", "Reconnect")]
        return [f"{name} belongs left of AutoContinue: each continuation is a stream of its own" for name in late]


@dataclass(slots=True)
class _AutoContinueSource(Generic[T]):
    inner: Source[T]
    layer: AutoContinue

    async def open(self, request: Request) -> Stream[T]:
        first = await self.inner.open(request)
        call = request.call
        records, call.recorded = not call.recorded, True
        return _AutoContinueStream(self.inner, request, self.layer, first, records=records)


class _AutoContinueStream(Generic[T]):
    __slots__ = (
        "_asking",
        "_before",
        "_call",
        "_current",
        "_end",
        "_events",
        "_extension",
        "_head",
        "_held",
        "_inner",
        "_layer",
        "_leaving",
        "_left",
        "_mending",
        "_opening",
        "_paused",
        "_ready",
        "_reason",
        "_records",
        "_request",
        "_rest",
        "_source",
        "_turned",
    )

    def __init__(
        self, source: Source[T], request: Request, layer: AutoContinue, first: Stream[T], *, records: bool
    ) -> None:
        self._source = source
        self._request = request
        self._layer = layer
        self._call: Call = request.call
        self._inner: Stream[T] | None = first
        self._head = first.head
        self._records = records  # nobody left of us takes the answer down
        self._left = layer.times
        self._current: Request | None = None  # that of the leg being read, where it is not the first
        self._events: list[Event] = []  # of this leg, where its turn may have to go back
        self._paused = False
        self._turned = False  # a turn went back with more than its text, and to ask on by text would lose that
        self._ready: Sequence[T] = ()  # to be handed over before the end
        self._end: Exception | None = None
        self._reason = ""  # the limit that this leg ended at, until the next is opened
        self._held: list[Delta] = []  # its end and its usage, until it is known whether the answer goes on
        self._before: list[Delta] = []  # those of the leg before, while the next has not taken up its words
        self._extension: Extension | None = None
        self._rest: Said | None = None  # what the next leg goes on from, where it is asked on by its text
        # Between two legs:
        self._leaving: Stream[T] | None = None
        self._asking: list[Request] = []  # the ways to ask on that are left; without one the answer ends as it had
        self._opening: Opening[T] | None = None
        self._mending = False

    @property
    def head(self) -> Head:
        return self._head if self._inner is None else self._inner.head

    async def receive(self) -> Sequence[T]:
        while True:
            if self._ready:
                batch, self._ready = self._ready, ()
                return batch
            if self._end is not None:
                raise self._end
            try:
                if self._inner is None:
                    await self._go_on()
                    continue
                batch = await self._inner.receive()
                if self._records:
                    self._call.answer.add(batch)
                batch = self._passed(batch)
            except EndOfStream as end:
                self._leg_ended(end)
                continue
            except DivergenceError as difference:
                self._diverged(difference)
                continue
            except StreamError as failure:
                self._ready, self._held, self._end = cast("Sequence[T]", self._held), [], failure
                continue
            if batch:
                return batch

    # -- inside a leg --------------------------------------------------------------------------

    def _passed(self, batch: Sequence[T]) -> Sequence[T]:
        """Lets through what is new and what may be said already. Raises `DivergenceError`."""
        if type(batch[0]) is not Delta:
            return batch  # somebody's own items: nobody can tell how they end
        call = self._call
        deltas = cast("Sequence[Delta]", batch)
        if self._extension is not None:
            fresh: list[Delta] = []
            self._extension.feed(deltas, fresh)
            deltas = self._taken_up(self._extension, fresh)
        elif call.legs:
            deltas = self._summed(deltas)
        if call.dialect is not None and call.dialect.pause is not None:
            self._events += [delta.raw for delta in cast("Sequence[Delta]", batch)]
        # Nothing is looked at per delta before some choice has ended.
        if call.evidence is not None and call.evidence.finish_reason is not None:
            deltas = self._without_end(deltas)
        return cast("Sequence[T]", deltas)

    def _taken_up(self, extension: Extension, fresh: list[Delta]) -> Sequence[Delta]:
        if not extension.caught_up:
            return fresh
        self._call.answer.skipped = extension.said_again
        self._extension, self._before = None, []
        return self._summed(fresh)

    def _summed(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        over = self._call.over_legs
        return [with_usage(delta, over(delta.usage)) if delta.usage is not None else delta for delta in deltas]

    def _without_end(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """Keeps back the end of an answer that was cut, and its usage."""
        dialect, said = self._call.dialect, []
        for delta in deltas:
            if dialect is not None and delta.finish_reason is not None and not delta.choice:
                self._paused = dialect.pause is not None and delta.finish_reason in dialect.pause_reasons
                if self._paused or delta.finish_reason in dialect.cut_reasons:
                    self._reason = delta.finish_reason
            if not self._reason or delta.choice:
                said.append(delta)
                continue
            rest = Delta(delta.raw, delta.text, delta.reasoning, delta.refusal, delta.tool_calls)
            if not rest.empty:
                said.append(rest)
            self._held.append(Delta(delta.raw, finish_reason=delta.finish_reason, usage=delta.usage))
        return said

    # -- the end of a leg ----------------------------------------------------------------------

    def _leg_ended(self, end: EndOfStream) -> None:
        if self._extension is not None:
            fresh: list[Delta] = []
            try:
                self._extension.end(fresh)
            except DivergenceError as difference:
                self._diverged(difference)
                return
            fresh = list(self._without_end(self._taken_up(self._extension, fresh)))
            self._ready = cast("Sequence[T]", fresh)
        self._rest = None
        if self._paused:
            ways = self._same_turn()
        else:
            said = self._said() if self._reason else None
            ways = self._ways(said[1], self._whole) if said is not None else []
            if said is not None and ways:
                self._rest = said[1]
                self._extension = Extension(said[0], len(said[1].text), keep_reasoning=True)
        if ways:
            self._next_leg(ways)
            return
        self._ready = [*self._ready, *cast("Sequence[T]", self._held)]
        self._end = end

    def _same_turn(self) -> list[Request]:
        """Gives the request that sends a paused turn back, which must be as it came: without a seam in it."""
        call, dialect = self._call, self._call.dialect
        if not self._left or not call.may_request or call.report.seams or dialect is None or dialect.pause is None:
            return []
        request = dialect.pause.resume(
            self._current or self._whole, list({id(event): event for event in self._events}.values())
        )
        self._turned = request is not None
        return [request] if request is not None else []

    def _next_leg(self, ways: list[Request]) -> None:
        call = self._call
        self._asking = ways
        self._before, self._held = self._held, []
        self._left -= 1
        self._step_off()
        call.next_leg()
        if self._extension is not None:
            call.answer.skipped = None  # until it has taken up the words that were delivered
        self._events, self._paused = [], False

    def _step_off(self) -> None:
        if self._inner is not None:
            self._head, self._leaving, self._inner = self._inner.head, self._inner, None

    @property
    def _whole(self) -> Request:
        """The whole request, as the upstream has it that answers: it is asked on, and no other."""
        route = self._call.route
        return self._request if route is None else replace(route.request, call=self._call)

    def _said(self) -> tuple[str, Said] | None:
        """Gives the text so far and the part of it to go on from, None where nothing can be asked on or must not."""
        call, body = self._call, asked(self._whole)
        if not self._left or not call.may_request or call.dialect is None or body is None or self._turned:
            return None
        if not self._layer.inside_json and call.dialect.wire.asks_json(body):
            return None
        whole = call.answer.said_to_the_end()
        too_many = self._too_many()
        if whole is None or too_many is None:
            return None
        text, reasoning = whole
        cut = joint(text)
        return (text, Said(text=text[:cut], reasoning=reasoning, tokens=too_many)) if cut >= MIN_PREFIX else None

    def _too_many(self) -> int | None:
        """How many tokens less than the last leg the next may have, None where it may have none."""
        call, allowed = self._call, self._layer.max_total_tokens
        if allowed is None:
            return 0
        last = call.own_usage.output_tokens or call.answer.tokens
        before = sum(leg.own_usage.output_tokens or leg.answer.tokens for leg in call.legs)
        left = allowed - before - last
        return max(0, last - left) if left > 0 else None

    def _ways(self, said: Said, whole: Request) -> list[Request]:
        """Gives the requests that would ask on, best first, of the whole one as an upstream has it."""
        dialect, prompt = whole.dialect or self._call.dialect, self._layer.prompt
        ways = [dialect.prefix.extend(whole, said)] if dialect is not None and dialect.prefix else []
        if prompt is not None:
            ways.append(another_turn(whole, said, prompt))
        return [way for way in ways if way is not None]

    def _elsewhere(self, failure: StreamError) -> list[Request]:
        """Gives the requests that ask on at another upstream with the same model, where this one cannot be asked."""
        call, route = self._call, self._call.route
        if route is None or self._rest is None or not leads_on(failure) or not call.may_request:
            return []
        there = route.elsewhere()
        if there is None or not same_model(there, route.request):
            return []
        ways = self._ways(self._rest, replace(there, call=call))
        if ways:
            route.move(failure)
            route.arrived()
        return ways

    def _diverged(self, difference: DivergenceError) -> None:
        """The model did not go on: nothing of this leg was handed over, and the answer ends as it had ended."""
        self._call.note(Diverged(position=difference.position))
        self._asking = []
        self._step_off()

    # -- between two legs ----------------------------------------------------------------------

    async def _go_on(self) -> None:
        """Leaves one leg and opens the next. Cancelled, it may be called again and goes on."""
        if self._mending:
            raise UsageError("this stream has a reader already")
        self._mending = True
        try:
            if self._leaving is not None:
                await self._leaving.aclose()
                self._leaving = None
            if not self._asking:
                self._end_as_it_had()
                return
            if self._opening is None:
                self._opening = Opening(self._source, self._asking[0])
            try:
                stream = await self._opening.stream()
            except StreamError as failure:
                self._opening = None
                if isinstance(failure, StatusError) and failure.status in _REFUSALS:
                    del self._asking[0]
                    return
                ways = self._elsewhere(failure)
                if not ways:
                    raise
                self._asking = ways
                return
            self._opening = None
            if self._end is not None:  # somebody else closed us while we waited for the head
                await stream.aclose()
                return
            self._inner, self._current = stream, self._asking[0]
            if self._extension is None:
                self._before = []  # what follows is new from its first word on
            self._call.note(Continued(leg=len(self._call.legs) + 1, reason=self._reason))
            self._reason = ""
        finally:
            self._mending = False

    def _end_as_it_had(self) -> None:
        self._call.drop_leg()
        self._extension = None
        self._ready = cast("Sequence[T]", self._before)
        self._before, self._held = [], []
        self._end = self._end or EndOfStream()

    async def aclose(self) -> None:
        self._end = self._end or UsageError("this stream is closed")
        self._ready = ()
        stream = self._inner or self._leaving
        opening, self._opening = self._opening, None
        if self._inner is not None:
            self._head = self._inner.head
        self._inner = None
        try:
            if opening is not None:
                await opening.aclose()
        finally:
            if stream is not None:
                await stream.aclose()
