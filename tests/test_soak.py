"""The soak in short: two hundred streams over TCP with faults. `make soak` is the long one."""

from __future__ import annotations

from bench.soak import soak


async def test_streams_with_faults_are_exact_or_typed_and_leave_nothing_behind() -> None:
    figures = await soak(200, at_once=30, idle=2.0)
    figures.check()
    assert figures.faults > 20
    assert figures.resumed > 3
