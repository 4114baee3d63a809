"""The short form of `make bench`: what has no noise of machines in it, and what would show only a disaster."""

from __future__ import annotations

from bench import machines, memory

AIM = 2.5
NOISE = 2.0


def test_the_machines_stay_near_their_floor() -> None:
    best = machines.measure(16, rounds=10)
    assert best["machines"] < AIM * NOISE * best["floor"]


async def test_a_long_answer_holds_less_than_twice_its_text() -> None:
    held, text = await memory.measure(32_000)
    assert held < 2 * text


async def test_without_the_text_nothing_grows() -> None:
    short, _ = await memory.measure(16_000, keep=False)
    long, _ = await memory.measure(48_000, keep=False)
    assert abs(long - short) < 64 * 1024
