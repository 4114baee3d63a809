"""The upstream in a box says the same thing to the same question, and fails exactly as told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from holdfast.offline import assemble
from holdfast.testing import upstream as up
from holdfast.testing.upstream import Script, Upstream, write_answer


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def ask(session: aiohttp.ClientSession, upstream: Upstream, prompt: str, **headers: str) -> bytes:
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True}
    async with session.post(f"{upstream.url}/chat/completions", json=body, headers=headers) as response:
        return await response.read()


def test_an_answer_depends_on_its_seed_alone() -> None:
    assert write_answer("tides", sentences=25) == write_answer("tides", sentences=25)
    assert write_answer("tides").text != write_answer("winds").text
    assert any("\u4e00" <= c <= "\u9fff" for c in write_answer("tides").text)


async def test_a_healthy_reply_assembles_to_the_answer_with_reasoning_and_usage(session: aiohttp.ClientSession) -> None:
    async with Upstream(seed=4) as upstream:
        completion = assemble([await ask(session, upstream, "tides")], dialect="deepseek")
    truth = upstream.answer("tides")
    assert (completion.text, completion.reasoning) == (truth.text, truth.reasoning)
    assert completion.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.output_tokens == len(truth.pieces) + len(truth.reasoning_pieces)


async def test_with_ids_a_server_continues_after_the_last_one(session: aiohttp.ClientSession) -> None:
    async with Upstream(schedule={"tides": Script(mode="ids")}) as upstream:
        whole = await ask(session, upstream, "tides")
        rest = await ask(session, upstream, "tides", **{"Last-Event-ID": "20"})
    assert whole.endswith(rest)
    assert rest.startswith(b"id: 21\n")
    assert [served.last_event_id for served in upstream.served] == ["", "20"]


async def test_without_ids_the_same_answer_comes_again_under_another_id(session: aiohttp.ClientSession) -> None:
    async with Upstream() as upstream:
        first, again = [await ask(session, upstream, "tides") for _ in range(2)]
    assert first != again
    assert assemble([first], dialect="deepseek") == assemble([again], dialect="deepseek")


async def test_a_divergent_server_answers_otherwise_each_time(session: aiohttp.ClientSession) -> None:
    async with Upstream(schedule={"tides": Script(mode="divergent")}) as upstream:
        first, again = [assemble([await ask(session, upstream, "tides")], dialect="deepseek") for _ in range(2)]
    assert first.text == upstream.answer("tides").text
    assert again.text == upstream.answer("tides", 2).text
    assert first.text != again.text


async def test_each_attempt_meets_its_own_fault_and_then_all_is_well(session: aiohttp.ClientSession) -> None:
    faults = (up.Refused(status=429, retry_after=3), up.HtmlPage(), up.EmptyBody())
    async with Upstream(schedule={"tides": Script(faults=faults)}) as upstream:
        bodies = [await ask(session, upstream, "tides") for _ in range(4)]
    assert b"rate_limit_reached" in bodies[0]
    assert b"<html>" in bodies[1]
    assert bodies[2] == b""
    assert bodies[3].endswith(up.DONE)
    assert [served.fault for served in upstream.served] == [*faults, up.Healthy()]


@pytest.mark.parametrize(
    "fault", [up.ResetMidStream(after=9), up.FinInsideChunk(after=9)], ids=["reset", "fin inside a chunk"]
)
async def test_a_cut_is_seen_by_whoever_looks(session: aiohttp.ClientSession, fault: up.Fault) -> None:
    async with Upstream(schedule={"tides": Script(faults=(fault,))}) as upstream:
        with pytest.raises(aiohttp.ClientError):
            await ask(session, upstream, "tides")


async def test_a_clean_truncation_looks_like_an_end(session: aiohttp.ClientSession) -> None:
    async with Upstream(schedule={"tides": Script(faults=(up.CleanCut(after=9),))}) as upstream:
        body = await ask(session, upstream, "tides")
    assert body.count(b"data: ") == 9
    assert b"[DONE]" not in body


async def test_split_characters_are_the_same_bytes(session: aiohttp.ClientSession) -> None:
    async with Upstream(schedule={"tides": Script(faults=(up.SplitCharacters(),))}) as upstream:
        body = await ask(session, upstream, "tides")
    assert assemble([body], dialect="deepseek").text == upstream.answer("tides").text


async def test_what_is_no_chat_request_is_refused(session: aiohttp.ClientSession) -> None:
    async with Upstream() as upstream, session.post(f"{upstream.url}/chat/completions", data=b"hello") as response:
        assert response.status == 400
