"""Blocking connections that can be told to end, for the transports that a mount makes for itself.

A thread that waits for a head cannot be cancelled, and httpcore names its socket only once the head is in. Here each
connection tells who works with it, so that a request that is given up ends at once. Reading is httpcore's own, without
the context manager and the system call that sets the same timeout again before each read.

There is no public way in. Where httpx or httpcore is not as expected inside, all stays as it was.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import sys
import threading
from typing import Any


def with_known_lines(transport: Any) -> Any:
    """Gives an `HTTPTransport`, which must not have connected yet, after a change of what it connects with."""
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if pool is not None and backend is not None:
        pool._network_backend = _Backend(backend, sys.modules[type(pool).__module__.partition(".")[0]])  # noqa: SLF001
    return transport


def hang_up(line: Any) -> None:
    """Wakes the thread that waits for a socket, or would next: closing it would not."""
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket: that one would take away what the other thread reads with.
        socket.socket.shutdown(line, socket.SHUT_RDWR)


_senders: dict[int, Sender] = {}
"""Who works in which thread."""


class Sender:
    """A request on its way in some thread. As a context manager it stands around the sending, in that thread."""

    def __init__(self) -> None:
        self.line: Any = None
        """The socket that was worked with last."""
        self._given_up = False

    def __enter__(self) -> None:
        _senders[threading.get_ident()] = self

    def __exit__(self, *_: object) -> None:
        del _senders[threading.get_ident()]

    def works_with(self, line: Any) -> None:
        """Hears of a socket before it is used."""
        self.line = line
        if self._given_up:
            hang_up(line)

    def give_up(self) -> None:
        """Ends it at its next step at the latest."""
        self._given_up = True
        if self.line is not None:
            hang_up(self.line)


class _Backend:
    """A backend of httpcore's, with other connections. `core` is httpcore, or what stands in its place under httpx2."""

    def __init__(self, inner: Any, core: Any) -> None:
        self._inner = inner
        self._core = core

    def connect_tcp(self, *args: Any, **settings: Any) -> Any:
        """Connects to a host."""
        return _taken_over(self._inner.connect_tcp(*args, **settings), self._core)

    def connect_unix_socket(self, *args: Any, **settings: Any) -> Any:
        """Connects to a socket in the file system."""
        return _taken_over(self._inner.connect_unix_socket(*args, **settings), self._core)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        self._inner.sleep(seconds)


def _taken_over(stream: Any, core: Any) -> Any:
    line = getattr(stream, "_sock", None)
    # TLS within TLS has a socket, too, and is not read from it.
    return _Line(stream, line, core) if type(stream).__name__ == "SyncStream" and line is not None else stream


_UNSET: Any = object()
_LENGTH = re.compile(rb"(?:\r\n)?[0-9A-Fa-f]{1,16}\r\n")
NEXT_CHUNK = re.compile(rb"\r\n0*[1-9A-Fa-f][0-9A-Fa-f]{0,15}\r\n[\x00-\xff]")
"""What stands behind a chunk of a body where some of another one is there, too."""


class _Line:
    """One connection."""

    __slots__ = ("_core", "_got", "_inner", "_line", "_place", "_timeout")

    def __init__(self, inner: Any, line: socket.socket, core: Any) -> None:
        self._inner = inner
        self._line = line
        self._core = core
        self._timeout: float | None = _UNSET
        self._got = b""
        self._place = -1
        """How much of what was got last has come out as pieces of a body; -1 where that is not known."""
        self._tell()

    def _tell(self) -> None:
        sender = _senders.get(threading.get_ident())
        if sender is not None:
            sender.works_with(self._line)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Returns what has come, nothing at the end."""
        if _senders:
            self._tell()
        try:
            if timeout != self._timeout:
                self._line.settimeout(timeout)
                self._timeout = timeout
            self._got = got = self._line.recv(max_bytes)
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except OSError as error:
            raise self._core.ReadError(str(error)) from error
        self._place = 0
        return got

    def has_more(self, piece: bytes) -> bool:
        """Says whether another piece of a chunked body can be had behind this one, without waiting for it.

        httpcore hands over each chunk by itself, and asks for more only when there is none left: nobody else knows.
        """
        if self._place < 0:
            return False
        got, place = self._got, self._place
        if place or not got.startswith(piece):  # unless it is the rest of a chunk, its length stands before it
            length = _LENGTH.match(got, place)
            if length is None or not got.startswith(piece, length.end()):
                self._place = -1
                return False
            place = length.end()
        self._place = place = place + len(piece)
        return NEXT_CHUNK.match(got, place) is not None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of it."""
        self._tell()
        self._timeout = _UNSET
        self._inner.write(buffer, timeout)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Any:
        """Goes on in TLS."""
        return _taken_over(self._inner.start_tls(ssl_context, server_hostname, timeout), self._core)

    def close(self) -> None:
        """Closes it."""
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        """Tells what httpcore may ask."""
        return self._inner.get_extra_info(info)


__all__ = ["NEXT_CHUNK", "Sender", "hang_up", "with_known_lines"]
