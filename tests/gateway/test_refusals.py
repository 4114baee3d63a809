"""What a client is told of a failure: typed in its dialect's words, and nothing of the gateway's keys."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    IntegrityError,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._types import Head
from holdfast.dialects import find
from holdfast.gateway.refusals import Refusal, error_document, error_event, refusal_of
from holdfast.gateway.surfaces import CHAT, GEMINI, MESSAGES, RESPONSES, SURFACES, Surface
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, sse, stream
from tests.gateway.serving import serving, settings

CANARY = "sk-proj-canary0123456789"
HOST = "llm.internal:8443"


def refused(status: int, **said: Any) -> StatusError:
    """Gives what an upstream's refusal becomes, in OpenAI's words."""
    body = json.dumps({"error": {"message": "", **said}}).encode()
    return find("openai").refine(StatusError(f"answered {status}", head=Head(status=status), body=body))


def reported(message: str, **said: Any) -> UpstreamError:
    error = UpstreamError("the provider reported an error", **said)
    error.message = message
    return error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConnectError(f"{HOST}: nobody listens"), 502, "ConnectError"),
        (StreamBroken(f"{HOST}: the body was cut"), 502, "StreamBroken"),
        (Truncated("not whole"), 502, "Truncated"),
        (NotAStream("a page"), 502, "NotAStream"),
        (DecodeError("no JSON"), 502, "DecodeError"),
        (IntegrityError("length", expected="1", actual="2"), 502, "IntegrityError"),
        (DeadlineExceeded("open", 1.0), 504, "DeadlineExceeded"),
        (CircuitOpen("open"), 503, "CircuitOpen"),
        (BudgetExhausted("RateLimiter"), 429, "rate_limit_exceeded"),
        (refused(400, message="no kelp", code="bad", type="invalid_request_error"), 400, "bad"),
        (refused(404, message="no such model", code="model_not_found"), 404, "model_not_found"),
        (refused(413), 413, "StatusError"),
        (refused(429, message="slow down", code="rate_limit_exceeded"), 429, "rate_limit_exceeded"),
        (refused(529, message="busy", type="overloaded_error"), 529, "overloaded_error"),
        (refused(307), 502, "StatusError"),
        (refused(401, message=f"wrong key {CANARY}", code="invalid_api_key"), 502, "upstream_refused"),
        (refused(402, message="pay"), 502, "upstream_refused"),
        (refused(403, message="org-acme may not"), 502, "upstream_refused"),
        (refused(400, message="Your credit balance is too low"), 502, "upstream_refused"),
        (refused(429, message="You exceeded your current quota", code="insufficient_quota"), 429, "upstream_refused"),
        (refused(400, message=f"wrong: {CANARY}", code="bad"), 400, "bad"),
        (reported("busy", type="overloaded_error"), 529, "overloaded_error"),
        (reported("later", code="429"), 429, "429"),
        (reported(f"wrong {CANARY}", type="authentication_error"), 502, "upstream_refused"),
        (reported("no", code="content_filter"), 502, "content_filter"),
    ],
)
def test_every_failure_has_a_status_and_a_code(error: StreamError, status: int, code: str) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.message
    for surface in SURFACES.values():
        told = error_document(surface, refusal) + error_event(surface, refusal)
        for hidden in (CANARY, "canary", "llm.internal", "acme"):
            assert hidden.encode() not in told


def test_what_will_not_pass_is_not_asked_for_again() -> None:
    assert refusal_of(StreamBroken("cut")).headers == {}
    hopeless = reported("no", code="content_filter")
    hopeless.retryable = False
    assert refusal_of(hopeless).headers == {"x-should-retry": "false"}


ANTHROPIC = {
    *("invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error"),
    *("request_too_large", "rate_limit_error", "api_error", "timeout_error", "overloaded_error"),
}
GOOGLE = {
    *("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "ABORTED", "RESOURCE_EXHAUSTED"),
    *("CANCELLED", "INTERNAL", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 499, 500, 501, 502, 503, 504, 529])
def test_types_are_those_that_the_provider_has(status: int) -> None:
    refusal = Refusal(status, "some_code", "some words")
    assert json.loads(error_document(MESSAGES, refusal))["error"]["type"] in ANTHROPIC
    google = json.loads(error_document(GEMINI, refusal))["error"]
    assert (google["code"], google["status"] in GOOGLE) == (status, True)
    for surface in (MESSAGES, GEMINI):
        assert "some words" in json.loads(error_document(surface, refusal))["error"]["message"]
    for surface in (CHAT, RESPONSES):
        assert json.loads(error_document(surface, refusal))["error"]["code"] == "some_code"


@pytest.mark.parametrize(("surface", "name"), [(CHAT, b""), (GEMINI, b""), (MESSAGES, b"error"), (RESPONSES, b"error")])
def test_the_last_event_of_a_broken_stream_is_no_end_mark(surface: Surface, name: bytes) -> None:
    event = error_event(surface, Refusal(502, "Truncated", "cut"))
    assert event.startswith(b"event: " + name if name else b"data: {")
    assert b"[DONE]" not in event
    assert event.endswith(b"}\n\n")


async def test_an_error_inside_a_stream_says_nothing_of_the_key() -> None:
    said = {"error": {"message": f"Incorrect API key provided: {CANARY}", "type": "authentication_error"}}
    piece = '{"id":"c","choices":[{"index":0,"delta":{"content":"kelp"}}]}'

    async def upstream(_: ReceivedRequest) -> Reply:
        return stream(sse(piece), sse(json.dumps(said)))

    async with (
        ScriptedServer(upstream) as server,
        serving(settings(server.url)) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response,
    ):
        body = bytearray()
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(body, response)
        assert b"upstream_refused" in body
        assert b"canary" not in body


async def read_into(body: bytearray, response: aiohttp.ClientResponse) -> None:
    async for part in response.content.iter_any():
        body += part
