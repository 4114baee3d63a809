"""What a mount refuses where it is made, and not in the middle of somebody else's request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    Fallback,
    Hedge,
    RateLimit,
    RateLimiter,
    Record,
    Upstream,
    UsageError,
    default_layers,
    mounts,
    parse_sse,
    verify,
)
from holdfast.testing import ChaosServer
from tests.mounts.shop import BODY


@pytest.mark.parametrize("make", [mounts.httpx_client, mounts.httpx_sync_client, mounts.aiohttp_middleware])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seams": "no"}, r"seams= takes True, False or Seams\(...\), not 'no'"),
        ({"seams": ("prefix",)}, "seams= takes True, False"),
        ({"timeouts": 30}, r"timeouts= takes Timeouts\(.*, not 30"),
        ({"dialect": "deepsek"}, "did you mean 'deepseek'"),
        ({"clock": 3}, "clock= takes something"),
        ({"max_requests": "8"}, "max_requests must be a whole number from 1, not '8'"),
        ({"quirks": "no"}, "quirks must be True or False, not 'no'"),
        ({"retry_budget": 3}, "retry_budget= takes a RetryBudget, not 3"),
        ({"listeners": 3}, "listeners= takes functions, in a list or tuple, not 3"),
        ({"traffic": Hedge()}, "traffic= takes a sequence of layers, not Hedge"),
        ({"traffic": [RateLimiter()]}, r"RateLimiter\(.* is no layer: a layer is called with a source"),
        ({"traffic": [RateLimit]}, r"RateLimit is a class: its instances are layers, RateLimit\(\.\.\.\)"),
        ({"traffic": [Upstream("openai", api_key="k")]}, "is no layer"),
        ({"traffic": [Record("here")]}, "Record.* takes bytes and gets Delta here"),
        ({"layers": [parse_sse()]}, "the layers= of a mount give Delta, and these give Event"),
        ({"layers": [parse_sse(), verify("openai")]}, r"every event.*write verify\(\.\.\., relay=True\)"),
        ({"layers": default_layers("openai")}, r"default_layers\(\.\.\., relay=True\)"),
        (
            {"dialect": "openai", "traffic": [Fallback(upstreams=[Upstream("anthropic", api_key="k")])]},
            "speaks another wire than the request, which is in the words of 'openai'",
        ),
    ],
)
def test_a_mount_says_what_is_wrong_where_it_is_made(make: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ValueError), match=words):
        make(**settings)


async def test_an_answer_is_recorded_under_a_mount_left_of_the_parser(tmp_path: Path) -> None:
    path = tmp_path / "answer.sse"
    layers = [Record(path), *default_layers("openai", relay=True)]
    async with ChaosServer() as server, mounts.httpx_client(layers=layers) as client:
        response = await client.post(f"{server.url}/v1/chat/completions", json=BODY)
    assert b"data: [DONE]" in response.content
    assert path.read_bytes() == response.content
