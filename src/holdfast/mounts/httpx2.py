"""The mount for httpx2. See `mounts/_httpx.py` and `mounts/_httpx_sync.py`, which do the work."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import httpx2

from holdfast.mounts._httpx import AnyTransport
from holdfast.mounts._httpx_sync import AnySyncTransport
from holdfast.mounts._ready import ReadySettings, ready, ready_sync


class Httpx2Transport(AnyTransport, httpx2.AsyncBaseTransport):
    __doc__ = AnyTransport.__doc__
    library: ClassVar[Any] = httpx2


class Httpx2SyncTransport(AnySyncTransport, httpx2.BaseTransport):
    __doc__ = AnySyncTransport.__doc__
    library: ClassVar[Any] = httpx2
    asynchronous: ClassVar[Any] = Httpx2Transport


def httpx2_client(**settings: Unpack[ReadySettings]) -> httpx2.AsyncClient:
    """Gives an `httpx2.AsyncClient` whose streams are mended, with the timeouts and limits that SDKs set.

    It takes the keywords of all mounts, and those of `httpx2.AsyncClient`.
    """
    client: httpx2.AsyncClient = ready(httpx2, Httpx2Transport, settings)
    return client


def httpx2_sync_client(**settings: Unpack[ReadySettings]) -> httpx2.Client:
    """Gives an `httpx2.Client` whose streams are mended, with the timeouts and limits that SDKs set.

    It takes the keywords of all mounts, and those of `httpx2.Client`.
    """
    client: httpx2.Client = ready_sync(httpx2, Httpx2SyncTransport, settings)
    return client


__all__ = ["Httpx2SyncTransport", "Httpx2Transport", "httpx2_client", "httpx2_sync_client"]
