"""Guesses who answers: from the address that was asked, or from the first events alone.

An address names its provider by host, and the shape by the end of its path; where they disagree the path is right,
because providers serve the shapes of others beside their own. Events tell their shape for sure or not at all, and of
the many who speak the chat shape those that leave a mark of their own in it. A guess is never a half: None says that
there is nothing to go by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from holdfast._errors import UpstreamError, UsageError
from holdfast._types import Delta, Event, Head
from holdfast.dialects._dialect import DeltaReader, Dialect, Evidence
from holdfast.dialects._profiles import profile_of
from holdfast.dialects._registry import DIALECTS
from holdfast.dialects._tell import PlainTeller
from holdfast.dialects._wire import error_in, plain
from holdfast.dialects.chat import ChatEvidence
from holdfast.machines.cursor import Cursor
from holdfast.machines.redact import clean_url

ENDINGS = {
    "openai-compatible": "/chat/completions",
    "openai-responses": "/responses",
    "anthropic": "/v1/messages",
    "gemini": ":streamGenerateContent",
    "gemini-interactions": "/interactions",
    "cohere": "/v2/chat",
    "mcp": "/mcp",
}
"""For each shape the dialect that speaks it wherever it is spoken, and how addresses of it end."""


def by_address(url: str) -> Dialect | None:
    """Gives the dialect that is spoken at an address, None where neither its host nor its path is known."""
    at = urlsplit(url)
    host, path = (at.hostname or "").lower(), at.path.rstrip("/")
    shape = _shape_at(path)
    here = _at_host(host)
    if shape is None:
        return here[0] if here else None
    return next((dialect for dialect in here if type(dialect.wire) is type(shape.wire)), shape)


@lru_cache(maxsize=256)  # mounts ask at every call
def _at_host(host: str) -> tuple[Dialect, ...]:
    return tuple(dialect for dialect in DIALECTS.values() if any(_lives(host, known) for known in dialect.hosts))


def by_endpoint(url: str) -> Dialect | None:
    """Gives the dialect that is spoken at an endpoint, None where its path is not known.

    A host says little there: at other paths it serves streams of other kinds, transcripts and images among them.
    """
    found = by_address(url)
    return found if found is None or not found.path or _shape_at(urlsplit(url).path.rstrip("/")) is not None else None


def _shape_at(path: str) -> Dialect | None:
    return next((DIALECTS[name] for name, ending in ENDINGS.items() if path.endswith(ending)), None)


def at_address(url: str) -> tuple[Dialect, str]:
    """Gives the dialect that is spoken at an address, and its base URL: the address may be the endpoint's own.

    An endpoint in another place than the dialect's own stays where it is, and a model in its path is the default.
    Raises `UsageError` where nothing tells who answers.
    """
    if not url:
        raise UsageError("'auto' is told by the endpoint's address: give a base URL, or name the dialect")
    found, at = by_address(url), urlsplit(url)
    if found is None:
        raise UsageError(
            f"'auto' cannot tell who answers at {clean_url(url) or url[:80]!r}: name the dialect, or give the "
            "endpoint's full address, such as one that ends with /v1/chat/completions"
        )
    path, _, query = found.path.partition("?")
    before, model, after = path.partition("{model}")
    own = re.search(re.escape(before) + (f"(.+){re.escape(after)}" if model else "") + "/?$", at.path)
    if own is not None:
        rest = "&".join(part for part in at.query.split("&") if part and part not in query.split("&"))
        named = replace(found, default_model=unquote(own[1])) if model else found
        return named, urlunsplit(at._replace(path=at.path[: own.start()], query=rest))
    if _shape_at(at.path.rstrip("/")) is not None:
        return replace(found, path="", needs_model=found.needs_model and not model), url
    return found, url


def _lives(host: str, known: str) -> bool:
    return host.endswith(known) if known.startswith(".") else host == known


def by_events(events: Sequence[Event]) -> Dialect | None:
    """Gives the dialect of which the first events surely are, None where they could be anybody's.

    The chat shape without a mark of its speaker is `openai-compatible`, which forgives most.
    """
    shape = next(
        (DIALECTS[name] for event in events for name in ENDINGS if DIALECTS[name].wire.recognises(event)), None
    )
    if shape is None or shape.name != "openai-compatible":
        return shape
    chunks = [chunk for event in events if isinstance(chunk := plain(event), dict)]
    return next((DIALECTS[name] for chunk in chunks if (name := profile_of(chunk)) is not None), shape)


@dataclass(slots=True, frozen=True)
class AutoWire:
    """The wire of a dialect that nobody named: the first event with data decides. See `Wire`.

    What is of no known shape is read as plain events, `sse`.
    """

    unnumbered: tuple[bytes, ...] = ()

    def question(self, prompt: str, system: str = "") -> dict[str, Any] | None:
        """Nobody knows yet how to ask."""
        return None

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Nobody knows yet what to ask for."""
        return dict(body)

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> AutoReader:
        """Gives the machine of a first attempt; later ones know their dialect."""
        return AutoReader(body, cursor, head, end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """What was never recognised has no evidence."""
        raise ValueError("nothing is known of an answer whose dialect was not recognised")

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises the document that most providers send."""
        return error_in(body)

    def recognises(self, event: Event) -> bool:
        """It has no shape of its own."""
        return False

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """What is asked for is not known."""
        return False

    def teller(self) -> PlainTeller:
        """Events as they came."""
        return PlainTeller()


_PINGS = ("ping", "keepalive", "keep-alive", "heartbeat")
"""How events are called that only keep a line open, by name or by type."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F][\da-fA-F]{2}")


class AutoReader:
    """Hears the first event that says something, and reads on as its dialect does. `dialect` is None until then."""

    __slots__ = ("_body", "_cursor", "_end_at_done", "_head", "_reader", "dialect")

    def __init__(self, body: Mapping[str, Any] | None, cursor: Cursor, head: Head | None, *, end_at_done: bool) -> None:
        self._body = body
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._reader: DeltaReader | None = None
        self.dialect: Dialect | None = None

    @property
    def evidence(self) -> Evidence:
        """That of the dialect, once it is known."""
        return ChatEvidence() if self._reader is None else self._reader.evidence

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises what the dialect's reader raises."""
        for place, event in enumerate(batch):
            reader = self._reader = self._reader or self._recognised(event)
            if reader is not None:
                reader.feed(batch[place:], out)
                return
            if event.payload:
                out.append(Delta(event))

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises what the dialect's reader raises."""
        (self._reader or self._read_as(DIALECTS["openai-compatible"])).end(out)

    def _recognised(self, event: Event) -> DeltaReader | None:
        """Gives the reader of the dialect that an event is of. A ping could be anybody's, and says nothing."""
        if not event.payload:
            return None
        # Half a character tells as much as a whole one, and is no JSON that could be looked into.
        whole = Event(_HALF.sub(rb"\\u003f", event.payload), type=event.type) if b"\\u" in event.payload else event
        guess = by_events((whole,))
        if guess is None and _is_ping(whole):
            return None
        if guess is None:
            of_chat = error_in(whole.payload) or whole.payload.strip() == b"[DONE]"
            guess = DIALECTS["openai-compatible" if of_chat else "sse"]
        return self._read_as(guess)

    def _read_as(self, dialect: Dialect) -> DeltaReader:
        self.dialect = dialect
        return dialect.reader(self._body, self._cursor, head=self._head, end_at_done=self._end_at_done)


def _is_ping(event: Event) -> bool:
    value = plain(event)
    said = value.get("type", value.get("event_type")) if isinstance(value, dict) else None
    return value == {} or event.type in _PINGS or (isinstance(said, str) and said in _PINGS)


AUTO = Dialect(name="auto", wire=AutoWire())
"""Whoever answers: told by the address, or else by the first event."""
