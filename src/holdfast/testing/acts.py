"""What a server does to a reply, in words that TCP and memory both understand.

A fault is a `Play`: a generator that is handed the events of the healthy reply one at a time, as it asks for them, and
says what to send in their place. It must never wait, read or draw anything itself: who performs it does, over TCP
(`TcpPerformer`, steps of a `ScriptedServer`) or in memory (`Faults`). One description, so both mean the same fault.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from holdfast.testing import server
from holdfast.testing.idiom import CHAT, ID_LINE, Idiom, event_id
from holdfast.testing.server import Close, Pause, Repeat, Reset, Send, Stall, Step

# -- acts --------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Begin:
    """Sends the head of a reply. `headers` (lower case) are over those of the healthy one.

    `framing` tells how the body's end is known: by chunks, by a Content-Length of `length` bytes, or by the end of the
    connection. `coding` compresses the body. What only TCP can show: `early` are 1xx statuses sent before, and the head
    leaves in pieces of `every` bytes, 0 being all at once.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    framing: Literal["chunked", "length", "close"] = "chunked"
    length: int = 0
    coding: Literal["identity", "gzip"] = "identity"
    early: tuple[int, ...] = ()
    every: int = 0


@dataclass(slots=True, frozen=True)
class Bytes:
    """Sends bytes of the body, in one write and one chunk."""

    data: bytes


@dataclass(slots=True, frozen=True)
class Pings:
    """Sends `data` every `every` seconds until the client leaves."""

    data: bytes
    every: float


Ending = Literal["clean", "reset", "fin", "inside a chunk", "bad chunk", "inside the coding"]


@dataclass(slots=True, frozen=True)
class Cut:
    """Ends the body: by the book, or in one of the ways that connections die.

    `reset` is a RST, `fin` a FIN before the body's end, `inside a chunk` a FIN when half of a chunk has been sent (that
    half is `data`); `bad chunk` breaks the framing, `inside the coding` ends the body by the book and the compressed
    data in it too early.
    """

    how: Ending = "clean"
    data: bytes = b""


@dataclass(slots=True, frozen=True, kw_only=True)
class Refuse:
    """Sends a whole reply that is not the stream, after which the connection may be used again."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class NoHead:
    """Ends the connection, or stalls, before any head; `garbage` is an answer that is not HTTP."""

    how: Literal["reset", "close", "stall", "garbage"] = "reset"


Act = Begin | Bytes | Pause | Pings | Stall | Cut | Refuse | NoHead


@dataclass(slots=True, frozen=True)
class Take:
    """Asks for the next event of the healthy reply: the generator is sent its bytes, or None after the last."""


TAKE = Take()
Play = Generator[Act | Take, bytes | None, None]
"""What a fault does. It begins with `NoHead`, `Refuse` or `Begin`; pauses and takes may come before."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Asked:
    """What a fault may know of the request it meets: which attempt it is, and where it is to go on from.

    `cursor` is a place that the request names otherwise than by `Last-Event-ID`; `idiom` is how the dialect says it.
    """

    attempt: int = 1
    last_event_id: str = ""
    cursor: str = ""
    idiom: Idiom = CHAT

    @property
    def resumes(self) -> bool:
        """True where the request names a place to go on from."""
        return bool(self.last_event_id or self.cursor)


async def perform(play: Play, events: AsyncIterator[bytes]) -> AsyncGenerator[Act, None]:
    """Gives the acts of a play over events that may have to be waited for."""
    said: Act | Take | None = next(play, None)
    while said is not None:
        if isinstance(said, Take):
            event = await anext(events, None)
            said = _send(play, event)
        else:
            yield said
            said = next(play, None)


def acts(play: Play, events: Iterable[bytes]) -> Iterator[Act]:
    """Gives the acts of a play over events that are at hand."""
    left = iter(events)
    said: Act | Take | None = next(play, None)
    while said is not None:
        if isinstance(said, Take):
            said = _send(play, next(left, None))
        else:
            yield said
            said = next(play, None)


def _send(play: Play, event: bytes | None) -> Act | Take | None:
    try:
        return play.send(event)
    except StopIteration:
        return None


# -- over TCP ----------------------------------------------------------------------------------

_NO_HEAD: Mapping[str, Step] = {
    "reset": Reset(),
    "close": Close(),
    "stall": Stall(),
    "garbage": Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
}
HEADERS: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
"""What the head of a healthy reply says, besides its framing."""


class TcpPerformer:
    """Turns the acts of one reply into the steps of a `ScriptedServer`; `headers` are those of the healthy head."""

    def __init__(self, headers: Mapping[str, str] = HEADERS) -> None:
        self._headers = headers
        self._chunked = True
        self._coder: zlib._Compress | None = None

    def steps(self, act: Act) -> Iterator[Step]:
        """Gives the steps of the next act."""
        match act:
            case Begin():
                yield from self._begin(act)
            case Bytes(data):
                if framed := self._frame(self._coded(data)):
                    yield Send(framed)
            case Pings(data, every):
                # Compressed, every ping is other bytes; nobody masks a stall that way.
                yield Repeat(self._frame(self._coded(data)), every)
            case Cut(how, data):
                yield from self._cut(how, data)
            case Refuse():
                headers: dict[str, str | int] = {**act.headers}
                yield from server.respond(act.body, act.status, **headers)
            case NoHead(how):
                yield _NO_HEAD[how]
                yield Close()
            case Pause() | Stall():
                yield act

    def _begin(self, act: Begin) -> Iterator[Step]:
        headers: dict[str, str | int] = {**self._headers, **act.headers}
        self._chunked = act.framing == "chunked"
        if act.coding == "gzip":
            self._coder = zlib.compressobj(wbits=31)
            headers["content-encoding"] = "gzip"
        if act.framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif act.framing == "length":
            headers["content-length"] = act.length
        if act.framing != "chunked":
            headers["connection"] = "close"
        data = server.head(act.status, **headers)
        for status in act.early:
            yield Send(server.head(status))
        if act.every:
            yield server.Drip(data, act.every)
        else:
            yield Send(data)

    def _coded(self, data: bytes) -> bytes:
        if self._coder is None or not data:
            return data
        return self._coder.compress(data) + self._coder.flush(zlib.Z_SYNC_FLUSH)

    def _frame(self, data: bytes) -> bytes:
        return server.chunked(data) if self._chunked and data else data

    def _cut(self, how: Ending, data: bytes) -> Iterator[Step]:
        if how == "clean" and self._coder is not None:
            yield Send(self._frame(self._coder.flush()))
        if how == "inside a chunk" and self._chunked:
            yield Send(b"%x\r\n%b" % (2 * len(data) + 1, data))
        elif how == "bad chunk":
            yield Send(b"zz\r\n")
        elif how in ("clean", "inside the coding") and self._chunked:
            yield Send(server.LAST_CHUNK)
            return
        yield Reset() if how == "reset" else Close()


# -- from bytes to events ----------------------------------------------------------------------

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class EventCutter:
    """Cuts the bytes of a body after every blank line: the exact bytes of each event, comments included.

    It is no parser and drops nothing: what it gave, put together, is what it was fed.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    @property
    def holds(self) -> bool:
        """True while the beginning of an event waits for its end."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Takes bytes in and gives the events that are whole now."""
        whole: list[bytes] = []
        # A CR that ends the bytes so far may be half a CR LF: the blank line is looked for once more is there.
        text, begin = self._held + data, 0
        for match in _BLANK_LINE.finditer(text):
            if match.end() == len(text) and text.endswith(b"\r") and not text.endswith(b"\r\r"):
                break
            whole.append(text[begin : match.end()])
            begin = match.end()
        self._held = text[begin:]
        return whole

    def end(self) -> bytes:
        """Gives what is left behind the last blank line."""
        rest, self._held = self._held, b""
        return rest


__all__ = [
    "ID_LINE",
    "TAKE",
    "Act",
    "Asked",
    "Begin",
    "Bytes",
    "Cut",
    "EventCutter",
    "NoHead",
    "Pings",
    "Play",
    "Refuse",
    "Take",
    "TcpPerformer",
    "acts",
    "event_id",
    "perform",
]
