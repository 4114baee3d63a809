"""The requests with which a broken answer goes on: what each rung of the ladder is, in the words of a dialect.

They are made of what was delivered and of nothing else. None says that there is no such way here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast._types import Delta, Event, Request
from holdfast.dialects._dialect import Dialect, Evidence, Said
from holdfast.dialects._effects import effects
from holdfast.dialects._wire import asked
from holdfast.machines.cursor import proof_of
from holdfast.machines.seam import MIN_PREFIX, joint
from holdfast.machines.transcript import Transcript


class Place:
    """Where a cursor of the provider's own goes on: behind the item delivered last, in a body that began at `origin`.

    Taken over from another process it is only the place's name, its offset and its proof: see `told()`.
    """

    __slots__ = ("_name", "_proof", "item", "origin")

    def __init__(self, told: Mapping[str, Any] | None = None) -> None:
        told = told or {}
        self.item: object = None
        self.origin: int = told.get("offset", 0)
        self._name: str = told.get("place", "")
        self._proof: str = told.get("proof", "")

    @property
    def _event(self) -> Event | None:
        event = self.item.raw if isinstance(self.item, Delta) else self.item
        return event if isinstance(event, Event) else None

    @property
    def proof(self) -> str:
        """Names the event delivered last, by its contents."""
        event = self._event
        return self._proof if event is None else proof_of(event)

    def offset(self, dialect: Dialect | None) -> int:
        """Bytes of the whole body before the place."""
        event = self._event
        if event is None:
            return self.origin
        overlaps = dialect is not None and dialect.cursor is not None and dialect.cursor.overlaps
        return self.origin + (event.offset if overlaps else event.end)

    def name(self, dialect: Dialect | None) -> str:
        """What the provider calls it; empty where it has no cursor."""
        event = self._event
        if event is None or dialect is None or dialect.cursor is None:
            return self._name
        return dialect.cursor.place(event, self.offset(dialect))

    def told(self, dialect: Dialect | None) -> dict[str, Any]:
        """Gives it as JSON values."""
        return {"place": self.name(dialect), "offset": self.offset(dialect), "proof": self.proof}


def effects_of(request: Request) -> str:
    """Names what a request changes at the provider; empty where it changes nothing, and may be sent once more."""
    body, dialect = asked(request), request.dialect or request.call.dialect
    if body is None:
        return ""
    return effects(body) if dialect is None else dialect.effects(body)


def behind_event_id(dialect: Dialect | None, request: Request, last_event_id: str) -> Request:
    """The same request, or a GET to its address, with the id behind which it goes on."""
    if dialect is not None and dialect.event_ids == "get":
        request = replace(request, method="GET", body=None)
    return request.with_headers({"Last-Event-ID": last_event_id})


def behind_place(dialect: Dialect | None, request: Request, place: Place, evidence: Evidence | None) -> Request | None:
    """The request by the provider's own cursor."""
    name = place.name(dialect)
    if dialect is None or dialect.cursor is None or not name or evidence is None:
        return None
    return dialect.cursor.resume(request, evidence.answer_id, name)


def behind_prefix(
    dialect: Dialect | None, request: Request, answer: Transcript, *, inside_json: bool
) -> Request | None:
    """The request for what follows what was delivered, where a model can be asked so and may be."""
    said = answer.said() if dialect is not None and dialect.prefix is not None else None
    if dialect is None or dialect.prefix is None or said is None:
        return None
    body = request.body
    if not inside_json and isinstance(body, Mapping) and dialect.wire.asks_json(body):
        return None
    text, reasoning = said
    cut = joint(text)
    if cut < MIN_PREFIX:
        return None
    return dialect.prefix.extend(
        request, Said(text=text[:cut], reasoning=reasoning, tokens=answer.spent(len(text) - cut))
    )


def same_model(one: Request, other: Request) -> bool:
    """Says whether two requests, each in the words of its own upstream, ask the same model.

    Gateways put its maker before a model's name; what else differs is another model, or nobody can tell.
    """
    return _model(one).rpartition("/")[2] == _model(other).rpartition("/")[2]


def _model(request: Request) -> str:
    body, dialect = asked(request), request.dialect
    named = body.get("model") if body is not None else None
    if not isinstance(named, str) and dialect is not None:
        named = dialect.model_in(request.url) or dialect.default_model
    return named.casefold() if isinstance(named, str) else ""
