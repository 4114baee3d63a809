"""Serving: a gateway on a socket, from its start to its end.

The end is the harder half. A signal makes a node say that it is not ready, begin nothing new, and let what runs come to
its end for `drain` seconds. Where other nodes have the same journal it takes no more connections, because who is
refused one asks elsewhere, and sends readers there who can come back; what is left at the end goes on at another node.
Where there is none it listens to the end, for those who come back to it, and what is left ends with an error. A second
signal ends the waiting. Nothing is ever just dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from holdfast._errors import UsageError
from holdfast.gateway.bounds import BoundedRunner
from holdfast.gateway.collector import spare
from holdfast.gateway.config import check
from holdfast.gateway.journal.open import journal_of
from holdfast.gateway.numbers import shared_by_workers
from holdfast.gateway.server import Gateway
from holdfast.gateway.settings import Settings
from holdfast.gateway.workers import BACKLOG, Workers, listen
from holdfast.prices import Prices

_AFTERWARDS = 2.0
"""Seconds that answers have to go out once their streams have ended."""


def serve_port(
    settings: Settings,
    *,
    started: Callable[[Settings], None],
    tell: Callable[[str], None],
    work: Callable[[Callable[[], None]], int],
) -> int:
    """Binds the port and serves it, with as many processes as there shall be workers. Returns an exit code.

    `started` is given the settings as they became, once requests are answered; `tell` hears of drains and of workers
    that died, and `work` is what a process does with its part. Raises `OSError` where the port is taken, and what
    `serve()` does.
    """
    rehearse(settings)  # a mistake is told before anything is begun
    sockets = listen(settings)
    bound = replace(settings, port=sockets[0].getsockname()[1])
    if settings.workers == 1:
        return work(lambda: run(bound, sockets[0], started=lambda: started(bound), tell=tell))

    def part(sock: socket.socket, ready: Callable[[], None], alive: int) -> int:
        return work(lambda: run(bound, sock, started=ready, alive=alive, tell=tell))

    if bound.secret is None and bound.journal == "none":  # a journal that nodes share has one for all of them
        bound = replace(bound, secret=secrets.token_hex(32))
    with shared_by_workers():
        return Workers(part, sockets, settings.workers, lambda: started(bound), tell).run()


def run(
    settings: Settings,
    sock: socket.socket,
    *,
    started: Callable[[], None] = lambda: None,
    alive: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves as `serve()` does, on the fastest loop there is."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop

    def begun() -> None:
        spare()
        started()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, sock, started=begun, alive=alive, tell=tell))


async def serve(
    settings: Settings,
    sock: socket.socket,
    *,
    started: Callable[[], None] = lambda: None,
    alive: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves on a bound socket until SIGTERM or SIGINT, and then to the end of what runs.

    `started` is called once requests are answered; `alive` is a descriptor whose end is as good as a signal; `tell`
    has words for a person when it ends. Raises `UsageError` for settings that cannot be served, and `JournalError`
    where the journal cannot be had.
    """
    check(settings)
    tls = context_of(settings)
    gateway = Gateway(settings, journal=journal_of(settings))
    runner = BoundedRunner(gateway.app, settings.limits, handler_cancellation=True, shutdown_timeout=_AFTERWARDS)
    with _signals(alive) as signals:
        await runner.setup()
        try:
            await gateway.start()
            site = web.SockSite(runner, sock, ssl_context=tls, backlog=BACKLOG)
            await site.start()
            started()
            await signals.get()
            tell(_farewell(gateway.producing, settings.drain))
            await _drain(gateway, runner, signals)
        finally:
            await runner.cleanup()
            await gateway.aclose()


def rehearse(settings: Settings) -> None:
    """Raises `UsageError` for all that can be known to keep it from serving before it binds or asks anything."""
    check(settings)
    context_of(settings)
    journal_of(settings)
    try:
        if settings.prices is not None:
            Prices.load(settings.prices)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"prices cannot be read: {settings.prices}: {getattr(error, 'strerror', '') or error}"
        ) from error


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """Gives the TLS that is served, None without. Raises `UsageError` for files that hold none."""
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        where = f"{settings.certificate}" + (f" and {settings.private_key}" if settings.private_key else "")
        if settings.private_key is None and isinstance(error, ssl.SSLError) and _is_certificate(settings.certificate):
            raise UsageError(f"TLS cannot be served: private_key is missing, and {where} holds none") from error
        raise UsageError(f"TLS cannot be served with {where}: {error.strerror or error}") from error
    return context


def _is_certificate(file: Path) -> bool:
    return b"-----BEGIN CERTIFICATE-----" in file.read_bytes()


async def _drain(gateway: Gateway, runner: BoundedRunner, signals: asyncio.Queue[None]) -> None:
    """Begins nothing new, and waits for what runs; a second signal ends the waiting."""
    gateway.draining = True
    if not gateway.returns_here:
        await asyncio.sleep(0)  # who has connected already is let in
        for site in runner.sites:
            await site.stop()
    runner.finish()
    draining = asyncio.create_task(gateway.drain(listening=gateway.returns_here))
    again = asyncio.create_task(signals.get())
    await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    draining.cancel()  # which hands over what is left
    await asyncio.wait([draining, again])


def _farewell(answers: int, seconds: float) -> str:
    if not answers:
        return "no stream runs: this is the end"
    return f"draining {answers} stream{'s' * (answers != 1)}, for up to {seconds:g} s; a second signal does not wait"


@contextlib.contextmanager
def _signals(alive: int | None) -> Iterator[asyncio.Queue[None]]:
    """Gives the signals to end as they come, the first of them also when `alive` ends."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[None]()

    def orphaned(end: int) -> None:
        loop.remove_reader(end)
        queue.put_nowait(None)

    told = (signal.SIGTERM, signal.SIGINT)
    for one in told:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, and threads that are not the first
            loop.add_signal_handler(one, queue.put_nowait, None)
    if alive is not None:
        loop.add_reader(alive, orphaned, alive)
    try:
        yield queue
    finally:
        if alive is not None:
            loop.remove_reader(alive)
        for one in told:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(one)


__all__ = ["context_of", "rehearse", "run", "serve", "serve_port"]
