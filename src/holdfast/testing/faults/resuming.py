"""Faults of going on: what a server does to an event's id, and to the request that sends one back."""

from __future__ import annotations

from holdfast.testing.acts import ID_LINE, TAKE, Asked, Begin, Bytes, Cut, Play, Refuse, event_id
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import edit_said, events, whole


class IdWithNul(BaseFault, frozen=True, kw_only=True):
    """Every id has a NUL in it, so none counts; after so many events the connection is reset."""

    words = "ids with NUL, and reset,"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield Begin()
        yield from events(self.after, edit=lambda event: ID_LINE.sub(rb"\g<0>\0", event))
        yield Cut("reset")


class IgnoresLastEventId(BaseFault, frozen=True, kw_only=True):
    """A request that says where to go on gets the answer from its beginning."""

    words = "Last-Event-ID ignored"
    forgets = True


class ResumeRefused(BaseFault, frozen=True, kw_only=True):
    """A request that says where to go on gets a status: 204, 400, 410."""

    status: int = 410

    def play(self, asked: Asked) -> Play:
        if not asked.resumes:
            yield from whole()
        elif self.status == 204:
            yield Refuse(status=204)
        else:
            body = asked.idiom.document(self.status, "invalid_request_error", "There is nothing to go on with.")
            yield Refuse(status=self.status, body=body, headers={"content-type": "application/json"})

    def __str__(self) -> str:
        return f"{self.status} to Last-Event-ID"


def _stands(event: bytes, asked: Asked) -> bool:
    """True for the event behind which the request wants to go on."""
    if asked.last_event_id:
        return event_id(event) == asked.last_event_id
    return asked.idiom.place(event) == asked.cursor


class AnotherAnswer(BaseFault, frozen=True, kw_only=True):
    """A request that says where to go on gets another answer, from its beginning."""

    words = "another answer to Last-Event-ID"
    forgets = True

    @property
    def final(self) -> bool:
        return True  # the answer that was begun is gone

    def play(self, asked: Asked) -> Play:
        if not asked.resumes:
            return whole()
        return whole(edit=lambda event: edit_said(event, lambda text: b" no" + text))


class RepeatedAfterResume(BaseFault, frozen=True, kw_only=True):
    """A request that says where to go on gets the last `events` once more that it has already."""

    words = "events repeated after a resume"
    forgets = True
    events: int = 3

    def play(self, asked: Asked) -> Play:
        yield Begin()
        if asked.resumes:
            known: list[bytes] = []
            found = False
            while not found and (event := (yield TAKE)) is not None:
                known.append(event)
                found = _stands(event, asked)
            for event in known[-self.events :] if found else known:  # a place between events is none to go back from
                yield Bytes(event)
        yield from events()
        yield Cut()


__all__ = ["AnotherAnswer", "IdWithNul", "IgnoresLastEventId", "RepeatedAfterResume", "ResumeRefused"]
