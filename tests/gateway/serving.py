"""Gateways for tests: real ones, over TCP, on free ports of the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import web

from holdfast.gateway import Settings, UpstreamSettings
from holdfast.gateway.bounds import BoundedRunner
from holdfast.gateway.journal import Journal
from holdfast.gateway.journal.open import journal_of
from holdfast.gateway.server import Gateway
from holdfast.gateway.upstreams import Upstreams
from holdfast.gateway.workers import BACKLOG


class Hasty(Random):
    """Of every pause the shortest."""

    def random(self) -> float:
        return 0.0


@dataclass(slots=True)
class Served:
    """A gateway that serves. `url` is where, without a path."""

    gateway: Gateway
    url: str
    runner: BoundedRunner


def settings(upstream: str, dialect: str = "openai", **more: Any) -> Settings:
    """Gives the settings of a gateway over one upstream, `upstream` being its base address."""
    return Settings(upstreams=(UpstreamSettings(dialect=dialect, base_url=upstream, api_key="sk-upstream"),), **more)


@asynccontextmanager
async def serving(set_: Settings, journal: Journal | None = None) -> AsyncIterator[Served]:
    """Serves a gateway until the block is left. It asks upstreams again without a pause."""
    kept = journal if journal is not None else journal_of(set_)
    gateway = Gateway(set_, journal=kept, upstreams=Upstreams(set_, random=Hasty()))
    await gateway.start()
    runner = BoundedRunner(gateway.app, set_.limits, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield Served(gateway, f"http://127.0.0.1:{port}", runner)
    finally:
        await runner.cleanup()
        await gateway.aclose()
