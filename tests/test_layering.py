"""The layering rule holds in src/, and the checker that says so finds what it must find."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests import layering

SOURCE = Path(__file__).resolve().parent.parent / "src" / "holdfast"
FILES = {path.relative_to(SOURCE).with_suffix("").as_posix(): path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
STANDARD = set(sys.stdlib_module_names) | {"compression"}


def check(**changed: str) -> list[str]:
    """Checks a small tree that is in order, with some files added: `layers__retry` stands for layers/retry."""
    tree = {
        **{f"{name}": "" for name in ("_types", "_errors", "_core", "_clock", "moments", "__init__", "client")},
        **{f"{room}/__init__": "" for room in ("machines", "dialects", "layers", "sources", "telemetry", "cli")},
        "testing/__init__": "",
        "machines/sse": "",
        "layers/verify": "",
        "sources/aiohttp": "import aiohttp",
        **{name.replace("__", "/", 1): text for name, text in changed.items()},
    }
    return layering.violations(tree, STANDARD)


def test_the_source_tree_keeps_the_rule() -> None:
    assert layering.violations(FILES, STANDARD) == []


def test_every_room_of_the_source_tree_is_in_the_table() -> None:
    assert {name.partition("/")[0] for name in FILES} <= layering.MAY_IMPORT.keys()


def test_every_exception_is_needed() -> None:
    trees = [(name, list(layering.imports(ast.parse(text)))) for name, text in FILES.items()]
    used = {
        (owner, imported.name.split(".")[1])
        for name, found in trees
        for imported in found
        if imported.name.startswith("holdfast.")
        for owner in (name, name.partition("/")[0])
    }
    assert used >= layering.EXCEPTIONS.keys() | layering.FOR_TYPES_ONLY.keys()


def test_a_tree_in_order_has_no_violations() -> None:
    assert check(layers__retry="from holdfast._core import Source\nfrom holdfast.machines.sse import SseParser") == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("_types", "from holdfast._errors import StreamError"),
        ("machines__x", "from holdfast._core import Call"),
        ("machines__x", "from holdfast.dialects import Dialect"),
        ("dialects__x", "from holdfast.moments import Report"),
        ("_core", "from holdfast.layers.verify import verify"),
        ("_core", "def f():\n    from holdfast.layers.verify import verify"),
        ("_core", "from holdfast import client"),
        ("_core", "import holdfast.telemetry.logs"),
        ("_core", "import importlib\nimportlib.import_module('holdfast.layers.verify')"),
        ("layers__x", "from holdfast.layers.verify import verify"),
        ("layers__x", "from holdfast.layers import verify"),
        ("layers__x", "from holdfast.sources.aiohttp import AiohttpSource"),
        ("layers__x", "from holdfast import Retry"),
        ("layers__x", "from .verify import verify"),
        ("layers__x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from holdfast.client import Client"),
        ("telemetry__x", "from holdfast.layers.verify import verify"),
        ("sources__x", "from holdfast.cli import main"),
        ("client", "from holdfast.testing import FakeClock"),
        ("cli__logs", "from holdfast.testing import FakeClock"),
        ("unheard_of", "from holdfast._types import Delta"),
    ],
)
def test_an_import_against_the_order_is_found(module: str, text: str) -> None:
    assert len(check(**{module: text})) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("machines__x", "import asyncio"),
        ("machines__x", "from time import monotonic"),
        ("machines__x", "def f():\n    import random"),
        ("dialects__x", "import socket"),
        ("dialects__x", "import logging"),
        ("dialects__x", "import threading"),
        ("layers__x", "import time"),
        ("layers__x", "from random import random"),
        ("sources__x", "import logging"),
        ("layers__x", "import aiohttp"),
        ("machines__x", "import brotli"),
        ("telemetry__x", "import rich.console"),
        ("cli__x", "import structlog"),
        ("sources__x", "from hypothesis import given"),
        ("sources__x", "import requests"),
        ("machines__x", "async def f(): pass"),
        ("dialects__x", "class A:\n    async def f(self): pass"),
    ],
)
def test_a_library_or_an_effect_in_the_wrong_room_is_found(module: str, text: str) -> None:
    assert len(check(**{module: text})) == 1


def test_a_library_in_its_own_room_is_no_violation() -> None:
    assert check(machines__inflate="def f():\n    import backports.zstd", cli__x="import rich.console") == []


def test_a_name_for_types_only_may_come_from_above_where_the_table_says_so() -> None:
    upward = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from holdfast._core import Call"
    assert check(_types=upward) == []
    assert check(_types="from holdfast._core import Call") == ["_types:1: _types may not import _core"]
    assert check(_types=f"{upward}\nelse:\n    from holdfast._core import Call") == [
        "_types:5: _types may not import _core"
    ]
