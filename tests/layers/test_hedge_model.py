"""The race of a hedge against a model: who wins, when, and what is raised, for any two requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast._defaults import default_layers
from holdfast._errors import StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._types import Delta, Event, Request
from holdfast.dialects import Timeouts
from holdfast.layers.hedge import Hedge
from holdfast.layers.throughput import Throughput
from holdfast.testing import FakeClock
from tests.properties.profile import examples
from tests.puppet import Puppet, Script, Wait, request_on

ROLE = Delta(raw=Event())


@dataclass(frozen=True)
class Course:
    """What one request comes to: a head after some seconds, and content or a failure after some more."""

    head: int
    content: int
    fails: bool
    refuses: bool

    @property
    def seconds(self) -> int:
        return self.head if self.refuses else self.head + self.content

    def script(self, name: str) -> Script:
        failure = StreamBroken(name)
        if self.refuses:
            return Script(opening=(Wait(self.head), failure))
        piece = failure if self.fails else Delta(raw=Event(), text=name)
        return Script(
            ROLE, Wait(self.content), piece, Wait(1.0), Delta(raw=Event(), text="!"), opening=(Wait(self.head),)
        )

    @property
    def brings(self) -> bool:
        return not (self.fails or self.refuses)


courses = st.builds(Course, st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans())


def expected(first: Course, second: Course, delay: float) -> tuple[str, float, int]:
    """Gives whose text or failure it is, when, and how many requests were sent. No two things happen at one time."""
    if first.seconds < delay:
        return ("one" if first.brings else "failure one"), first.seconds, 1
    ends = {"one": (first, float(first.seconds)), "two": (second, delay + second.seconds)}
    came = [(when, name) for name, (course, when) in ends.items() if course.brings]
    if came:
        when, name = min(came)
        return name, when, 2
    return "failure one", max(when for _, when in ends.values()), 2


@examples(150)
@given(courses, courses, st.integers(0, 12))
def test_the_race_is_that_of_the_model(first: Course, second: Course, whole: int) -> None:
    delay = whole + 0.5

    async def race() -> tuple[str, float, int]:
        async with FakeClock() as clock:
            puppet = Puppet(first.script("one"), second.script("two"))
            try:
                stream = await Hedge(delay=delay, share=1.0)(puppet).open(request_on(clock))
            except StreamBroken as failure:
                assert not puppet.live
                return f"failure {failure}", clock.now(), puppet.opens
            when = clock.now()
            text = "".join(item.text for item in await stream.receive())
            assert [item.text for item in await stream.receive()] == ["!"]
            await stream.aclose()
            assert not puppet.live
            return text, when, puppet.opens

    assert asyncio.run(race()) == expected(first, second, delay)


# -- the promise -----------------------------------------------------------------------------------


def chat(text: str, finish: str = "null") -> bytes:
    return (
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]}\n\n' % (text.encode(), finish.encode())
    )


TEXT = "Kelp holds on to rocks."
ANSWER = [chat(""), *(chat(word) for word in TEXT.split(" ")), chat("", '"stop"'), b"data: [DONE]\n\n"]
steps = st.one_of(st.just(0.0), st.sampled_from([0.3, 0.9, 1.1, 4.0, 40.0]))


@st.composite
def attempts(draw: st.DrawFn) -> Script:
    """The answer, some way, at some pace."""
    cut = draw(st.integers(0, len(ANSWER)) | st.none())
    body: list[object] = []
    for item in ANSWER[:cut]:
        pause = draw(steps)
        body += [Wait(pause), item] if pause else [item]
    if cut is not None:
        body.append(StreamBroken("cut"))
    return Script(*body, opening=(Wait(draw(steps)),))


@examples(80)
@given(scripts=st.lists(attempts(), max_size=5), choice=st.integers(0, 3), floor=st.booleans())
def test_with_hedges_an_answer_is_exact_or_an_error(scripts: list[Script], choice: int, *, floor: bool) -> None:
    async def scenario() -> None:
        async with FakeClock() as clock:
            puppet = Puppet(*scripts, Script(*ANSWER), repeat=True)
            pipe: Pipe[Any] = Pipe(puppet, clock=clock)
            traffic: list[Any] = [Throughput(floor=0.5, over=6.0)] if floor else []
            traffic.append(Hedge(delay=(0.2, 1.0, 3.0, 30.0)[choice], share=1.0))
            for layer in default_layers(
                "openai-compatible", timeouts=Timeouts(first_token=20, progress=20), traffic=traffic
            ):
                pipe = pipe | layer
            got = ""
            deltas = pipe.stream(Request(url="http://upstream/v1", body={"model": "m", "messages": []}))
            try:
                async with deltas:
                    async for delta in deltas:
                        got += delta.text
            except StreamError as failure:
                partial = failure.partial
                assert TEXT.replace(" ", "").startswith(got)
                assert partial.text == got
            else:
                assert got == TEXT.replace(" ", "") == deltas.completion.text
                assert deltas.report.verdict is not None
            assert not puppet.live
            assert deltas.report.attempts == puppet.opens <= 8
            assert clock.now() < 4000

    asyncio.run(scenario())
