"""The public names of `holdfast.testing`: adding one is a decision, and losing one breaks somebody."""

from __future__ import annotations

import inspect

import pytest

from holdfast import testing
from holdfast.testing import faults

EXPECTED = {
    "time": {"FakeClock"},
    "the contract": {"check_layer", "check_source", "cancel_everywhere"},
    "faults": {"Fault", "Faults", "Schedule", "VOCABULARY", "EVIDENT", "FINAL", "SILENT"},
    "for whoever writes a fault": {"Asked", "Idiom", "Play"},
    "servers": {"ChaosServer", "ChaosProxy", "ScriptedServer", "Served", "in_background"},
    "answers": {"Answer", "CalledTool", "write_answer"},
    "shapes": {"SHAPES", "ChatShape", "ResponsesShape", "AnthropicShape", "GeminiShape", "InteractionsShape"}
    | {"CohereShape", "PlainShape"},
    "for whoever writes a shape": {"Question", "Shape"},
}


def test_the_names_are_these_and_no_others() -> None:
    assert set(testing.__all__) == set().union(*EXPECTED.values())


@pytest.mark.parametrize("name", testing.__all__)
def test_a_public_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(testing, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__doc__ or "").strip()
        assert not (value.__doc__ or "").startswith(f"{name}("), "a dataclass without a docstring of its own"


def test_the_vocabulary_is_in_one_place() -> None:
    assert {kind.__name__ for kind in faults.KINDS} <= set(faults.__all__)
