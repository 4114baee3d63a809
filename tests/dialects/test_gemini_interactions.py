"""Google's Interactions: steps, statuses, and the way on behind an `event_id`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from holdfast._errors import DecodeError, NotAStream, StreamBroken, StreamError, Truncated, UpstreamError
from holdfast._pipe import Pipe
from holdfast._types import Completion, Delta, Event, Request
from holdfast.dialects import GEMINI_INTERACTIONS, state_of
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.verify import verify
from holdfast.machines.cursor import Cursor
from holdfast.moments import Report
from holdfast.offline import assemble
from holdfast.testing import FakeClock
from tests.layers.test_reconnect import read as read_all
from tests.layers.test_rungs import Reply, Upstream, cut

DONE = "event: done\ndata: [DONE]\n\n"


def event(name: str, **more: Any) -> dict[str, Any]:
    return {"event_type": name, **more}


def start(index: int, type: str, **more: Any) -> dict[str, Any]:
    return event("step.start", index=index, step={"type": type, **more})


def delta(index: int, type: str, **more: Any) -> dict[str, Any]:
    return event("step.delta", index=index, delta={"type": type, **more})


def completed(status: str = "completed", **more: Any) -> dict[str, Any]:
    return event("interaction.completed", interaction={"id": "v1", "status": status, **more})


CREATED = event("interaction.created", interaction={"id": "v1", "status": "in_progress"})
ANSWER = [CREATED, start(0, "model_output"), delta(0, "text", text="x"), event("step.stop", index=0)]


def body(*events: Any) -> bytes:
    return "".join(
        e if isinstance(e, str) else f"event: {e['event_type']}\ndata: {json.dumps(e)}\n\n" for e in events
    ).encode()


def read(*events: Any) -> Completion:
    return assemble(body(*events), "gemini-interactions")


def failed(*events: Any) -> tuple[StreamError, Completion]:
    with pytest.raises(StreamError) as raised:
        read(*events)
    return raised.value, raised.value.partial.answer


def test_steps_are_told_apart() -> None:
    answer = read(
        CREATED,
        event("interaction.status_update", status="in_progress"),
        start(0, "thought", summary=[{"type": "text", "text": "H"}, {"type": "image", "data": "x"}]),
        delta(0, "thought_summary", content={"type": "text", "text": "m"}),
        delta(0, "thought_signature", signature="abc"),
        event("step.stop", index=0),
        start(1, "google_search_call", id="s", arguments={"queries": ["q"]}),
        delta(1, "google_search_call", arguments={"queries": ["q"]}),
        start(2, "model_output", content=[{"type": "text", "text": "It "}]),
        delta(2, "text", text="is"),
        delta(2, "image", data="AAAA"),
        event("step.stop", index=2),
        completed(usage={"total_input_tokens": 9, "total_output_tokens": 13, "total_thought_tokens": 220}),
        DONE,
    )
    assert (answer.reasoning, answer.text, answer.tool_calls) == ("Hm", "It is", ())
    assert (answer.finish_reason, str(answer.verdict)) == ("completed", "COMPLETE")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.reasoning_tokens) == (9, 233, 220)


def test_text_inside_a_thought_is_reasoning() -> None:
    answer = read(CREATED, start(0, "thought"), delta(0, "text", text="Hm"), completed())
    assert (answer.reasoning, answer.text) == ("Hm", "")


def test_calls_come_in_pieces() -> None:
    answer = read(
        CREATED,
        start(3, "function_call", id="a", name="f", arguments={}),
        delta(3, "arguments_delta", arguments='{"x":'),
        start(4, "function_call", id="b", name="g"),
        delta(3, "arguments_delta", arguments="1}"),
        delta(4, "arguments_delta"),
        completed("requires_action"),
        DONE,
    )
    assert [(c.index, c.id, c.name, c.arguments) for c in answer.tool_calls] == [
        (0, "a", "f", '{"x":1}'),
        (1, "b", "g", ""),
    ]
    assert (answer.tool_calls[1].input, answer.finish_reason) == ({}, "requires_action")


def test_a_call_may_come_whole() -> None:
    whole = start(0, "function_call", id="a", name="f", arguments={"x": 1})
    assert read(CREATED, whole, completed("requires_action")).tool_calls[0].input == {"x": 1}
    error, _ = failed(CREATED, whole, delta(0, "arguments_delta", arguments="{}"))
    assert isinstance(error, DecodeError)


@pytest.mark.parametrize(
    "odd",
    [
        delta(7, "arguments_delta", arguments="{}"),
        start(-1, "thought"),
        event("step.delta", index="0"),
        event("step.start", step=7),
        {**event("step.stop", index=0), "event_id": 7},
        delta(0, "text", text=7),
        delta(0, "thought_summary", content={"type": "text", "text": 7}),
        delta(0, "thought_summary", content="Hm"),
        start(0, "thought", summary=[{"type": "text", "text": 7}]),
        start(0, "model_output", content=[{"type": "text", "text": 7}]),
        start(0, "model_output", content="It is"),
        start(1, "function_call", id="a", name="f", arguments=7),
        completed(usage=7),
        [1],
        None,
    ],
)
def test_what_cannot_be_is_an_error(odd: Any) -> None:
    line = f"data: {json.dumps(odd)}\n\n"
    error, answer = failed(*ANSWER, line)
    assert isinstance(error, DecodeError)
    assert (error.offset, answer.text) == (len(body(*ANSWER)), "x")


def test_arguments_for_a_call_must_be_text() -> None:
    error, _ = failed(start(0, "function_call", id="a", name="f"), delta(0, "arguments_delta", arguments={"x": 1}))
    assert isinstance(error, DecodeError)


def test_events_nobody_knows_pass() -> None:
    cursor = Cursor()
    reader, deltas = GEMINI_INTERACTIONS.reader(None, cursor), list[Delta]()
    unknown = event("step.pondered", index=0, what=[1])
    reader.feed([Event(json.dumps(unknown).encode())], deltas)
    assert deltas[0].empty
    assert deltas[0].raw.json() == unknown


# -- what proves an answer -------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "requires_action", "incomplete", "budget_exceeded", "new"])
def test_a_status_is_an_end_in_the_providers_word(status: str) -> None:
    assert read(*ANSWER, completed(status)).finish_reason == status  # [DONE] may be missing


@pytest.mark.parametrize(("status", "retryable"), [("failed", True), ("cancelled", False)])
@pytest.mark.parametrize("name", ["interaction.completed", "interaction.status_update"])
def test_a_failure_is_no_end(status: str, retryable: bool, name: str) -> None:  # noqa: FBT001
    ends = {"interaction.completed": completed(status), "interaction.status_update": event(name, status=status)}
    for tail in ((), (DONE,)):
        error, answer = failed(*ANSWER, ends[name], *tail)
        assert isinstance(error, UpstreamError)
        assert (error.code, error.retryable, answer.text) == (status, retryable, "x")


@pytest.mark.parametrize("tail", [(), (DONE,), (completed("in_progress"), DONE), (event("interaction.completed"),)])
def test_an_answer_without_its_end_is_cut(tail: tuple[Any, ...]) -> None:
    error, answer = failed(*ANSWER, *tail)
    assert isinstance(error, Truncated)
    assert "interaction.completed" in str(error)
    assert answer.text == "x"


def test_an_error_event_has_words() -> None:
    for one in (
        event("error", error={"code": "internal", "message": "m"}),
        event("error", code="internal", message="m"),
    ):
        error, answer = failed(*ANSWER, one)
        assert isinstance(error, UpstreamError)
        assert (error.code, error.message, answer.text) == ("internal", "m", "x")
    bare, _ = failed('{"error": {"code": 404, "status": "NOT_FOUND"}}\n')
    assert isinstance(bare, UpstreamError)
    assert not bare.retryable


def test_an_interaction_that_was_not_streamed_is_no_stream() -> None:
    error, _ = failed('{"id": "v1", "status": "completed"}')
    assert isinstance(error, NotAStream)
    assert '"stream": true' in str(error)


def test_an_end_said_twice_is_heard_once() -> None:
    reader, deltas = GEMINI_INTERACTIONS.reader(None, Cursor()), list[Delta]()
    reader.feed([Event(json.dumps(completed(usage={"total_tokens": 1})).encode())] * 2, deltas)
    assert [(d.finish_reason, d.usage is not None) for d in deltas] == [("completed", True), (None, False)]


# -- going on --------------------------------------------------------------------------------------


def continued(*then: Any) -> tuple[Cursor, Any]:
    """Reads the beginning of an answer, then events of the attempt that was asked to continue it."""
    cursor = Cursor()
    reader = GEMINI_INTERACTIONS.reader(None, cursor)
    first = [CREATED, start(0, "thought"), start(1, "function_call", id="a", name="f")]
    reader.feed([Event(json.dumps(e).encode()) for e in first], [])
    evidence = GEMINI_INTERACTIONS.wire.revive(state_of(reader.evidence))
    assert evidence == reader.evidence
    cursor.begin("continue")
    following = GEMINI_INTERACTIONS.reader(None, cursor, evidence)
    following.feed([Event(json.dumps(e).encode()) for e in then], [])
    return cursor, following.evidence


@pytest.mark.parametrize("opening", [(), (CREATED,), (event("interaction.status_update", status="in_progress"),)])
def test_a_continuation_goes_on_inside_its_step(opening: tuple[Any, ...]) -> None:
    cursor, evidence = continued(*opening, delta(1, "arguments_delta", arguments="{}"), completed())
    assert (cursor.mode, evidence.complete) == ("continue", True)


@pytest.mark.parametrize(
    "then",
    [
        (CREATED, start(0, "thought")),
        (start(0, "thought"),),
        (event("interaction.created", interaction={"id": "v2"}), start(0, "thought")),
    ],
)
def test_a_beginning_is_no_continuation(then: tuple[Any, ...]) -> None:
    cursor, evidence = continued(*then)
    assert cursor.mode == "replay"
    assert evidence.steps == {0: "thought"}


def numbered(*events: Any) -> list[bytes]:
    return [
        f"event: {e['event_type']}\ndata: {json.dumps({**e, 'event_id': f'e{n}'})}\n\n".encode()
        for n, e in enumerate(events, 1)
    ]


WORDS = [delta(0, "text", text=word) for word in ("a", "a", "b", "b", " end")]
STORED = numbered(CREATED, start(0, "model_output"), *WORDS, event("step.stop", index=0), completed())


def behind(request: Request) -> int:
    """How many events come before the place behind which a request wants to go on."""
    return int(parse_qs(urlsplit(request.url).query)["last_event_id"][0].removeprefix("e"))


async def resumed(server: Upstream, clock: FakeClock, *, relay: bool = False) -> tuple[list[Delta], Report]:
    pipe = Pipe(server, clock=clock) | parse_sse(comments=relay) | verify("gemini-interactions", relay=relay)
    reader = (pipe | Reconnect()).stream(Request(url="https://host/v1beta/interactions", body={"input": "x"}))
    async with reader:
        return [delta async for delta in reader], reader.report


@pytest.mark.parametrize("again", range(9))
@pytest.mark.parametrize("after", [3, 4, 6, 8])
async def test_what_comes_again_after_a_resume_is_handed_over_once(after: int, again: int, clock: FakeClock) -> None:
    def replies(request: Request, turn: int) -> Reply:
        return cut(STORED, after) if turn == 1 else STORED[max(0, behind(request) - again) :]

    deltas, report = await resumed(Upstream(replies), clock)
    assert "".join(delta.text for delta in deltas) == "aabb end"
    assert (str(report.verdict), report.dropped) == ("RESUMED (1 seam, exact)", min(after, again))
    relayed, _ = await resumed(Upstream(replies), clock, relay=True)
    assert [delta.raw.wire for delta in relayed] == STORED


async def test_what_came_over_two_attempts_is_known_at_the_third(clock: FakeClock) -> None:
    def replies(request: Request, turn: int) -> Reply:
        begin = 0 if turn == 1 else behind(request) - 2
        return cut(STORED[begin:], 4) if turn < 3 else STORED[begin:]

    deltas, report = await resumed(Upstream(replies), clock)
    assert "".join(delta.text for delta in deltas) == "aabb end"
    assert (str(report.verdict), report.dropped) == ("RESUMED (2 seams, exact)", 4)


@pytest.mark.parametrize("again", range(1, 6))
async def test_an_id_of_ours_over_other_contents_is_of_another_answer(again: int, clock: FakeClock) -> None:
    other = numbered(CREATED, start(0, "model_output"), *(delta(0, "text", text="no") for _ in WORDS), completed())

    def replies(request: Request, turn: int) -> Reply:
        if turn == 1:
            return cut(STORED, 6)
        return other if request.method == "POST" else other[behind(request) - again :]

    with pytest.raises(StreamError) as raised:
        await resumed(Upstream(replies), clock)
    assert raised.value.partial.text == "aabb"


async def test_an_event_that_was_no_good_is_not_remembered(clock: FakeClock) -> None:
    call = [start(0, "function_call", id="a", name="f"), delta(0, "arguments_delta", arguments="{}")]
    good, bad = (
        numbered(CREATED, *call[:1], one, completed()) for one in (call[1], delta(0, "arguments_delta", arguments=7))
    )
    deltas, report = await resumed(Upstream(lambda request, turn: bad if turn == 1 else good[behind(request) :]), clock)
    assert [call.arguments for delta in deltas for call in delta.tool_calls] == ["", "{}"]
    assert str(report.verdict) == "RESUMED (1 seam, exact)"


async def test_another_process_knows_what_was_delivered(clock: FakeClock) -> None:
    cursor = Cursor()
    reader = GEMINI_INTERACTIONS.reader(None, cursor)
    events = [Event(told.split(b"data: ")[1].strip()) for told in STORED]
    reader.feed(events[:5], [])
    evidence = GEMINI_INTERACTIONS.wire.revive(json.loads(json.dumps(state_of(reader.evidence))))
    cursor = Cursor()
    cursor.begin("continue")
    deltas: list[Delta] = []
    GEMINI_INTERACTIONS.reader(None, cursor, evidence).feed(events[2:], deltas)
    assert ("".join(delta.text for delta in deltas), cursor.dropped) == ("b end", 3)


def test_few_ids_are_remembered() -> None:
    reader = GEMINI_INTERACTIONS.reader(None, Cursor())
    status = event("interaction.status_update", status="in_progress")
    events = [Event(json.dumps({**status, "event_id": f"e{n}"}).encode()) for n in range(10_000)]
    reader.feed(events, [])
    ids = list(state_of(reader.evidence)["ids"])
    assert 1_000 < len(ids) <= 4_096
    assert ids[-1] == "e9999"


RUNG = GEMINI_INTERACTIONS.cursor
REQUEST = Request(
    url="https://host/v1beta/interactions?x=1", headers={"x-goog-api-key": "k"}, body={"background": True}
)


def test_the_place_is_the_events_own_id() -> None:
    assert RUNG is not None
    assert RUNG.place(Event(b'{"event_id":"e1","event_type":"step.stop"}'), 9) == "e1"
    assert [RUNG.place(Event(p), 9) for p in (b"{}", b"[DONE]", b"", b'{"event_id":7}')] == [""] * 4


def test_a_stored_interaction_is_resumed_behind_the_place() -> None:
    assert RUNG is not None
    resumed = RUNG.resume(REQUEST, "v1/a", "e&1")
    assert resumed is not None
    assert resumed.url == "https://host/v1beta/interactions/v1%2Fa?x=1&stream=true&last_event_id=e%261"
    assert (resumed.method, resumed.body, resumed.headers) == ("GET", None, REQUEST.headers)
    assert RUNG.resume(REQUEST, "", "e1") is None  # not stored: it has no id
    assert RUNG.resume(REQUEST, "v1", "") is None


def test_only_what_runs_in_the_background_is_cancelled() -> None:
    assert RUNG is not None
    cancelled = RUNG.cancel(REQUEST, "v1")
    assert cancelled is not None
    assert (cancelled.method, cancelled.url) == ("POST", "https://host/v1beta/interactions/v1/cancel?x=1")
    assert RUNG.cancel(REQUEST, "") is None
    assert RUNG.cancel(replace(REQUEST, body={}), "v1") is None
    assert RUNG.cancel(replace(REQUEST, body=b'{"background":true}'), "v1") == cancelled


# -- the request -----------------------------------------------------------------------------------


def test_a_request_asks_for_a_stream() -> None:
    assert GEMINI_INTERACTIONS.prepare({"model": "m"}) == {"model": "m", "stream": True}
    url = GEMINI_INTERACTIONS.url(GEMINI_INTERACTIONS.base_url, {"model": "m"})
    assert url == "https://generativelanguage.googleapis.com/v1beta/interactions"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"response_format": {"type": "text", "mime_type": "application/json", "schema": {"a": 1}}}, {"a": 1}),
        ({"response_format": [{"type": "image"}, {"type": "text", "mime_type": "application/json"}]}, True),
        ({"response_format": {"type": "object"}, "response_mime_type": "application/json"}, {"type": "object"}),
        ({"response_mime_type": "application/json"}, True),
        ({"response_format": {"type": "text"}}, False),
        ({}, False),
    ],
)
def test_a_request_says_whether_json_is_wanted(body: dict[str, Any], asked: Any) -> None:
    assert GEMINI_INTERACTIONS.wire.asks_json(body) == asked


def test_its_events_are_recognised() -> None:
    recognises = GEMINI_INTERACTIONS.wire.recognises
    assert all(recognises(Event(json.dumps(one).encode())) for one in (*ANSWER, completed()))
    assert not any(recognises(Event(other)) for other in (b'{"event_type":"x"}', b"[DONE]", b'{"type":"step.start"}'))


def test_an_interaction_that_begins_in_the_middle_of_another_is_not_added_to_it() -> None:
    error, partial = failed(*ANSWER, *ANSWER, completed())
    assert isinstance(error, DecodeError)
    assert partial.text == "x"


@pytest.mark.parametrize("loses", [True, False])
async def test_a_server_that_loses_its_ids_is_not_believed_to_continue(loses: bool, clock: FakeClock) -> None:  # noqa: FBT001
    events = [CREATED, start(0, "model_output"), *(delta(0, "text", text=letter) for letter in "abcd"), completed()]
    named = [{**told, "event_id": f"e{n}"} for n, told in enumerate(events)]
    if not loses:  # this one names only some of them: that one has none is no news
        del named[2]["event_id"]
    older = [body(told) for told in events[3:]] if loses else [body(told) for told in events[5:]]
    server = Upstream(lambda _r, turn: [body(*named[:5]), StreamBroken("reset")] if turn == 1 else older)
    pipe = Pipe(server, clock=clock) | parse_sse() | verify("gemini-interactions") | Reconnect()
    asked = Request(url="http://h/v1beta/interactions", body={"input": "x"})
    got, error = await read_all(pipe.stream(asked))
    assert "".join(piece.text for piece in got) == ("abc" if loses else "abcd")
    assert isinstance(error, StreamBroken) == loses
