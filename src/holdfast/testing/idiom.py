"""What a fault must know of a dialect to strike in its words: the end mark, pings, errors, and where a place is named.

A `Idiom` is data beside a shape. It must never change what a healthy reply looks like. Where a provider has no form of
its own for something, the default stands: that of OpenAI's chat completions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

_MEMBERS = b"content|reasoning_content|reasoning|refusal|text|thinking|delta|arguments|partial_json"
"""Those that hold what a model says, in the shapes of today's providers."""
SAID = re.compile(rb'("(?:%b)"\s*:\s*)"((?:[^"\\]|\\.)+)"' % _MEMBERS)
"""A member that says something, as it stands in the bytes of an event: its name, and its words with their escapes."""
ID_LINE = re.compile(rb"^id:[^\r\n]*", re.MULTILINE)
HOPELESS = ("content_filter", "insufficient_quota", "invalid_api_key", "invalid_request_error")
"""Codes of errors that no other try mends."""


def event_id(event: bytes) -> str:
    """Gives the id that stands in an event; empty where there is none."""
    found = ID_LINE.search(event)
    return found[0][3:].decode("utf-8", "replace").removeprefix(" ") if found else ""


def _without_id(event: bytes) -> bytes:
    return ID_LINE.sub(b":", event)


def in_data(pattern: bytes) -> Callable[[bytes], str]:
    """Gives the reader of a place that is named in an event's data, by a pattern with one group."""
    compiled = re.compile(pattern)

    def read(event: bytes) -> str:
        found = compiled.search(event)
        return found[1].decode() if found else ""

    return read


def said_once(event: bytes) -> int:
    """Counts the tokens of an event: its members that say something."""
    return len(SAID.findall(event))


def _document(_status: int, code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()


_WHOLE = b'{"choices": [{"message": {"role": "assistant", "content": "All at once."}, "finish_reason": "stop"}]}'


def _error(code: str, message: str, _last: bytes) -> bytes:
    return b"data: " + _document(200, code, message) + b"\n\n"


@dataclass(slots=True, frozen=True, kw_only=True)
class Idiom:
    r"""The words of one dialect. `code` is always the word that faults use; a dialect that has another says that.

    `document(status, code, message)` is an error in the place of a stream, `error(code, message, last)` one inside it
    (`last` being the event before it), `gave_up(reason, last)` the event that ends an answer that the provider did not
    finish, None where that is a finish reason of chat completions. `whole` is an answer that was not streamed, as one
    document. `end` is the end mark, empty where there is none, and `ends` how its line begins. `tokens(event)` counts
    what an event cost, `place(event)` is what a client says to go on behind it, and `unplaced(event)` is the event in a
    form that nobody can go on behind.
    """

    document: Callable[[int, str, str], bytes] = _document
    error: Callable[[str, str, bytes], bytes] = _error
    gave_up: Callable[[str, bytes], bytes] | None = None
    whole: bytes = _WHOLE
    ping: bytes = b": keep-alive\n\n"
    end: bytes = b"data: [DONE]\n\n"
    ends: bytes = b"data: [DONE]"
    tokens: Callable[[bytes], int] = said_once
    place: Callable[[bytes], str] = event_id
    unplaced: Callable[[bytes], bytes] = _without_id

    def is_end(self, event: bytes) -> bool:
        """True for the end mark, whatever stands beside it."""
        return bool(self.ends) and any(line.startswith(self.ends) for line in event.splitlines())


CHAT = Idiom()
"""The words of OpenAI's chat completions."""

__all__ = ["CHAT", "HOPELESS", "ID_LINE", "SAID", "Idiom", "event_id", "in_data", "said_once"]
