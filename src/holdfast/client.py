"""The facade: a provider by name, an answer exact or a typed error, and none of the layers to know.

It owns no behaviour: a source, the default layers, and the dialect's own words for a request. The README shows its use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import pybreaker

from holdfast._clock import Clock, Random
from holdfast._core import Source
from holdfast._defaults import default_layers
from holdfast._errors import UsageError
from holdfast._pipe import Pipe, check_call, check_partial
from holdfast._reader import Reader
from holdfast._types import Completion, Delta, Partial, Request
from holdfast.dialects import AUTO, Dialect, Timeouts, at_address, find
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.read_ahead import ReadAhead
from holdfast.machines.ladder import Seams
from holdfast.machines.redact import clean_url
from holdfast.machines.retry_budget import RetryBudget
from holdfast.machines.settings import check_kind, check_strings
from holdfast.moments import Listener
from holdfast.sources.aiohttp import AiohttpSource

Layers = Sequence[Callable[[Source[Any]], Source[Any]]]


class Client:
    """Streams completions of one provider.

    `dialect` names the provider, such as "deepseek" or "anthropic"; "openai-compatible" wants a `base_url`, and "auto"
    tells by it who answers. `api_key` is taken from the provider's usual environment variable when not given. `session`
    shares an aiohttp session of the caller's, which stays open; else the client has a pooled one of its own until
    `aclose()`. `source` takes the bytes from elsewhere, a `MemorySource` for one. `timeouts` are over the dialect's
    own, `headers` go on every request, `traffic` adds layers that see every attempt (limits, hedges, fallbacks),
    `layers` replace `default_layers()`, and `max_requests` bounds what one call may send upstream (8), a `retry_budget`
    what all clients that share it may send again. A broken stream is resumed where its answer stays what it was;
    `seams=True` also lets a model continue its own words, and `Seams(...)` says it in detail. An answer that was asked
    for in JSON must parse, with `schema=True` also fit the schema in its request, with a mapping that one.
    `auto_continue=True`, or an `AutoContinue(...)`, asks on where an answer was cut at its token limit. Raises
    `UsageError` for an unknown dialect, a missing key, or a setting of another kind.
    """

    def __init__(
        self,
        dialect: str | Dialect = "deepseek",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
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
            _check_url(base_url)
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
        self._base_url = _base_url(self._dialect, base_url)
        self._headers = {
            **self._dialect.headers(_key(self._dialect, api_key, needed=base_url is None and source is None)),
            **(headers or {}),
        }
        self._traffic = tuple(traffic)
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
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=5, reset_timeout=30, name=self._dialect.name, throw_new_error_on_trip=False
        )
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
                breaker=self._breaker,
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
        """The circuit breaker that all streams of this client share: five broken calls in a row open it for 30 s."""
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

    def _prepared(self, request: Mapping[str, Any]) -> Request:
        if not isinstance(request, Mapping):
            raise UsageError(f"a request is the JSON body as a mapping, not {type(request).__name__}")
        return Request(url=self._dialect.url(self._base_url, request), body=self._dialect.prepare(request))

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
        named = {"model": self._dialect.model_in(partial.url), **partial.request}  # some name it in the address alone
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
        return f"<Client {self._dialect.name} {clean_url(self._dialect.url(self._base_url, {'model': 'MODEL'}))}>"


def _check_url(base: str) -> None:
    """Tells of what would else be found out in the middle of a request. An empty one is no leave to ask the provider.

    Whoever reads the address from the environment, and finds nothing there, would send prompts to another server.
    """
    check_kind("base_url=", base, str, "a string")
    try:
        parts = urlsplit(base)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an end, a port that is none
        known = False
    if not known:
        shown = clean_url(base) or base[:80].rpartition("@")[2].partition("?")[0]
        raise UsageError(f"base_url= must be http:// or https:// and a host, not {shown!r}")
    if parts.username or parts.password:
        raise UsageError("base_url= holds a user or a password; give an Authorization header in headers= instead")


def _base_url(dialect: Dialect, given: str | None) -> str:
    """Where the provider is."""
    base = given or dialect.base_url
    if not base:
        raise UsageError(f"Client({dialect.name!r}) needs a base_url=: there is no one server of that dialect")
    return base


def _key(dialect: Dialect, api_key: str | None, *, needed: bool) -> str | None:
    """A server of one's own may need no key; the provider's does, and would say so late and in its own words."""
    check_kind("api_key=", api_key, (str, NoneType), "a string", secret=True)
    key = api_key or os.environ.get(dialect.key_variable or "", "") or None
    if key is None:
        if needed and dialect.base_url.startswith("https:"):
            variable = dialect.key_variable
            raise UsageError(f"Client({dialect.name!r}) needs api_key=, or the environment variable {variable}")
        return None
    if not key.isprintable() or key != key.strip():
        raise UsageError("the API key must be a string without blanks or line ends around it: was it read from a file?")
    return key
