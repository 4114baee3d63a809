"""The targets, one module for each thing to throw bytes at; a module may hold several.

Nothing of the library is imported before a target is asked for, so that a fuzzer can watch it being imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.engine import Target

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def targets() -> Iterator[Target]:
    """Gives every target there is."""
    for module in MODULES:
        yield from import_module(f"fuzz.targets.{module}").TARGETS


def find(name: str) -> Target:
    """Gives one target by its name. Raises `KeyError`."""
    return {target.name: target for target in targets()}[name]
