"""Who is asked: for each surface, the upstreams that speak its wire, as one mended stream.

It must never let a client choose the address: requests go where the configuration says, with its keys.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from holdfast._core import Source, Stream
from holdfast._errors import UsageError
from holdfast._types import Partial, Request
from holdfast.dialects import Dialect, Teller
from holdfast.gateway.journal import Entry
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.gateway.surfaces import SURFACES, Surface
from holdfast.layers.fallback import Fallback
from holdfast.moments import Listener
from holdfast.mounts._relay import Mount, Relay
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.upstreams import Upstream

NotHere = LookupError
"""No upstream of the configuration speaks what was asked for."""


@dataclass(slots=True)
class Guarded:
    """A layer that asks before every request whether it may still be sent."""

    check: Callable[[], None]

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        return _GuardedSource(inner, self.check)


@dataclass(slots=True)
class _GuardedSource:
    inner: Source[Any]
    check: Callable[[], None]

    async def open(self, request: Request) -> Stream[Any]:
        self.check()
        return await self.inner.open(request)


class Upstreams:
    """The upstreams of one gateway, and the one session through which they are asked."""

    def __init__(self, settings: Settings, *, session: aiohttp.ClientSession | None = None) -> None:
        self._settings = settings
        self._source = AiohttpSource(session)
        self._mounts: dict[tuple[str, tuple[str, ...]], tuple[Mount, Dialect]] = {}
        self._served = {surface.name: self._serving(surface) for surface in SURFACES.values()}

    def relay(
        self,
        entry: Entry,
        *,
        check: Callable[[], None] = lambda: None,
        listeners: Iterable[Listener] = (),
        resume: Partial | None = None,
        teller: Teller | None = None,
    ) -> Relay:
        """Gives one answer, opened by its `open()`. `check` is asked before each request is sent.

        `resume` goes on where another node had come to, `teller` has told what was told there. Raises `LookupError`
        where no upstream serves it.
        """
        mount, dialect = self._mount(entry)
        body = _document(entry.body)
        request = Request(
            url=dialect.url(dialect.base_url or "http://upstream", body),
            headers=entry.headers,
            body=body,
            dialect=dialect,
        )
        return mount.relay(self._source, request, {}, Guarded(check), resume=resume, teller=teller, listeners=listeners)

    def dialects(self, surface: Surface) -> list[Dialect]:
        """Gives the dialects that answer at a surface."""
        return [dialect for _, dialect in self._served[surface.name]]

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._source.aclose()

    def _serving(self, surface: Surface) -> list[tuple[UpstreamSettings, Dialect]]:
        speak = ((one, surface.dialect_of(one.dialect)) for one in self._settings.upstreams)
        return [(one, dialect) for one, dialect in speak if dialect is not None]

    def _mount(self, entry: Entry) -> tuple[Mount, Dialect]:
        model = str(_document(entry.body).get("model") or "")
        served = [pair for pair in self._served[entry.surface] if _serves(pair[0], model)]
        if not served:
            raise NotHere(f"no upstream here answers at {SURFACES[entry.surface].path} for this model")
        key = (entry.surface, tuple(one.name for one, _ in served))
        if key not in self._mounts:
            upstreams = [_upstream(one, dialect) for one, dialect in served]
            fallback = Fallback(upstreams=upstreams, choose=self._settings.choose)
            mount = Mount(dialect=served[0][1], seams=self._settings.seams, traffic=[fallback], quirks=False)
            self._mounts[key] = mount, served[0][1]
        return self._mounts[key]


def _serves(upstream: UpstreamSettings, model: str) -> bool:
    return not upstream.models or any(fnmatch.fnmatchcase(model, pattern) for pattern in upstream.models)


def _upstream(settings: UpstreamSettings, dialect: Dialect) -> Upstream:
    return Upstream(
        dialect,
        api_key=settings.api_key,
        base_url=settings.base_url,
        model=settings.model,
        name=settings.name or settings.dialect,
        weight=settings.weight,
        headers=settings.headers,
    )


def _document(body: bytes) -> Mapping[str, Any]:
    value: Any = msgspec.json.decode(body)
    if not isinstance(value, dict):
        raise UsageError("the body of a request must be a JSON object")
    return value
