"""The race of a hedge against a model: who wins, when, and what is raised, for any two requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from holdfast._errors import StreamBroken
from holdfast._types import Delta, Event
from holdfast.layers.hedge import Hedge
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
