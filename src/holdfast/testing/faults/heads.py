"""Faults of the head: nothing comes in its place, or what is no stream, or it says what it should not."""

from __future__ import annotations

from typing import Literal

from holdfast.machines.statuses import RETRYABLE
from holdfast.testing.acts import Asked, Begin, NoHead, Play, Refuse
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import whole
from holdfast.testing.idiom import HOPELESS


class NoAnswer(BaseFault, frozen=True, kw_only=True):
    """Not even a head comes: a reset, a FIN, nothing at all, or an answer that is not HTTP."""

    how: Literal["reset", "close", "stall", "garbage"] = "reset"

    def play(self, asked: Asked) -> Play:
        yield NoHead(self.how)

    def __str__(self) -> str:
        words = {"reset": "reset", "close": "closed", "stall": "stall", "garbage": "what is not HTTP"}
        return f"{words[self.how]} before headers"


class Refused(BaseFault, frozen=True, kw_only=True):
    """A status instead of an answer; `retry_after` (seconds) is that header, `code` the provider's word for it."""

    status: int = 503
    retry_after: int | None = None
    code: str = ""

    @property
    def final(self) -> bool:
        patient = self.retry_after is not None and self.retry_after > 60
        return self.status not in RETRYABLE or self.code in HOPELESS or patient

    def play(self, asked: Asked) -> Play:
        code = self.code or ("rate_limit_reached" if self.status == 429 else "server_error")
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if 300 <= self.status < 400:
            headers["location"] = "http://127.0.0.1:9/"
        body = asked.idiom.document(self.status, code, "Please come back later.")
        yield Refuse(status=self.status, body=body, headers={"content-type": "application/json", **headers})

    def __str__(self) -> str:
        told = f"{self.status}" if self.retry_after is None else f"{self.status}, Retry-After {self.retry_after} s"
        return f"{told}, {self.code}" if self.code else told


class HtmlPage(BaseFault, frozen=True, kw_only=True):
    """A page with status 200, as a tired gateway serves it."""

    words = "HTML with status 200"

    def play(self, asked: Asked) -> Play:
        page = b"<!doctype html>\n<html><body><h1>We will be right back</h1></body></html>\n"
        yield Refuse(status=200, body=page, headers={"content-type": "text/html"})


class EmptyBody(BaseFault, frozen=True, kw_only=True):
    """Status 200, the right content type, and nothing."""

    words = "empty body, status 200"

    def play(self, asked: Asked) -> Play:
        yield Refuse(status=200, headers={"content-type": "text/event-stream"})


class JsonError(BaseFault, frozen=True, kw_only=True):
    """The provider's error as a JSON document, with status 200."""

    code: str = "server_error"

    @property
    def final(self) -> bool:
        return self.code in HOPELESS

    def play(self, asked: Asked) -> Play:
        body = asked.idiom.document(401 if self.final else 503, self.code, "The service is overloaded.")
        yield Refuse(status=200, body=body, headers={"content-type": "application/json"})

    def __str__(self) -> str:
        return f"JSON error {self.code} with status 200"


class JsonAnswer(BaseFault, frozen=True, kw_only=True):
    """A whole answer as one JSON document: the server does not stream."""

    words = "JSON answer in place of a stream"

    @property
    def final(self) -> bool:
        return True

    def play(self, asked: Asked) -> Play:
        yield Refuse(status=200, body=asked.idiom.whole, headers={"content-type": "application/json"})


class EarlyHints(BaseFault, frozen=True, kw_only=True):
    """Heads of status 1xx before the true one."""

    words = "early 1xx"
    statuses: tuple[int, ...] = (103, 103)

    def play(self, asked: Asked) -> Play:
        return whole(begin=Begin(early=self.statuses))


class SplitHead(BaseFault, frozen=True, kw_only=True):
    """The head comes over many packets."""

    words = "head split over packets"
    every: int = 7

    def play(self, asked: Asked) -> Play:
        return whole(begin=Begin(every=self.every))


class WrongCharset(BaseFault, frozen=True, kw_only=True):
    """The head claims an encoding that event streams cannot have: they are UTF-8 always."""

    words = "wrong charset in the head"
    charset: str = "iso-8859-1"

    def play(self, asked: Asked) -> Play:
        return whole(begin=Begin(headers={"content-type": f"text/event-stream; charset={self.charset}"}))


__all__ = [
    "EarlyHints",
    "EmptyBody",
    "HtmlPage",
    "JsonAnswer",
    "JsonError",
    "NoAnswer",
    "Refused",
    "SplitHead",
    "WrongCharset",
]
