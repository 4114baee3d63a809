"""Whether a text is the JSON that was asked for, and if not, where it stops being it.

It says places and rules and never quotes: what it says stands in errors, and they reach logs. A schema is held against
a value by the `jsonschema` library, which is loaded only where somebody asks for it, and never fetches anything.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast._errors import MissingExtra, UsageError

_TOO_DEEP = "JSON nested too deeply to be read"


def read_json(text: str) -> tuple[Any, str]:
    """Gives the value of a text, and what is wrong with it: empty where nothing is."""
    try:
        # Half a character in an answer is a flaw of its text and none of its JSON.
        return msgspec.json.decode(text.encode("utf-8", "replace")), ""
    except RecursionError:
        return None, _TOO_DEEP
    except msgspec.DecodeError as error:
        return _read_slowly(text, cut="truncated" in str(error))


def _read_slowly(text: str, *, cut: bool) -> tuple[Any, str]:
    """Takes escaped halves of characters, which are JSON, and counts characters where msgspec counts bytes."""
    try:
        return json.loads(text, parse_constant=_refuse), ""
    except RecursionError:
        return None, _TOO_DEEP
    except json.JSONDecodeError as error:
        if cut:
            return None, f"a text that breaks off after {len(text)} characters"
        return None, f"a text that is no JSON from character {error.pos} on"
    except ValueError:
        return None, "a text that is no JSON: it has a number that JSON has not"


def _refuse(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities


class SchemaCheck:
    """Holds values against a JSON Schema. Raises `MissingExtra` without the library, `UsageError` for a bad schema."""

    __slots__ = ("_best", "_unresolved", "_validator")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            jsonschema = importlib.import_module("jsonschema")
            referencing = importlib.import_module("referencing")
        except ImportError:
            raise MissingExtra("checking an answer against its schema", "jsonschema") from None
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise UsageError(f"this is no JSON Schema: {error.message}") from None
        self._best = jsonschema.exceptions.best_match
        self._unresolved = importlib.import_module("referencing.exceptions").Unresolvable
        # A registry of its own: else a "$ref" to an address would be fetched, in the middle of a stream.
        self._validator = kind(schema, registry=referencing.Registry())

    def wrong(self, value: Any) -> str:
        """Names the rule of the schema that a value breaks, empty where it fits."""
        try:
            error = self._best(self._validator.iter_errors(value))
        except self._unresolved:
            raise UsageError("the schema refers to something that it does not hold; nothing is fetched") from None
        except RecursionError:
            return _TOO_DEEP
        if error is None:
            return ""
        return f"JSON that breaks the schema's #/{'/'.join(str(part) for part in error.absolute_schema_path)}"
