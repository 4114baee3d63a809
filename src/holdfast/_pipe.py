"""A source and the layers over it: built once, refused at once where the order cannot work, opened for every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from holdfast._clock import Clock, Random
from holdfast._core import Call, Source, Stream
from holdfast._errors import UsageError
from holdfast._reader import Reader
from holdfast._types import Partial, Request
from holdfast.machines.retry_budget import RetryBudget
from holdfast.machines.settings import check_count, check_kind, check_strings
from holdfast.moments import (
    Listener,
    Opened,
    Opening,
)

if TYPE_CHECKING:
    from holdfast.dialects import Dialect

B = TypeVar("B")
T = TypeVar("T")
Layers = tuple[Callable[..., Any], ...]


@dataclass(slots=True)
class _Counted(Generic[T]):
    """The innermost wall of every pipe: what goes through here went to the upstream."""

    inner: Source[T]

    async def open(self, request: Request) -> Stream[T]:
        call = request.call
        number = call.spend_request(request).number
        dialect = request.dialect.name if request.dialect is not None else ""
        call.note(Opening(upstream=request.upstream, dialect=dialect))
        started = call.clock.now()
        stream = await self.inner.open(request)
        head = stream.head
        request_id = head.headers.get("x-request-id") or head.headers.get("x-ds-trace-id") or ""
        seconds = call.clock.now() - started
        call.note(
            Opened(
                attempt=number, upstream=request.upstream, status=head.status, seconds=seconds, request_id=request_id
            )
        )
        return stream


class Pipe(Generic[T]):
    """A source and the layers over it, from the wire (left) to the reader (right). Immutable; `|` makes a new one.

    `clock` and `random` replace time and chance, `max_requests` bounds what one stream may send upstream over all
    its layers (8: four tries and four seams), `retry_budget` what all streams that share it may send again;
    `listeners` hear every moment of every stream.
    """

    __slots__ = (
        "_clock",
        "_dialect",
        "_items",
        "_layers",
        "_listeners",
        "_max_requests",
        "_random",
        "_retry_budget",
        "_source",
        "_top",
    )

    def __init__(
        self,
        source: Source[T],
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_requests: int = 8,
        retry_budget: RetryBudget | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        check_kind("retry_budget=", retry_budget, (RetryBudget, NoneType), "a RetryBudget")
        check_call(clock=clock, random=random, max_requests=max_requests, listeners=listeners)
        if isinstance(source, type) or not hasattr(source, "open"):
            raise UsageError(f"a pipe begins with a source, something that has open(), and {source!r} is none")
        self._source: Source[Any] = source
        self._items: type | None = getattr(source, "gives", None)
        self._dialect: Dialect | None = None
        self._top: Source[T] = _Counted(source)
        self._layers: tuple[Callable[..., Any], ...] = ()
        self._clock = clock
        self._random = random
        self._max_requests = max_requests
        self._retry_budget = retry_budget
        self._listeners = tuple(listeners)

    def __or__(self, layer: Callable[[Source[T]], Source[B]]) -> Pipe[B]:
        if not callable(layer):
            raise UsageError(f"{layer!r} is no layer: a layer is called with a source and gives a source")
        if isinstance(layer, type) and any("__call__" in vars(one) for one in layer.__mro__):
            raise UsageError(f"{layer.__name__} is a class: its instances are layers, {layer.__name__}(...)")
        takes, gives = getattr(layer, "takes", None), getattr(layer, "gives", None)
        if takes is not None and self._items is not None and takes is not self._items:
            raise UsageError(
                f"{_describe(layer)} takes {takes.__name__} and gets {self._items.__name__} here:"
                " bytes become events by parse_sse(), and events deltas by verify()"
            )
        check_order(self._layers, layer)
        new: Pipe[Any] = object.__new__(Pipe)
        for name in Pipe.__slots__:
            setattr(new, name, getattr(self, name))
        new._top = layer(self._top)
        if not hasattr(new._top, "open"):
            raise UsageError(f"{_describe(layer)} is no layer: it gave {new._top!r}, which has no open()")
        new._layers = (*self._layers, layer)
        new._items = gives if gives is not None else self._items if _keeps_items(layer) else None
        new._dialect = getattr(layer, "dialect", self._dialect)
        return new

    def stream(
        self,
        request: Request | None = None,
        *,
        keep: bool = True,
        labels: Mapping[str, str] | None = None,
        listeners: Iterable[Listener] = (),
        resume: Partial | None = None,
    ) -> Reader[T]:
        """Gives the one context manager: entering opens the stream, leaving closes it.

        `keep=False` keeps a digest of the delivered text instead of the text, for very long streams. `resume` goes on
        where another stream of the same request broke: what had arrived is not handed over again, and is part of the
        completion. Raises `UsageError` for a partial of another dialect, and where no layer resumes.
        """
        heard = (*(made for make in listener_factories if (made := make()) is not None), *self._listeners, *listeners)
        return self._reader(request, keep=keep, labels=labels, listeners=heard, resume=resume)

    def _reader(
        self,
        request: Request | None,
        *,
        keep: bool = True,
        labels: Mapping[str, str] | None = None,
        listeners: Iterable[Listener] = (),
        resume: Partial | None = None,
    ) -> Reader[T]:
        check_strings("labels=", labels)
        call = Call(
            clock=self._clock,
            random=self._random,
            max_requests=self._max_requests,
            retry_budget=self._retry_budget,
            keep=keep,
            labels=labels,
            listeners=listeners,
        )
        if resume is not None:
            check_partial("stream(resume=...)", resume)
        given: object = request
        if not isinstance(given, Request | NoneType):
            hint = ": a body is what Client(layers=[*default_layers(...), ...]).stream(body) takes"
            told = type(given).__name__ + (hint if isinstance(given, Mapping) else "")
            raise UsageError(f"a pipe streams a Request(url=..., body=...), not {told}")
        call.dialect = self._dialect
        request = replace(request or Request(), call=call)
        if resume is not None:
            request = self._take_up(resume, request)
        return Reader(self._top, request)

    def _take_up(self, partial: Partial, request: Request) -> Request:
        """Stands where another call broke off, and at the same upstream, where a layer knows several."""
        for layer in self._layers:
            take_up = getattr(layer, "take_up", None)
            request = request if take_up is None else take_up(request, partial)
        dialect = request.dialect or self._dialect
        if dialect is None or not any(getattr(layer, "resumes", False) for layer in self._layers):
            raise UsageError("only a pipe with verify() and Reconnect can go on from a partial")
        if partial.dialect != dialect.name:
            raise UsageError(f"the partial is of {partial.dialect!r}, and this pipe speaks {dialect.name!r}")
        request.call.take_up(partial, dialect)
        return request

    def __str__(self) -> str:
        lines = [f"Pipe({type(self._source).__name__})"]
        lines += _draw((), self._layers, (), "  ")
        return "\n".join(lines)

    __repr__ = __str__


def unheard(pipe: Pipe[T], request: Request) -> Reader[T]:
    """Gives a stream of which nobody is told: for what is none to anybody, as a look-up or a reading over again."""
    return pipe._reader(request)  # noqa: SLF001 - its own class


def check_order(left: Sequence[object], layer: object) -> None:
    """Raises `UsageError` for a layer right of one that it must not stand right of.

    A layer names them, each with the reason, in `not_right_of`; one that needs to look closer has a `check_left()`.
    """
    names = {type(one).__name__ for one in left}
    for name, why in getattr(layer, "not_right_of", {}).items():
        if name in names:
            raise UsageError(f"{type(layer).__name__} belongs left of {name}: {why}")
    check_left = getattr(layer, "check_left", None)
    if check_left is not None:
        check_left(left)


def _draw(left: Layers, layers: Layers, right: Layers, margin: str) -> Iterator[str]:
    """Gives the lines of layers among others, each with its warnings, and with the layers that it has within."""
    for place, layer in enumerate(layers):
        before, after = (*left, *layers[:place]), (*layers[place + 1 :], *right)
        yield f"{margin}| {_describe(layer)}"
        if type(layer).__name__ == "Budget" and any(one is layer for one in before):
            yield f"{margin}! the same Budget twice books each stream twice: leave one out"
        advise = getattr(layer, "advise", None)
        if advise is not None:
            yield from (f"{margin}! {warning}" for warning in advise(before, after))
        within = getattr(layer, "within", None)
        for name, chain in within() if within is not None else ():
            yield f"{margin}    {name}"
            yield from _draw(before, chain, (layer, *after), margin + "    ")


def check_call(*, clock: object, random: object, max_requests: object, listeners: object) -> None:
    """Tells of what would else be found out in the middle of a call. Raises `ValueError` and `UsageError`."""
    check_count("max_requests", max_requests)
    for name, value, does in (("clock", clock, "now"), ("random", random, "random")):
        if value is not None and (isinstance(value, type) or not hasattr(value, does)):
            raise UsageError(f"{name}= takes something that has {does}(), and {value!r} has none")
    takes = "functions, in a list or tuple"
    check_kind("listeners=", listeners, Iterable, takes)
    for listener in listeners if isinstance(listeners, Sequence) else ():  # others can be gone through once only
        if not callable(listener):
            raise UsageError(f"listeners= takes {takes}, not {listener!r}")


def check_partial(name: str, partial: object) -> None:
    """Raises `UsageError` for what is no `Partial`: what was saved of one, for example."""
    if not isinstance(partial, Partial):
        made = "Partial.from_json(...) makes one of saved bytes"
        raise UsageError(f"{name} takes a Partial, not {type(partial).__name__}; {made}")


listener_factories: list[Callable[[], Listener | None]] = []
"""Asked once per stream for somebody who listens: how telemetry hears of pipes without their knowing it."""


def _describe(layer: Callable[..., Any]) -> str:
    """Draws a layer with the settings that are set."""
    if inspect.isfunction(layer):
        return layer.__qualname__ + "()"
    if isinstance(layer, type):
        return layer.__name__
    if is_dataclass(layer) and layer.__dataclass_params__.repr:  # type: ignore[attr-defined]  # else it has its own
        settings = ((f.name, getattr(layer, f.name)) for f in fields(layer) if f.repr)
        return (
            f"{type(layer).__name__}({', '.join(f'{name}={value!r}' for name, value in settings if value is not None)})"
        )
    return repr(layer)


def _keeps_items(layer: object) -> bool:
    """The layers of this house let items through as they are; of others nobody knows."""
    return type(layer).__module__.startswith("holdfast.layers.")
