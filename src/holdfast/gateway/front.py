"""What every request passes on its way in, whatever it asks for: its headers' form, and whose page sent it.

A browser sends what any page tells it to, also to a gateway on the loopback that asks for no key. So without keys only
pages of the gateway's own, and those of origins that were named, are listened to, and only under names of this machine:
a name that somebody else can point at it (DNS rebinding) is none. No answer ever allows credentials of the browser's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from holdfast.gateway.bounds import SERVER, Bodies, guard_of
from holdfast.gateway.door import Door
from holdfast.gateway.journal import JournalError
from holdfast.gateway.refusals import Refusal, Refused, refusal_response
from holdfast.gateway.settings import Settings
from holdfast.gateway.surfaces import surface_for

_EXPOSED = "X-Holdfast-Stream, X-Holdfast-Read-Token, Retry-After, X-Request-Id, Request-Id"
_METHODS = "GET, POST, DELETE"
_PREFLIGHT_SECONDS = 600
_NAMES = re.compile(r"[A-Za-z0-9-]+(?:[ \t]*,[ \t]*[A-Za-z0-9-]+){0,63}")
"""Names of headers, as a preflight lists them."""
_BOUNDED = {"Idempotency-Key": 255, "Last-Event-ID": 64}
"""Characters at most, all of them visible ASCII."""


def install(app: web.Application, settings: Settings, door: Door, bodies: Bodies) -> None:
    """Has every request of an application pass here first."""
    app.middlewares.append(_front(settings, door, bodies))
    app.on_response_prepare.append(_name)
    app.on_response_prepare.append(_be_the_last)
    if settings.cors:
        app.on_response_prepare.append(_allow(settings))


def _front(settings: Settings, door: Door, bodies: Bodies) -> Middleware:
    @web.middleware
    async def front(request: web.Request, handler: Handler) -> web.StreamResponse:
        guard = guard_of(request)
        if guard is not None:
            guard.begin()
        try:
            _check_headers(request)
            if door.open_to_all:
                _check_page(request, settings)
            return _preflight(request, settings) or await handler(request)
        except Refused as refused:
            return refusal_response(surface_for(request.path), refused.refusal)
        except JournalError as error:
            refusal = Refusal(503, "journal_unavailable", str(error), 1.0)
            return refusal_response(surface_for(request.path), refusal)
        except web.HTTPException as error:
            refusal = Refusal(error.status, "invalid_request_error", error.reason or "")
            return refusal_response(surface_for(request.path), refusal)
        finally:
            bodies.let_go(request)
            if guard is not None:
                guard.done(whole=request.content.is_eof())

    return front


async def _name(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


async def _be_the_last(request: web.Request, response: web.StreamResponse) -> None:
    """Has the connection end behind an answer whose own end nothing else tells, or a request that was not read.

    What came behind such a request would be the rest of its body to one side, and another request to the other. And of
    a node that ends every answer is its connection's last.
    """
    endless = request.version < HttpVersion11 and "Content-Length" not in response.headers
    guard = guard_of(request)
    if endless or not request.content.is_eof() or (guard is not None and guard.finishing):
        response.force_close()
        response.headers["Connection"] = "close"


def _check_headers(request: web.Request) -> None:
    for name, most in _BOUNDED.items():
        values = request.headers.getall(name, ())
        if not values:
            continue
        if len(values) > 1 or len(values[0]) > most or not (values[0].isascii() and values[0].isprintable()):
            words = f"{name} must be one value of at most {most} visible ASCII characters"
            raise Refused(Refusal(400, f"invalid_{name.lower().replace('-', '_')}", words))


# -- pages -----------------------------------------------------------------------------------------


def _check_page(request: web.Request, settings: Settings) -> None:
    """Refuses what a foreign page makes a browser send. What is no browser sends no `Origin`."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    if host and not settings.open and not _is_here(host, settings.host):
        words = "a gateway without keys answers under names of this machine alone: give it keys to use another"
        raise Refused(Refusal(403, "host_not_allowed", words))
    if origin is not None and origin.partition("://")[2].lower() != host.lower() and not _named(origin, settings):
        words = "pages of this origin may not use a gateway without keys: name the origin in its cors, or give it keys"
        raise Refused(Refusal(403, "origin_not_allowed", words))


def _is_here(host: str, own: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost") or name == own.lower():
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _named(origin: str, settings: Settings) -> bool:
    return "*" in settings.cors or origin in settings.cors


def _for_pages(request: web.BaseRequest) -> bool:
    return request.path.startswith(("/v1/", "/v1beta/"))


def _preflight(request: web.Request, settings: Settings) -> web.Response | None:
    """Answers a browser that asks what a page may send; None for all other requests."""
    if request.method != "OPTIONS" or not settings.cors or not _for_pages(request):
        return None
    if "Access-Control-Request-Method" not in request.headers:
        return None
    asked = request.headers.get("Access-Control-Request-Headers", "")
    headers = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS)}
    if _NAMES.fullmatch(asked):
        headers["Access-Control-Allow-Headers"] = asked
    return web.Response(status=204, headers=headers)


def _allow(settings: Settings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    everybody = "*" in settings.cors

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        if not _for_pages(request):
            return
        if not everybody:
            response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin is not None and _named(origin, settings):
            response.headers["Access-Control-Allow-Origin"] = "*" if everybody else origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    return allow
