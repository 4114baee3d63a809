"""The same pipe inside other people's clients: they see one whole stream of events, and keep everything else they have.

Each mount needs the library that it is for, and is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from holdfast._errors import MissingExtra

if TYPE_CHECKING:
    from holdfast.mounts._relay import report
    from holdfast.mounts.aiohttp import aiohttp_middleware
    from holdfast.mounts.httpx import HttpxSyncTransport, HttpxTransport, httpx_client, httpx_sync_client
    from holdfast.mounts.httpx2 import Httpx2SyncTransport, Httpx2Transport, httpx2_client, httpx2_sync_client
    from holdfast.mounts.requests import RequestsAdapter

_PLACES = {
    "Httpx2SyncTransport": "httpx2",
    "Httpx2Transport": "httpx2",
    "HttpxSyncTransport": "httpx",
    "HttpxTransport": "httpx",
    "RequestsAdapter": "requests",
    "aiohttp_middleware": "aiohttp",
    "httpx2_client": "httpx2",
    "httpx2_sync_client": "httpx2",
    "httpx_client": "httpx",
    "httpx_sync_client": "httpx",
    "report": "_relay",
}
"""Where each name lives: a module that is named as the extra which it needs, or one that needs none."""


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{place}")
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        raise MissingExtra(f"holdfast.mounts.{name}", place) from error
    found: object = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Httpx2SyncTransport",
    "Httpx2Transport",
    "HttpxSyncTransport",
    "HttpxTransport",
    "RequestsAdapter",
    "aiohttp_middleware",
    "httpx2_client",
    "httpx2_sync_client",
    "httpx_client",
    "httpx_sync_client",
    "report",
]
