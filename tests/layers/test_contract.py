"""Every layer of the house keeps the contract of a stream."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._types import Delta, Event
from holdfast.layers.buffer import Buffer
from holdfast.layers.read_ahead import ReadAhead
from holdfast.testing import check_layer

DELTAS = [Delta(raw=Event(), text=text) for text in ("It is 3", ".14. ", "Yes", "! ", "No")]


@pytest.mark.parametrize(
    "layer",
    [
        Buffer(),
        Buffer(count=2),
        Buffer(count=2, hold_first=True),
        Buffer(sentences=True),
        Buffer(seconds=0.05),
        Buffer(count=3, sentences=True, seconds=0.05, max_items=4, hold_first=True),
    ],
    ids=repr,
)
async def test_buffer(layer: Any) -> None:
    await check_layer(layer, items=DELTAS, waits_to_fill=True)


@pytest.mark.parametrize("layer", [ReadAhead(), ReadAhead(max_items=1), ReadAhead(max_items=2)], ids=repr)
async def test_read_ahead(layer: Any) -> None:
    await check_layer(layer, items=DELTAS)
