"""What a mount refuses where it is made, and not in the middle of somebody else's request."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
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
from holdfast.mounts._ready import ReadySettings
from holdfast.mounts._relay import Settings
from holdfast.testing import ChaosServer
from tests.mounts.shop import BODY

MAKES = [mounts.httpx_client, mounts.httpx_sync_client, mounts.aiohttp_middleware]


@pytest.mark.parametrize("make", MAKES)
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


@pytest.mark.parametrize("make", [*MAKES, mounts.HttpxTransport, mounts.HttpxSyncTransport, mounts.RequestsAdapter])
def test_a_clients_upstreams_stand_elsewhere_in_a_mount(make: Any) -> None:
    with pytest.raises(UsageError, match=r"in a mount write traffic=\[Fallback\(upstreams=\[\.\.\.\]\)\]"):
        make(upstreams=[])


def test_an_adapters_own_keywords_stand_elsewhere() -> None:
    settings: Any = {"pool_maxsize": 3}
    with pytest.raises(UsageError, match=r"pool_maxsize= is HTTPAdapter's: write adapter=\{'pool_maxsize': \.\.\.\}"):
        mounts.RequestsAdapter(**settings)


def test_what_is_no_transport_is_named_by_the_keyword_that_was_written() -> None:
    client = httpx.AsyncClient()
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: mounts.httpx_client(transport=httpx.HTTPTransport()), "transport= takes an asynchronous transport"),
        (lambda: mounts.httpx_client(mounts={"http://": httpx.HTTPTransport()}), "mounts= takes an asynchronous"),
        (lambda: mounts.httpx_client(transport=client), "transport= .*: pass its transport, not the client"),
        (lambda: mounts.HttpxTransport(client), r"HttpxTransport\(inner\) .* pass its transport, not the client"),
        (lambda: mounts.HttpxSyncTransport(3), r"HttpxSyncTransport\(inner\) takes a transport, which int is not"),
    ]
    for make, words in wrong:
        with pytest.raises(UsageError, match=words):
            make()


async def test_a_client_of_the_other_library_is_refused() -> None:
    foreign: Any = mounts.HttpxTransport()
    async with httpx2.AsyncClient(transport=foreign) as client:
        with pytest.raises(UsageError, match="HttpxTransport is for httpx, and the client over it is one of httpx2's"):
            await client.get("http://127.0.0.1:9")


def test_a_blocking_client_of_the_other_library_is_refused() -> None:
    foreign: Any = mounts.Httpx2SyncTransport()
    with httpx.Client(transport=foreign) as client, pytest.raises(UsageError, match=r"is for httpx2, .* of httpx's"):
        client.get("http://127.0.0.1:9")


@pytest.mark.parametrize("make", [mounts.httpx_client, mounts.httpx_sync_client, mounts.RequestsAdapter])
def test_listeners_may_be_anything_that_can_be_gone_through_once(make: Any) -> None:
    made = make(listeners=iter([print]))
    mount = made._mount if isinstance(made, mounts.RequestsAdapter) else made._transport.mount
    assert mount.listeners == (print,)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_keywords_of_ready_clients_are_all_there_are(library: Any) -> None:
    gone = {"app", "proxies"}  # of older versions
    known = set(inspect.signature(library.AsyncClient).parameters) - gone
    assert known == set(ReadySettings.__optional_keys__) - set(Settings.__optional_keys__)


async def test_an_answer_is_recorded_under_a_mount_left_of_the_parser(tmp_path: Path) -> None:
    path = tmp_path / "answer.sse"
    made = mounts.httpx_client(layers=[Record(path), *default_layers("openai", relay=True)])
    async with ChaosServer() as server, made as client:
        response = await client.post(f"{server.url}/v1/chat/completions", json=BODY)
    assert b"data: [DONE]" in response.content
    assert path.read_bytes() == response.content
