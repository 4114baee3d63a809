"""A token that goes on with an answer is sent as it came, and never twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._types import Event, Request
from holdfast.dialects import GEMINI
from holdfast.offline import assemble


def chunk(*candidates: Any) -> Event:
    return Event(json.dumps({"candidates": candidates}).encode())


def resumed(body: Any, *events: Event) -> Any:
    assert GEMINI.pause is not None
    request = GEMINI.pause.resume(Request(url="https://example.org/", body=body), events)
    return request.body if request is not None else None


def test_the_same_request_goes_out_with_the_last_token() -> None:
    early, late = chunk({"continuationToken": "one"}), chunk({"continuationToken": "two"})
    end = chunk({"finishReason": "CONTINUATION"})
    assert resumed({"contents": ["?"]}, early, late, end) == {"contents": ["?"], "continuationToken": "two"}
    body = json.dumps({"contents": ["?"], "continuationToken": "one"}).encode()
    assert resumed(body, early, late) == {"contents": ["?"], "continuationToken": "two"}


@pytest.mark.parametrize(
    "event",
    [
        chunk({"finishReason": "CONTINUATION"}),
        chunk({"continuationToken": "sent"}),
        chunk({"continuationToken": ""}),
        chunk({"continuationToken": 7}),
        chunk({}, {"continuationToken": "of another candidate"}),
        chunk(),
        Event(b"[1]"),
        Event(b"{"),
        Event(b'{"candidates":7}'),
    ],
)
def test_without_a_token_that_is_new_nothing_is_asked(event: Event) -> None:
    assert resumed({"continuationToken": "sent"}, event) is None


def test_nothing_is_added_to_a_body_that_is_no_object() -> None:
    assert resumed(b"not JSON", chunk({"continuationToken": "one"})) is None


def test_without_a_layer_that_asks_on_it_is_an_end_after_which_no_call_may_run() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    event = chunk({"content": {"parts": [call]}, "finishReason": "CONTINUATION", "continuationToken": "one"})
    answer = assemble(event.wire, "gemini")
    assert (answer.finish_reason, answer.tool_calls[0].complete) == ("CONTINUATION", False)
