"""The walls themselves: transforms, their fusion, and what happens after a format's own end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from holdfast._core import LINGER, transform
from holdfast._errors import DecodeError, EndOfStream, Truncated
from holdfast._pipe import Pipe
from holdfast._types import Request
from holdfast.moments import Moment
from holdfast.testing import FakeClock
from tests.puppet import Puppet, Script, Wait


class Upper:
    """Ends by itself at "."; fails at "!"; holds the last item back until the end."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def feed(self, batch: Sequence[str], out: list[str]) -> None:
        for item in batch:
            if item == ".":
                raise EndOfStream
            if item == "!":
                raise DecodeError("a bang")
            out += self.held
            self.held = [item.upper()]

    def end(self, out: list[str]) -> None:
        out += self.held


class Double:
    def feed(self, batch: Sequence[str], out: list[str]) -> None:
        out += [item * 2 for item in batch]

    def end(self, out: list[str]) -> None:
        out.append("end")


async def read(puppet: Puppet, clock: FakeClock) -> tuple[list[str], float]:
    pipe = Pipe(puppet, clock=clock) | transform(lambda _: Upper()) | transform(lambda _: Double())
    began = clock.now()
    async with pipe.stream(Request()) as stream:
        got = [item async for item in stream]
    assert not puppet.live
    return got, clock.now() - began


async def test_a_clean_end_goes_through_every_machine(clock: FakeClock) -> None:
    got, _ = await read(Puppet(["a", ["b", "c"]]), clock)
    assert got == ["AA", "BB", "CC", "end"]


async def test_what_was_fed_before_a_failure_comes_before_it(clock: FakeClock) -> None:
    upper = Pipe(Puppet([["a", "b", "!", "c"]]), clock=clock) | transform(lambda _: Upper())
    pipe = upper | transform(lambda _: Double())
    async with pipe.stream() as stream:
        assert await anext(stream) == "AA"
        for _ in range(2):  # an error is sticky
            with pytest.raises(DecodeError):
                await anext(stream)


async def test_a_format_that_ends_is_followed_by_nothing(clock: FakeClock) -> None:
    got, seconds = await read(Puppet([["a", "b", ".", "lost"], "lost as well"]), clock)
    assert got == ["AA", "end"]
    assert seconds == 0.0


async def test_a_body_that_goes_on_after_its_format_ended_is_waited_for_a_moment_only(clock: FakeClock) -> None:
    got, seconds = await read(Puppet([["a", "b", "."], Wait()]), clock)
    assert got == ["AA", "end"]
    assert seconds == pytest.approx(LINGER)


async def test_a_body_that_breaks_after_its_format_ended_is_whole(clock: FakeClock) -> None:
    got, _ = await read(Puppet([["a", "b", "."], Wait(0.1), Truncated("too late to matter")]), clock)
    assert got == ["AA", "end"]


async def test_closing_that_is_cancelled_while_the_body_lingers_closes(clock: FakeClock) -> None:
    puppet = Puppet(Script(["a", "."], Wait()))
    stream = (Pipe(puppet, clock=clock) | transform(lambda _: Upper())).stream()
    await stream.__aenter__()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not puppet.live


class Buggy:
    def feed(self, batch: Sequence[str], out: list[str]) -> None:
        for item in batch:
            out.append({"a": "A"}[item])  # noqa: PERF401 - one by one, so that what comes before the bug is there

    def end(self, out: list[str]) -> None: ...


async def test_a_bug_in_a_machine_is_not_read_past(clock: FakeClock) -> None:
    pipe = Pipe(Puppet([["a", "b", "a"], "a"]), clock=clock) | transform(lambda _: Buggy())
    async with pipe.stream() as stream:
        assert await anext(stream) == "A"
        for _ in range(2):
            with pytest.raises(KeyError):
                await anext(stream)
    assert stream.report.verdict is None


async def test_a_listener_that_fails_breaks_no_stream(clock: FakeClock) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

    def failing(_: Moment) -> None:
        raise ZeroDivisionError

    async with Pipe(Puppet(["a"]), clock=clock, listeners=[failing]).stream() as stream:
        assert [item async for item in stream] == ["a"]
    assert told


def test_a_request_is_drawn_without_what_may_be_a_key() -> None:
    drawn = repr(Request(url="https://host/v1?key=secret", headers={"Authorization": "secret"}, body={"a": "secret"}))
    assert drawn == "Request(POST https://host/v1)"
