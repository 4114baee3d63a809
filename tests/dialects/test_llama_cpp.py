"""llama.cpp keeps the bytes of an answer under the call's id."""

from __future__ import annotations

import pytest

from holdfast._core import Call
from holdfast._types import Event, Request
from holdfast.dialects import LLAMA_CPP


def request(url: str) -> Request:
    return Request(url=url, headers={"Authorization": "Bearer k"}, body={"messages": []}, call=Call())


@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("http://localhost:8080/v1/chat/completions", "http://localhost:8080/v1/stream?"),
        ("http://localhost:8080/chat/completions", "http://localhost:8080/v1/stream?"),
        ("https://host/llama/v1/chat/completions?k=1", "https://host/llama/v1/stream?k=1&"),
    ],
)
def test_an_answer_goes_on_at_the_byte_behind_the_last_event(url: str, stream: str) -> None:
    rung = LLAMA_CPP.cursor
    assert rung is not None
    place = rung.place(Event(b"{}"), 4_321)
    asked = request(url)
    resumed, cancelled = rung.resume(asked, "", place), rung.cancel(asked, "")
    kept = f"{stream}conv_id=holdfast-{asked.call.id}"
    assert resumed is not None
    assert (resumed.method, resumed.url, resumed.body) == ("GET", f"{kept}&from=4321", None)
    assert resumed.headers == {"Authorization": "Bearer k"}
    assert cancelled is not None
    assert (cancelled.method, cancelled.url, cancelled.body) == ("DELETE", kept, None)


def test_another_endpoint_keeps_nothing() -> None:
    rung = LLAMA_CPP.cursor
    assert rung is not None
    assert rung.resume(request("http://localhost:8080/v1/responses"), "", "7") is None
    assert rung.cancel(request("http://localhost:8080/v1/responses"), "") is None
    assert rung.resume(request("http://localhost:8080/v1/chat/completions"), "", "") is None


def test_every_attempt_bears_the_calls_id() -> None:
    assert LLAMA_CPP.call_header == "X-Conversation-Id"
