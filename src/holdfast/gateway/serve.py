"""Serving: a gateway on a socket, from its start to its end.

The end is the harder half. A signal makes a node say that it is not ready, take no more connections, send readers who
can come back to other nodes, and let what runs come to its end for `drain` seconds. What has not by then is left to
another node, or ends with an error where there is none. A second signal ends the waiting. Nothing is ever just dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator

from aiohttp import web

from holdfast._errors import UsageError
from holdfast.gateway.journal.open import journal_of
from holdfast.gateway.server import Gateway
from holdfast.gateway.settings import Settings

BACKLOG = 1024
"""Connections that wait to be accepted."""
_AFTERWARDS = 2.0
"""Seconds that answers have to go out once their streams have ended."""


def listen(settings: Settings) -> list[socket.socket]:
    """Binds the port, once for each worker where the system can share one so. Raises `OSError` where it is taken."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shared = settings.workers > 1 and hasattr(socket, "SO_REUSEPORT")
    sockets: list[socket.socket] = []
    try:
        for _ in range(settings.workers if shared else 1):
            one = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
            sockets.append(one)
            port = one.getsockname()[1]
    except OSError as error:
        for one in sockets:
            one.close()
        raise OSError(error.errno, error.strerror, f"{host} port {port}") from error
    return sockets


def run(settings: Settings, sock: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
    """Serves on a bound socket until a signal comes, on the fastest loop there is."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, sock, started=started))


async def serve(settings: Settings, sock: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
    """Serves on a bound socket until SIGTERM or SIGINT, and then to the end of what runs.

    `started` is called once requests are answered. Raises `UsageError` for settings that cannot be served, and what
    the journal says where it cannot be had.
    """
    tls = context_of(settings)
    gateway = Gateway(settings, journal=journal_of(settings))
    runner = web.AppRunner(gateway.app, handler_cancellation=True, access_log=None, shutdown_timeout=_AFTERWARDS)
    with _signals() as signals:
        await runner.setup()
        site = web.SockSite(runner, sock, ssl_context=tls, backlog=BACKLOG)
        try:
            await gateway.start()
            await site.start()
            started()
            await signals.get()
            await _drain(gateway, site, signals)
        finally:
            await runner.cleanup()
            await gateway.aclose()


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """Gives the TLS that is served, None without. Raises `UsageError` for files that hold none."""
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        where = f"{settings.certificate}" + (f" and {settings.private_key}" if settings.private_key else "")
        raise UsageError(f"TLS cannot be served with {where}: {error.strerror or error}") from error
    return context


async def _drain(gateway: Gateway, site: web.BaseSite, signals: asyncio.Queue[None]) -> None:
    gateway.draining = True
    await asyncio.sleep(0)  # who has connected already is let in
    await site.stop()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Queue[None]]:
    """Gives the signals to end as they come."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[None]()
    told = (signal.SIGTERM, signal.SIGINT)
    for one in told:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, and threads that are not the first
            loop.add_signal_handler(one, queue.put_nowait, None)
    try:
        yield queue
    finally:
        for one in told:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(one)
