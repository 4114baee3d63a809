"""The short form of `make bench-gateway`: what a relay costs beside a naive one, with room for noise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("uvloop")
if not sys.platform.startswith("linux"):
    pytest.skip("CPU time of other processes is read from /proc", allow_module_level=True)

from bench.gateway.__main__ import RATE, ask
from bench.gateway.relays import relay, upstream

ROOM = 5.0
"""The bound is a disaster's: on a busy machine a ratio may be twice what it is on a quiet one."""


def test_the_gateway_costs_no_multiple_of_a_naive_relay(tmp_path: Path) -> None:
    with (
        upstream(RATE) as to,
        relay("naive, uvloop", to.port, tmp_path) as naive,
        relay("holdfast", to.port, tmp_path) as ours,
    ):
        floor, cost = (ask(one, 20, 0.5, (), opening=0.2) for one in (naive, ours))
    assert cost["whole"] == floor["whole"] == 20
    assert cost["us"] < ROOM * floor["us"]
