"""The upstream in a box says the same thing to the same question, fails exactly as told, and keeps count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from holdfast.offline import assemble
from holdfast.testing import faults as f
from holdfast.testing.answers import Answer, write_answer
from holdfast.testing.books import Served
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ReceivedRequest, sse
from holdfast.testing.shapes import Question


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def tides(*faults: f.Fault) -> Schedule:
    return Schedule(streams={"tides": faults})


async def ask(
    session: aiohttp.ClientSession, upstream: ChaosServer, prompt: str = "tides", prefix: str = "", **headers: str
) -> bytes:
    messages: list[dict[str, object]] = [{"role": "user", "content": prompt}]
    if prefix:
        messages.append({"role": "assistant", "content": prefix, "prefix": True})
    body = {"messages": messages, "stream": True}
    async with session.post(f"{upstream.url}/chat/completions", json=body, headers=headers) as response:
        return await response.read()


def read(body: bytes) -> str:
    return assemble([body], dialect="deepseek").text


def test_an_answer_depends_on_its_seed_alone() -> None:
    assert write_answer("tides", sentences=25) == write_answer("tides", sentences=25)
    assert write_answer("tides").text != write_answer("winds").text
    assert any("\u4e00" <= c <= "\u9fff" for c in write_answer("tides").text)
    assert "[DONE]" in write_answer("tides", sentences=11).text


def test_the_rest_of_an_answer_completes_its_beginning() -> None:
    answer = write_answer("tides")
    for cut in range(0, len(answer.text), 7):
        rest = answer.rest(answer.text[:cut])
        assert rest is not None
        assert answer.text[:cut] + rest.text == answer.text
        assert rest.reasoning == ""
    assert answer.rest("no") is None


async def test_a_healthy_reply_assembles_to_the_answer_with_reasoning_and_usage(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(seed=4) as upstream:
        completion = assemble([await ask(session, upstream)], dialect="deepseek")
    truth = upstream.answer("tides")
    assert (completion.text, completion.reasoning) == (truth.text, truth.reasoning)
    assert completion.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.output_tokens == len(truth.pieces) + len(truth.reasoning_pieces)


async def test_with_ids_a_server_continues_after_the_last_one(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(modes={"tides": "ids"}) as upstream:
        whole = await ask(session, upstream)
        rest = await ask(session, upstream, **{"Last-Event-ID": "20"})
    assert whole.endswith(rest)
    assert rest.startswith(b"id: 21\n")
    assert [served.last_event_id for served in upstream.served] == ["", "20"]


async def test_without_ids_the_same_answer_comes_again_under_another_id(session: aiohttp.ClientSession) -> None:
    async with ChaosServer() as upstream:
        first, again = [await ask(session, upstream) for _ in range(2)]
    assert first != again
    assert assemble([first], dialect="deepseek") == assemble([again], dialect="deepseek")


async def test_a_divergent_server_answers_otherwise_each_time(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(mode="divergent") as upstream:
        first, again = [read(await ask(session, upstream)) for _ in range(2)]
    assert [first, again] == [answer.text for answer in upstream.answers("tides")]
    assert first != again


async def test_a_prefix_is_continued_and_nothing_else(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(mode="prefix") as upstream:
        first = read(await ask(session, upstream))
        rest = read(await ask(session, upstream, prefix=first[:50]))
        other = read(await ask(session, upstream, prefix="Nobody ever said that"))
    assert first[:50] + rest == first
    assert other == upstream.answer("tides", 3).text != first
    assert upstream.served[1].events_again == 0


async def test_each_attempt_meets_its_own_fault_and_then_all_is_well(session: aiohttp.ClientSession) -> None:
    faults = (f.Refused(status=429, retry_after=3), f.HtmlPage(), f.EmptyBody())
    async with ChaosServer(schedule=tides(*faults)) as upstream:
        bodies = [await ask(session, upstream) for _ in range(4)]
    assert b"rate_limit_reached" in bodies[0]
    assert b"<html>" in bodies[1]
    assert bodies[2] == b""
    assert bodies[3].endswith(f.DONE)
    assert [served.fault for served in upstream.served] == [*faults, f.Healthy()]
    assert [served.status for served in upstream.served] == [429, 200, 200, 200]


@pytest.mark.parametrize(
    "fault",
    [f.NoAnswer(how="close"), f.ResetMidStream(after=9), f.FinInsideChunk(after=9), f.LengthTooLong()],
    ids=str,
)
async def test_a_cut_is_seen_by_whoever_looks(session: aiohttp.ClientSession, fault: f.Fault) -> None:
    async with ChaosServer(schedule=tides(fault, fault)) as upstream:  # aiohttp itself asks again once
        with pytest.raises(aiohttp.ClientError):
            await ask(session, upstream)


async def test_a_clean_truncation_looks_like_an_end(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(schedule=tides(f.CleanCut(after=9))) as upstream:
        body = await ask(session, upstream)
    assert body.count(b"data: ") == upstream.served[0].events == 9
    assert b"[DONE]" not in body


HARMLESS = [
    *(f.SplitCharacters(), f.EarlyHints(), f.SplitHead(), f.WrongCharset(), f.Drip(size=50), f.Latency(seconds=0.001)),
    *(f.ByteOrderMark(), f.LineEnds(ends="CR"), f.LineEnds(), f.Comments(), f.BigEvent(), f.NoDone(), f.Gzipped()),
    *(f.Framed(), f.Framed(by="length"), f.LengthTooShort(after=10_000)),
]


@pytest.mark.parametrize("fault", HARMLESS, ids=str)
async def test_what_is_no_fault_on_the_wire_does_no_harm(session: aiohttp.ClientSession, fault: f.Fault) -> None:
    async with ChaosServer(schedule=tides(fault)) as upstream:
        assert read(await ask(session, upstream)) == upstream.answer("tides").text


async def test_what_is_no_chat_request_is_refused(session: aiohttp.ClientSession) -> None:
    async with ChaosServer() as upstream, session.post(f"{upstream.url}/chat/completions", data=b"hello") as response:
        assert response.status == 400
    assert upstream.served == []


async def test_without_ids_a_second_attempt_sends_again_what_the_first_had_sent(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(schedule=tides(f.CleanCut(after=9))) as upstream:
        for _ in range(2):
            whole = await ask(session, upstream)
    first, second = upstream.served
    assert (first.events, first.events_again) == (9, 0)
    assert (second.events, second.events_again) == (whole.count(b"data: "), 9)
    assert second.bytes > len(whole)
    assert upstream.attempts == {"tides": 2}


@pytest.mark.parametrize(
    ("fault", "again"),
    [(f.Healthy(), 0), (f.IgnoresLastEventId(), 9), (f.RepeatedAfterResume(events=3), 3)],
    ids=str,
)
async def test_with_ids_only_what_the_server_repeats_is_sent_again(
    session: aiohttp.ClientSession, fault: f.Fault, again: int
) -> None:
    async with ChaosServer(schedule=tides(f.CleanCut(after=9), fault), mode="ids") as upstream:
        await ask(session, upstream)
        await ask(session, upstream, **{"Last-Event-ID": "9"})
    assert upstream.served[1].events_again == again
    assert upstream.summary["events_again"] == again


@pytest.mark.parametrize("fault", [f.Framed(by="length"), f.Comments(), f.LineEnds(), f.Drip(), f.NoDone()], ids=str)
async def test_however_it_is_dressed_an_event_counts_once(session: aiohttp.ClientSession, fault: f.Fault) -> None:
    async with ChaosServer(schedule=tides(fault), sentences=12) as upstream:
        for _ in range(2):
            whole = await ask(session, upstream)
    first, second = upstream.served
    events = whole.count(b"\ndata: ") + 1
    assert (first.events, first.events_again) == (events - isinstance(fault, f.NoDone), 0)
    assert (second.events, second.events_again) == (events, first.events)


async def test_sums_and_reports_say_what_was_served(session: aiohttp.ClientSession) -> None:
    heard: list[Served] = []
    async with ChaosServer(schedule=tides(f.Refused(status=503)), heard=heard.append) as upstream:
        for prompt in ("tides", "tides", "winds"):
            await ask(session, upstream, prompt)
    assert heard == upstream.served
    assert all(served.over for served in heard)
    summary = upstream.summary
    assert (summary["requests"], summary["streams"], summary["faults"]) == (3, 2, {"refused": 1})
    assert heard[0].as_dict()["fault"] == "503"
    assert heard[1].as_dict()["fault"] is None


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/chat/completions", {"n": 2, "messages": [{"role": "user", "content": "tides"}]}),
        (
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            {"generationConfig": {"candidateCount": 2}, "contents": [{"parts": [{"text": "tides"}]}]},
        ),
    ],
)
async def test_more_than_one_choice_is_refused_in_words(
    session: aiohttp.ClientSession, path: str, more: dict[str, object]
) -> None:
    async with ChaosServer() as upstream, session.post(upstream.url + path, json={**more, "stream": True}) as response:
        assert response.status == 400
        assert "This server gives one c" in (await response.json())["error"]["message"]
    assert [(served.attempt, served.status, served.rung) for served in upstream.served] == [(0, 400, "")]


async def test_answers_of_ones_own_are_made_of_texts(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(write=lambda seed: Answer.of(f"About {seed}.")) as upstream:
        assert read(await ask(session, upstream)) == "About 0 tides." == upstream.answer("tides").text
    async with ChaosServer(thoughts=0) as upstream:
        assert assemble([await ask(session, upstream)], dialect="deepseek").reasoning == ""


async def test_what_a_writer_does_wrong_is_told_whatever_the_client_raises(session: aiohttp.ClientSession) -> None:
    server = ChaosServer(write=lambda seed: seed)  # type: ignore[arg-type, return-value]  # that is the point
    with pytest.raises(aiohttp.ClientError) as failure:
        async with server as upstream:
            await ask(session, upstream)
    assert any("must give an Answer, such as Answer.of(text), not str" in note for note in failure.value.__notes__)


@pytest.mark.parametrize("fault", [f.StallMidStream(after=2), f.StallBehindPings(after=2, ping=0.01)], ids=str)
async def test_who_bears_a_stall_for_too_long_is_reset_and_noted(
    session: aiohttp.ClientSession, fault: f.Fault
) -> None:
    async with ChaosServer(schedule=tides(fault), patience=0.05) as upstream:
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(ask(session, upstream), 5)
        await ask(session, upstream)
    assert [served.stuck for served in upstream.served] == [True, False]


async def test_a_client_that_leaves_ends_its_request(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(schedule=tides(f.StallMidStream(after=2))) as upstream:
        body = {"messages": [{"role": "user", "content": "tides"}]}
        async with session.post(f"{upstream.url}/chat/completions", json=body) as response:
            await response.content.readany()
            (served,) = upstream.served
            over = [served.over]
            response.close()
        assert await upstream.server.all_closed()
        await asyncio.sleep(0)
        over.append(served.over)
    assert over == [False, True]
    assert served.events <= 2


class PlainShape:
    """The smallest shape there is: a path is the question, and words are the answer."""

    def read(self, request: ReceivedRequest) -> Question | None:
        return Question(prompt=request.path)

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        return [sse(piece) for piece in answer.pieces if "\n" not in piece]


async def test_another_shape_plugs_in(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(shape=PlainShape()) as upstream, session.get(f"{upstream.url}/why") as response:
        body = await response.read()
    assert body.startswith(b"data: ")
    assert list(upstream.attempts) == ["/why"]
