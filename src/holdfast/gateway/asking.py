"""What a client asks for: read out of its request, and refused where it cannot be read.

A body goes upstream as it came, so it must mean the same to whoever reads it: one that gives a name twice, of which
some readers take the first and some the last, is refused, and so is one that writes a name as only some would read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from holdfast.gateway.refusals import Refusal, Refused
from holdfast.gateway.surfaces import GEMINI, GEMINI_ARRAY, Surface

_IN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,255}")
_NAMES = ("model", "stream")
"""What is decided by here. Once in a body, and without an escape, nothing else can be meant by it."""
_DISGUISES = (b"\\u00", b"\\u017f", "\u017f".encode())
"""A letter escaped, and the one beyond ASCII that some readers (Go's, for one) take for an `s`; in lower case."""
_MOST_VALUES = 500_000
"""Of what is in a body: more than any prompt has whose words fit into a model, and decoded within a moment."""
_MAX_MODEL = 1024
"""Characters of a model's name: some are paths. It is kept by who counts and limits."""


@dataclass(slots=True, frozen=True)
class Asked:
    """One request as it is understood. `surface` may be another than the path's: see `GEMINI_ARRAY`."""

    surface: Surface
    model: str
    """Empty where none is named."""
    streamed: bool


def read_asked(surface: Surface, path: str, query: str, body: bytes) -> Asked:
    """Reads a request. Raises `Refused`."""
    said = document(body)
    if surface.in_path:
        model = unquote(path.rpartition("/")[2].partition(":")[0])
        if not _IN_PATH.fullmatch(model):  # it stands in the upstream's path, too, and must not lead elsewhere
            raise Refused(Refusal(400, "invalid_request_error", "no model has such a name", param="model"))
        if surface is GEMINI and parse_qs(query).get("alt") != ["sse"]:
            surface = GEMINI_ARRAY
        return Asked(surface, model, surface.streamed)
    given = said.get("model")
    if given is not None and not isinstance(given, str):
        raise Refused(Refusal(400, "invalid_request_error", "the model must be a string", param="model"))
    if given is not None and (len(given) > _MAX_MODEL or not _is_text(given)):
        raise Refused(Refusal(400, "invalid_request_error", "no model has such a name", param="model"))
    stream = said.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(Refusal(400, "invalid_request_error", "stream must be true or false", param="stream"))
    return Asked(surface, given or "", surface.streamed and stream is True)


def document(body: bytes) -> Mapping[str, Any]:
    """Gives a request's body. Raises `Refused` for what is no JSON object, names something twice, or has too many."""
    if sum(map(body.count, (b"[", b"{", b","))) > _MOST_VALUES:  # each value stands behind one of them
        raise Refused(Refusal(413, "request_too_large", f"the body has more than {_MOST_VALUES} values"))
    try:
        plain = _is_plain(body)
        value: Any = msgspec.json.decode(body) if plain else json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, _Pairs):
        names = [name for name, _ in value]
        if len(set(names)) < len(names):
            raise Refused(Refusal(400, "invalid_request_error", "the body gives a name twice"))
        if any(name not in _NAMES and name.casefold() in _NAMES for name in names):
            words = "the body gives a name in letters of another case, which some readers take for the same"
            raise Refused(Refusal(400, "invalid_request_error", words))
        value = dict(value)
    if not isinstance(value, dict):
        raise Refused(Refusal(400, "invalid_request_error", "the body of a request must be a JSON object"))
    return value


def _is_plain(body: bytes) -> bool:
    """Says whether a name that is decided by can be read in one way alone, without a look at each of them."""
    lower = body.lower()
    if any(one in lower for one in _DISGUISES):
        return False
    quoted = (f'"{name}"'.encode() for name in _NAMES)
    return all(lower.count(name) <= 1 and (name in body or name not in lower) for name in quoted)


def _is_text(name: str) -> bool:
    """Says whether a string can be written: JSON has escapes for halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Pairs(list[tuple[str, Any]]):
    """An object's names and values, in their order."""
