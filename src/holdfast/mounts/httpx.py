"""The mount for httpx. See `mounts/_httpx.py` and `mounts/_httpx_sync.py`, which do the work."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import httpx

from holdfast.mounts._httpx import AnyTransport
from holdfast.mounts._httpx_sync import AnySyncTransport
from holdfast.mounts._ready import ReadySettings, ready, ready_sync


class HttpxTransport(AnyTransport, httpx.AsyncBaseTransport):
    __doc__ = AnyTransport.__doc__
    library: ClassVar[Any] = httpx


class HttpxSyncTransport(AnySyncTransport, httpx.BaseTransport):
    __doc__ = AnySyncTransport.__doc__
    library: ClassVar[Any] = httpx
    asynchronous: ClassVar[Any] = HttpxTransport


def httpx_client(**settings: Unpack[ReadySettings]) -> httpx.AsyncClient:
    """Gives an `httpx.AsyncClient` whose streams are mended, with the timeouts and limits that SDKs set.

    It takes the keywords of all mounts, and those of `httpx.AsyncClient`.
    """
    client: httpx.AsyncClient = ready(httpx, HttpxTransport, settings)
    return client


def httpx_sync_client(**settings: Unpack[ReadySettings]) -> httpx.Client:
    """Gives an `httpx.Client` whose streams are mended, with the timeouts and limits that SDKs set.

    It takes the keywords of all mounts, and those of `httpx.Client`.
    """
    client: httpx.Client = ready_sync(httpx, HttpxSyncTransport, settings)
    return client


__all__ = ["HttpxSyncTransport", "HttpxTransport", "httpx_client", "httpx_sync_client"]
