"""What there is to look at in a browser: `/ui`, the streams as they run; `/try`, a stream to cut; and `/metrics`.

Each page is one file that loads nothing else, and its Content-Security-Policy names its script and its style by their
digests: whatever an error of ours might let through is not run. What a page tells of streams goes into it as text, by
its script. Who looks needs a key with the scope `ui`, where there are keys; a browser trades it for a cookie that holds
for a while, opens nothing but this, and is not sent along by other sites.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from holdfast.gateway.door import Guest
from holdfast.gateway.looking import Crowded, Looking
from holdfast.gateway.numbers import SHARED_BY_WORKERS, Numbers
from holdfast.gateway.refusals import Refusal, RefusalResponse, Refused, refusal_response
from holdfast.gateway.surfaces import CHAT, GEMINI, MESSAGES, RESPONSES, Surface

if TYPE_CHECKING:
    from holdfast.gateway.server import Gateway

COOKIE = "holdfast_ui"
COOKIE_SECONDS = 4 * 3600
_SIGNED_FOR = "holdfast ui 1"
_MAX_FORM = 4096
"""Bytes."""
_LONGEST_LOOK = 3600.0
"""Seconds: who looks on asks again then, and is known or not."""
_STOCK = 2.0
"""Seconds from one time that a worker among several says how things are to the next."""
_PATIENCE = 20.0
"""Seconds for which who looks may take nothing."""
_FAR_BEHIND = 256
"""Records that make a reader a slow one."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_ASKED: dict[str, dict[str, Any]] = {
    CHAT.name: {"messages": [{"role": "user", "content": ""}], "stream": True},
    MESSAGES.name: {"max_tokens": 1024, "messages": [{"role": "user", "content": ""}], "stream": True},
    RESPONSES.name: {"input": "", "stream": True},
    GEMINI.name: {"contents": [{"role": "user", "parts": [{"text": ""}]}]},
}
"""What `/try` sends, by surface; the question goes where the empty string is."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """One file of HTML, with the policy that lets its own script and style run and nothing else."""

    def __init__(self, name: str) -> None:
        text = files("holdfast.gateway").joinpath(f"{name}.html").read_text("utf-8")
        allowed, none = {"script": "", "style": ""}, "'none'"
        for kind, body in _INLINE.findall(text):
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            allowed[kind] += f"'sha256-{digest}' "
        self._body = text.encode()
        self.policy = (
            f"default-src 'none'; script-src {allowed['script'] or none}; style-src {allowed['style'] or none}; "
            "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    def response(self, status: int = 200) -> web.Response:
        """Gives the page."""
        headers = {**_HEADERS, "Content-Security-Policy": self.policy, "Content-Type": "text/html; charset=utf-8"}
        return web.Response(status=status, body=self._body, headers=headers)


class Pages:
    """The pages of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stock: asyncio.Task[None] | None = None
        self._ui, self._try, self._login = Page("ui"), Page("try"), Page("login")
        settings = gateway.settings
        self._looking = Looking(
            gateway,
            {
                "upstreams": len(settings.upstreams),
                "journal": settings.journal.partition(":")[0],
                "workers": settings.workers,
                "keys": bool(settings.keys),
            },
        )

    def add_to(self, app: web.Application) -> None:
        """Adds the routes, before any that takes all paths."""
        for method, path, handler in (
            ("GET", "/", self._home),
            ("GET", "/ui", self._shown),
            ("POST", "/ui", self._log_in),
            ("POST", "/ui/leave", self._log_out),
            ("GET", "/ui/events", self._events),
            ("GET", "/try", self._tried),
            ("GET", "/try/about", self._about),
            ("GET", "/metrics", self._metrics),
        ):
            app.router.add_route(method, path, _told(handler))
        app.on_response_prepare.append(self._count)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._end)

    # -- who looks -------------------------------------------------------------------------------

    def _admit(self, request: web.Request) -> Guest:
        """Gives who looks. Raises `Refused`."""
        door = self._gateway.door
        if door.open_to_all:  # for who is on this machine: see `front`
            return Guest()
        guest = self._bearer_of_cookie(request.cookies.get(COOKIE, ""))
        return guest if guest is not None else door.admit(request, "ui")

    def _bearer_of_cookie(self, cookie: str) -> Guest | None:
        name, _, rest = cookie.partition("!")
        until, _, signed = rest.partition("!")
        guest = self._gateway.door.named(name)
        if guest is None or not guest.may("ui") or not (until.isascii() and until.isdecimal() and len(until) <= 12):
            return None
        genuine = signed.isascii() and hmac.compare_digest(signed, self._signed(guest, until))
        return guest if genuine and int(until) >= self._now() else None

    def _signed(self, guest: Guest, until: str) -> str:
        digest = guest.key.sha256 if guest.key is not None else ""
        return self._gateway.door.seal(_SIGNED_FOR, guest.name, digest, until)

    def _now(self) -> int:
        return int(self._gateway.watch.clock.wall().timestamp())

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(Refusal(403, "permission_denied", "this form is filled in on the gateway's own page"))
        if request.content_length is None or request.content_length > _MAX_FORM:
            raise Refused(Refusal(413, "request_too_large", "that is no key"))
        form = parse_qs((await self._gateway.bodies.read(request)).decode("latin-1"), encoding="latin-1")
        guest = self._gateway.door.known(form.get("key", [""])[0])
        if guest is None or not guest.may("ui"):
            return self._login.response(403)
        until = str(self._now() + COOKIE_SECONDS)
        response = web.Response(status=303, headers={**_HEADERS, "Location": "/ui"})
        if guest.key is not None:
            cookie = f"{guest.name}!{until}!{self._signed(guest, until)}"
            response.set_cookie(
                COOKIE,
                cookie,
                max_age=COOKIE_SECONDS,
                path="/ui",
                secure=request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https",
                httponly=True,
                samesite="Strict",
            )
        return response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(status=303, headers={**_HEADERS, "Location": "/ui"})
        response.del_cookie(COOKIE, path="/ui", httponly=True, samesite="Strict")
        return response

    # -- what is shown ---------------------------------------------------------------------------

    async def _home(self, request: web.Request) -> web.StreamResponse:
        if not self._gateway.door.open_to_all:
            raise Refused(Refusal(404, "not_found", "there is nothing at /; see /ui, /try, or the API's paths"))
        return web.Response(status=302, headers={**_HEADERS, "Location": "/try"})

    async def _shown(self, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
        except Refused as refused:
            return self._login.response(401 if refused.refusal.status == 401 else 403)
        return self._ui.response()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        looking, clock = self._looking, self._gateway.watch.clock
        try:
            looking.enter()
        except Crowded:
            raise Refused(Refusal(503, "overloaded", "as many look on as may", 5.0)) from None
        try:
            headers = {**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            seen, until = 0, clock.now() + _LONGEST_LOOK
            while clock.now() < until:
                seen, told = await looking.next(seen)
                if not told:
                    break
                async with asyncio.timeout(_PATIENCE):
                    await response.write(told)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            looking.leave()
        return response

    async def _tried(self, request: web.Request) -> web.StreamResponse:
        return self._try.response()

    async def _about(self, request: web.Request) -> web.StreamResponse:
        """What `/try` has to know: where to ask, and how. No secret: whoever comes may know it."""
        there = [one for one in (CHAT, MESSAGES, RESPONSES, GEMINI) if self._gateway.upstreams.speaking(one)]
        told: dict[str, Any] = {"keys": not self._gateway.door.open_to_all, "surface": None}
        if there:
            told |= self._way(there[0])
        return web.Response(body=msgspec.json.encode(told), content_type="application/json", headers=_HEADERS)

    def _way(self, surface: Surface) -> dict[str, Any]:
        settings, upstream = self._gateway.upstreams.speaking(surface)[0]
        model = upstream.dialect.default_model or next((one for one in settings.models if "*" not in one), "")
        path = "/v1beta/models/MODEL:streamGenerateContent?alt=sse" if surface is GEMINI else surface.path
        demo = settings.api_key == "demo"  # the one that `--demo` brings asks for no other
        return {
            "surface": surface.name,
            "path": path,
            "body": _ASKED[surface.name],
            "model": model or ("demo" if demo else ""),
            "demo": demo,
        }

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        gateway = self._gateway
        watch = gateway.watch
        if watch.numbers is None:
            words = "numbers need prometheus-client: pip install 'holdfast[prometheus]'"
            raise Refused(Refusal(501, "not_implemented", words))
        self._take_stock(watch.numbers)
        body, kind = watch.numbers.text()
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": kind})

    def _take_stock(self, numbers: Numbers) -> None:
        gateway = self._gateway
        watch, streams = gateway.watch, gateway.streams
        watch.count_written()
        numbers.state(
            running=len(watch.live),
            readers=streams.readers if streams is not None else 0,
            slow=gateway.heart.far_behind(_FAR_BEHIND),
            draining=gateway.draining,
        )
        pulse = gateway.journal.pulse if gateway.journal is not None else None
        if pulse is not None:
            numbers.journal(pulse)

    async def _start(self, _app: web.Application) -> None:
        numbers = self._gateway.watch.numbers
        if numbers is not None and os.environ.get(SHARED_BY_WORKERS):
            self._stock = asyncio.create_task(self._keep_stock(numbers), name="holdfast-numbers")

    async def _keep_stock(self, numbers: Numbers) -> None:
        """A scrape is answered by any worker, and must know of this one."""
        while True:
            self._take_stock(numbers)
            await asyncio.sleep(_STOCK)

    # -- what is counted -------------------------------------------------------------------------

    async def _count(self, request: web.Request, response: web.StreamResponse) -> None:
        if response.status >= 400:
            self._gateway.watch.refused(response.status, response.code if isinstance(response, RefusalResponse) else "")

    async def _end(self, _app: web.Application) -> None:
        self._looking.close()
        if self._stock is not None:
            self._stock.cancel()


def add_to(app: web.Application, gateway: Gateway) -> None:
    """Adds the pages of a gateway to what it serves, before any route that takes all paths."""
    Pages(gateway).add_to(app)


def _told(handler: Handler) -> Handler:
    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            response = refusal_response(CHAT, refused.refusal)
            response.headers.update(_HEADERS)
            return response

    return told


__all__ = ["COOKIE", "Page", "Pages", "add_to"]
