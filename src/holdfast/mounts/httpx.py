"""The mount for httpx. See `mounts/_httpx.py`, which does the work."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx

from holdfast.mounts._httpx import AnyTransport, RelayedBytes


class _Body(RelayedBytes, httpx.AsyncByteStream):
    pass


class HttpxTransport(AnyTransport, httpx.AsyncBaseTransport):
    __doc__ = AnyTransport.__doc__
    library: ClassVar[Any] = httpx
    body: ClassVar[Any] = _Body


__all__ = ["HttpxTransport"]
