"""Layers that are wrong on purpose, each as somebody might write it: what shows that the properties bite.

Nothing but tests/properties/test_broken.py uses them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pybreaker
import pytest

from holdfast._core import Source, Stream, transform
from holdfast._errors import Truncated
from holdfast._types import Delta, Event, Head, Request
from holdfast.dialects import OPENAI, CursorRung, Dialect
from holdfast.layers import breaker as layer
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.parse import parse_sse
from holdfast.layers.verify import Verify
from holdfast.machines.sse import SseParser
from holdfast.machines.tickets import Ticket, Tickets
from holdfast.machines.transcript import Transcript
from tests.properties.model import House

# -- skips the duplicate check -----------------------------------------------------------------


def _careless_parser(request: Request) -> SseParser:
    cursor = request.call.cursor
    cursor.begin(cursor.asked)
    return SseParser(cursor, admits=None)


def hears_everything_twice() -> House:
    """Parses, and asks nobody whether an event was delivered before."""
    return House(parse=transform(_careless_parser))


# -- emits before comparing --------------------------------------------------------------------


class _TrustingReplay:
    """Takes it that a second answer begins with what was delivered, and counts characters."""

    caught_up = True

    def __init__(self, characters: int) -> None:
        self._skip = characters
        self.swallowed = 0

    def feed(self, batch: Sequence[Delta], out: list[Delta]) -> None:
        for delta in batch:
            if delta.empty or (self._skip and not delta.text):
                self.swallowed += 1
                continue
            skipped = min(self._skip, len(delta.text))
            self._skip -= skipped
            if delta.text[skipped:] or not delta.text:
                delta.text = delta.text[skipped:]
                out.append(delta)

    def end(self) -> None:
        """Nothing to compare with."""


class _TrustingTranscript(Transcript):
    __slots__ = ()

    def replay(self) -> Any:
        return _TrustingReplay(len(self.completion().text))


@dataclass(slots=True, frozen=True)
class _Trusting:
    """Stands right of Reconnect, and swaps what it compares with."""

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        return _TrustingSource(inner)


@dataclass(slots=True)
class _TrustingSource:
    inner: Source[Any]

    async def open(self, request: Request) -> Stream[Any]:
        request.call.answer = _TrustingTranscript()
        return await self.inner.open(request)


def hands_over_before_it_compares() -> House:
    """Replays, and lets what lies beyond the delivered length through unseen."""
    return House(more=(_Trusting(),))


# -- treats EOF as success ---------------------------------------------------------------------


class _Believing:
    """A dialect whose readers take the end of a body for the end of the answer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(OPENAI, name)

    def reader(self, *args: Any, **settings: Any) -> Any:
        return _BelievingReader(OPENAI.reader(*args, **settings))


class _BelievingReader:
    def __init__(self, reader: Any) -> None:
        self.evidence, self.feed, self._reader = reader.evidence, reader.feed, reader

    def end(self, out: list[Delta]) -> None:
        with contextlib.suppress(Truncated):
            self._reader.end(out)


def takes_an_end_for_success() -> House:
    """Verifies every piece, and never asks whether the last one came."""
    dialect: Any = _Believing()
    return House(verify=Verify(dialect))


# -- forgets to close --------------------------------------------------------------------------


@dataclass(slots=True)
class _Leaky:
    inner: Source[Any]

    async def open(self, request: Request) -> Stream[Any]:
        return _LeakyStream(await self.inner.open(request))


@dataclass(slots=True)
class _LeakyStream:
    inner: Stream[Any]

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[Any]:
        return await self.inner.receive()

    async def aclose(self) -> None:
        """Closes itself, as it thinks."""


def forgets_to_close() -> House:
    """Reads on, and leaves what it has read open."""
    parse: Callable[[Source[bytes]], Any] = parse_sse()
    return House(parse=lambda inner: parse(_Leaky(inner)))


# -- goes on in another place than it says ------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Shifted:
    """A provider's cursor that names the place before the one that was reached, or the one behind it."""

    true: CursorRung
    by: int

    def place(self, event: Event, offset: int) -> str:
        place = self.true.place(event, offset)
        number = "".join(filter(str.isdigit, place))
        return place.replace(number, str(max(0, int(number) + self.by))) if number else place

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def resume(self, request: Request, answer_id: str, place: str) -> Request | None:
        return self.true.resume(request, answer_id, place)

    def cancel(self, request: Request, answer_id: str) -> Request | None:
        return self.true.cancel(request, answer_id)


def resumes_elsewhere(dialect: Dialect, by: int) -> Dialect:
    """Goes on so many events, or bytes, from where it stopped; negative is too early."""
    assert dialect.cursor is not None
    return replace(dialect, cursor=_Shifted(dialect.cursor, by))


# -- emits before the tail is said again ---------------------------------------------------------


class _TrustingExtension:
    """Takes it that a model goes on exactly where it was told to, and says no word again."""

    caught_up = True
    swallowed = 0
    said_again = 0

    def __init__(self, delivered: str, cut: int) -> None:
        self._again = len(delivered) - cut

    def feed(self, batch: Sequence[Delta], out: list[Delta]) -> None:
        for delta in batch:
            skipped = min(self._again, len(delta.text))
            self._again -= skipped
            delta.text = delta.text[skipped:]
            out.append(delta)

    def end(self, out: list[Delta]) -> None:
        """Nothing to compare with."""


@contextlib.contextmanager
def hands_over_before_the_tail() -> Iterator[None]:
    """Continues a prefix, and counts the characters of its tail instead of hearing them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.layers.reconnect.Extension", _TrustingExtension)
        yield


# -- records a late success --------------------------------------------------------------------


class _Credulous(Tickets):
    """Takes every outcome for one of the present state."""

    __slots__ = ()

    def counts(self, ticket: Ticket, generation: object) -> bool:
        return True


def records_late(breaker: pybreaker.CircuitBreaker) -> CircuitBreaker:
    """Judges a stream when it ends, whatever became of the circuit since it began."""
    layer._ledger_of(breaker).tickets = _Credulous()
    return CircuitBreaker(breaker)
