"""Content codings undone as a stream: what a server has flushed comes out at once, and a bounded piece at a time.

A compressed body can be a thousand times its wire size, so a machine that returned all of it would grow without a
bound: `feed()` returns at most `max_piece` bytes (brotli never less than 32 KiB), and is asked again until it returns
nothing. A body that ends inside its coding is a truncation. The rules: RFC 9110 section 8.4 (codings are listed in the
order they were applied), RFC 1952 (a gzip file may have several members), RFC 9659 (zstd windows of 8 MiB at most).
A checksum finds damage in gzip and zlib bodies; brotli and most zstd bodies carry none.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from holdfast._errors import DecodeError, MissingExtra, Truncated
from holdfast.machines.redact import only_name

MAX_PIECE = 64 * 1024
"""Bytes handed out at once: what a socket read brings."""
MAX_CODINGS = 4
"""Codings over one another. Each holds a piece; nobody means more than two."""
_ZSTD_WINDOW_LOG = 23
_GZIP = zlib.MAX_WBITS | 16


class _Decoder(Protocol):
    """One coding."""

    input: bytes
    """What it has not taken yet."""
    done: bool
    """Its end was seen."""

    @property
    def error(self) -> type[Exception]:
        """What its library raises over corrupt input."""

    def step(self, limit: int) -> bytes:
        """Gives about `limit` bytes of output, nothing when it needs more input."""


class Inflater:
    """Undoes a `Content-Encoding`.

    Raises `DecodeError` for a coding that it does not know and `MissingExtra` for one whose package is not installed.
    """

    __slots__ = ("_coding", "_decoders", "_errors", "_given", "_max_piece", "_started", "busy")

    def __init__(self, coding: str, *, max_piece: int = MAX_PIECE) -> None:
        if max_piece < 1:
            raise ValueError(f"max_piece must be at least 1 byte, not {max_piece}")
        names = codings(coding)
        if len(names) > MAX_CODINGS:
            raise DecodeError(f"the body is encoded {len(names)} times, {MAX_CODINGS} are allowed", retryable=False)
        self._coding = ", ".join(names)
        self._decoders = [_decoder(name) for name in reversed(names)]
        self._errors = tuple({decoder.error for decoder in self._decoders})
        self._max_piece = max_piece
        self._started = False
        self._given = 0
        self.busy = False
        """The last `feed()` stopped before it had made anything of what it holds: `feed(b"")` goes on."""

    def feed(self, data: bytes) -> bytes:
        """Returns the next piece. While it is not empty, or the machine `busy`, there may be more: `feed(b"")` has it.

        Raises `DecodeError` where the body is corrupt.
        """
        self._started = self._started or bool(data)
        self.busy = False
        self._decoders[0].input += data
        try:
            piece = self._pull(len(self._decoders) - 1)
        except self._errors as error:
            raise DecodeError(
                f"the {self._coding} coding of the body is corrupt after {self._given} bytes: {error}",
                offset=self._given,
            ) from error
        self._given += len(piece)
        return piece

    def _pull(self, place: int) -> bytes:
        """Asks the last decoder first, so that none holds more than a piece.

        Each coding takes one piece of the one below and no more: a coded body of a thousand times its size may itself
        be coded of nothing at all, and whoever went on until something comes of it would not come back for minutes.
        """
        decoder = self._decoders[place]
        piece = decoder.step(self._max_piece)
        if piece or not place:
            return piece
        more = self._pull(place - 1)
        if not more:
            return b""
        decoder.input += more
        piece = decoder.step(self._max_piece)
        self.busy = not piece
        return piece

    def end(self) -> None:
        """The wire's body ended cleanly. Raises `Truncated` when it ended inside its coding; no body at all is none."""
        if self._started and not all(decoder.done for decoder in self._decoders):
            raise Truncated(f"the body ended inside its {self._coding} coding, {self._given} bytes were whole")


def codings(content_encoding: str) -> list[str]:
    """Splits a `Content-Encoding` into what has to be undone, in the order it was applied; `identity` is nothing."""
    names = (name.strip().lower() for name in content_encoding.split(","))
    return [name.removeprefix("x-") for name in names if name not in ("", "identity")]


def inflater(content_encoding: str) -> Inflater | None:
    """Gives the machine for a `Content-Encoding`, None where nothing has to be undone."""
    return Inflater(content_encoding) if codings(content_encoding) else None


def _decoder(name: str) -> _Decoder:
    make = _DECODERS.get(name)
    if make is None:
        raise DecodeError(f"the body is in the coding {only_name(name)!r}, which nobody here can undo", retryable=False)
    return make()


class _Gzip:
    """RFC 1952: "a gzip file consists of a series of members". Zero bytes after the last one are padding."""

    __slots__ = ("_inner", "done", "input")
    error = zlib.error

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self.input = b""
        self.done = False

    def step(self, limit: int) -> bytes:
        while True:
            if self.done:
                self.input = self.input.lstrip(b"\0")
                if not self.input:
                    return b""
                self._inner = zlib.decompressobj(_GZIP)
            piece = self._inner.decompress(self.input, limit)
            self.done = self._inner.eof
            self.input = self._inner.unused_data if self.done else self._inner.unconsumed_tail
            if piece or not self.done:
                return piece


class _Deflate:
    """RFC 9110 means the zlib format by "deflate", some servers send it raw: the first two bytes tell which."""

    __slots__ = ("_inner", "done", "input")
    error = zlib.error

    def __init__(self) -> None:
        self._inner: Any = None
        self.input = b""
        self.done = False

    def step(self, limit: int) -> bytes:
        if self._inner is None:
            if len(self.input) < 2:
                return b""
            # RFC 1950: the method is 8, and the first two bytes as a number are a multiple of 31.
            wrapped = self.input[0] & 15 == 8 and int.from_bytes(self.input[:2], "big") % 31 == 0
            self._inner = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        if self.done:
            if self.input:
                raise zlib.error("bytes after the end")
            return b""
        piece: bytes = self._inner.decompress(self.input, limit)
        self.done = self._inner.eof
        self.input = self._inner.unused_data if self.done else self._inner.unconsumed_tail
        return piece


class _Brotli:
    """RFC 7932. The package takes no input while it holds output back, and doubles its buffer past the limit."""

    __slots__ = ("_inner", "done", "error", "input")

    def __init__(self) -> None:
        brotli = _package("brotli", feature="a body in the coding br", extra="br")
        self._inner = brotli.Decompressor()
        self.input = b""
        self.done = False
        self.error = brotli.error

    def step(self, limit: int) -> bytes:
        data = b""
        if self._inner.can_accept_more_data():
            data, self.input = self.input, b""
        piece: bytes = self._inner.process(data, output_buffer_limit=max(1, limit // 2 - 16))
        self.done = self._inner.is_finished()
        return piece


class _Zstd:
    """RFC 8878: a body is one or more frames."""

    __slots__ = ("_inner", "_new", "done", "error", "input")

    def __init__(self) -> None:
        zstd = _zstd()
        options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._new: Callable[[], Any] = lambda: zstd.ZstdDecompressor(options=options)
        self._inner = self._new()
        self.input = b""
        self.done = False
        self.error = zstd.ZstdError

    def step(self, limit: int) -> bytes:
        while True:
            if self.done:
                if not self.input:
                    return b""
                self._inner = self._new()
            piece: bytes = self._inner.decompress(self.input, limit)  # what it does not need yet, it keeps
            self.done = self._inner.eof
            self.input = self._inner.unused_data if self.done else b""
            if piece or not self.done:
                return piece


def _zstd() -> Any:
    try:
        return importlib.import_module("compression.zstd")  # in the standard library from 3.14 on
    except ImportError:
        return _package("backports.zstd", feature="a body in the coding zstd", extra="zstd")


def _package(name: str, *, feature: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(feature, extra) from error


_DECODERS: dict[str, Callable[[], _Decoder]] = {"gzip": _Gzip, "deflate": _Deflate, "br": _Brotli, "zstd": _Zstd}
