"""The fault vocabulary: every way a reply is known to go wrong, one typed value each.

A fault is *evident* when it leaves a trace (or does no harm at all): under it a client must be exact or raise. The
others are silent corruption, which nothing on the wire gives away unless there are ids, sequence numbers or digests.
`final` ones tell the client not to come again. A fault only describes: it never waits, and draws nothing. One that
finds nothing to strike at, its place being behind the answer's end, leaves the reply as it is.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from holdfast.machines.statuses import RETRYABLE
from holdfast.testing import server
from holdfast.testing.acts import (
    TAKE,
    Asked,
    Begin,
    Bytes,
    Cut,
    NoHead,
    Pings,
    Play,
    Refuse,
    event_id,
)
from holdfast.testing.server import Pause, Stall

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


class Fault(Protocol):
    """One way a reply goes. `str()` of it names it for a person."""

    @property
    def name(self) -> str:
        """Its name in JSON."""

    @property
    def evident(self) -> bool:
        """False for silent corruption."""

    @property
    def final(self) -> bool:
        """True where the reply says that no other try will mend it."""

    @property
    def forgets(self) -> bool:
        """True where the server does as if the request had no `Last-Event-ID`."""

    def play(self, asked: Asked) -> Play:
        """Gives what is done to one reply."""


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


class _Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="fault", tag=_kebab):
    """What all faults have; a `Fault` of your own needs only the protocol."""

    words: ClassVar[str] = ""
    evident: ClassVar[bool] = True
    forgets: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def final(self) -> bool:
        return False

    def play(self, asked: Asked) -> Play:
        """Gives what is done to one reply: nothing."""
        return _whole()

    def __str__(self) -> str:
        after = getattr(self, "after", None)
        return self.words if after is None else f"{self.words} after {after} event{'s' if after != 1 else ''}"


# -- what faults are made of -------------------------------------------------------------------

Edit = Callable[[bytes], bytes]


def _same(event: bytes) -> bytes:
    return event


def _events(limit: int | None = None, edit: Edit = _same) -> Play:
    """Sends so many events, by default all."""
    while limit is None or limit > 0:
        event = yield TAKE
        if event is None:
            return
        yield Bytes(edit(event))
        limit = None if limit is None else limit - 1


def _whole(edit: Edit = _same, begin: Begin | None = None) -> Play:
    """Sends every event, and ends by the book."""
    yield begin or Begin()
    yield from _events(edit=edit)
    yield Cut()


def _begun(after: int) -> Play:
    yield Begin()
    yield from _events(after)


def _struck(after: int, strike: Edit) -> Play:
    """Edits one event, the first behind so many that the edit can change, and goes on."""
    yield from _begun(after)
    while (event := (yield TAKE)) is not None:
        struck = strike(event)
        yield Bytes(struck)
        if struck != event:
            break
    yield from _events()
    yield Cut()


# The members that hold what a model says, in the shapes of today's providers.
_MEMBERS = b"content|reasoning_content|reasoning|refusal|text|thinking|delta|arguments|partial_json"
_SAID = re.compile(rb'("(?:%b)"\s*:\s*)"((?:[^"\\]|\\.)+)"' % _MEMBERS)
_ID = re.compile(rb"^id:[^\r\n]*", re.MULTILINE)
_FINISH = re.compile(rb'("(?:finish_reason|stop_reason)"\s*:\s*)null')


def _edit_said(event: bytes, edit: Edit, *, count: int = 1) -> bytes:
    """Edits the first words of an event, with `count` 0 all; the escapes of JSON stand as they are."""
    return _SAID.sub(lambda found: b'%b"%b"' % (found[1], edit(found[2])), event, count=count)


def _has_said(event: bytes) -> bool:
    return _SAID.search(event) is not None


def _is_done(event: bytes) -> bool:
    return event.rstrip().endswith(b"data: [DONE]")


def _error(code: str, message: str = "The service is overloaded.") -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()


_HOPELESS = ("content_filter", "insufficient_quota", "invalid_api_key", "invalid_request_error")

# -- no fault ----------------------------------------------------------------------------------


class Healthy(_Fault, frozen=True, kw_only=True):
    """Nothing goes wrong."""

    words = "no fault"


# -- before the head, and in its place ---------------------------------------------------------


class NoAnswer(_Fault, frozen=True, kw_only=True):
    """Not even a head comes: a reset, a FIN, nothing at all, or an answer that is not HTTP."""

    how: Literal["reset", "close", "stall", "garbage"] = "reset"

    def play(self, asked: Asked) -> Play:
        yield NoHead(self.how)

    def __str__(self) -> str:
        words = {"reset": "reset", "close": "closed", "stall": "stall", "garbage": "what is not HTTP"}
        return f"{words[self.how]} before headers"


class Refused(_Fault, frozen=True, kw_only=True):
    """A status instead of an answer; `retry_after` (seconds) is that header, `code` the provider's word for it."""

    status: int = 503
    retry_after: int | None = None
    code: str = ""

    @property
    def final(self) -> bool:
        patient = self.retry_after is not None and self.retry_after > 60
        return self.status not in RETRYABLE or self.code in _HOPELESS or patient

    def play(self, asked: Asked) -> Play:
        code = self.code or ("rate_limit_reached" if self.status == 429 else "server_error")
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if 300 <= self.status < 400:
            headers["location"] = "http://127.0.0.1:9/"
        body = _error(code, "Please come back later.")
        yield Refuse(status=self.status, body=body, headers={"content-type": "application/json", **headers})

    def __str__(self) -> str:
        told = f"{self.status}" if self.retry_after is None else f"{self.status}, Retry-After {self.retry_after} s"
        return f"{told}, {self.code}" if self.code else told


class HtmlPage(_Fault, frozen=True, kw_only=True):
    """A page with status 200, as a tired gateway serves it."""

    words = "HTML with status 200"

    def play(self, asked: Asked) -> Play:
        page = b"<!doctype html>\n<html><body><h1>We will be right back</h1></body></html>\n"
        yield Refuse(status=200, body=page, headers={"content-type": "text/html"})


class EmptyBody(_Fault, frozen=True, kw_only=True):
    """Status 200, the right content type, and nothing."""

    words = "empty body, status 200"

    def play(self, asked: Asked) -> Play:
        yield Refuse(status=200, headers={"content-type": "text/event-stream"})


class JsonError(_Fault, frozen=True, kw_only=True):
    """The provider's error as a JSON document, with status 200."""

    code: str = "server_error"

    @property
    def final(self) -> bool:
        return self.code in _HOPELESS

    def play(self, asked: Asked) -> Play:
        yield Refuse(status=200, body=_error(self.code), headers={"content-type": "application/json"})

    def __str__(self) -> str:
        return f"JSON error {self.code} with status 200"


class JsonAnswer(_Fault, frozen=True, kw_only=True):
    """A whole answer as one JSON document: the server does not stream."""

    words = "JSON answer in place of a stream"

    @property
    def final(self) -> bool:
        return True

    def play(self, asked: Asked) -> Play:
        body = b'{"choices": [{"message": {"role": "assistant", "content": "All at once."}}]}'
        yield Refuse(status=200, body=body, headers={"content-type": "application/json"})


class EarlyHints(_Fault, frozen=True, kw_only=True):
    """Heads of status 1xx before the true one."""

    words = "early 1xx"
    statuses: tuple[int, ...] = (103, 103)

    def play(self, asked: Asked) -> Play:
        return _whole(begin=Begin(early=self.statuses))


class SplitHead(_Fault, frozen=True, kw_only=True):
    """The head comes over many packets."""

    words = "head split over packets"
    every: int = 7

    def play(self, asked: Asked) -> Play:
        return _whole(begin=Begin(every=self.every))


class WrongCharset(_Fault, frozen=True, kw_only=True):
    """The head claims an encoding that event streams cannot have: they are UTF-8 always."""

    words = "wrong charset in the head"
    charset: str = "iso-8859-1"

    def play(self, asked: Asked) -> Play:
        return _whole(begin=Begin(headers={"content-type": f"text/event-stream; charset={self.charset}"}))


# -- the connection dies -----------------------------------------------------------------------


class ResetMidStream(_Fault, frozen=True, kw_only=True):
    """The connection is reset after so many events."""

    words = "reset mid-stream"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Cut("reset")


class ClosedMidStream(_Fault, frozen=True, kw_only=True):
    """The connection is closed between two chunks, with no last one."""

    words = "closed mid-stream"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Cut("fin")


class FinInsideChunk(_Fault, frozen=True, kw_only=True):
    """The connection is closed in the middle of the event that would come after so many."""

    words = "closed inside a chunk"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        event = (yield TAKE) or COMMENT
        yield Cut("inside a chunk", event[: len(event) // 2])


class BadChunk(_Fault, frozen=True, kw_only=True):
    """After so many events comes a chunk whose size is no number."""

    words = "bad chunk size"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Cut("bad chunk")


class ResetAtEnd(_Fault, frozen=True, kw_only=True):
    """The connection is reset when all has been said, without or with `[DONE]`."""

    done: bool = True

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None and (self.done or not _is_done(event)):
            yield Bytes(event)
        yield Cut("reset")

    def __str__(self) -> str:
        return "reset after [DONE]" if self.done else "reset after the finish reason"


# -- the body ends by the book, and the answer is not whole ------------------------------------


class CleanCut(_Fault, frozen=True, kw_only=True):
    """The body ends by the book after so many events, and the answer is not whole."""

    words = "clean truncation"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Cut()


class EarlyDone(_Fault, frozen=True, kw_only=True):
    """After so many events `[DONE]` comes, though nothing is finished."""

    words = "[DONE] without a finish reason"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Bytes(DONE)
        yield Cut()


class CutInsideEvent(_Fault, frozen=True, kw_only=True):
    """The body ends by the book in the middle of an event."""

    words = "clean end inside an event"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        if (event := (yield TAKE)) is not None:
            yield Bytes(event[: len(event) // 2])
        yield Cut()


class GzipCut(_Fault, frozen=True, kw_only=True):
    """A compressed body ends by the book, and what is compressed does not."""

    words = "gzip, cut"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield Begin(coding="gzip")
        yield from _events(self.after)
        yield Cut("inside the coding")


class LengthTooShort(_Fault, frozen=True, kw_only=True):
    """Content-Length announces less than the body has."""

    words = "Content-Length too short"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        body = yield from _taken(self.after)
        yield Begin(framing="length", length=len(body))
        yield Bytes(body)
        yield from _events()
        yield Cut()


class LengthTooLong(_Fault, frozen=True, kw_only=True):
    """Content-Length announces more than comes; `after` None lets the whole answer come."""

    words = "Content-Length too long"
    after: int | None = 20

    def play(self, asked: Asked) -> Play:
        body = yield from _taken(self.after)
        yield Begin(framing="length", length=len(body) + 10_000)
        yield Bytes(body)
        yield Cut("fin")


def _taken(limit: int | None) -> Any:
    """Takes so many events before anything is said of them: whoever announces a length has buffered the body."""
    body = b""
    while limit is None or limit > 0:
        event = yield TAKE
        if event is None:
            break
        body += event
        limit = None if limit is None else limit - 1
    return body


class WrongDigest(_Fault, frozen=True, kw_only=True):
    """Content-Digest announces another body."""

    words = "wrong digest"

    def play(self, asked: Asked) -> Play:
        wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"  # of nothing
        return _whole(begin=Begin(headers={"content-digest": wrong}))


# -- time --------------------------------------------------------------------------------------


class StallMidStream(_Fault, frozen=True, kw_only=True):
    """After so many events nothing more comes, and the connection stays."""

    words = "stall"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Stall()


class StallBehindPings(_Fault, frozen=True, kw_only=True):
    """After so many events only comments come, `ping` seconds one, until the client leaves."""

    words = "stall behind pings"
    after: int = 20
    ping: float = 0.1

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Pings(COMMENT, self.ping)


class StallBehindEmptyDeltas(_Fault, frozen=True, kw_only=True):
    """After so many events only pieces without text come, `ping` seconds one."""

    words = "stall behind empty deltas"
    after: int = 20
    ping: float = 0.1

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        while (event := (yield TAKE)) is not None and not _has_said(event):
            yield Bytes(event)
        if event is None:
            yield Cut()
            return
        # An empty piece with the id of the event that it stands for would be a lie about what was delivered.
        yield Pings(_edit_said(_ID.sub(b":", event), lambda _: b"", count=0), self.ping)


class StallAtEnd(_Fault, frozen=True, kw_only=True):
    """All has been said, without or with `[DONE]`, and the body does not end."""

    done: bool = True

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None and (self.done or not _is_done(event)):
            yield Bytes(event)
        yield Stall()

    def __str__(self) -> str:
        return "stall after [DONE]" if self.done else "stall after the finish reason"


class Latency(_Fault, frozen=True, kw_only=True):
    """The head comes late by so many seconds."""

    words = "latency"
    seconds: float = 0.05

    def play(self, asked: Asked) -> Play:
        yield Pause(self.seconds)
        yield from _whole()


class Drip(_Fault, frozen=True, kw_only=True):
    """The body comes in pieces of `size` bytes, each a chunk and a write of its own, `every` seconds one."""

    words = "drip"
    size: int = 7
    every: float = 0.0

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            for start in range(0, len(event), self.size):
                yield Bytes(event[start : start + self.size])
                if self.every:
                    yield Pause(self.every)
        yield Cut()


class Throttle(_Fault, frozen=True, kw_only=True):
    """The line carries so many bytes a second and no more."""

    words = "throttle"
    bytes_per_second: int = 100_000

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            yield Bytes(event)
            yield Pause(len(event) / self.bytes_per_second)
        yield Cut()


class SlowThenDead(_Fault, frozen=True, kw_only=True):
    """After so many events each of eight more takes twice as long as the one before, then nothing comes."""

    words = "slow, then dead"
    after: int = 20
    seconds: float = 0.001

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        for doubling in range(8):
            if (event := (yield TAKE)) is None:
                break
            yield Pause(self.seconds * 2**doubling)
            yield Bytes(event)
        yield Stall()


class ThroughputCollapse(_Fault, frozen=True, kw_only=True):
    """The first token comes at once, and from then on `seconds` pass before each event."""

    words = "throughput collapse after the first token"
    seconds: float = 0.02

    def play(self, asked: Asked) -> Play:
        yield Begin()
        slow = False
        while (event := (yield TAKE)) is not None:
            if slow:
                yield Pause(self.seconds)
            yield Bytes(event)
            slow = slow or _has_said(event)
        yield Cut()


# -- what comes is wrong -----------------------------------------------------------------------


class TornEvent(_Fault, frozen=True, kw_only=True):
    """An event ends in the middle of its JSON, and the stream goes on behind it."""

    words = "event cut in its JSON"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        def tear(event: bytes) -> bytes:
            begin = event.find(b"{")
            return event if begin < 0 else event[: begin + (len(event) - begin) // 2] + b"\n\n"

        return _struck(self.after, tear)


class FlippedBit(_Fault, frozen=True, kw_only=True):
    """One bit of an event is wrong: in the syntax of its JSON, or inside a word, where nothing gives it away."""

    after: int = 20
    where: Literal["syntax", "word"] = "syntax"

    @property
    def evident(self) -> bool:  # type: ignore[override]  # of this fault alone it depends on the value
        return self.where == "syntax"

    def play(self, asked: Asked) -> Play:
        if self.where == "syntax":
            return _struck(self.after, lambda event: event.replace(b"{", b"z", 1))
        return _struck(self.after, lambda event: _edit_said(event, _flip))

    def __str__(self) -> str:
        return f"bit flipped in {'the syntax' if self.where == 'syntax' else 'a word'} after {self.after} events"


def _flip(text: bytes) -> bytes:
    """Flips a bit that leaves JSON and UTF-8 whole: the case of a letter, or a character outside ASCII."""
    for place, byte in enumerate(text):
        if byte >= 0x80 and not (place + 1 < len(text) and 0x80 <= text[place + 1] < 0xC0):
            return text[:place] + bytes([byte ^ 1]) + text[place + 1 :]
        if chr(byte).isascii() and chr(byte).isalpha() and text[place - 1 : place] != b"\\":
            return text[:place] + bytes([byte ^ 0x20]) + text[place + 1 :]
    return text


class WrongType(_Fault, frozen=True, kw_only=True):
    """The words of an event are a number."""

    words = "content that is a number"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda event: _SAID.sub(rb"\g<1>7", event, count=1))


class HalfSurrogate(_Fault, frozen=True, kw_only=True):
    """The words of an event end with half of a surrogate pair, as a server counting in UTF-16 cuts them."""

    words = "half a surrogate pair"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda event: _edit_said(event, lambda text: text + rb"\ud83c"))


class ErrorEvent(_Fault, frozen=True, kw_only=True):
    """The provider reports an error of its own after so many events, then ends as if all were well."""

    words = "error event"
    after: int = 20
    code: str = "internal_server_error"
    done: bool = True

    @property
    def final(self) -> bool:
        return self.code in _HOPELESS

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Bytes(server.sse(_error(self.code)) + (DONE if self.done else b""))
        yield Cut()

    def __str__(self) -> str:
        return f"error event {self.code}{'' if self.done else ' without [DONE]'} after {self.after} events"


class GaveUp(_Fault, frozen=True, kw_only=True):
    """An event finishes the answer with the provider's word for not having finished it."""

    words = "the server gave up"
    after: int = 20
    reason: str = "insufficient_system_resource"

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        while (event := (yield TAKE)) is not None:
            given_up = _FINISH.sub(rb'\g<1>"%b"' % self.reason.encode(), event)
            yield Bytes(given_up)
            if given_up != event:
                yield Bytes(DONE)
                break
        yield Cut()


class EndlessLine(_Fault, frozen=True, kw_only=True):
    """After so many events comes a line of `size` bytes that does not end."""

    words = "a line without an end"
    after: int = 20
    size: int = 12 * 1024 * 1024

    @property
    def final(self) -> bool:
        return True

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield Bytes(b"data: ")
        for _ in range(0, self.size, 65_536):
            yield Bytes(b"x" * 65_536)
        yield Stall()


# -- silent corruption -------------------------------------------------------------------------


class InvalidUtf8(_Fault, frozen=True, kw_only=True):
    """A byte inside the words of an event is none of UTF-8; a reader that is not strict repairs it, and counts."""

    words = "invalid UTF-8"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda event: _edit_said(event, lambda text: text + b"\xff"))


class DroppedEvent(_Fault, frozen=True, kw_only=True):
    """One event never comes."""

    words = "event dropped"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda _: b"")


class ReorderedEvents(_Fault, frozen=True, kw_only=True):
    """Two events come in the wrong order."""

    words = "events reordered"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        held = yield TAKE
        yield from _events(1)
        if held is not None:
            yield Bytes(held)
        yield from _events()
        yield Cut()


class RepeatedEvents(_Fault, frozen=True, kw_only=True):
    """From so many events on each comes twice; only ids give that away."""

    words = "events repeated"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from _begun(self.after)
        yield from _events(edit=lambda event: event if _is_done(event) else event * 2)
        yield Cut()


class DoneInText(_Fault, frozen=True, kw_only=True):
    """The words of an event have `[DONE]` added to them; a reader that looks for it anywhere stops there."""

    words = "[DONE] in the text"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda event: _edit_said(event, lambda text: text + b"[DONE]"))


class IdRewound(_Fault, frozen=True, kw_only=True):
    """An event bears the id of the one `back` before it, and there the connection is reset."""

    words = "id rewound, and reset,"
    evident = False
    after: int = 20
    back: int = 3

    def play(self, asked: Asked) -> Play:
        yield Begin()
        ids: deque[bytes] = deque(maxlen=self.back)
        for _ in range(self.after):
            if (event := (yield TAKE)) is None:
                break
            ids += _ID.findall(event)
            yield Bytes(event)
        if (event := (yield TAKE)) is not None and ids:
            yield Bytes(_ID.sub(lambda _: ids[0], event))
        yield Cut("reset")


# -- ids and resuming --------------------------------------------------------------------------


class IdWithNul(_Fault, frozen=True, kw_only=True):
    """Every id has a NUL in it, so none counts; after so many events the connection is reset."""

    words = "ids with NUL, and reset,"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield Begin()
        yield from _events(self.after, edit=lambda event: _ID.sub(rb"\g<0>\0", event))
        yield Cut("reset")


class IgnoresLastEventId(_Fault, frozen=True, kw_only=True):
    """A request that says where to go on gets the answer from its beginning."""

    words = "Last-Event-ID ignored"
    forgets = True


class ResumeRefused(_Fault, frozen=True, kw_only=True):
    """A request that says where to go on gets a status: 204, 400, 410."""

    status: int = 410

    def play(self, asked: Asked) -> Play:
        if not asked.last_event_id:
            yield from _whole()
        elif self.status == 204:
            yield Refuse(status=204)
        else:
            body = _error("invalid_request_error", "There is nothing to go on with.")
            yield Refuse(status=self.status, body=body, headers={"content-type": "application/json"})

    def __str__(self) -> str:
        return f"{self.status} to Last-Event-ID"


class AnotherAnswer(_Fault, frozen=True, kw_only=True):
    """A request that says where to go on gets another answer, from its beginning."""

    words = "another answer to Last-Event-ID"
    forgets = True

    @property
    def final(self) -> bool:
        return True  # the answer that was begun is gone

    def play(self, asked: Asked) -> Play:
        if not asked.last_event_id:
            return _whole()
        return _whole(edit=lambda event: _edit_said(event, lambda text: b" no" + text))


class RepeatedAfterResume(_Fault, frozen=True, kw_only=True):
    """A request that says where to go on gets the last `events` once more that it has already."""

    words = "events repeated after a resume"
    forgets = True
    events: int = 3

    def play(self, asked: Asked) -> Play:
        yield Begin()
        if asked.last_event_id:
            known: deque[bytes] = deque(maxlen=self.events)
            while (event := (yield TAKE)) is not None:
                known.append(event)
                if event_id(event) == asked.last_event_id:
                    break
            for event in known:
                yield Bytes(event)
        yield from _events()
        yield Cut()


# -- what looks like a fault and is none -------------------------------------------------------


class SplitCharacters(_Fault, frozen=True, kw_only=True):
    """Every byte outside ASCII travels alone, so that no read holds a whole Chinese character."""

    words = "split characters"

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            for part in re.findall(rb"[\x00-\x7f]+|[\x80-\xff]", event):
                yield Bytes(part)
        yield Cut()


class ByteOrderMark(_Fault, frozen=True, kw_only=True):
    """A byte order mark stands before the first event."""

    words = "byte order mark"

    def play(self, asked: Asked) -> Play:
        yield Begin()
        yield Bytes(b"\xef\xbb\xbf")
        yield from _events()
        yield Cut()


class LineEnds(_Fault, frozen=True, kw_only=True):
    """Lines end in CR or CR LF."""

    ends: Literal["CR", "CRLF"] = "CRLF"

    def play(self, asked: Asked) -> Play:
        ending = b"\r" if self.ends == "CR" else b"\r\n"
        return _whole(edit=lambda event: event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", ending))

    def __str__(self) -> str:
        return f"lines end in {self.ends}"


class Comments(_Fault, frozen=True, kw_only=True):
    """A comment stands before every event."""

    words = "comments between events"

    def play(self, asked: Asked) -> Play:
        return _whole(edit=lambda event: COMMENT + event)


class BigEvent(_Fault, frozen=True, kw_only=True):
    """An event is `size` bytes longer than it must be: blanks in its JSON."""

    words = "a big event"
    after: int = 20
    size: int = 300_000

    def play(self, asked: Asked) -> Play:
        return _struck(self.after, lambda event: event.replace(b"{", b"{" + b" " * self.size, 1))


class NoDone(_Fault, frozen=True, kw_only=True):
    """`[DONE]` never comes, though all has been said."""

    words = "no [DONE]"

    def play(self, asked: Asked) -> Play:
        return _whole(edit=lambda event: b"" if _is_done(event) else event)


class Gzipped(_Fault, frozen=True, kw_only=True):
    """The body is compressed."""

    words = "gzip"

    def play(self, asked: Asked) -> Play:
        return _whole(begin=Begin(coding="gzip"))


class Framed(_Fault, frozen=True, kw_only=True):
    """The body has no chunks: its end is known by its length, or by the connection's."""

    by: Literal["length", "close"] = "close"

    def play(self, asked: Asked) -> Play:
        if self.by == "close":
            yield from _whole(begin=Begin(framing="close"))
            return
        body = yield from _taken(None)
        yield Begin(framing="length", length=len(body))
        yield Bytes(body)
        yield Cut()

    def __str__(self) -> str:
        return "Content-Length in place of chunks" if self.by == "length" else "the connection's end in place of chunks"


# -- all of them -------------------------------------------------------------------------------

VOCABULARY: tuple[_Fault, ...] = (
    *(NoAnswer(how="reset"), NoAnswer(how="close"), NoAnswer(how="stall"), NoAnswer(how="garbage")),
    *(Refused(status=status) for status in (500, 502, 503, 529)),
    Refused(status=429, retry_after=0),
    Refused(status=429, retry_after=61),
    Refused(status=429, code="insufficient_quota"),
    *(Refused(status=status) for status in (307, 400, 401, 402)),
    *(HtmlPage(), EmptyBody(), JsonError(), JsonError(code="invalid_api_key"), JsonAnswer()),
    *(EarlyHints(), SplitHead(), WrongCharset()),
    *(ResetMidStream(), ClosedMidStream(), FinInsideChunk(), BadChunk(), ResetAtEnd(), ResetAtEnd(done=False)),
    *(CleanCut(), EarlyDone(), CutInsideEvent(), GzipCut(), LengthTooShort(), LengthTooLong()),
    *(LengthTooLong(after=None), WrongDigest()),
    *(StallMidStream(), StallBehindPings(), StallBehindEmptyDeltas(), StallAtEnd(), StallAtEnd(done=False)),
    *(Latency(), Drip(), Throttle(), SlowThenDead(), ThroughputCollapse()),
    *(TornEvent(), FlippedBit(), WrongType(), HalfSurrogate(), ErrorEvent(), ErrorEvent(done=False)),
    *(ErrorEvent(code="content_filter"), GaveUp(), EndlessLine()),
    *(InvalidUtf8(), DroppedEvent(), ReorderedEvents(), RepeatedEvents(), DoneInText(), IdRewound()),
    FlippedBit(where="word"),
    *(IdWithNul(), IgnoresLastEventId(), ResumeRefused(status=204), ResumeRefused(status=400), ResumeRefused()),
    *(AnotherAnswer(), RepeatedAfterResume()),
    *(SplitCharacters(), ByteOrderMark(), LineEnds(ends="CR"), LineEnds(), Comments(), BigEvent(), NoDone(), Gzipped()),
    *(Framed(by="length"), Framed()),
)
"""One example of every fault, those of several kinds once a kind. `Healthy` is not among them."""
EVIDENT = tuple(fault for fault in VOCABULARY if fault.evident and not fault.final)
"""The faults under which a client can be exact in the end, and must never be silent."""
FINAL = tuple(fault for fault in VOCABULARY if fault.evident and fault.final)
"""The faults that no other try mends: a typed error is all that can come of them."""
SILENT = tuple(fault for fault in VOCABULARY if not fault.evident)
"""The faults that leave no trace where there are no ids, sequence numbers or digests."""
KINDS: tuple[type[_Fault], ...] = (Healthy, *dict.fromkeys(map(type, VOCABULARY)))
"""Every type of fault, once."""

__all__ = [
    "EVIDENT",
    "FINAL",
    "KINDS",
    "SILENT",
    "VOCABULARY",
    "AnotherAnswer",
    "BadChunk",
    "BigEvent",
    "ByteOrderMark",
    "CleanCut",
    "ClosedMidStream",
    "Comments",
    "CutInsideEvent",
    "DoneInText",
    "Drip",
    "DroppedEvent",
    "EarlyDone",
    "EarlyHints",
    "EmptyBody",
    "EndlessLine",
    "ErrorEvent",
    "Fault",
    "FinInsideChunk",
    "FlippedBit",
    "Framed",
    "GaveUp",
    "GzipCut",
    "Gzipped",
    "HalfSurrogate",
    "Healthy",
    "HtmlPage",
    "IdRewound",
    "IdWithNul",
    "IgnoresLastEventId",
    "InvalidUtf8",
    "JsonAnswer",
    "JsonError",
    "Latency",
    "LengthTooLong",
    "LengthTooShort",
    "LineEnds",
    "NoAnswer",
    "NoDone",
    "Refused",
    "ReorderedEvents",
    "RepeatedAfterResume",
    "RepeatedEvents",
    "ResetAtEnd",
    "ResetMidStream",
    "ResumeRefused",
    "SlowThenDead",
    "SplitCharacters",
    "SplitHead",
    "StallAtEnd",
    "StallBehindEmptyDeltas",
    "StallBehindPings",
    "StallMidStream",
    "Throttle",
    "ThroughputCollapse",
    "TornEvent",
    "WrongCharset",
    "WrongDigest",
    "WrongType",
]
