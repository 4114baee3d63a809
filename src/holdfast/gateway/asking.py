"""What a client asks for: read out of its request, and refused where it cannot be read.

A body goes upstream as it came, so it must mean the same to whoever reads it: one that gives a name twice, of which
some readers take the first and some the last, is refused.
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
_NAMES = (b'"model"', b'"stream"')
"""What is decided by here: once in a body, and without an escape, nothing else can be meant by it."""


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
    stream = said.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(Refusal(400, "invalid_request_error", "stream must be true or false", param="stream"))
    return Asked(surface, given or "", surface.streamed and stream is True)


def document(body: bytes) -> Mapping[str, Any]:
    """Gives a request's body. Raises `Refused` for what is no JSON object, or names something twice."""
    try:
        # A name with an escape in it is another name to who does not look for it.
        plain = b"\\u00" not in body and all(body.count(name) <= 1 for name in _NAMES)
        value: Any = msgspec.json.decode(body) if plain else json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, _Pairs):
        names = [name for name, _ in value]
        if len(set(names)) < len(names):
            raise Refused(Refusal(400, "invalid_request_error", "the body gives a name twice"))
        value = dict(value)
    if not isinstance(value, dict):
        raise Refused(Refusal(400, "invalid_request_error", "the body of a request must be a JSON object"))
    return value


class _Pairs(list[tuple[str, Any]]):
    """An object's names and values, in their order."""
