"""The mount for httpx2. See `mounts/_httpx.py`, which does the work."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx2

from holdfast.mounts._httpx import AnyTransport, RelayedBytes


class _Body(RelayedBytes, httpx2.AsyncByteStream):
    pass


class Httpx2Transport(AnyTransport, httpx2.AsyncBaseTransport):
    __doc__ = AnyTransport.__doc__
    library: ClassVar[Any] = httpx2
    body: ClassVar[Any] = _Body


__all__ = ["Httpx2Transport"]
