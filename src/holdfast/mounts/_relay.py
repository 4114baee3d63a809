"""What all mounts share: a pipe over the client's own transport, and its answer as the bytes that the client reads.

It knows no HTTP library. A mount gives it a source, whose first attempt may be a response that is there already, and
passes on the bytes. Events go on as they came, each as soon as it is there; a seam that is not exact puts what follows
into the terms of the first answer (see `Teller`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar, TypedDict
from urllib.parse import urlsplit

from holdfast._clock import Clock, Random
from holdfast._core import Attempt, Source, Stream
from holdfast._defaults import default_layers
from holdfast._errors import StreamError, UsageError
from holdfast._pipe import Pipe, check_call
from holdfast._reader import Reader
from holdfast._types import Delta, Head, Partial, Request
from holdfast.dialects import AUTO, Dialect, Teller, Timeouts, by_endpoint, find
from holdfast.layers.deadline import Deadline
from holdfast.layers.fallback import Fallback
from holdfast.layers.retry import Retry
from holdfast.layers.verify import Verify
from holdfast.machines.ladder import Seams
from holdfast.machines.retry_budget import RetryBudget
from holdfast.machines.settings import check_bool, check_kind
from holdfast.moments import Continued, Listener, Moment, Report, Resumed
from holdfast.mounts._quirks import traits_of
from holdfast.mounts._rewrite import Rewriter, without_bom

EXTENSION = "holdfast"
"""The key under which a response of a mount has its report, where its client's responses have a place for more."""
_ANOTHER = ("replay", "prefix")
"""Rungs after which what comes is of another answer: the others go on with the very same."""


class Settings(TypedDict, total=False):
    """The keywords of a `Mount`, as mounts take them."""

    dialect: str | Dialect
    timeouts: Timeouts | None
    seams: Seams | bool
    traffic: Sequence[Callable[[Source[Any]], Source[Any]]]
    layers: Sequence[Callable[[Source[Any]], Source[Any]]] | None
    max_requests: int
    quirks: bool
    retry_budget: RetryBudget | None
    listeners: Iterable[Listener]
    clock: Clock | None
    random: Random | None


class _Made(dict[tuple[str, bool], list[Callable[[Source[Any]], Source[Any]]]]):
    """What was made once, and is made anew where a mount is unpickled: layers hold functions."""

    def __reduce__(self) -> tuple[type[_Made], tuple[()]]:
        return _Made, ()


@dataclass(slots=True, frozen=True, kw_only=True)
class Mount:
    """How streams are mended inside a client: the keywords that every mount takes.

    `dialect` is told by the address or the first event unless it is named. `timeouts` are over the dialect's own.
    `seams=True` lets a model continue its own words where nothing exact is left, and `Seams(...)` says it in detail.
    `layers` replace the default ones; they must hand over every event: `default_layers(..., relay=True)` does.
    `traffic` adds layers that see every attempt: limits, hedges, fallbacks. `max_requests` bounds what one call may
    send upstream, a `retry_budget` what all calls that share it may send again. `quirks` puts bytes that are legal, and
    that this client is known to die on, into a form that it reads.
    """

    dialect: str | Dialect = "auto"
    timeouts: Timeouts | None = None
    seams: Seams | bool = False
    traffic: Sequence[Callable[[Source[Any]], Source[Any]]] = ()
    layers: Sequence[Callable[[Source[Any]], Source[Any]]] | None = None
    max_requests: int = 8
    quirks: bool = True
    retry_budget: RetryBudget | None = None
    listeners: Iterable[Listener] = ()
    clock: Clock | None = None
    random: Random | None = None
    refused: set[str] = field(default_factory=set, repr=False, compare=False)
    _layers: _Made = field(default_factory=_Made, init=False, repr=False, compare=False)
    """The default ones by whose clocks they have, and whether for a feed: they hold settings, and nothing of a call."""

    def __post_init__(self) -> None:
        check_kind("traffic=", self.traffic, Sequence, "a sequence of layers")
        check_kind("layers=", self.layers, (Iterable, NoneType), "a sequence of layers")
        check_bool("quirks", self.quirks)
        check_call(clock=self.clock, random=self.random, max_requests=self.max_requests, listeners=self.listeners)
        if self.layers is not None and (self.timeouts is not None or self.seams is not False or self.traffic):
            raise UsageError(
                "timeouts=, seams= and traffic= are for the default layers; layers= holds layers of their own"
            )
        # The way to set a field of a frozen dataclass: every call goes through them again.
        object.__setattr__(self, "listeners", tuple(self.listeners))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        layers = self._default(Request()) if self.layers is None else self.layers
        self._pipe(_Nowhere(), layers)  # tells here, and not at the first stream, what does not fit
        for layer in layers:
            if isinstance(layer, Verify) and not layer.relay:
                raise UsageError(
                    f"the layers= of a mount must hand over every event, and {layer!r} keeps some back:"
                    " write verify(..., relay=True), or default_layers(..., relay=True)"
                )
            if isinstance(layer, Fallback):
                self._check_upstreams(layer)

    def _check_upstreams(self, fallback: Fallback) -> None:
        named = find(self.dialect)
        for one in fallback.upstreams:
            if getattr(one, "translate", None):
                raise UsageError(
                    "a client reads answers of one wire, and a mount passes them on: no upstream here has a translate="
                )
            one.suits(Request(dialect=fallback.upstreams[0].dialect if named is AUTO else named))

    @property
    def runs_anywhere(self) -> bool:
        """Says whether each call may run by itself: layers of the caller's may belong together over all calls.

        Those may also want several things at once, which who blocks cannot do.
        """
        return self.layers is None and not self.traffic and self.clock is None

    @property
    def retries(self) -> list[Retry]:
        """Its layers that send again before a head: they hold for what is no stream, too."""
        return [Retry()] if self.layers is None else [layer for layer in self.layers if isinstance(layer, Retry)]

    def relay(
        self,
        source: Source[bytes],
        request: Request,
        sent: Mapping[str, str],
        guard: Callable[[Source[bytes]], Source[bytes]],
        *,
        listeners: Iterable[Listener] = (),
        resume: Partial | None = None,
        teller: Teller | None = None,
    ) -> Relay:
        """Gives one call over a source; `open()` sends its request.

        `sent` are the headers that tell which client it is; `guard` is a layer that refuses what is not to be sent.
        `resume` goes on where another call broke, of which `teller` has told what arrived.
        """
        layers = [guard, *(self._default(request) if self.layers is None else self.layers)]
        traits = traits_of(sent, request.url) if self.quirks else ()
        return Relay(
            self._pipe(source, layers),
            request,
            (*self.listeners, *listeners),
            Rewriter(traits) if traits else None,
            resume=resume,
            teller=teller,
        )

    def _pipe(self, source: Source[bytes], layers: Iterable[Callable[[Source[Any]], Source[Any]]]) -> Pipe[Any]:
        pipe: Pipe[Any] = Pipe(
            source,
            clock=self.clock,
            random=self.random,
            max_requests=self.max_requests,
            retry_budget=self.retry_budget,
        )
        for layer in layers:
            pipe = pipe | layer
        gives = pipe._items  # noqa: SLF001 - what a pipe gives is nobody's business but a mount's
        if gives not in (Delta, None):  # of a layer of the caller's nobody knows what it gives
            raise UsageError(
                f"the layers= of a mount give Delta, and these give {gives.__name__}:"
                " put parse_sse() and verify(..., relay=True) among them, or take default_layers(..., relay=True)"
            )
        return pipe

    def _default(self, request: Request) -> list[Callable[[Source[Any]], Source[Any]]]:
        """Gives the default layers, with the clocks of whoever answers."""
        named = find(self.dialect)
        found = (by_endpoint(request.url) or AUTO) if named is AUTO else named
        feed = _is_feed(request, found)
        layers = self._layers.get((found.name, feed))
        if layers is None:
            layers = self._layers[found.name, feed] = self._made(named, found, feed=feed)
        return layers

    def _made(self, named: Dialect, found: Dialect, *, feed: bool) -> list[Callable[[Source[Any]], Source[Any]]]:
        timeouts = Timeouts.of(self.timeouts).over(found.timeouts)
        layers = default_layers(
            "sse" if feed else named,
            timeouts=timeouts,
            seams=self.seams,
            traffic=self.traffic,
            refused=self.refused,
            relay=True,
        )
        if not feed or self.timeouts is not None:
            return layers
        return [layer for layer in layers if not isinstance(layer, Deadline)]


@dataclass(slots=True, frozen=True)
class _Nowhere:
    """Stands for a client's transport while the pipe over it is looked at."""

    gives: ClassVar[type] = bytes

    async def open(self, request: Request) -> Stream[bytes]:
        raise AssertionError("nothing is sent before there is a request")


def mount_of(settings: Mapping[str, Any]) -> Mount:
    """Makes a mount of the keywords that somebody gave. Raises `UsageError` for those of a `Client` alone."""
    if "upstreams" in settings:
        raise UsageError("upstreams= is a Client's: in a mount write traffic=[Fallback(upstreams=[...])]")
    return Mount(**settings)


def _is_feed(request: Request, found: Dialect) -> bool:
    """Says whether what is fetched answers no request: MCP's other stream, for one, or some site's news.

    It is silent for as long as nothing happens, and over when it ends.
    """
    if request.method != "GET" or "stream=true" in urlsplit(request.url).query.split("&"):
        return False
    return found is AUTO or found.event_ids == "get"


class Relay:
    """One answer as the bytes that a client reads. `reader` tells its story: report, partial, head."""

    __slots__ = ("_ended", "_rejoined", "_reseated", "_rewriter", "_teller", "reader")

    def __init__(
        self,
        pipe: Pipe[Delta],
        request: Request,
        listeners: Iterable[Listener] = (),
        rewriter: Rewriter | None = None,
        *,
        resume: Partial | None = None,
        teller: Teller | None = None,
    ) -> None:
        self._teller = teller
        self._rewriter = rewriter
        self._rejoined = False
        self._reseated = False
        self._ended = False
        self.reader: Reader[Delta] = pipe.stream(request, listeners=(*listeners, self._hear), resume=resume)

    async def open(self) -> Head:
        """Sends the request and returns its head. Raises a `StreamError`, and what the source raises of its own."""
        await self.reader.__aenter__()
        return self.reader.head

    @property
    def attempt(self) -> Attempt | None:
        """The attempt whose answer it is, or was last."""
        return self.reader._call.attempt  # noqa: SLF001 - what was sent is nobody's business but a mount's

    async def receive(self) -> bytes:
        """Returns the bytes of what is ready, empty at the proven end. Raises a `StreamError`."""
        while blocks := await self.blocks():
            if told := b"".join(blocks):
                return told if self._rewriter is None else self._rewriter.told(told)
        return b""

    async def blocks(self) -> list[bytes]:
        """Returns what is ready, block by block: one event each, or what dispatches none; empty at the proven end."""
        out: list[bytes] = []
        while batch := await self.reader.read():
            self._tell(batch, out)
            if out:
                return out
        if self._teller is not None and not self._ended:
            self._ended = True
            dialect = self.reader.dialect
            if self.reader.report.faults or (dialect is not None and dialect.end_mark):  # else nothing is missing
                self._teller.end(out)
        return out

    def _tell(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        if self._teller is None:  # a dialect that was not named is known by the first event
            dialect = self.reader.dialect
            if dialect is None:
                raise UsageError("the layers= of a mount need verify(..., relay=True) among them")
            self._teller = dialect.wire.teller()
        if self._rejoined:  # in the middle of a stream, a byte order mark is no more than a wrong name of a field
            batch = without_bom(batch)
            self._rejoined = False
        if self._reseated:
            self._teller.reseat()
            self._reseated = False
        if self._rewriter is not None:
            batch = self._rewriter.events(batch)
        self._teller.feed(batch, out)

    def _hear(self, moment: Moment) -> None:
        if isinstance(moment, Continued | Resumed):
            self._rejoined = True
        if isinstance(moment, Continued) or (isinstance(moment, Resumed) and moment.rung in _ANOTHER):
            self._reseated = True

    async def aclose(self) -> None:
        """Gives the answer up, or what is left of its connection back. Idempotent.

        Some clients leave at the end mark and never ask for what follows it: an answer that is proven whole by then has
        not been given up.
        """
        try:
            evidence = self.reader._call.evidence  # noqa: SLF001 - see `attempt`
            if not self._ended and evidence is not None and evidence.complete:
                with contextlib.suppress(TimeoutError, StreamError, UsageError):
                    async with asyncio.timeout(0):  # what is at hand, and nothing that must be waited for
                        while await self.reader.read():
                            pass
        finally:
            await self.reader.aclose()


def report(response: Any) -> Report | None:
    """Gives the report of a response that went through a mount, None where there is none to give.

    It takes the client's own response, what SDKs wrap around it (their streams, the helpers over those, raw responses)
    and the exceptions that came of it. While the stream is read it is the story so far.
    """
    for name in ("", "response", "http_response", "_response"):
        found = _attached(getattr(response, name, None) if name else response)
        if found is not None:
            return found
    if not isinstance(response, BaseException):
        return None
    own = getattr(response, "report", None)
    return own if isinstance(own, Report) else report(response.__cause__)


def _attached(response: Any) -> Report | None:
    extensions = getattr(response, "extensions", None)
    told = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    return told if isinstance(told, Report) else None
