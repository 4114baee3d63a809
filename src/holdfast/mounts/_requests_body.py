"""The body that a requests caller reads, as urllib3 would give it: pulled in his thread, or pumped from another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from requests import exceptions as theirs
from urllib3.response import BaseHTTPResponse

from holdfast._background import Pump
from holdfast._errors import DeadlineExceeded, StreamError, UsageError
from holdfast._foreground import Pull
from holdfast.mounts._failures import story


class PumpedResponse(BaseHTTPResponse):
    """The body of a response that is relayed."""

    def __init__(self, raw: Any, pump: Pump[bytes] | Pull[bytes], headers: Any) -> None:
        super().__init__(
            headers=dict(headers),
            status=raw.status,
            version=getattr(raw, "version", 11),
            version_string=getattr(raw, "version_string", "HTTP/1.1"),
            reason=raw.reason,
            decode_content=True,
            request_url=getattr(raw, "_request_url", None),
        )
        self._original_response = getattr(raw, "_original_response", None)  # where sessions look for cookies
        self._pump = pump
        self._buffer = bytearray()
        self._over = False
        self._shut = False

    def _end(self) -> None:
        self._pump.close()

    def _more(self) -> bool:
        """Waits for more; says whether there was any."""
        if self._over:
            return False
        if self._shut:
            raise theirs.ConnectionError("the response was closed before its end")
        lost: Exception
        try:
            piece = self._pump.next()
        except StreamError as failure:
            kind = theirs.ConnectionError if isinstance(failure, DeadlineExceeded) else theirs.ChunkedEncodingError
            lost = kind(story(failure))
            lost.__cause__ = failure
        except UsageError:
            lost = theirs.ConnectionError("the response was closed before its end")
        else:
            if piece is not None:
                self._buffer += piece
                return True
            self._over = True
            self._end()
            return False
        self._end()
        raise lost

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:  # noqa: FBT001, FBT002 - urllib3's
        """Reads so many bytes, and fewer only at the end."""
        while (amt is None or amt < 0 or len(self._buffer) < amt) and self._more():
            pass
        return self._cut(len(self._buffer) if amt is None or amt < 0 else amt)

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: FBT001 - urllib3's
        """Reads what is there, and waits only where nothing is."""
        if amt == 0 or (not self._buffer and not self._more()):
            return b""
        return self._cut(len(self._buffer) if amt is None or amt < 0 else amt)

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: FBT001
        """Yields what comes, each piece at once."""
        while data := self.read1(amt):
            yield data

    read_chunked = stream

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads a line."""
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0 and (size is None or size < 0 or len(self._buffer) < size):
            looked = len(self._buffer)
            if not self._more():
                end = looked - 1
                break
        length = end + 1 if end >= 0 or self._over else len(self._buffer)
        return self._cut(length if size is None or size < 0 else min(size, length))

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.read()

    @property
    def url(self) -> str | None:
        """The path that was asked for."""
        return self._request_url

    @url.setter
    def url(self, url: str | None) -> None:
        self._request_url = url

    @property
    def connection(self) -> None:
        """There may be several, one after another."""
        return

    @property
    def closed(self) -> bool:
        """True where there is nothing left to read."""
        return self._shut or (self._over and not self._buffer)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Gives the connection back, or ends it where the body is not over."""
        self._shut = True
        self._end()

    release_conn = drain_conn = shutdown = close

    def __del__(self) -> None:
        if hasattr(self, "_pump"):
            self._pump.abandon()


__all__ = ["PumpedResponse"]
