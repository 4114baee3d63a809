"""The integrity checker: events in, validated deltas out, and an end only where the dialect proves one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from holdfast._core import Source, Stream, Transform, TransformStream
from holdfast._errors import EndOfStream, StatusError, Truncated, UpstreamError
from holdfast._types import Delta, Event, Request
from holdfast.dialects import AUTO, AutoReader, DeltaReader, Dialect, by_endpoint, find
from holdfast.machines.cursor import Cursor
from holdfast.machines.digest import BodyCheck
from holdfast.machines.redact import hide
from holdfast.moments import Outlived, Recognised

Refused = TypeVar("Refused", StatusError, UpstreamError)


@dataclass(slots=True, frozen=True, repr=False)
class Verify:
    """Validates each event against its dialect and decides the verdict from evidence. Made by `verify()`."""

    dialect: Dialect
    length: bool = True
    digest: bool = True
    relay: bool = False
    takes: ClassVar[type] = Event
    gives: ClassVar[type] = Delta

    def __repr__(self) -> str:
        return f"verify({self.dialect.name!r})"

    def __call__(self, inner: Source[Event]) -> Source[Delta]:
        return _VerifySource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        early = [type(layer).__name__ for layer in left if type(layer).__name__ == "Reconnect"]
        return [f"{name} left of verify() cannot tell a cut answer from a whole one" for name in early]


def verify(dialect: str | Dialect, *, length: bool = True, digest: bool = True, relay: bool = False) -> Verify:
    """Gives the layer that checks a dialect's events.

    `length` and `digest` compare the body with the `Content-Length` and the digest header (`Content-Digest`,
    `Repr-Digest`, `Digest`, `Content-MD5`) of servers that send one; they need `parse_sse()` left of them. `relay` is
    for whoever passes the bytes on: each event is handed over, comments and end marks as deltas that are empty. Raises
    `UpstreamError`, `DecodeError`, `Truncated`, `NotAStream` and `IntegrityError` when read.
    """
    return Verify(find(dialect), length, digest, relay)


@dataclass(slots=True)
class _VerifySource:
    inner: Source[Event]
    layer: Verify

    async def open(self, request: Request) -> Stream[Delta]:
        call, dialect = request.call, self._dialect(request)
        if dialect.call_header:
            # The same key at each attempt: it tells the server that all of them mean the same answer.
            request = request.with_headers({dialect.call_header: call.key})
        # A copy: what this attempt makes of it is nothing to one that is sent in its place.
        before = deepcopy(call.proven) if call.cursor.asked == "continue" else None
        try:
            stream = await self.inner.open(request)
        except StatusError as error:
            raise _hidden(dialect.refine(error), request) from error.__cause__
        check = BodyCheck.of(stream.head, length=self.layer.length, digest=self.layer.digest)
        call.cursor.hasher = check.hasher if check is not None else None
        reader = dialect.reader(_asked(request), call.cursor, before, head=stream.head, end_at_done=check is None)
        call.evidence = reader.evidence
        if call.attempt is not None:
            call.attempt.evidence, call.attempt.dialect = reader.evidence, dialect.name
        machine: Transform[Event, Delta] = _Checked(reader, check, request)
        return TransformStream(stream, _Relayed(machine, call.cursor) if self.layer.relay else machine, call.clock)

    def _dialect(self, request: Request) -> Dialect:
        """The request's or the layer's own; where that is `auto`, the address tells, or an earlier attempt has."""
        call, dialect = request.call, request.dialect or self.layer.dialect
        if dialect is not AUTO:
            call.dialect = dialect
        elif call.dialect is None or call.dialect is AUTO:
            call.dialect = by_endpoint(request.url) or AUTO
            if call.dialect is not AUTO:
                call.note(Recognised(dialect=call.dialect.name, by="address"))
        return call.dialect


def _asked(request: Request) -> Mapping[str, Any] | None:
    """What the request's body asks for: how many choices must come, for one."""
    if not isinstance(request.body, bytes):
        return request.body
    try:
        body = Event(request.body).json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _hidden(error: Refused, request: Request) -> Refused:
    """Takes what the request bore out of a provider's code and type, and so out of the text that they stand in."""
    sent = {**request.call.carried, **request.headers}
    error.args = tuple(hide(text, sent, request.url) for text in error.args)
    error.code, error.type = (hide(word, sent, request.url) for word in (error.code, error.type))
    return error


def _asks_usage(body: Mapping[str, Any] | None) -> bool:
    options = body.get("stream_options") if body is not None else None
    return isinstance(options, Mapping) and options.get("include_usage") is True


class _Checked:
    """A dialect's reader, and after its end the checks on the whole body."""

    __slots__ = ("_check", "_feed", "_reader", "_request")

    def __init__(self, reader: DeltaReader, check: BodyCheck | None, request: Request) -> None:
        self._reader = reader
        self._check = check
        self._request = request
        self._feed = self._recognise if isinstance(reader, AutoReader) else reader.feed

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        try:
            self._feed(batch, out)
        except UpstreamError as error:
            raise _hidden(error, self._request) from error.__cause__

    def _recognise(self, batch: Sequence[Event], out: list[Delta]) -> None:
        try:
            self._reader.feed(batch, out)
        finally:
            call, dialect = self._request.call, getattr(self._reader, "dialect", None)
            if dialect is not None:
                self._feed = self._reader.feed
                call.dialect, call.evidence = dialect, self._reader.evidence
                if call.attempt is not None:
                    call.attempt.evidence, call.attempt.dialect = self._reader.evidence, dialect.name
                call.note(Recognised(dialect=dialect.name, by="events"))

    def end(self, out: list[Delta]) -> None:
        try:
            self._reader.end(out)
        except UpstreamError as error:
            raise _hidden(error, self._request) from error.__cause__
        call, evidence = self._request.call, self._reader.evidence
        if self._check is not None:
            self._check.end(call.cursor.received)
        if evidence.usage is None and not getattr(evidence, "done", True) and _asks_usage(_asked(self._request)):
            # Whole, since it got here. A server that knows no usage ends with its mark; this one was cut before both.
            call.note(Outlived(error=Truncated("the body ended before the usage that was asked for")))


class _Relayed:
    """Hands over every event: one of which nothing was made stands as it is, in a delta that says nothing.

    What is no event may be a page in an answer's place, or the half of an event that was cut: it waits until an event
    follows it, or the answer is proven.
    """

    __slots__ = ("_begun", "_cursor", "_held", "_machine")

    def __init__(self, machine: Transform[Event, Delta], cursor: Cursor) -> None:
        self._machine = machine
        self._cursor = cursor
        self._held: list[Event] = []
        self._begun = False

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        for event in batch:
            if not event.type:  # a block without one dispatches nothing: it is for nobody but the relay
                self._held.append(event)
                if self._begun or not self._cursor.stray:
                    self._let_go_of_blocks(out)
                continue
            before, dropped = len(out), self._cursor.dropped
            try:
                self._machine.feed((event,), out)
            except EndOfStream:
                self._stand_in(event, before, out)
                raise
            if self._cursor.dropped == dropped:  # what is repeated was handed over before
                self._stand_in(event, before, out)

    def _let_go_of_blocks(self, out: list[Delta]) -> None:
        if _is_over(b"".join(event.wire for event in self._held)):
            out.extend(self._let_go())

    def _stand_in(self, event: Event, before: int, out: list[Delta]) -> None:
        if len(out) == before:
            out.append(Delta(event))
        self._begun = True
        if self._held:
            out[before:before] = self._let_go()

    def _let_go(self) -> list[Delta]:
        held = [Delta(event) for event in self._held]
        self._held.clear()
        return held

    def end(self, out: list[Delta]) -> None:
        self._machine.end(out)
        out.extend(self._let_go())


def _is_over(block: bytes) -> bool:
    """Says whether a block has the blank line that ends one."""
    line = next((block[: -len(end)] for end in (b"\r\n", b"\n", b"\r") if block.endswith(end)), None)
    return line is not None and (not line or line[-1:] in (b"\r", b"\n"))


__all__ = ["Verify", "verify"]
