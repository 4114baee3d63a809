"""The documentation is true of the code: its links lead somewhere, its code compiles and uses public names only."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.pages import ROOT, Block, blocks, pages

PAGES = pages()
DOCS = ROOT / "docs"
COMMANDS = re.compile(r"^\$ holdfast (.+)$", re.MULTILINE)
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links -------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """Gives the relative links of a page."""
    found = _LINK.findall(_FENCED.sub("", page.read_text("utf-8")))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """Gives the names that a page's headings have: lower case, without punctuation, a dash for each space."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", _LINK.sub("", heading)).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_found_from_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    decisions = set((DOCS / "adr").glob("*.md"))  # these have an index of their own
    assert set(DOCS.glob("**/*.md")) - decisions - {index} <= linked
    assert DOCS / "adr/README.md" in linked
    assert "docs/README.md" in links(ROOT / "README.md")


def test_every_decision_is_in_the_index_of_decisions() -> None:
    index = DOCS / "adr/README.md"
    assert {page.name for page in index.parent.glob("0*.md")} == set(links(index))


# -- code --------------------------------------------------------------------------------------


def parsed(block: Block) -> ast.Module:
    tree: ast.Module = compile(
        "\n" * (block.line - 1) + block.text,
        str(block.page),
        "exec",
        flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    return tree


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_code_compiles(block: Block) -> None:
    parsed(block)


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}), ids=name)
def test_code_uses_public_names_with_arguments_that_they_take(page: Path) -> None:
    known: dict[str, Any] = {}  # what the page has imported so far
    for block in PYTHON:
        if block.page == page:
            for node in ast.walk(parsed(block)):
                known.update(imported(node))
                if isinstance(node, ast.Call):
                    takes = arguments(public(node.func, known))
                    given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                    assert takes is None or given <= takes, ast.unparse(node)
                public(node, known)


def imported(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Gives the names of ours that a statement imports, and what they are."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "holdfast":
                importlib.import_module(alias.name)
                yield "holdfast", importlib.import_module("holdfast")
    elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "holdfast":
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert alias.name in public_names(module), f"{node.module}.{alias.name} is not public"
            yield alias.asname or alias.name, getattr(module, alias.name)


def public_names(module: ModuleType) -> set[str]:
    """Gives a module's names in `__all__`, and of packages what is imported by a name of its own."""
    inside = {"testing"} if module.__name__ == "holdfast" else set()
    if module.__name__ == "holdfast.testing":
        inside = {found.name for found in pkgutil.iter_modules(module.__path__) if not found.name.startswith("_")}
    return {*module.__all__, *inside}


def public(node: ast.AST, known: dict[str, Any]) -> Any:
    """Gives what an expression of ours names, or None for anything else. An attribute must be there and public."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = public(node.value, known)
        if isinstance(owner, ModuleType):
            assert node.attr in public_names(owner), f"{owner.__name__}.{node.attr} is not public"
            return getattr(owner, node.attr)
    return None


def arguments(called: Any) -> set[str] | None:
    """Gives the names of the arguments that something public takes; None for what is not ours, or does not tell."""
    try:
        takes = inspect.signature(called).parameters if callable(called) else None
    except ValueError:
        return None  # an exception class without an __init__ of its own
    if takes is None or any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        return None
    return set(takes)


# -- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if COMMANDS.search(page.read_text("utf-8"))], ids=name)
def test_commands_are_understood(page: Path) -> None:
    for line in COMMANDS.findall(page.read_text("utf-8")):
        words = shlex.split(line, comments=True)
        parser = argparse.ArgumentParser(exit_on_error=False)
        importlib.import_module(f"holdfast.cli.{words[0]}").add_parser(parser.add_subparsers())
        parser.parse_args(words)
