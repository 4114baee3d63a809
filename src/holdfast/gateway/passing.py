"""What is no stream: whole answers, the models there are, and requests to other paths.

A whole answer is read to its end before a byte of it goes on, so that none is ever a half with a status that says all
is well. It is asked for again, and elsewhere, as streams are. What goes to other paths goes once, to the first upstream
that speaks the client's wire, and its answer is passed on as it comes: where it breaks, the connection does.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from aiohttp import web

from holdfast._core import Source, Stream
from holdfast._errors import DecodeError, EndOfStream, NotAStream, StatusError, StreamError, Truncated, UsageError
from holdfast._pipe import Pipe, unheard
from holdfast._types import Head, Request
from holdfast.dialects import Timeouts
from holdfast.gateway.asking import Asked
from holdfast.gateway.counting import note_usage
from holdfast.gateway.discretion import Discretion
from holdfast.gateway.door import Guest
from holdfast.gateway.headers import to_client, to_upstream, with_query
from holdfast.gateway.refusals import Refusal, Refused, refusal_of
from holdfast.gateway.settings import UpstreamSettings
from holdfast.gateway.surfaces import CHAT, GEMINI, MESSAGES, Surface, surface_for
from holdfast.gateway.upstreams import Guarded, Upstreams, request_of, serves
from holdfast.layers.deadline import Deadline
from holdfast.layers.retry import Retry
from holdfast.moments import Listener
from holdfast.upstreams import Upstream

_MODELS_SECONDS = 5.0
_MODELS_KEPT = 30.0
"""Seconds for which what upstreams list is not asked for again."""
_MOST_MODELS = 4 * 1024 * 1024  # bytes
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.:@~+-]+)+")
"""A path of plain segments: nothing that somebody on the way may take for another one."""
_ANSWERS = {"choices", "output", "content", "candidates"}
"""By what an answer is known."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Passing:
    """Answers whatever is no stream. `most` bounds a whole answer, in bytes."""

    def __init__(self, upstreams: Upstreams, *, most: int) -> None:
        self._upstreams = upstreams
        self._most = most
        self._asking: dict[str, asyncio.Task[Sequence[Sequence[dict[str, Any]]]]] = {}
        self._listed: dict[str, tuple[float, Sequence[Sequence[dict[str, Any]]]]] = {}

    async def whole(
        self,
        request: web.BaseRequest,
        asked: Asked,
        body: bytes,
        *,
        listeners: Iterable[Listener] = (),
        at_wire: Sequence[Callable[[Source[Any]], Source[Any]]] = (),
    ) -> web.Response:
        """Answers a request for a whole answer. `at_wire` are layers that see what is sent. Raises `Refused`."""
        serving, discretion = self._upstreams.serving(asked), self._upstreams.discretion
        sent = request_of(asked, serving.dialect, {**to_upstream(request.headers), "Accept": "application/json"}, body)
        clocks = Timeouts.of(serving.mount.timeouts).over(serving.dialect.timeouts)
        mount = serving.mount
        pipe = (
            Pipe(
                self._upstreams.source,
                random=self._upstreams.random,
                max_requests=mount.max_requests,
                retry_budget=mount.retry_budget,
            )
            | Guarded(lambda: None, request.rel_url.raw_query_string, at_wire)
            | Whole(body, self._most)
            | Deadline(open=clocks.open, first_token=clocks.first_token)
            | serving.fallback
            | Retry()
            | Deadline(total=clocks.total)
        )
        try:
            async with pipe.stream(sent, listeners=listeners) as stream:
                answer = b"".join(await stream.read())
                head = stream.head
        except StreamError as error:
            discretion.error(error)
            raise Refused(refusal_of(error)) from error
        except UsageError as error:
            raise Refused(Refusal(400, "invalid_request_error", str(error))) from error
        return web.Response(
            status=head.status,
            body=discretion.text(answer),
            headers=_headers(discretion.headers(head.headers), "application/json"),
        )

    async def models(self, request: web.BaseRequest, guest: Guest) -> web.Response:
        """Answers with the models of all upstreams that the client's wire is spoken by, in that one's words."""
        surface = _listing(request)
        upstreams = self._upstreams.speaking(surface)
        lists = await self._lists(surface)
        models: dict[str, dict[str, Any]] = {}
        for (settings, _), listed in zip(upstreams, lists, strict=True):
            for model in (*listed, *({"id": name} for name in settings.models if not set(name) & set("*?["))):
                name = _name_of(model)
                if name and guest.may_ask(name) and serves(settings, name):
                    models.setdefault(name, model)
        told = [_told(surface, name, model) for name, model in models.items()]
        one = request.path.rpartition("/models")[2].lstrip("/")
        if not one:
            return web.json_response(_list_of(surface, told))
        found = [model for name, model in zip(models, told, strict=True) if name == one]
        if not found:
            raise Refused(Refusal(404, "model_not_found", f"the model {one[:100]!r} does not exist"))
        return web.json_response(found[0])

    async def _lists(self, surface: Surface) -> Sequence[Sequence[dict[str, Any]]]:
        """Gives what each upstream lists, as it was said not long ago: nobody is asked by us as often as we are."""
        at, lists = self._listed.get(surface.name, (-math.inf, ()))
        if time.monotonic() - at < _MODELS_KEPT:
            return lists
        name = surface.name
        if name not in self._asking:
            self._asking[name] = asyncio.create_task(self._ask_for_lists(surface))
            self._asking[name].add_done_callback(lambda _: self._asking.pop(name))
        return await asyncio.shield(self._asking[name])  # whoever leaves leaves it to the others

    async def _ask_for_lists(self, surface: Surface) -> Sequence[Sequence[dict[str, Any]]]:
        asking = (self._models_of(settings, one) for settings, one in self._upstreams.speaking(surface))
        lists = await asyncio.gather(*asking)
        self._listed[surface.name] = time.monotonic(), lists
        return lists

    async def _models_of(self, settings: UpstreamSettings, upstream: Upstream) -> Sequence[dict[str, Any]]:
        """Gives what an upstream lists; nothing of one that does not say it in time."""
        try:
            async with asyncio.timeout(_MODELS_SECONDS):
                request = upstream.probe().with_headers({"Accept": "application/json"})
                async with unheard(Pipe(self._upstreams.source) | Whole(b"", _MOST_MODELS), request) as stream:
                    said = msgspec.json.decode(b"".join(await stream.read()))
        except (TimeoutError, StreamError, UsageError, ValueError, RecursionError):
            return ()
        listed = said.get("data", said.get("models")) if isinstance(said, dict) else said
        return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else ()

    async def other(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """Passes a request on that is to no path of ours. Raises `Refused`."""
        upstream = self._upstream_for(request)
        url = _address(upstream, request)
        headers = {"Accept": request.headers.get("Accept", "*/*"), **to_upstream(request.headers)}
        if body is not None:
            headers["Content-Type"] = request.headers.get("Content-Type", "application/octet-stream")
        sent = Request(url=url, method=request.method, headers=headers, body=body, dialect=upstream.dialect)
        sent = sent.with_headers({**upstream.dialect.headers(upstream.api_key), **upstream.headers})
        pipe = Pipe(self._upstreams.source, max_requests=1) | Guarded(lambda: None, request.rel_url.raw_query_string)
        timed = pipe | Deadline(open=upstream.dialect.timeouts.open, total=upstream.dialect.timeouts.total)
        try:
            async with timed.stream(sent) as stream:
                return await _passed_on(request, stream, self._upstreams.discretion)
        except StreamError as error:
            told = upstream.dialect.refine(error) if isinstance(error, StatusError) else error
            self._upstreams.discretion.error(told)
            raise Refused(refusal_of(told)) from error

    def _upstream_for(self, request: web.Request) -> Upstream:
        if request.headers.get("Upgrade"):
            raise Refused(Refusal(400, "invalid_request_error", "there are no WebSockets here"))
        if request.method not in _METHODS:
            raise Refused(Refusal(405, "method_not_allowed", f"nothing here takes {request.method[:20]}"))
        surface = _listing(request)
        upstreams = self._upstreams.speaking(surface)
        if not upstreams:
            raise Refused(Refusal(404, "not_found", f"no upstream here speaks {surface.wire}'s API"))
        return upstreams[0][1]


def _headers(headers: Mapping[str, str], kind: str) -> dict[str, str]:
    """Gives an answer's headers. Whatever an upstream calls its answer, no browser is to run it as a page of ours."""
    safe = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}
    return {**to_client(headers), **safe, "Content-Type": headers.get("content-type", kind)}


async def _passed_on(request: web.Request, stream: Any, discretion: Discretion) -> web.StreamResponse:
    head: Head = stream.head
    headers = _headers(discretion.headers(head.headers), "application/octet-stream")
    response = web.StreamResponse(status=head.status, headers=headers)
    await response.prepare(request)
    if request.method == "HEAD" or head.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return response
    try:
        while batch := await stream.read():
            await response.write(discretion.text(b"".join(batch)))
    except StreamError:  # the head is out: that it is no whole answer can only be told by the connection
        if request.transport is not None:
            request.transport.close()
    return response


def _address(upstream: Upstream, request: web.Request) -> str:
    """Gives where a path of the client's is at an upstream: behind what both begin with."""
    path = request.rel_url.raw_path
    if not _PATH.fullmatch(path):
        raise Refused(Refusal(400, "invalid_request_error", "no upstream has such a path"))
    base = urlsplit(upstream.base_url)
    # Bases of OpenAI's kind hold the version, wherever they put it; those of the others do not.
    versioned = re.search(r"/v\d+[a-z]*/?$", base.path)
    version, _, rest = path[1:].partition("/")
    own = f"/{rest}" if versioned and re.fullmatch(r"v\d+[a-z]*", version) and rest else path
    return with_query(
        urlunsplit(base._replace(path=base.path.rstrip("/") + own, fragment="")), request.rel_url.raw_query_string
    )


def _listing(request: web.BaseRequest) -> Surface:
    """Gives the surface whose wire a client of such a path speaks."""
    if "anthropic-version" in request.headers:
        return MESSAGES
    surface = surface_for(request.path)
    return surface if surface in (MESSAGES, GEMINI) else CHAT


def _name_of(model: Mapping[str, Any]) -> str:
    name = model.get("id", model.get("name"))
    return name.removeprefix("models/") if isinstance(name, str) else ""


def _told(surface: Surface, name: str, model: dict[str, Any]) -> dict[str, Any]:
    if len(model) > 1:
        return model
    if surface is GEMINI:
        return {"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]}
    if surface is MESSAGES:
        return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "upstream"}


def _list_of(surface: Surface, models: list[dict[str, Any]]) -> dict[str, Any]:
    if surface is GEMINI:
        return {"models": models}
    if surface is MESSAGES:
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        return {"data": models, "has_more": False, "first_id": None, "last_id": None, **ends}
    return {"object": "list", "data": models}


# -- whole answers -------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Whole:
    """A layer that hands over a body in one piece, proven to be a whole document. `body` is the client's request.

    Upstreams are made for streams: what they add to a body to ask for one is taken out of it again.
    """

    body: bytes
    most: int

    def __call__(self, inner: Source[bytes]) -> Source[bytes]:
        return _WholeSource(inner, self)


@dataclass(slots=True)
class _WholeSource:
    inner: Source[bytes]
    layer: Whole

    async def open(self, request: Request) -> Stream[bytes]:
        if isinstance(request.body, Mapping):
            asked = msgspec.json.decode(self.layer.body)
            same = {name: value for name, value in request.body.items() if name in asked}
            request = replace(request, body={**same, **({"stream": asked["stream"]} if "stream" in asked else {})})
        try:
            return _WholeStream(await self.inner.open(request), self.layer.most, request)
        except StatusError as error:
            raise error if request.dialect is None else request.dialect.refine(error) from None


class _WholeStream:
    __slots__ = ("_begun", "_end", "_most", "_parts", "_request", "_size", "inner")

    def __init__(self, inner: Stream[bytes], most: int, request: Request) -> None:
        self.inner = inner
        self._request = request
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self._begun = False
        self._end: Exception | None = None

    @property
    def head(self) -> Head:
        return self.inner.head

    def _look_at_beginning(self) -> None:
        """Raises `NotAStream` where events come, which would only be read to their end to be thrown away."""
        begun = b"".join(self._parts).removeprefix(b"\xef\xbb\xbf").lstrip()
        self._begun = bool(begun)
        if self.head.content_type == "text/event-stream" and begun and not begun.startswith((b"{", b"[")):
            words = "the upstream sent an event stream in the place of JSON: ask for a stream"
            raise NotAStream(words, retryable=False)

    async def receive(self) -> Sequence[bytes]:
        if self._end is not None:
            raise self._end
        try:
            while True:
                batch = await self.inner.receive()
                self._parts += batch
                self._size += sum(map(len, batch))
                if not self._begun:
                    self._look_at_beginning()
                if self._size > self._most:
                    raise DecodeError(f"the answer is larger than {self._most} bytes", retryable=False)
        except EndOfStream as end:
            self._end = end
        except StreamError as failure:
            self._end = failure
            raise
        whole = b"".join(self._parts)
        wrong = _wrong_with(whole, self.head) or _error_in(whole, self._request)
        if wrong is not None:
            self._end = wrong
            raise wrong
        note_usage(self._request, whole)
        return (whole,)

    async def aclose(self) -> None:
        await self.inner.aclose()


def _wrong_with(body: bytes, head: Head) -> StreamError | None:
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        pass
    else:
        return None
    try:
        json.loads(body)  # it takes halves of characters, as most readers do
    except RecursionError:
        return DecodeError("the answer is nested too deeply", retryable=False)
    except ValueError:
        if "json" in head.content_type:
            return Truncated("the answer's JSON ends before it is whole")
        return NotAStream(f"the upstream sent {head.content_type or 'something'} in the place of JSON")
    return None


def _error_in(body: bytes, request: Request) -> StreamError | None:
    """Finds an error that came with a status which says all is well: most clients would take it for an answer."""
    if b'"error"' not in body or request.dialect is None:
        return None
    try:
        said = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # halves of characters, for one: no error has them
        return None
    # Some answers say beside what they have why they have no more.
    if not isinstance(said, dict) or said.keys() & _ANSWERS:
        return None
    return request.dialect.wire.error_in(body)
