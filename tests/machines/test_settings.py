"""What settings must be: numbers that are none, words in the place of yes and no."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from holdfast import Deadline, Reconnect, Retry, Seams, Timeouts, UsageError, default_layers
from holdfast.machines.settings import check_count, check_seconds


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (Retry, {"attempts": "3"}, "attempts must be a whole number from 1, not '3'"),
        (Retry, {"attempts": True}, "attempts must be a whole number from 1, not True"),
        (Retry, {"max_retry_after": "60"}, "max_retry_after must be a number of seconds from 0, not '60'"),
        (Retry, {"base": "1"}, "base must be a number of seconds from 0, not '1'"),
        (Deadline, {"open": "30"}, "open must be a number of seconds above 0 or None, not '30'"),
        (Timeouts, {"open": "30"}, r"Timeouts\(open=...\) must be a number of seconds above 0 or None, not '30'"),
        (Seams, {"max_seams": "3"}, "max_seams must be a whole number from 0, not '3'"),
        (Seams, {"max_barren": -1}, "max_barren must be a whole number from 0, not -1"),
        (Seams, {"max_repaid_tokens": -1}, "max_repaid_tokens must be a whole number from 0 or None, not -1"),
        (Seams, {"inside_json": "yes"}, "inside_json must be True or False, not 'yes'"),
        (Seams, {"cancel_abandoned": 1}, "cancel_abandoned must be True or False, not 1"),
        (Seams, {"rungs": "prefix"}, "rungs must be a tuple of .*, not 'prefix'"),
        (Seams, {"rungs": ["prefix"]}, r"rungs must be a tuple of .*, not \['prefix'\]"),
        (Seams, {"rungs": ("prefix", "magic")}, r"rungs must be a tuple of .*, not \('prefix', 'magic'\)"),
        (Seams, {"rungs": ([],)}, "rungs must be a tuple of"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_argument(
    make: Callable[..., Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make(**settings)


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (Reconnect, {"seams": True}, r"Reconnect\(seams=...\) takes Seams\(...\), not True"),
        (partial(default_layers, "openai"), {"seams": "no"}, r"seams= takes True, False or Seams\(...\), not 'no'"),
        (partial(default_layers, "openai"), {"timeouts": 30}, r"timeouts= takes Timeouts\(.*, not 30"),
    ],
)
def test_a_thing_of_another_kind_is_named_with_its_argument(
    make: Callable[..., Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make(**settings)


def test_numbers_at_the_edge_are_taken() -> None:
    check_count("n", 0, least=0)
    check_count("n", None, optional=True)
    check_seconds("s", 1)
    check_seconds("s", 1e-9, optional=False)
    with pytest.raises(ValueError, match="s must be a number of seconds above 0, not None"):
        check_seconds("s", None, optional=False)
