"""What settings must be, said where they are given and in the words of their argument.

A number that cannot be is a `ValueError`, a thing of another kind a `UsageError`. Nothing is guessed: what a string or
a `True` might have meant as a number is the program's to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from holdfast._errors import UsageError

_SHOWN = 80
"""Characters of a wrong value that are shown."""


def is_number(value: object) -> bool:
    """Says whether a value is a number: bools are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_count(name: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Raises `ValueError` for what is no whole number from `least` on; `optional`: None is one, too."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}{' or None' * optional}, not {value!r}")


def check_seconds(name: str, value: object, *, optional: bool = True) -> None:
    """Raises `ValueError` for what is no finite number above 0; `optional`: None is one, too."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0{' or None' * optional}, not {value!r}")


def check_bool(name: str, value: object) -> None:
    """Raises `ValueError` for what is neither True nor False: the word "no" is true in Python."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")  # noqa: TRY004 - the house says it so


def check_kind(name: str, value: object, kind: type | tuple[type, ...], takes: str, *, secret: bool = False) -> None:
    """Raises `UsageError` for a value of another kind; what may hold a key or an answer is named by its type alone."""
    if not isinstance(value, kind):
        shown = type(value).__name__ if secret else repr(value)[:_SHOWN]
        raise UsageError(f"{name} takes {takes}, not {shown}")


def check_strings(name: str, value: object) -> None:
    """Raises `UsageError` for what is no mapping of strings, such as headers, whose values are never shown, or None."""
    if value is None:
        return
    check_kind(name, value, Mapping, "a mapping of strings", secret=True)
    for key, text in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(key, str) or not isinstance(text, str):
            raise UsageError(f"{name} takes a mapping of strings, and {key!r} is {type(text).__name__}")
