"""OpenAI's Responses, https://platform.openai.com/docs/api-reference/responses: who made the shape.

A response made with `"background": true` goes on without its reader. For five minutes after it was begun it can be read
on with `GET /responses/{id}?stream=true&starting_after=<sequence_number>`; `POST /responses/{id}/cancel` stops it
(https://platform.openai.com/docs/guides/background).

A model that thinks says nothing of it but a summary, if asked to, and a server tool nothing at all: a long pause is no
stall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from holdfast._types import Event, Request
from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._wire import asked
from holdfast.dialects.responses import ResponsesWire


class _Place(msgspec.Struct, gc=False):
    sequence_number: int | None = None


_PLACE = msgspec.json.Decoder(_Place)


@dataclass(slots=True, frozen=True, kw_only=True)
class BackgroundCursor:
    """Reads a response on that is made in the background: see `CursorRung`. A place is a `sequence_number`.

    Once the time is over the server refuses, and another rung must do.
    """

    overlaps: bool = False

    def place(self, event: Event, offset: int) -> str:
        """The event's own number."""
        try:
            known = _PLACE.decode(event.payload).sequence_number
        except (ValueError, RecursionError):
            return ""
        return "" if known is None or known < 0 else str(known)

    def resume(self, request: Request, answer_id: str, place: str) -> Request | None:
        """GET the response from behind a number."""
        if not place.isdecimal():
            return None
        return self._about(request, answer_id, "GET", query=f"stream=true&starting_after={place}")

    def cancel(self, request: Request, answer_id: str) -> Request | None:
        """POST that it be stopped: abandoned, it would be made, and paid, to its end."""
        return self._about(request, answer_id, "POST", path="/cancel")

    def _about(
        self, request: Request, answer_id: str, method: str, *, path: str = "", query: str = ""
    ) -> Request | None:
        body = asked(request)
        if body is None or body.get("background") is not True or not answer_id:
            return None
        at = urlsplit(request.url)
        where = f"{at.path.rstrip('/')}/{quote(answer_id, safe='')}{path}"
        both = "&".join(part for part in (at.query, query) if part)  # Azure's own query names the version
        return replace(request, method=method, body=None, url=urlunsplit(at._replace(path=where, query=both)))


OPENAI_RESPONSES = Dialect(
    name="openai-responses",
    wire=ResponsesWire(),
    base_url="https://api.openai.com/v1",
    path="/responses",
    hosts=("api.openai.com", ".api.openai.com"),
    key_variable="OPENAI_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=300, total=3600),
    cursor=BackgroundCursor(),
)
