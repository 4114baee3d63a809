"""A line: first come, first served, and no wake-up is lost."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.line import Line


@dataclass(eq=False)
class Caller:
    """Counts how often it was woken."""

    woken: int = 0

    def wake(self) -> None:
        self.woken += 1


def test_whoever_leaves_first_place_wakes_the_next() -> None:
    line, callers = Line(), [Caller() for _ in range(3)]
    for caller in callers:
        line.enter(caller)
    line.leave(callers[1])
    assert [caller.woken for caller in callers] == [0, 0, 0]
    line.leave(callers[0])
    assert line.first is callers[2]
    assert callers[2].woken == 1
    line.leave(callers[0])
    assert (callers[2].woken, len(line)) == (1, 1)


@given(st.lists(st.integers(0, 12), max_size=60))
def test_it_is_a_list_and_each_new_first_was_woken(moves: list[int]) -> None:
    line = Line()
    model: list[Caller] = []
    for move in moves:
        before = model[0] if model else None
        if move < 6 or not model:
            model.append(Caller())
            line.enter(model[-1])
        else:
            line.leave(model.pop(move % len(model)))
        assert line.first is (model[0] if model else None)
        assert len(line) == len(model)
        if model and before is not None and model[0] is not before:
            assert model[0].woken > 0
