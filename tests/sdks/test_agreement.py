"""The makers' own SDKs agree: what they read out of a healthy stream is what this library reads out of it.

Every transcript is served over TCP, byte by byte the same for both. Where an SDK is known to say otherwise,
tests/sdks/compared.py tells it, and the test fails as soon as it does so no more.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import openai
import pytest
from anthropic.types import StopReason
from google.genai.types import FinishReason

from holdfast import AutoContinue, Client, UpstreamError
from holdfast.dialects import ANTHROPIC, GEMINI, Dialect
from holdfast.testing import Answer, ScriptedServer, write_answer
from holdfast.testing.server import stream
from holdfast.testing.shapes import (
    AnthropicShape,
    ChatShape,
    GeminiShape,
    InteractionsShape,
    ResponsesShape,
    Shape,
)
from tests import shared
from tests.sdks import readers
from tests.sdks.compared import DISAGREEMENTS, ENDPOINTS
from tests.sdks.readers import MESSAGES, MODEL, Said, ours

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings:UserWarning"
)  # openai, of lists as content
PIECE = 1_000  # bytes: so characters, events and lines are cut anywhere
SECRETS = ("OPENAI", "ANTHROPIC", "GOOGLE", "GEMINI", "MISTRAL", "OTEL")


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is looked up, so no other host is reached; and nothing in the environment says another one."""

    def refuse(host: object, *rest: object, **more: object) -> Any:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise AssertionError(f"something looked up {host!r}")
        return found(host, *rest, **more)

    found: Any = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in [name for name in os.environ if name.startswith(SECRETS)]:
        monkeypatch.delenv(name)


# -- transcripts -------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Transcript:
    """A healthy answer on the wire, who reads it, and what it is to be read as."""

    name: str
    endpoint: str
    dialect: str
    pieces: Sequence[bytes]

    def __str__(self) -> str:
        return f"{self.endpoint}-{self.dialect}-{self.name}"


SHAPES: dict[str, tuple[str, Shape]] = {
    "openai": ("openai_chat", ChatShape(style="openai")),
    "deepseek": ("openai_chat", ChatShape()),
    "vllm": ("openai_chat", ChatShape(style="openai", reasoning="reasoning")),
    "openai-responses": ("openai_responses", ResponsesShape()),
    "anthropic": ("anthropic_messages", AnthropicShape()),
    "gemini": ("gemini", GeminiShape()),
    "gemini-interactions": ("gemini_interactions", InteractionsShape()),
    "mistral": ("mistral", ChatShape()),
}
"""By dialect: the endpoint of its SDK, and the shape that writes for it."""
APIS = {
    "openai_chat": ("openai_chat", "openai-compatible"),
    "openai_completions": ("openai_completions", "openai-compatible"),
    "responses": ("openai_responses", "openai-responses"),
    "anthropic": ("anthropic_messages", "anthropic"),
    "gemini": ("gemini", "gemini"),
    "gemini_interactions": ("gemini_interactions", "gemini-interactions"),
}
"""By the recordings' family: the endpoint, and the dialect that reads all of the family."""


def answers(dialect: str) -> Iterator[tuple[str, Answer]]:
    for seed in range(3):
        yield f"words-{seed}", write_answer(seed, thoughts=0)
        if dialect == "mistral":
            continue  # its models think in lists and call in one piece, which no shape here does; recordings do
        yield f"thoughts-{seed}", write_answer(seed, sentences=3)
        yield f"tools-{seed}", write_answer(seed, sentences=2, tools=3)
    yield "cut", write_answer(3, thoughts=0).cut(25)
    if dialect != "mistral":
        yield "a call alone", write_answer(4, sentences=0, thoughts=0, tools=1)
    if dialect.startswith("openai"):
        yield "refusal", write_answer(5, refuses=True)


WRITTEN = [
    Transcript(name=name, endpoint=endpoint, dialect=dialect, pieces=shape.events(answer, "an-id", ids=False))
    for dialect, (endpoint, shape) in SHAPES.items()
    for name, answer in answers(dialect)
]


def recorded(entries: list[dict[str, Any]]) -> Iterator[Transcript]:
    for entry in entries:
        if entry["api"] not in APIS:
            continue
        data = shared.recorded(entry)
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        who = [APIS[entry["api"]]] + [("mistral", "mistral")] * entry["provider"].startswith("mistral")
        for endpoint, dialect in who:
            yield Transcript(name=entry["file"], endpoint=endpoint, dialect=dialect, pieces=pieces)


RECORDED = list(recorded([entry for entry in shared.recordings() if not entry["assembled"]["errors"]]))
FAILED = list(recorded([entry for entry in shared.recordings() if entry["assembled"]["errors"]]))


# -- the comparison ----------------------------------------------------------------------------


async def both(transcript: Transcript) -> tuple[Said, Said]:
    """What the SDK says, and what this library says; each asks once."""
    async with ScriptedServer([stream(*transcript.pieces)]) as server:
        theirs = await getattr(readers, transcript.endpoint)(server.url)
        async with Client(transcript.dialect, base_url=server.url, api_key=readers.KEY) as client:
            answer = await client.complete({"model": MODEL, "messages": MESSAGES})
        assert len(server.requests) == 2
        assert str(answer.verdict) == "COMPLETE"
    return theirs, ours(answer, theirs)


def known(transcript: Transcript) -> frozenset[str]:
    """In what the SDK is known to disagree."""
    listed = (one for one in DISAGREEMENTS if one.endpoint == transcript.endpoint)
    return next((one.differs for one in listed if transcript.name in one.recordings), frozenset())


@pytest.mark.parametrize("transcript", WRITTEN, ids=str)
async def test_an_sdk_reads_what_was_written_and_so_do_we(transcript: Transcript) -> None:
    theirs, own = await both(transcript)
    assert theirs == own
    assert theirs.usage
    assert theirs.text or theirs.calls or theirs.refusal


@pytest.mark.parametrize("transcript", RECORDED, ids=str)
async def test_an_sdk_reads_a_recording_as_we_do(transcript: Transcript) -> None:
    theirs, own = await both(transcript)
    wanted = known(transcript)
    found = {one.name for one in fields(Said) if getattr(theirs, one.name) != getattr(own, one.name)}
    if not wanted:
        assert theirs == own
    assert found == wanted, "the SDK has been mended: take it out of tests/sdks/compared.py"


@pytest.mark.parametrize("transcript", FAILED, ids=str)
async def test_a_recorded_error_fails_with_the_same_words(transcript: Transcript) -> None:
    async with ScriptedServer([stream(*transcript.pieces)]) as server:
        with pytest.raises(openai.APIError) as theirs:
            await getattr(readers, transcript.endpoint)(server.url)
        async with Client(transcript.dialect, base_url=server.url, api_key=readers.KEY) as client:
            with pytest.raises(UpstreamError) as own:
                await client.complete({"model": MODEL, "messages": MESSAGES})
    assert own.value.message == theirs.value.message
    assert (own.value.code, own.value.type) == (theirs.value.code, theirs.value.type)


# -- nothing is left out -----------------------------------------------------------------------


def test_each_endpoint_is_read_and_each_dialect_of_it() -> None:
    shared.recordings_folder()
    read = {(one.endpoint, one.dialect) for one in (*WRITTEN, *RECORDED)}
    assert read == {(name, dialect) for name, endpoint in ENDPOINTS.items() for dialect in endpoint.dialects}
    assert FAILED


def test_what_is_known_to_disagree_is_recorded() -> None:
    shared.recordings_folder()
    listed = {(one.endpoint, name) for one in DISAGREEMENTS for name in one.recordings}
    assert listed <= {(one.endpoint, one.name) for one in RECORDED}
    assert all(bool(one.differs) == bool(one.recordings) for one in DISAGREEMENTS)


async def test_openai_has_no_final_response_of_an_incomplete_one() -> None:
    """So the reader takes the last event in its place; once this fails it need not, and it is listed no more."""
    pieces = ResponsesShape().events(write_answer(3).cut(25), "an-id", ids=False)
    async with (
        ScriptedServer([stream(*pieces)]) as server,
        readers.openai_client(server.url) as client,
        client.responses.stream(model=MODEL, input="") as events,
    ):
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            await events.get_final_response()


async def test_an_answer_in_two_requests_is_asked_on_for_as_gemini_asks_on() -> None:
    """The SDK asks on by itself; here the layer does. What they count differs: the SDK adds up the prompts, too."""
    answer = write_answer(6)
    pieces = GeminiShape().events(answer, "an-id", ids=False)
    at = len(pieces) // 2
    told = json.loads(pieces[at].removeprefix(b"data: "))
    told["candidates"][0] |= {"finishReason": "CONTINUATION", "continuationToken": "dG9rZW4="}
    first = stream(*pieces[:at], b"data: " + json.dumps(told).encode() + b"\r\n\r\n")
    rest = stream(*pieces[at + 1 :])
    async with ScriptedServer([first, rest, first, rest]) as server:
        theirs = await readers.gemini(server.url)
        async with Client(
            "gemini", base_url=server.url, api_key=readers.KEY, auto_continue=AutoContinue(times=1)
        ) as client:
            own = await client.complete({"model": MODEL, "contents": [{"role": "user", "parts": [{"text": "?"}]}]})
        tokens = [request.json().get("continuationToken") for request in server.requests]
    assert theirs.text == own.text == answer.text
    assert theirs.reasoning == own.reasoning == answer.reasoning
    assert theirs.finish_reason == own.finish_reason == "STOP"
    assert tokens[:2] == tokens[2:] == [None, "dG9rZW4="]


# -- the words for an end ----------------------------------------------------------------------

ENDS = {"STOP", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"} | {"end_turn", "stop_sequence", "tool_use"}
"""What was said before it is all there is: it is whole."""
FAILURES = {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
"""What was said before it is not what the model would have said: an error."""
NOTHING = {"FINISH_REASON_UNSPECIFIED"}


@pytest.mark.parametrize(
    ("dialect", "words"), [(GEMINI, {one.value for one in FinishReason}), (ANTHROPIC, set(get_args(StopReason)))]
)
def test_each_end_that_an_sdk_has_a_word_for_has_been_judged(dialect: Dialect, words: set[str]) -> None:
    """Whose answer would else be called whole: an end that its provider means to be gone on from."""
    judged = [
        set(dialect.cut_reasons),
        set(dialect.filter_reasons),
        set(dialect.pause_reasons),
        ENDS,
        FAILURES,
        NOTHING,
    ]
    assert {word: sum(word in kind for kind in judged) for word in words} == dict.fromkeys(words, 1)
