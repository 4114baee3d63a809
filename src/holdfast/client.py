"""The facade: a provider by name, an answer exact or a typed error, and none of the layers to know.

It owns no behaviour: a source, the default layers, and the dialect's own words for a request. The README shows its use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, TracebackType
from typing import Any, Self

import aiohttp
import pybreaker

from holdfast._clock import Clock, Random, SystemClock, system_random
from holdfast._core import Source
from holdfast._defaults import default_layers
from holdfast._errors import UsageError
from holdfast._pipe import Pipe, check_call, check_partial
from holdfast._reader import Reader
from holdfast._types import Completion, Delta, Partial, Request
from holdfast.dialects import AUTO, Dialect, Timeouts, at_address, find
from holdfast.health import HealthCheck
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.fallback import Fallback
from holdfast.layers.read_ahead import ReadAhead
from holdfast.machines.ladder import Seams
from holdfast.machines.redact import clean_url
from holdfast.machines.retry_budget import RetryBudget
from holdfast.machines.settings import check_kind, check_strings
from holdfast.moments import Listener
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.upstreams import Upstream, base_of, breaker_of, check_url, key_of

DEFAULT: Dialect = find("deepseek")
"""Who is asked where nobody is named. Not its name: beside `upstreams=` that is told from nothing."""
Layers = Sequence[Callable[[Source[Any]], Source[Any]]]


class Client:
    """Streams completions of one provider, or of several that stand in for one another.

    `dialect` names the provider, such as "anthropic" or "deepseek", which it is by default; "openai-compatible" wants a
    `base_url`, and "auto" tells by it who answers. `api_key` is taken from the provider's usual environment variable
    when not given. `session` shares an aiohttp session of the caller's, which stays open; else the client has a pooled
    one of its own until `aclose()`. `source` takes the bytes from elsewhere, a `MemorySource` for one. `timeouts` are
    over the dialect's own, `headers` go on every request (but no secrets among them, where there are several
    upstreams), `traffic` adds layers that see every attempt (limits, hedges, fallbacks), `layers` replace
    `default_layers()`, and `max_requests` bounds what one call may send upstream (8), a `retry_budget` what all clients
    that share it may send again. A broken stream is resumed where its answer stays what it was; `seams=True` also lets
    a model continue its own words, and `Seams(...)` says it in detail. An answer that was asked for in JSON must parse,
    with `schema=True` also fit the schema in its request, with a mapping that one. `auto_continue=True`, or an
    `AutoContinue(...)`, asks on where an answer was cut at its token limit. `upstreams`, a sequence of `Upstream(...)`
    or a `Fallback(...)` over them, come in the place of `dialect`, `api_key` and `base_url`: requests are in the words
    of the first, whose clocks hold, and each has a breaker of its own. Raises `UsageError` for an unknown dialect, a
    missing key, or a setting of another kind.
    """

    def __init__(
        self,
        dialect: str | Dialect = DEFAULT,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        upstreams: Sequence[Upstream] | Fallback | None = None,
        session: aiohttp.ClientSession | None = None,
        source: Source[bytes] | None = None,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        seams: Seams | bool = False,
        auto_continue: AutoContinue | bool | None = None,
        schema: Mapping[str, Any] | bool = False,
        traffic: Layers = (),
        layers: Layers | None = None,
        max_requests: int = 8,
        retry_budget: RetryBudget | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        if base_url is not None:
            check_url(base_url)
        self._fallback = _fallback(upstreams, None if dialect is DEFAULT else dialect, api_key, base_url)
        if self._fallback is not None:
            first = self._fallback.upstreams[0]
            dialect, base_url = first.dialect, getattr(first, "base_url", None)
            if layers is not None:
                raise UsageError("upstreams= is for the default layers; with layers= put a Fallback into its place")
        self._dialect = find(dialect)
        if self._dialect is AUTO:
            self._dialect, base_url = at_address(base_url or "")
        if timeouts is not None and layers is not None:
            raise UsageError("timeouts= sets the clocks of the default layers; with layers= give Deadline its own")
        if seams is not False and layers is not None:
            raise UsageError("seams= is for the default layers; with layers= give Reconnect its own")
        if (auto_continue or schema is not False) and layers is not None:
            raise UsageError("auto_continue= and schema= are for the default layers; layers= holds layers of their own")
        if traffic and layers is not None:
            raise UsageError("traffic= is for the default layers; with layers= put them in their place")
        self._timeouts = Timeouts.of(timeouts)
        check_kind("traffic=", traffic, Sequence, "a sequence of layers")
        check_strings("headers=", headers)
        check_kind("layers=", layers, (Iterable, NoneType), "a sequence of layers")
        whose = f"Client({self._dialect.name!r})"
        self._base_url = base_of(self._dialect, base_url, whose)
        self._headers = dict(headers or {})
        self._traffic = tuple(traffic)
        if self._fallback is None:
            key = key_of(self._dialect, api_key, whose, needed=base_url is None and source is None)
            self._headers = {**self._dialect.headers(key), **self._headers}
        else:
            self._traffic = (self._fallback, *self._traffic)
        self._layers = layers
        self._seams = seams
        self._auto_continue = auto_continue
        self._schema = schema
        self._refused: set[str] = set()
        if source is not None and session is not None:
            raise UsageError("session= is for the client's own source; a source= of yours brings its own")
        self._own: AiohttpSource | None = None
        if source is None:
            source = self._own = AiohttpSource(session)
        self._source = source
        self._breaker = breaker_of(self._dialect.name)
        check_call(clock=clock, random=random, max_requests=max_requests, listeners=listeners)
        self._settings: dict[str, Any] = {
            "clock": clock,
            "random": random,
            "max_requests": max_requests,
            "retry_budget": retry_budget,
            "listeners": tuple(listeners),
        }
        self._pipe = self._build(self._timeouts)

    def _build(self, timeouts: Timeouts) -> Pipe[Delta]:
        layers = self._layers
        if layers is None:
            layers = default_layers(
                self._dialect,
                timeouts=timeouts,
                seams=self._seams,
                breaker=self._breaker if self._fallback is None else None,
                refused=self._refused,
                auto_continue=self._auto_continue,
                schema=self._schema,
                traffic=self._traffic,
            )
        pipe: Pipe[Any] = Pipe(self._source, **self._settings)
        for layer in layers:
            pipe = pipe | layer
        return pipe

    @property
    def pipe(self) -> Pipe[Delta]:
        """The pipe that `stream()` reads through; print it to see its layers."""
        return self._pipe

    @property
    def breaker(self) -> pybreaker.CircuitBreaker:
        """The circuit breaker that all streams of this client share: five broken calls in a row open it for 30 s.

        Raises `UsageError` where there are several upstreams: each has its own.
        """
        if self._fallback is not None:
            raise UsageError("each upstream has a breaker of its own: give them theirs in Upstream(layers=...)")
        return self._breaker

    def stream(
        self,
        request: Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> Reader[Delta]:
        """Gives the stream of one answer, an asynchronous context manager and iterator of deltas.

        `request` is the provider's own JSON body; `stream` is set for you, and the default model where the provider has
        one. `timeouts` are over the client's, `headers` beside its own; `labels` go on reports and logs.
        `keep=False` keeps a digest of the delivered text instead of the text, for very long streams.
        """
        return self._stream(self._prepared(request), timeouts, headers, labels, keep=keep)

    def _prepared(self, body: Mapping[str, Any]) -> Request:
        """Gives a request in this provider's words; among several each puts it into its own."""
        if not isinstance(body, Mapping):
            raise UsageError(f"a request is the JSON body as a mapping, not {type(body).__name__}")
        if self._fallback is None:
            return Request(url=self._dialect.url(self._base_url, body), body=self._dialect.prepare(body))
        asked = {name: value for name, value in body.items() if name != "stream"}
        upstream = self._fallback.upstreams[0]
        address = upstream.request(Request(body=asked, dialect=upstream.dialect)).url
        return Request(url=address, body=asked, dialect=upstream.dialect)

    def start(
        self,
        request: Mapping[str, Any],
        *,
        max_items: int = 1024,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> Reader[Delta]:
        """Gives the stream of one answer as `stream()` does, and opens it at once, before anybody reads it.

        It is read ahead until `max_items` wait; entering it gives what is there. Closing it unentered gives it up.
        The clocks run meanwhile, `total` also while nobody reads: one that is never entered ends, too. Raises
        `UsageError` outside of an event loop.
        """
        total = Timeouts.of(timeouts).over(self._timeouts).over(self._dialect.timeouts).total
        ahead = ReadAhead(max_items=max_items, unread=total)
        return self._stream(self._prepared(request), timeouts, headers, labels, keep=keep, ahead=ahead).start()

    def resume(
        self,
        partial: Partial,
        *,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Reader[Delta]:
        """Gives the stream of the rest of an answer, of which another process may have read the beginning.

        What had arrived is not handed over again and is part of the completion; `await client.resume(partial)` gives
        that at once. It climbs the same ladder as a stream that breaks here: where no rung leads on, the last failure
        is raised. Raises `UsageError` for a partial of another dialect, and for what is no `Partial`.
        """
        check_partial("resume()", partial)
        if partial.request is None:
            raise UsageError("resume() takes the partial of a stream that this client's kind began, with its request")
        if self._fallback is not None:  # it finds the upstream, and its address
            prepared = Request(url=partial.url, body=partial.request, dialect=self._dialect)
        else:
            named = {
                "model": self._dialect.model_in(partial.url),
                **partial.request,
            }  # some have it in the address alone
            prepared = Request(url=self._dialect.url(self._base_url, named), body=partial.request)
        return self._stream(prepared, timeouts, headers, labels, keep=partial.state.get("keep", True), resume=partial)

    def _stream(
        self,
        request: Request,
        timeouts: Timeouts | None,
        headers: Mapping[str, str] | None,
        labels: Mapping[str, str] | None,
        *,
        keep: bool,
        resume: Partial | None = None,
        ahead: ReadAhead | None = None,
    ) -> Reader[Delta]:
        given = Timeouts.of(timeouts)
        check_strings("headers=", headers)
        if timeouts is not None and self._layers is not None:
            raise UsageError("timeouts= sets the clocks of the default layers; this client has layers of its own")
        pipe = self._pipe if timeouts is None else self._build(given.over(self._timeouts))
        if ahead is not None:
            pipe = pipe | ahead
        request = request.with_headers({**self._headers, **(headers or {})})
        return pipe.stream(request, keep=keep, labels=labels, resume=resume)

    async def complete(
        self,
        request: Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Completion:
        """Streams an answer and returns it whole. Takes and raises what `stream()` does."""
        async with self.stream(request, timeouts=timeouts, headers=headers, labels=labels) as deltas:
            async for _ in deltas.batches():
                pass
            return deltas.completion

    def health_check(self, *, every: float = 30.0, timeout: float = 5.0, path: str = "") -> HealthCheck:
        """Gives a context manager that probes idle upstreams `every` so many seconds: see `HealthCheck`.

        Raises `UsageError` for a client of one upstream: there is nobody to turn to.
        """
        if self._fallback is None:
            raise UsageError("health_check() is for clients of several upstreams: Client(upstreams=[...])")
        clock, random = self._settings["clock"] or SystemClock(), self._settings["random"] or system_random()
        return HealthCheck(
            fallback=self._fallback,
            source=self._source,
            every=every,
            timeout=timeout,
            path=path,
            clock=clock,
            random=random,
        )

    async def aclose(self) -> None:
        """Closes the client's own session; a shared one, and a source of yours, stay open. Idempotent."""
        if self._own is not None:
            await self._own.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if self._fallback is not None:
            return f"<Client {', '.join(one.name for one in self._fallback.upstreams)}>"
        return f"<Client {self._dialect.name} {clean_url(self._dialect.url(self._base_url, {'model': 'MODEL'}))}>"


def _fallback(upstreams: Sequence[Upstream] | Fallback | None, *others: object) -> Fallback | None:
    """Gives the layer that asks several upstreams. Raises `UsageError` where it is said twice who is asked."""
    if upstreams is None:
        return None
    if any(other is not None for other in others):
        raise UsageError("upstreams= comes in the place of a dialect, api_key= and base_url=: each has its own")
    fallback = upstreams if isinstance(upstreams, Fallback) else Fallback(upstreams=upstreams)
    for upstream in fallback.upstreams:
        upstream.suits(Request(dialect=fallback.upstreams[0].dialect))
    return fallback
