"""The gateway's HTTP server: routes, and what each of them answers. What it serves lives in the other rooms."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from holdfast._types import Head, Partial
from holdfast.dialects import Teller
from holdfast.gateway import front, pages
from holdfast.gateway.allowances import Allowances, requests_for
from holdfast.gateway.asking import read_asked
from holdfast.gateway.body import begun
from holdfast.gateway.bounds import Bodies
from holdfast.gateway.door import Door, Guest
from holdfast.gateway.headers import clean_target, to_client, to_upstream
from holdfast.gateway.journal import Entry, Journal, JournalError, Shelved, Writer
from holdfast.gateway.journal.redis import RedisJournal
from holdfast.gateway.passing import Passing
from holdfast.gateway.production import Answer
from holdfast.gateway.reading import Heart, Reading
from holdfast.gateway.records import is_stream, new_stream, place_of, stream_of
from holdfast.gateway.refusals import Refusal, Refused, refusal_response
from holdfast.gateway.rewriting import rewriting_for
from holdfast.gateway.settings import Settings
from holdfast.gateway.streams import Conflict, Overloaded, Running, Streams
from holdfast.gateway.surfaces import CHAT, SURFACES, Surface, surface_for
from holdfast.gateway.takeover import Notes, Takeover
from holdfast.gateway.through import Through
from holdfast.gateway.upstreams import Upstreams, asked_of
from holdfast.gateway.watching import Watch
from holdfast.moments import Listener

_OURS = ("/v1/streams", "/ui", "/try", "/metrics", "/healthz", "/readyz")
"""What is nobody's but ours, by whatever method: the name of a stream goes nowhere."""
_SWEEP = 1.0
"""Seconds from one look at what the journal may forget to the next."""


class Gateway:
    """The pipe as a service. `app` is what serves; `aclose()` ends it."""

    def __init__(self, settings: Settings, *, journal: Journal | None, upstreams: Upstreams | None = None) -> None:
        self.settings = settings
        self.upstreams = upstreams or Upstreams(settings)
        self.allowances = Allowances(settings)
        self.bodies = Bodies(settings.limits)
        self.door = Door(settings)
        self.journal = journal
        self.watch = Watch()
        self.streams = (
            Streams(
                journal,
                self._answer,
                grace=settings.grace,
                patience=settings.heartbeat,
                max_streams=settings.limits.max_streams,
                tell=self.watch.tell,
            )
            if journal is not None
            else None
        )
        self.passing = Passing(self.upstreams, most=settings.max_stream)
        self.heart = Heart(settings.heartbeat)
        self.through = Through(
            self.heart,
            patience=settings.heartbeat,
            max_streams=settings.limits.max_streams,
            tell=self.watch.tell,
        )
        self.draining = False
        self._whole: set[asyncio.Future[None]] = set()
        """Answers on their way that are no streams."""
        self.takeover: Takeover | None = None
        self.app = self._app()

    def _app(self) -> web.Application:
        app = web.Application()
        front.install(app, self.settings, self.door, self.bodies)
        for surface in SURFACES.values():
            if surface.path:
                app.router.add_post(surface.path, self._asked(surface))
        for path in ("/v1/models", r"/v1/models/{model:[^:]+}", "/v1beta/models", r"/v1beta/models/{model:[^:]+}"):
            app.router.add_get(path, self._models)
        app.router.add_get("/v1/streams/{stream}", self._read, allow_head=False)
        app.router.add_delete("/v1/streams/{stream}", self._cancel)
        app.router.add_get("/healthz", self._healthy)
        app.router.add_get("/readyz", self._ready)
        pages.add_to(app, self)
        app.router.add_route("*", r"/{path:.*}", self._other)
        return app

    def _answer(self, writer: Writer, resume: Partial | None = None, teller: Teller | None = None) -> Answer:
        shelved = writer.shelved
        entry = shelved.entry
        listeners: list[Listener] = [*self.watch.listen(entry, shelved.log), Notes(writer)]
        relay = self.upstreams.relay(
            entry,
            check=writer.check,
            listeners=listeners,
            at_wire=self.allowances.at_wire(entry.owner),
            resume=resume,
            teller=teller,
        )
        writer.note(call=relay.reader.report.stream_id)
        return self._allowed(entry, self.upstreams.discretion.answer(relay), begun=resume is not None)

    def _passed(self, shelved: Shelved) -> Answer:
        """An answer that is kept nowhere."""
        entry = shelved.entry
        listeners = self.watch.listen(entry, shelved.log)
        at_wire = self.allowances.at_wire(entry.owner)
        relay = self.upstreams.relay(entry, listeners=listeners, at_wire=at_wire)
        return self._allowed(entry, self.upstreams.discretion.answer(relay))

    def _allowed(self, entry: Entry, answer: Answer, *, begun: bool = False) -> Answer:
        """Gives an answer that its key's limits let in, or refuse before it is a stream."""
        stream = entry.stream
        if self.allowances.limits(entry.owner):
            self.watch.hold(stream)
        return self.allowances.answer(
            entry.owner,
            answer,
            lambda: requests_for(self.upstreams, asked_of(entry), entry.body),
            begun=begun,
            then=lambda: self.watch.let_in(stream),
        )

    # -- asking ----------------------------------------------------------------------------------

    def _asked(self, surface: Surface) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                guest = self.door.admit(request)
                body = await self.bodies.read(request)
                at = request.rel_url
                asked = read_asked(surface, at.raw_path, at.raw_query_string, body)
                self._check_open(returns=asked.streamed and bool(request.headers.get("Last-Event-ID")))
                self.door.check_model(guest, asked.model)
                if not asked.streamed:
                    requests = partial(requests_for, self.upstreams, asked, body)
                    async with self._waited_for(), self.allowances.held(guest.name, requests):
                        return await self.passing.whole(
                            request, asked, body, at_wire=self.allowances.at_wire(guest.name)
                        )
                self.upstreams.serving(asked)
                return await self._stream(request, asked.surface, guest, body)
            except Refused as refused:
                return refusal_response(surface, refused.refusal)

        return handler

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            guest = self.door.admit(request)
            self._check_open()
            return await self.passing.models(request, guest)
        except Refused as refused:
            return refusal_response(surface_for(request.path), refused.refusal)

    async def _other(self, request: web.Request) -> web.StreamResponse:
        """What is none of our paths, or is asked with another method."""
        try:
            guest = self.door.admit(request)
            if self.settings.other == "refuse" or request.path.startswith(_OURS):
                words = f"the gateway does not serve {request.method[:20]} {request.path[:200]}"
                raise Refused(Refusal(404, "not_found", words))
            self.door.check_other(guest)
            self._check_open()
            async with self._waited_for(), self.allowances.held(guest.name):
                return await self.passing.other(
                    request, await self.bodies.read(request) if request.can_read_body else None
                )
        except Refused as refused:
            return refusal_response(surface_for(request.path), refused.refusal)

    def _check_open(self, *, returns: bool = False) -> None:
        """Raises `Refused` for what would begin while this node ends; `returns`: it is somebody who comes back.

        Nodes that others can go on for do not listen any more, and what had reached them is served.
        """
        if self.draining and self.returns_here and not returns:
            raise Refused(Refusal(503, "shutting_down", "the gateway ends, and begins nothing more", 1.0))

    async def _stream(self, request: web.Request, surface: Surface, guest: Guest, body: bytes) -> web.StreamResponse:
        entry = self._entry(request, surface, guest, body)
        given = request.headers.get("Last-Event-ID", "")
        if given:
            return await self._resumed(request, surface, entry, given)
        if self.streams is None:
            rewriting = rewriting_for(request.headers, surface)
            return await self.through.serve(request, entry, self._passed, _begin, rewriting)
        try:
            running = await self.streams.open(entry)
        except Conflict:
            return refusal_response(
                surface, Refusal(409, "idempotency_conflict", "this Idempotency-Key had another request")
            )
        except Overloaded:
            return refusal_response(surface, Refusal(503, "overloaded", "as many streams run here as may", 1.0))
        except JournalError as error:
            return refusal_response(surface, Refusal(503, "journal_unavailable", str(error), 1.0))
        with running:
            await running.begun()
            production = running.production
            if production is not None and production.refusal is not None:
                return refusal_response(surface, production.refusal)
            if running.shelved.log.head is None:  # it was joined, and has failed where it was written
                words = "the stream with this Idempotency-Key failed before it began"
                return refusal_response(surface, Refusal(503, "stream_failed", words, 1.0))
            return await self._shown(request, running, 0)

    def _entry(self, request: web.Request, surface: Surface, guest: Guest, body: bytes) -> Entry:
        url = clean_target(request.rel_url.raw_path, request.rel_url.raw_query_string)
        digest = hashlib.sha256(b"\n".join((request.method.encode(), url.encode(), body))).hexdigest()
        return Entry(
            stream=new_stream(),
            owner=guest.name,
            surface=surface.name,
            url=url,
            headers=to_upstream(request.headers),
            body=body,
            digest=digest,
            idempotency_key=request.headers.get("Idempotency-Key", ""),
            opened=time.time(),
        )

    async def _resumed(self, request: web.Request, surface: Surface, asked: Entry, given: str) -> web.StreamResponse:
        """The same POST with the id of the last event that came."""
        running = await self._found(request, stream_of(given))
        if running is None:
            return refusal_response(surface, Refusal(404, "stream_not_found", "there is no such stream (any more)"))
        if running.shelved.entry.digest != asked.digest:
            return refusal_response(
                surface, Refusal(409, "stream_conflict", "this Last-Event-ID is of another request")
            )
        with running:
            return await self._continued(request, running, given)

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self, request: web.Request) -> web.StreamResponse:
        running = await self._found(request, request.match_info["stream"])
        if running is None:
            return refusal_response(CHAT, Refusal(404, "stream_not_found", "there is no such stream (any more)"))
        with running:
            # A browser says by itself where it was when its line breaks, and cannot when a page asks anew.
            given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
            return await self._continued(request, running, given)

    async def _found(self, request: web.Request, stream: str) -> Running | None:
        """Gives a stream that who asks may read: of one that is somebody else's it is not even said that it exists."""
        try:
            running = await self.streams.find(stream) if self.streams is not None and is_stream(stream) else None
        except JournalError as error:
            self.door.admit(request)
            raise Refused(Refusal(503, "journal_unavailable", str(error), 1.0)) from error
        if running is not None:
            running.wait_for_readers()  # where none comes of this, it need not be followed here
            if self.door.may_read(request, running.shelved.entry):
                return running
        self.door.admit(request)  # who has no key is told that, whether there is such a stream or not
        return None

    async def _continued(self, request: web.Request, running: Running, given: str) -> web.StreamResponse:
        surface = SURFACES[running.shelved.entry.surface]
        place = place_of(given, running.shelved.entry.stream)
        if place is None:
            return refusal_response(
                surface, Refusal(400, "invalid_last_event_id", "this Last-Event-ID is none of this stream")
            )
        log = running.shelved.log
        if log.ending is not None and place >= log.last and not log.lost:
            return web.Response(status=204)
        if place:
            self.watch.tell("read_again", running.shelved, place=place, last=log.last)
        return await self._shown(request, running, place)

    async def _shown(self, request: web.Request, running: Running, place: int) -> web.StreamResponse:
        shelved, most = running.shelved, self.settings.limits.max_readers
        if running.readers > most:
            raise Refused(Refusal(429, "too_many_readers", f"this stream has {most} readers here already", 1.0))
        response = web.StreamResponse(headers=_headers(shelved.log.head))
        response.headers["X-Holdfast-Stream"] = shelved.entry.stream
        response.headers["X-Holdfast-Read-Token"] = self.door.token(shelved.entry)
        body = await begun(request, response)
        if self.journal is None:
            raise AssertionError("what is read is kept somewhere")
        rewriting = rewriting_for(request.headers, SURFACES[shelved.entry.surface])
        reading = Reading(running, place, self.journal, rewriting, returns=request.method == "GET")
        await reading.run(body, self.heart)
        if reading.left or reading.broken or (shelved.log.ending is not None and shelved.log.ending.kind != "complete"):
            _cut(request)
        return response

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        running = await self._found(request, request.match_info["stream"])
        if running is None or self.streams is None:
            return refusal_response(CHAT, Refusal(404, "stream_not_found", "there is no such stream (any more)"))
        try:
            await self.streams.cancel(running)
        except JournalError as error:
            return refusal_response(CHAT, Refusal(503, "journal_unavailable", str(error), 1.0))
        return web.Response(status=204)

    # -- itself ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins what runs beside the requests: called once, before the first of them, in the loop that serves.

        Raises `JournalError` where the journal cannot be had.
        """
        if self.journal is None or self.streams is None:
            return
        await self.journal.start(self.streams.cancelled)
        if self.settings.secret is None:
            self.door.sign_with(await self.journal.secret())
        self.streams.spawn(self._sweep(self.journal))
        if isinstance(self.journal, RedisJournal):
            self.takeover = Takeover(self.journal, self.streams, self.upstreams, self._answer)
            self.takeover.start()

    async def _sweep(self, journal: Journal) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            journal.sweep()

    async def _healthy(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        pulse = self.journal.pulse if self.journal is not None else None
        if self.draining:
            return web.json_response({"status": "draining"}, status=503)
        if pulse is not None and pulse.silent:  # no stream could be opened
            return web.json_response({"status": "journal silent"}, status=503)
        return web.json_response({"status": "ok"})

    @property
    def returns_here(self) -> bool:
        """True where readers can come back to this node alone: what it has, no other has."""
        return self.journal is None or not self.journal.shared

    @property
    def producing(self) -> int:
        """How many answers are on their way here."""
        return len(self._whole) + self.through.producing + (self.streams.producing if self.streams is not None else 0)

    async def drain(self, *, listening: bool = False) -> None:
        """Says that it is not ready, sends readers to other nodes where there may be some, and lets streams end.

        `listening`: who lost a stream can still come back to it here.
        """
        self.draining = True
        end = asyncio.get_running_loop().time() + self.settings.drain
        await self._drain_streams(listening=listening)
        if self._whole:
            await asyncio.wait(self._whole, timeout=max(0.0, end - asyncio.get_running_loop().time()))

    @asynccontextmanager
    async def _waited_for(self) -> AsyncIterator[None]:
        """What is answered in here is no stream, and a drain waits for it as well."""
        done = asyncio.get_running_loop().create_future()
        self._whole.add(done)
        try:
            yield
        finally:
            self._whole.discard(done)
            done.set_result(None)

    async def _drain_streams(self, *, listening: bool) -> None:
        await self.through.drain(self.settings.drain)
        if self.streams is not None and self.journal is not None:
            if self.takeover is not None:
                await self.takeover.aclose()
            if self.journal.shared:
                self.heart.send_away()
            try:
                await self.streams.drain(self.settings.drain, listening=listening)
            finally:
                if self.journal.shared:
                    self.heart.send_away(everybody=True)

    async def aclose(self) -> None:
        """Lets streams end, and gives everything back."""
        await self.drain()
        await self.upstreams.aclose()
        await self.allowances.aclose()
        if self.journal is not None:
            await self.journal.aclose()


def _begin(head: Head) -> web.StreamResponse:
    return web.StreamResponse(headers=_headers(head))


def _headers(head: Head | None) -> dict[str, str]:
    """Gives an answer's headers: the upstream's, and what keeps proxies from holding events back."""
    passed = {} if head is None else to_client(head.headers)
    return {
        **passed,
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }


def _cut(request: web.Request) -> None:
    """Ends the connection inside the body: a stream that broke must not look like one that ended."""
    if request.transport is not None:
        request.transport.close()
