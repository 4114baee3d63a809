"""Each row of the table of quirks over the real client: alone it dies, in a mount it reads the exact text.

Where a client alone reads well, its maker has mended it, and the row can go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import aiohttp
import anthropic
import httpx
import httpx2
import httpx_sse
import openai
import pytest
import requests
from google import genai
from google.genai import types as gemini_types
from mistralai.client import Mistral

from holdfast import mounts
from holdfast._types import Delta, Event
from holdfast.machines.sse import SseParser
from holdfast.mounts._quirks import QUIRKS, Quirk, Trait, client_of, traits_of
from holdfast.mounts._rewrite import Rewriter
from holdfast.testing.server import LAST_CHUNK, STREAM_HEAD, Reset, ScriptedServer, Send, Stall, Step, chunked, sse
from tests.binaries import sdk_python
from tests.mounts.shop import CHAT, DONE, healthy
from tests.pages import ROOT

PIECES = ("潮", "起潮落 🌊", " and the\u2028\u0085", " kelp", ".")
PLAIN = (*PIECES[:2], " and the", *PIECES[3:])
GEMINI = "/v1beta/models/m:streamGenerateContent?alt=sse"
BOM = b"\xef\xbb\xbf"
MESSAGES: Any = [{"role": "user", "content": "a secret prompt"}]
ALONE = {"litellm"}
"""Those that pin another's version, and live in environments of the SDK matrix."""
ROWS = [quirk for quirk in QUIRKS if quirk.client not in ALONE]


# -- streams -----------------------------------------------------------------------------------


def chat(pieces: tuple[str, ...]) -> list[bytes]:
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": piece}, None) for piece in pieces]
    deltas.append(({}, "stop"))
    made = {"id": "a1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": reason} for delta, reason in deltas]
    return [*(sse(json.dumps({**made, "choices": [one]}, ensure_ascii=False)) for one in choices), DONE]


def messages(pieces: tuple[str, ...]) -> list[bytes]:
    begun = {"id": "a1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**begun, "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in pieces),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [sse(json.dumps(event, ensure_ascii=False), event=event["type"]) for event in events]


def gemini(pieces: tuple[str, ...]) -> list[bytes]:
    last = len(pieces) - 1
    parts = [
        {"content": {"parts": [{"text": piece}], "role": "model"}, **({"finishReason": "STOP"} if at == last else {})}
        for at, piece in enumerate(pieces)
    ]
    return [sse(json.dumps({"candidates": [part], "responseId": "r"}, ensure_ascii=False)) for part in parts]


def in_two_lines(event: bytes) -> bytes:
    return event.replace(b', "', b',\ndata: "', 1)


SPOILT: dict[Trait, list[Callable[[list[bytes]], list[bytes]]]] = {
    "bom": [lambda events: [BOM + events[0], *events[1:]], lambda events: [BOM, *events]],
    "fields": [
        lambda events: [*events[:2], b"id: 7\n\n", *events[2:]],
        lambda events: [b"retry: 10\n\n", *events],
        lambda events: [b"retry: 10\n", b"\n", *events],
        lambda events: [*events[:2], b"event: ping\r\n\r\n", *events[2:]],
    ],
    "blank after id": [
        lambda events: [b"id: 7\n" + events[0], b": a comment\n\n", *events[1:]],
        lambda events: [b"id: 7\n" + events[0], b": a comment\n", b"\n", *events[1:]],
        lambda events: [events[0][:-1] + b"id: 7\n\n", b"\n", *events[1:]],
    ],
    "empty data": [lambda events: [*events[:2], b"data:\n\n", *events[2:]]],
    "not data": [
        lambda events: [*events[:2], b": a comment\n\n", *events[2:]],
        lambda events: [*events[:2], b":\n", b"\n", *events[2:]],
        lambda events: [b"id: 1\n" + event for event in events],
        lambda events: [b"retry: 10\r\n\r\n", *(b": a comment\n" + event for event in events)],
        lambda events: [b"event: message\n" + event for event in events],
        lambda events: [event.replace(b"data: ", b"data:", 1) for event in events],
    ],
    "cr": [
        lambda events: [event.replace(b"\n", b"\r") for event in events],
        lambda events: [part for event in events for part in (event[:-2] + b"\r", b"\r")],
    ],
    "several lines": [lambda events: [in_two_lines(event) for event in events]],
    "separators": [lambda events: events],
    "no name": [lambda events: [event[event.index(b"data: ") :] for event in events]],
}

# -- clients: the one line is the mount's, without it they are as they come ----------------------


def take(line: str) -> str:
    """What everybody writes who reads lines."""
    if not line.startswith("data:") or line[5:].strip() == "[DONE]":
        return ""
    return content(line[5:])


def content(data: str) -> str:
    if data == "[DONE]":
        return ""
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(data)["choices"])


BODY = {"model": "m", "stream": True, "messages": MESSAGES}


def blocking(library: Any, settings: dict[str, Any] | None) -> Any:
    if settings is None:
        return library.Client(verify=False)
    make: Any = {httpx: mounts.httpx_sync_client, httpx2: mounts.httpx2_sync_client}[library]
    return make(verify=False, **settings)


def read_openai(url: str, settings: dict[str, Any] | None) -> str:
    given = blocking(httpx2, settings)
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, http_client=given) as client:
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def read_anthropic(url: str, settings: dict[str, Any] | None) -> str:
    given = blocking(httpx2, settings)
    with (
        anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, http_client=given) as client,
        client.messages.stream(model="m", max_tokens=9_999, messages=MESSAGES) as stream,
    ):
        return stream.get_final_text()


def read_gemini(url: str, settings: dict[str, Any] | None) -> str:
    given = blocking(httpx2, settings)
    # One that is not given is made, with certificates that nothing here needs.
    options = gemini_types.HttpOptions(
        base_url=url, httpx_client=given, httpx_async_client=httpx2.AsyncClient(verify=False)
    )
    with given, genai.Client(api_key="k", http_options=options) as client:
        return "".join(part.text or "" for part in client.models.generate_content_stream(model="m", contents="q"))


def read_mistral(url: str, settings: dict[str, Any] | None) -> str:
    with (
        blocking(httpx, settings) as given,
        Mistral(api_key="k", server_url=url, client=given) as client,
        client.chat.stream(model="m", messages=MESSAGES) as stream,
    ):
        return "".join(str(event.data.choices[0].delta.content or "") for event in stream)


def lines_of(library: Any) -> Callable[[str, dict[str, Any] | None], str]:
    def read(url: str, settings: dict[str, Any] | None) -> str:
        with blocking(library, settings) as client, client.stream("POST", url + CHAT, json=BODY) as response:
            return "".join(map(take, response.iter_lines()))

    return read


def read_httpx_sse(url: str, settings: dict[str, Any] | None) -> str:
    with (
        blocking(httpx, settings) as client,
        httpx_sse.connect_sse(client, "POST", url + CHAT, json=BODY) as events,
    ):
        return "".join(content(event.data) for event in events.iter_sse())


def read_event_source(url: str, settings: dict[str, Any] | None) -> str:
    with blocking(httpx2, settings) as client, client.stream("POST", url + CHAT, json=BODY) as response:
        return "".join(content(event.data) for event in httpx2.EventSource(response))


def read_requests(url: str, settings: dict[str, Any] | None) -> str:
    with requests.Session() as session:
        if settings is not None:
            session.mount("http://", mounts.RequestsAdapter(**settings))
        with session.post(url + CHAT, json=BODY, stream=True) as response:
            return "".join(take(line.decode()) for line in response.iter_lines())


def read_aiohttp(url: str, settings: dict[str, Any] | None) -> str:
    async def read() -> str:
        middlewares = [] if settings is None else [mounts.aiohttp_middleware(**settings)]
        async with (
            aiohttp.ClientSession(middlewares=middlewares) as session,
            session.post(url + CHAT, json=BODY) as response,
        ):
            return "".join([take(line.decode()) async for line in response.content])

    return asyncio.run(read())


READERS: dict[tuple[str, str], Callable[[str, dict[str, Any] | None], str]] = {
    ("openai", "openai"): read_openai,
    ("anthropic", "anthropic"): read_anthropic,
    ("google-genai", "google-genai"): read_gemini,
    ("mistralai", "mistralai"): read_mistral,
    ("httpx", "iter_lines()"): lines_of(httpx),
    ("httpx", "httpx-sse"): read_httpx_sse,
    ("httpx2", "iter_lines()"): lines_of(httpx2),
    ("httpx2", "httpx2.EventSource"): read_event_source,
    ("requests", "iter_lines()"): read_requests,
    ("aiohttp", "content"): read_aiohttp,
}
SHAPES = {"anthropic": messages, "google-genai": gemini}

# -- rows --------------------------------------------------------------------------------------


def streams(quirk: Quirk) -> Iterator[list[bytes]]:
    pieces = PIECES if quirk.trait == "separators" else PLAIN
    for spoil in SPOILT[quirk.trait]:
        yield spoil((gemini if quirk.path else SHAPES.get(quirk.client, chat))(pieces))


def serving(events: list[bytes]) -> ScriptedServer:
    return ScriptedServer(lambda _: healthy(events))


async def heard(quirk: Quirk, events: list[bytes], settings: dict[str, Any] | None) -> str:
    """What the client makes of a stream: its text, or the name of its exception."""

    def ask(url: str) -> str:
        try:
            return READERS[quirk.client, quirk.reader](url, settings)
        except Exception as error:  # noqa: BLE001 - whatever it dies of
            return type(error).__name__

    async with serving(events) as server:
        return await asyncio.to_thread(ask, server.url)


@pytest.mark.parametrize("quirk", ROWS, ids=lambda quirk: f"{quirk.client}, {quirk.reader}: {quirk.trait}")
async def test_a_client_alone_dies_on_it_and_reads_it_in_a_mount(quirk: Quirk) -> None:
    whole = "".join(PIECES if quirk.trait == "separators" else PLAIN)
    for events in streams(quirk):
        assert await heard(quirk, events, {}) == whole, events
        assert await heard(quirk, events, None) != whole, (
            f"mended: its row can go, unless an older version needs it {events}"
        )


@pytest.mark.parametrize(("client", "environment"), [("litellm", "litellm"), ("openai", "older")])
@pytest.mark.timeout(300)
async def test_a_client_of_another_environment_dies_on_it_and_reads_it_in_a_mount(
    client: str, environment: str
) -> None:
    python = sdk_python(environment)
    model = {"openai": "m", "litellm": "deepseek/m"}[client]
    readings: list[tuple[str, str, bool]] = []
    rows: list[Quirk] = []
    async with AsyncExitStack() as servers:
        for quirk in QUIRKS:
            for events in streams(quirk) if quirk.client == client else ():
                server = await servers.enter_async_context(serving(events))
                asked = "gemini/m" if quirk.path else model
                readings += [(asked, server.url, True), (asked, server.url, False)]
                rows.append(quirk)
        program = await asyncio.create_subprocess_exec(
            *(python, "-W", "ignore", str(ROOT / "tests/mounts/elsewhere.py"), json.dumps(readings)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await program.communicate()
    assert program.returncode == 0, err.decode()
    texts = json.loads(out.splitlines()[-1])
    whole = {"".join(PIECES), "".join(PLAIN)}
    assert set(texts[::2]) <= whole, texts
    dying = {quirk for quirk, text in zip(rows, texts[1::2], strict=True) if text not in whole}
    assert dying == set(rows), "mended: these rows can go"


async def test_the_policy_can_be_turned_off() -> None:
    quirk = next(one for one in ROWS if one.client == "openai" and one.trait == "fields")
    events = next(iter(streams(quirk)))
    assert await heard(quirk, events, {"quirks": False}) == "JSONDecodeError"


def test_every_row_has_a_stream_and_a_client_that_dies_on_it() -> None:
    assert {quirk.trait for quirk in QUIRKS} == set(SPOILT)
    assert {(quirk.client, quirk.reader) for quirk in ROWS} == set(READERS)
    assert len({(quirk.client, quirk.trait, quirk.reader) for quirk in QUIRKS}) == len(QUIRKS)
    assert all(quirk.seen and quirk.becomes for quirk in QUIRKS)


# -- recognition -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"User-Agent": "AsyncOpenAI/Python 3.54.0"}, "openai"),
        ({"User-Agent": "pydantic-ai/2.68.0", "x-stainless-package-version": openai.__version__}, "openai"),
        ({"user-agent": "Anthropic/Python 2.12.0"}, "anthropic"),
        ({"x-goog-api-client": "google-genai-sdk/3.4.0 gl-python/3.11.7", "user-agent": "mine"}, "google-genai"),
        ({"user-agent": "litellm/1.106.2"}, "litellm"),
        ({"user-agent": "python-httpx/0.28.1"}, "httpx"),
        ({"user-agent": "python-httpx2/2.16.2"}, "httpx2"),
        ({"user-agent": "Python/3.11 aiohttp/3.14.5"}, "aiohttp"),
        ({"user-agent": "my-program/1.0 aiohttp"}, ""),
        ({}, ""),
    ],
)
def test_a_client_is_known_by_what_it_sends(headers: dict[str, str], client: str) -> None:
    assert client_of(headers) == client


def test_a_quirk_may_be_of_one_endpoint_alone() -> None:
    litellm = {"user-agent": "litellm/1.106.2"}
    assert "not data" in traits_of(litellm, "https://a/v1beta/models/m:streamGenerateContent?alt=sse")
    assert "not data" not in traits_of(litellm, "https://a/v1/chat/completions")
    assert traits_of({"user-agent": "mine"}, "https://a/v1/chat/completions") == frozenset()


# -- bytes -------------------------------------------------------------------------------------


def parsed(*chunks: bytes) -> list[list[Delta]]:
    """Gives what each chunk brings, as a relay's layers hand it over."""
    parser, batches = SseParser(comments=True), []
    for one in chunks:
        events: list[Event] = []
        parser.feed([one], events)
        batches.append([Delta(event) for event in events])
    return batches


ALL = frozenset(SPOILT) - {"not data", "no name"}
HEALTHY = [
    *chat(PLAIN),
    b": a comment\n\n",
    b": a comment\n",
    b"event: x\nid: 1\ndata: {}\n\n",
    b"data: {}\r\n\r\n",
    b"data: a\ndata: b\n\n",
    "data: no JSON\u2028\n\n".encode(),
]


@pytest.mark.parametrize(
    "traits", [ALL, *({trait} for trait in sorted(ALL))], ids=lambda traits: "+".join(sorted(traits))
)
def test_what_has_none_of_the_bytes_is_handed_on_as_the_very_same(traits: set[Trait]) -> None:
    rewriter = Rewriter(traits)
    for batch in parsed(*HEALTHY):
        assert rewriter.events(batch) is batch
        wire = b"".join(delta.raw.wire for delta in batch)
        assert rewriter.told(wire) == wire


def test_googles_own_line_ends_are_handed_on_as_the_very_same() -> None:
    rewriter = Rewriter({"bom", "not data"})
    for batch in parsed(b'data: {"a": 1}\r\n\r\n', b'data: {"a": 1}\r\n\r', b"\n", b'data: {"b": 2}\r\n\r\n', b"\n"):
        assert rewriter.events(batch) is batch


def test_nothing_is_held_and_what_means_something_stays() -> None:
    rewriter = Rewriter({"fields", "blank after id", "empty data"})
    told = [
        b"".join(delta.raw.wire for delta in rewriter.events(batch))
        for batch in parsed(b"id: 7\nevent: x\n\n", b": hi\n\n", b"data: {}\n\n", b": hi\n", b"\n", b"data:\n\n")
    ]
    assert told == [b"id: 7\n", b": hi\n", b"data: {}\n\n", b": hi\n", b"", b""]


def test_several_deltas_of_one_event_stay_of_one_event() -> None:
    [[delta]] = parsed(BOM + b"data: {}\n\n")
    first, second = Rewriter({"bom"}).events([delta, Delta(delta.raw, text="x")])
    assert first.raw is second.raw
    assert first.raw.wire == b"data: {}\n\n"
    assert second.text == "x"
    assert delta.raw.wire.startswith(BOM)


def test_an_event_gets_a_name_only_where_its_json_has_one() -> None:
    rewriter = Rewriter({"no name"})
    [batch] = parsed(b'data: {"type": "ping"}\n\ndata: {"type": 1}\n\ndata: []\n\ndata: x\n\nevent: a\ndata: {}\n\n')
    first, *others = rewriter.events(batch)
    assert first.raw.wire == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert all(one is another for one, another in zip(others, batch[1:], strict=True))


def test_an_event_whose_name_is_empty_gets_one_and_one_that_has_it_stays() -> None:
    rewriter = Rewriter({"no name"})
    [batch] = parsed(b'event:\ndata: {"type": "ping"}\n\nevent: message\ndata: {"type": "ping"}\n\n')
    first, second = rewriter.events(batch)
    assert first.raw.wire == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert second is batch[1]


@pytest.mark.parametrize(
    ("wire", "becomes"),
    [
        (b'data: {"a":1,\rdata: "b":2}\n\n', b'data: {"a":1, "b":2}\n\n'),
        (b'data: {"a":1,\rid: 7\rdata: "b":2}\n\n', b'data: {"a":1, "b":2}\nid: 7\n\n'),
        (b'data: {"a":1,\r\ndata: "b":2}\r\n\r\n', b'data: {"a":1, "b":2}\r\n\r\n'),
        (b'data: {"a":1,\rdata: "b":2}\r\r', b'data: {"a":1, "b":2}\n\r'),
    ],
)
def test_lines_that_become_one_stay_an_event_of_their_own(wire: bytes, becomes: bytes) -> None:
    [batch] = parsed(wire)
    [delta] = Rewriter({"several lines"}).events(batch)
    assert delta.raw.wire == becomes


@pytest.mark.parametrize(
    ("wire", "becomes"),
    [
        (b"id: 1\rdata: {}\r\n\r\n", b"id: 1\ndata: {}\r\n\r\n"),
        (b"id: 1\rdata: {}\n\n", b"id: 1\ndata: {}\n\n"),
        (b"data: {}\r\r", b"data: {}\n\n"),
        (b"data: {}\r\n\r", b"data: {}\r\n\r"),  # the half of a CRLF
    ],
)
def test_a_carriage_return_alone_becomes_a_line_feed_also_among_others(wire: bytes, becomes: bytes) -> None:
    [batch] = parsed(wire)
    [delta] = Rewriter({"cr"}).events(batch)
    assert delta.raw.wire == becomes


async def test_a_comment_that_is_left_out_delays_nothing() -> None:
    first, comment = gemini(PLAIN)[0], b": a comment\n\n"
    steps: list[Step] = [Send(STREAM_HEAD), Send(chunked(comment)), Send(chunked(first + comment)), Stall()]
    google = {"user-agent": "google-genai-sdk/3.4.0 gl-python/3.11.7"}
    async with (
        ScriptedServer(lambda _: steps) as server,
        asyncio.timeout(5),
        mounts.httpx2_client(verify=False, headers=google) as client,
        client.stream("POST", server.url + GEMINI, json={}) as response,
    ):
        assert await anext(response.aiter_raw()) == first


@contextmanager
def numbered(events: list[bytes]) -> Iterator[Callable[[Any], list[Step]]]:
    """A server that goes on after the id it is asked for, and begins each of its answers with a byte order mark."""

    def reply(request: Any) -> list[Step]:
        last = request.headers.get("last-event-id")
        rest = events[int(last) :] if last else events[:3]
        sent = [Send(chunked(BOM + rest[0])), *(Send(chunked(event)) for event in rest[1:])]
        return [Send(STREAM_HEAD), *sent, Send(LAST_CHUNK) if last else Reset()]

    yield reply


async def test_a_byte_order_mark_in_the_middle_reaches_nobody() -> None:
    events = [f"id: {at}\n".encode() + event for at, event in enumerate(chat(PLAIN), 1)]
    with numbered(events) as reply:
        async with (
            ScriptedServer(reply) as server,
            mounts.httpx2_client(verify=False, headers={"user-agent": "mine"}) as client,
        ):
            response = await client.post(server.url + CHAT, json=BODY)
            assert len(server.requests) == 2
            assert response.content == BOM + b"".join(events)


def test_the_page_shows_the_rows() -> None:
    page = (ROOT / "docs/quirks.md").read_text("utf-8")
    shown = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")
    ]
    rows = [(row[0].partition(" ")[0], row[1], row[3].strip("`"), row[5]) for row in shown[1:]]
    assert rows == [(one.client, one.reader, one.becomes.strip("`"), ", ".join(one.seen)) for one in QUIRKS]
