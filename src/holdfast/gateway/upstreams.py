"""Who is asked: for each surface, the upstreams that speak its wire, as one mended stream or one whole answer.

It must never let a client choose the address: requests go where the configuration says, with its keys. A body goes as
the client wrote it, byte for byte, where the configuration does not put another model into it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from holdfast._clock import Random
from holdfast._core import Source, Stream
from holdfast._types import Partial, Request
from holdfast.dialects import Dialect, Teller
from holdfast.gateway.asking import Asked, read_asked
from holdfast.gateway.discretion import Discretion
from holdfast.gateway.headers import with_query
from holdfast.gateway.journal import Entry
from holdfast.gateway.refusals import Refusal, Refused
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.gateway.surfaces import SURFACES, Surface
from holdfast.gateway.traffic import Traffic, timeouts_of
from holdfast.layers.fallback import Fallback
from holdfast.moments import Listener
from holdfast.mounts._relay import Mount, Relay
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.upstreams import Upstream

_HERE = ""
"""No address until it is known whom a request goes to: until then it has a path alone, which is what logs tell."""


@dataclass(slots=True, frozen=True)
class Guarded:
    """The layer at the wire: asks whether a request may still be sent.

    `query` is the client's, of which the address gets what it does not have.
    """

    check: Callable[[], None]
    query: str = ""
    within: Sequence[Callable[[Source[Any]], Source[Any]]] = ()
    """Layers that see each request as it is sent."""

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        for layer in self.within:
            inner = layer(inner)
        return _GuardedSource(inner, self)


@dataclass(slots=True)
class _GuardedSource:
    inner: Source[Any]
    guard: Guarded

    async def open(self, request: Request) -> Stream[Any]:
        self.guard.check()
        if self.guard.query:
            request = replace(request, url=with_query(request.url, self.guard.query))
        return await self.inner.open(request)


@dataclass(slots=True, frozen=True)
class Serving:
    """Those of the upstreams that answer one request, with their common health. `dialect` is the first one's."""

    dialect: Dialect
    fallback: Fallback
    mount: Mount


class Upstreams:
    """The upstreams of one gateway, and the one session through which they are asked."""

    def __init__(
        self, settings: Settings, *, session: aiohttp.ClientSession | None = None, random: Random | None = None
    ) -> None:
        self.settings = settings
        self.random = random
        self.names = _names(settings.upstreams)
        self.traffic = Traffic(settings, self.names)
        self.breakers = self.traffic.breakers
        """One for each upstream, whatever it is asked for."""
        self.discretion = Discretion(settings.upstreams)
        self.source = AiohttpSource(session)
        self._servings: dict[tuple[str, tuple[str, ...]], Serving] = {}
        self._there = {surface.name: self._speaking(surface) for surface in SURFACES.values()}

    def relay(
        self,
        entry: Entry,
        *,
        check: Callable[[], None] = lambda: None,
        listeners: Iterable[Listener] = (),
        resume: Partial | None = None,
        teller: Teller | None = None,
        at_wire: Sequence[Callable[[Source[Any]], Source[Any]]] = (),
    ) -> Relay:
        """Gives one answer, opened by its `open()`. `check` is asked before each request is sent.

        `at_wire` are layers that see each request as it is sent: see `Allowances`.

        `resume` goes on where another node had come to, `teller` has told what was told there. Raises `Refused` where
        no upstream serves it.
        """
        asked = asked_of(entry)
        serving, query = self.serving(asked), urlsplit(entry.url).query
        relay = serving.mount.relay(
            self.source,
            request_of(asked, serving.dialect, entry.headers, entry.body),
            {},
            Guarded(check, query, at_wire),
            resume=resume,
            teller=teller,
            listeners=listeners,
        )
        call = relay.reader._call  # noqa: SLF001 - the gateway's stream and its call are one thing, and bear one name
        call.id = call.report.stream_id = entry.stream
        return relay

    def serving(self, asked: Asked) -> Serving:
        """Gives those who answer a request. Raises `Refused` where nobody does."""
        there = self._there[asked.surface.name]
        if not there:
            raise Refused(Refusal(404, "not_found", f"no upstream here speaks {asked.surface.wire}'s API"))
        if not asked.model and not any(_needs_no_model(one) for one in there):
            raise Refused(Refusal(400, "invalid_request_error", "you must provide a model parameter", param="model"))
        served = [one for one in there if serves(one[0], asked.model)]
        if not served:
            words = f"the model {asked.model[:100]!r} does not exist, or nobody here serves it"
            raise Refused(Refusal(404, "model_not_found", words, param="model"))
        key = (asked.surface.name, tuple(upstream.name for _, upstream in served))
        if key not in self._servings:
            fallback = Fallback(upstreams=[upstream for _, upstream in served], choose=self.settings.choose)
            dialect = served[0][1].dialect
            mount = Mount(
                dialect=dialect,
                seams=self.settings.seams,
                timeouts=timeouts_of([(one, upstream.dialect) for one, upstream in served]),
                traffic=[fallback, *self.traffic.over],
                max_requests=self.settings.max_requests,
                quirks=False,
                retry_budget=self.traffic.retry_budget,
                random=self.random,
            )
            self._servings[key] = Serving(dialect, fallback, mount)
        return self._servings[key]

    def speaking(self, surface: Surface) -> Sequence[tuple[UpstreamSettings, Upstream]]:
        """Gives all upstreams that speak a surface's wire, with their settings."""
        return self._there[surface.name]

    def dialects(self, surface: Surface) -> list[Dialect]:
        """Gives the dialects that answer at a surface."""
        return [upstream.dialect for _, upstream in self._there[surface.name]]

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.source.aclose()

    def _speaking(self, surface: Surface) -> list[tuple[UpstreamSettings, Upstream]]:
        named = zip(self.settings.upstreams, self.names, strict=True)
        speak = ((one, name, surface.dialect_of(one.dialect)) for one, name in named)
        return [(one, self._upstream(one, name, dialect)) for one, name, dialect in speak if dialect is not None]

    def _upstream(self, settings: UpstreamSettings, name: str, dialect: Dialect) -> Upstream:
        return Upstream(
            dialect,
            api_key=settings.api_key,
            base_url=settings.base_url,
            model=settings.model,
            name=name,
            weight=settings.weight,
            headers=settings.headers,
            layers=self.traffic.own(name, settings),
        )


def asked_of(entry: Entry) -> Asked:
    """Gives what a stream was opened for. Raises `Refused`."""
    at = urlsplit(entry.url)
    return read_asked(SURFACES[entry.surface], at.path, at.query, entry.body)


def request_of(asked: Asked, dialect: Dialect, headers: dict[str, str], body: bytes) -> Request:
    """Gives the request as it is before it is known which upstream gets it."""
    url = dialect.url(_HERE, {"model": asked.model} if asked.model else {})
    return Request(url=url, headers={"Content-Type": "application/json", **headers}, body=body, dialect=dialect)


def serves(upstream: UpstreamSettings, model: str) -> bool:
    """Says whether an upstream is asked for a model."""
    return not upstream.models or any(fnmatch.fnmatchcase(model, pattern) for pattern in upstream.models)


def _needs_no_model(one: tuple[UpstreamSettings, Upstream]) -> bool:
    settings, upstream = one
    return settings.model is not None or not upstream.dialect.needs_model or bool(upstream.dialect.default_model)


def _names(upstreams: Sequence[UpstreamSettings]) -> list[str]:
    """Gives each a name of its own: what it is called, or its dialect's, numbered where that is taken."""
    taken = {one.name for one in upstreams if one.name}
    names: list[str] = []
    for one in upstreams:
        name, number = one.name or one.dialect, 2
        while not one.name and name in taken:
            name, number = f"{one.dialect}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names
