"""A proxy between any client and any real upstream, which does to event streams what a schedule says.

Requests go on as they came, and so do answers that are no event streams. Towards the client it is a `ScriptedServer`,
so faults are exact to the byte; towards the upstream an ordinary client. It must never fail a stream on its own
account in silence: an upstream that breaks is passed on as a break.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from holdfast.testing import server
from holdfast.testing.acts import Asked, EventCutter, NoHead, Refuse
from holdfast.testing.books import Books, Served
from holdfast.testing.idiom import CHAT, Idiom
from holdfast.testing.schedule import HEALTHY, Schedule, stream_key
from holdfast.testing.server import ReceivedRequest, Reply, Reset, ScriptedServer, Send, Step
from holdfast.testing.visits import idiom_for, read_visit

_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "content-length", "expect"),
    }
)
"""What speaks of one connection (RFC 9110, section 7.6.1), and what is written anew for the next."""
_ID = re.compile(rb'"id":\s*"(?:resp_|v1_)?([^"]+)"')
"""How an answer says under which id it can be gone on with, without what its kind puts before it."""
_MAX_BEGUN = 1000
_OWN_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


@dataclass(slots=True, kw_only=True)
class ChaosProxy:
    """Stands before `upstream`, a URL, on a free `port` unless told.

    An asynchronous context manager. `url` is what a client takes in the place of the upstream's. A stream's key is its
    Idempotency-Key, or a hash of what is asked for: see `stream_key()`; a request that goes on with a response or an
    interaction by its id is another attempt of the stream that began it. `served` lists the requests for event streams,
    and `heard` is called with every request when it is over. A fault that needs no answer sends the upstream nothing.
    """

    upstream: str
    schedule: Schedule = field(default_factory=Schedule)
    host: str = "127.0.0.1"
    port: int = 0
    heard: Callable[[Served], None] | None = None
    server: ScriptedServer = field(init=False)
    books: Books = field(init=False)
    _begun: dict[str, str] = field(default_factory=dict)
    _session: aiohttp.ClientSession | None = None
    _exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        if not self.upstream.startswith(("http://", "https://")):
            raise ValueError(f"ChaosProxy(upstream=...) is a URL that begins with http, not {self.upstream!r}")
        self.server = ScriptedServer(self._reply, host=self.host, port=self.port)
        self.books = Books(self.heard)

    @property
    def url(self) -> str:
        """The base URL."""
        return self.server.url

    @property
    def served(self) -> list[Served]:
        """Every request for an event stream, in the order they came."""
        return self.books.served

    @property
    def attempts(self) -> dict[str, int]:
        """How often each stream was asked for."""
        return self.books.attempts

    @property
    def summary(self) -> dict[str, Any]:
        """What was done, in sums."""
        return self.books.summary

    # -- one request ---------------------------------------------------------------------------

    async def _reply(self, request: ReceivedRequest) -> Reply:
        visit, idiom = read_visit(request), idiom_for(request)
        key = self._begun.get(visit.id, "") if visit else ""
        key = key or stream_key(request.method, request.path, request.headers, request.body)
        if not _wants_events(request):
            return self._forwarded(request, self.books.aside(key))
        cursor = visit.cursor if visit else ""
        served = self.books.open(self.schedule, key, request.headers.get("last-event-id", ""), cursor=cursor)
        asked = Asked(attempt=served.attempt, last_event_id=served.last_event_id, cursor=cursor, idiom=idiom)
        if isinstance(next(served.fault.play(asked), None), NoHead | Refuse):
            return self.books.steps(served, _none(), idiom=idiom)
        return self._forwarded(request, served, idiom)

    async def _forwarded(
        self, request: ReceivedRequest, served: Served, idiom: Idiom = CHAT
    ) -> AsyncGenerator[Step, None]:
        """Asks the upstream, and plays the fault on its events; what is no event stream goes on as it came."""
        try:
            async with self._ask(request, forget=served.fault.forgets) as response:
                strikes = served.attempt > 0 and _is_plain_stream(response)
                steps = self._struck(response, served, idiom) if strikes else _passed(response, served)
                async with aclosing(steps):
                    async for step in steps:
                        yield step
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            served.status, served.fault = 502, HEALTHY
            yield _unreachable(error, request.method)
        finally:
            self.books.close(served)

    async def _struck(
        self, response: aiohttp.ClientResponse, served: Served, idiom: Idiom
    ) -> AsyncGenerator[Step, None]:
        broken: list[Exception] = []
        headers = _end_to_end(response.headers)
        events = _events(response, broken, lambda name: self._began(name, served.key))
        async with aclosing(self.books.steps(served, events, headers=headers, idiom=idiom)) as steps:
            async for step in steps:
                if broken:  # what the upstream did not finish must not look finished
                    yield Reset()
                    return
                yield step

    def _began(self, name: str, key: str) -> None:
        """Notes under which id a stream's answer goes on, and forgets the oldest where there are too many."""
        self._begun[name] = key
        if len(self._begun) > _MAX_BEGUN:
            del self._begun[next(iter(self._begun))]

    def _ask(self, request: ReceivedRequest, *, forget: bool = False) -> Any:
        if self._session is None:
            raise RuntimeError("ChaosProxy is used as an asynchronous context manager")
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        if _wants_events(request):
            headers["accept-encoding"] = "identity"  # events are cut apart here
        if forget:
            headers.pop("last-event-id", None)
        return self._session.request(
            request.method,
            self.upstream.rstrip("/") + request.path,
            headers=headers,
            data=request.body or None,
            allow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        self._session = await self._exits.enter_async_context(
            aiohttp.ClientSession(
                auto_decompress=False,
                skip_auto_headers=_OWN_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        )
        await self._exits.enter_async_context(self.server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.__aexit__(kind, error, trace)


def _wants_events(request: ReceivedRequest) -> bool:
    visit = read_visit(request)  # of which some clients accept JSON alone
    if "text/event-stream" in request.headers.get("accept", "") or (visit is not None and visit.action == "read"):
        return True
    try:
        body = json.loads(request.body)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("stream") is True


def _is_plain_stream(response: aiohttp.ClientResponse) -> bool:
    coding = response.headers.get("content-encoding", "identity")
    return response.status == 200 and response.content_type == "text/event-stream" and coding == "identity"


async def _none() -> AsyncGenerator[bytes, None]:
    return
    yield


async def _events(
    response: aiohttp.ClientResponse, broken: list[Exception], began: Callable[[str], None]
) -> AsyncGenerator[bytes, None]:
    """Gives the events of a body as they come; how it broke, if it did, is put into `broken`.

    `began` is told the first id that stands in them.
    """
    cutter, failure, named = EventCutter(), None, False
    try:
        async for chunk in response.content.iter_any():
            for event in cutter.feed(chunk):
                if not named and (found := _ID.search(event)) is not None:
                    named = True
                    began(found[1].decode("utf-8", "replace"))
                yield event
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        failure = error
    if rest := cutter.end():
        yield rest
    if failure is not None:
        broken.append(failure)


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in kept.items() if name not in _HOP_BY_HOP}


async def _passed(response: aiohttp.ClientResponse, served: Served) -> AsyncGenerator[Step, None]:
    """Passes a response on with every header and byte that is meant for more than one connection."""
    served.status, served.fault = response.status, HEALTHY
    lines = [f"HTTP/1.1 {response.status} {response.reason or ''}".encode("latin-1")]
    lines += [name + b": " + value for name, value in response.raw_headers if name.decode().lower() not in _HOP_BY_HOP]
    length = response.headers.get("content-length")
    bodiless = response.method == "HEAD" or response.status in (204, 304)
    if length is not None:
        lines.append(b"Content-Length: " + length.encode())
    elif not bodiless:
        lines.append(b"Transfer-Encoding: chunked")
    yield Send(b"\r\n".join([*lines, b"", b""]))
    try:
        async for chunk in response.content.iter_any():
            served.bytes += len(chunk)
            yield Send(chunk if length is not None else server.chunked(chunk))
    except (aiohttp.ClientError, TimeoutError, OSError):
        yield Reset()
        return
    if length is None and not bodiless:
        yield Send(server.LAST_CHUNK)


def _unreachable(error: Exception, method: str) -> Step:
    said = {"error": {"message": f"the upstream gave no answer ({type(error).__name__})", "type": "bad_gateway"}}
    body = json.dumps(said).encode()
    told = server.head(502, content_type="application/json", content_length=len(body))
    return Send(told if method == "HEAD" else told + body)


__all__ = ["ChaosProxy"]
