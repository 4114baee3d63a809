"""A line over the limit: a typed error that names the setting, and through with the layers that the page shows."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

import holdfast
from holdfast import mounts
from tests.mounts.shop import CHAT
from tests.pages import ROOT

LONG = (
    b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"' + b"x" * (9 << 20) + b'"},"finish_reason":"stop"}]}'
)
BODY = LONG + b"\n\ndata: [DONE]\n\n"
[WRITTEN] = re.findall(r"`layers=(\[parse_sse.+\])`", (ROOT / "docs/mounts.md").read_text("utf-8"))


async def answer(layers: Any) -> bytes:
    head = {"content-type": "text/event-stream"}
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=head, content=BODY))
    async with httpx2.AsyncClient(transport=mounts.Httpx2Transport(inner, layers=layers)) as client:
        return (await client.post(f"http://a.test{CHAT}", json={"stream": True})).content


async def test_it_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(httpx2.RemoteProtocolError, match=re.escape("raise parse_sse(max_line=...)")):
        await answer(None)


async def test_the_layers_that_the_page_shows_let_it_through() -> None:
    assert await answer(eval(WRITTEN, vars(holdfast).copy())) == BODY
