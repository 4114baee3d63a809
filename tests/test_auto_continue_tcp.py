"""AutoContinue over real TCP: providers that continue a prefix, every way their models do, with and without cuts."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import AutoContinue, Client, Reconnect, Retry, Seams, default_layers
from holdfast.testing import ChaosServer, Schedule, faults
from holdfast.testing.answers import Answer, write_answer
from holdfast.testing.continuing import Continuing

PREFIXES = ("deepseek", "mistral", "vllm", "sglang", "anthropic")
QUESTION = {"model": "kelp-1", "messages": [{"role": "user", "content": "tides"}], "max_tokens": 40}


def plainly(seed: str) -> Answer:
    """Without a thought: no provider takes back the beginning of one that its own server thought."""
    return write_answer(seed, thoughts=0)


def client_of(server: ChaosServer, dialect: str, times: int = 50) -> Client:
    path = "" if dialect == "anthropic" else "/v1"
    layers: list[Any] = []
    for layer in default_layers(dialect, auto_continue=AutoContinue(times=times)):
        quick = {Retry: Retry(base=0.001, cap=0.002), Reconnect: Reconnect(base=0.001, cap=0.002, seams=Seams())}
        layers.append(quick.get(type(layer), layer))
    return Client(dialect, api_key="sk-1", base_url=server.url + path, layers=layers, max_requests=100)


async def test_without_it_the_answer_is_cut() -> None:
    async with ChaosServer(mode="prefix") as server, Client("deepseek", api_key="sk-1", base_url=server.url) as client:
        completion = await client.complete(QUESTION)
    assert completion.finish_reason == "length"
    assert completion.text != server.answer("tides").text


@pytest.mark.parametrize("continuing", ["rest", "echo", "word", "space"])
@pytest.mark.parametrize("dialect", PREFIXES)
async def test_the_whole_answer_comes_as_one_stream(dialect: str, continuing: Continuing) -> None:
    async with (
        ChaosServer(mode="prefix", continuing=continuing, write=plainly) as server,
        client_of(server, dialect) as client,
        client.stream(QUESTION) as deltas,
    ):
        text = "".join([piece async for piece in deltas.text()])
        truth = server.answer("tides").text
    if continuing in ("rest", "space"):
        assert text == truth
        assert deltas.completion.finish_reason in ("stop", "end_turn")
        assert deltas.report.legs > 1
    else:  # an echo as long as the limit, or other words, leave no room to go on: what came before stands
        assert truth.startswith(text)
    assert text == deltas.completion.text
    assert str(deltas.completion.verdict) == "COMPLETE"


@pytest.mark.parametrize(("leg", "after"), [(2, 1), (2, 2), (2, 9), (2, 30), (2, 40), (3, 1), (3, 9), (3, 17)])
async def test_a_cut_inside_any_leg_is_mended(leg: int, after: int) -> None:
    cut = Schedule(streams={"tides": [faults.Healthy()] * (leg - 1) + [faults.ResetMidStream(after=after)]})
    async with (
        ChaosServer(mode="prefix", schedule=cut, write=plainly) as server,
        client_of(server, "vllm") as client,
        client.stream(QUESTION) as deltas,
    ):
        text = "".join([piece async for piece in deltas.text()])
        assert text == deltas.completion.text == server.answer("tides").text
        assert deltas.completion.finish_reason == "stop"
        assert len(deltas.report.seams) == 1
