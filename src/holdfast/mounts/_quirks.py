"""Bytes that are legal, and that a client is known to die on: who, on what, and in which version it was seen.

A table and the recognition of who is in it, no more: `mounts/_rewrite.py` puts such bytes into a form that their reader
can read. Each row is measured without a mount, and its test fails once the client has mended it: the row can go then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from holdfast.mounts._failures import sdk_of

Trait = Literal[
    "bom", "fields", "blank after id", "empty data", "not data", "cr", "several lines", "separators", "no name"
]
"""What a stream may have that a client cannot read.

- `bom`: a byte order mark at the beginning. Left out.
- `fields`: a block without data that has an `id:`, `retry:` or `event:` line. What is left are the lines that mean
  something without data, and not the blank line.
- `blank after id`: a blank line that ends no event, after any `id:`. Left out.
- `empty data`: an event whose data is empty. Left out.
- `not data`: any line but `data: ` and a blank one, and a CR as a line's end. What is left is the data.
- `cr`: a CR alone as a line's end. Becomes LF.
- `several lines`: JSON in several `data:` lines. Becomes one line.
- `no name`: an event that says what it is in its JSON alone. Gets an `event:` line that says it, too.
- `separators`: U+0085, U+2028 or U+2029 in JSON. Becomes an escape.
"""


@dataclass(slots=True, frozen=True)
class Quirk:
    """One client and what it dies on. `reader` is whose code that is, and `path` how the path of the request ends."""

    client: str
    trait: Trait
    reader: str
    seen: tuple[str, ...]
    becomes: str
    path: str = ""


_GEMINI = ":streamGenerateContent"

QUIRKS: tuple[Quirk, ...] = (
    Quirk("openai", "bom", "openai", ("2.54.0", "3.0.0", "3.54.0"), "the first chunk is lost, its token with it"),
    Quirk("openai", "fields", "openai", ("2.54.0", "3.0.0", "3.54.0"), "JSONDecodeError"),
    Quirk("openai", "blank after id", "openai", ("2.54.0", "3.0.0", "3.54.0"), "JSONDecodeError"),
    Quirk("openai", "empty data", "openai", ("2.54.0", "3.0.0", "3.54.0"), "JSONDecodeError"),
    Quirk("anthropic", "bom", "anthropic", ("2.12.0",), "`message_start` is lost, and `messages.stream()` fails"),
    Quirk("anthropic", "no name", "anthropic", ("2.12.0",), "the event is lost, without an error"),
    Quirk("google-genai", "bom", "google-genai", ("3.4.0",), "UnknownApiResponseError"),
    Quirk("google-genai", "not data", "google-genai", ("3.4.0",), "UnknownApiResponseError"),
    Quirk("mistralai", "empty data", "mistralai", ("3.7.0",), "ResponseValidationError"),
    Quirk("litellm", "bom", "litellm", ("1.106.2",), "the first chunk is lost, its token with it"),
    Quirk("litellm", "several lines", "litellm", ("1.106.2",), "an empty answer, without an error"),
    Quirk("litellm", "separators", "litellm", ("1.106.2",), "the chunk is lost, without an error"),
    Quirk("litellm", "not data", "litellm", ("1.106.2",), "the rest is lost, without an error", _GEMINI),
    Quirk("httpx", "bom", "iter_lines()", ("0.28.1",), "the first line begins with it"),
    Quirk("httpx", "several lines", "iter_lines()", ("0.28.1",), "a line is no JSON"),
    Quirk("httpx", "separators", "iter_lines()", ("0.28.1",), "a line is cut there"),
    Quirk("httpx", "fields", "httpx-sse", ("0.4.3",), "an event without data"),
    Quirk("httpx", "blank after id", "httpx-sse", ("0.4.3",), "an event without data"),
    Quirk("httpx2", "bom", "iter_lines()", ("2.16.2",), "the first line begins with it"),
    Quirk("httpx2", "several lines", "iter_lines()", ("2.16.2",), "a line is no JSON"),
    Quirk("httpx2", "separators", "iter_lines()", ("2.16.2",), "a line is cut there"),
    Quirk("httpx2", "fields", "httpx2.EventSource", ("2.16.2",), "an event without data"),
    Quirk("requests", "bom", "iter_lines()", ("2.34.2",), "the first line begins with it"),
    Quirk("requests", "several lines", "iter_lines()", ("2.34.2",), "a line is no JSON"),
    Quirk("aiohttp", "bom", "content", ("3.14.5",), "the first line begins with it"),
    Quirk("aiohttp", "several lines", "content", ("3.14.5",), "a line is no JSON"),
    Quirk("aiohttp", "cr", "content", ("3.14.5",), "the lines are one"),
)
"""What was found on the wire of each client as it is, or of the code that its documentation shows."""
_AGENTS = (
    ("google-genai-sdk/", "google-genai"),
    ("mistral-client-python/", "mistralai"),
    ("litellm/", "litellm"),
    ("python-httpx/", "httpx"),
    ("python-httpx2/", "httpx2"),
    ("python-requests/", "requests"),
)
"""How the `User-Agent` of a client begins that says itself who it is; openai's and anthropic's are `sdk_of()`'s."""


def traits_of(headers: Mapping[str, str], url: str) -> frozenset[Trait]:
    """Gives what the client that sent `headers` to `url` dies on; nothing for one that is not known."""
    client = client_of(headers)
    path = urlsplit(url).path
    return frozenset(quirk.trait for quirk in QUIRKS if quirk.client == client and path.endswith(quirk.path))


def client_of(headers: Mapping[str, str]) -> str:
    """Gives the client that sent `headers` by its name in the table, "" for one that is not in it."""
    sent = {name.lower(): value for name, value in headers.items()}
    sdk = sdk_of(sent)
    return str(sdk.__name__) if sdk is not None else _named(sent)


def traits_told(headers: Mapping[str, str], path: str) -> frozenset[Trait]:
    """Gives what a client dies on by what it says of itself alone: for a server, which has no SDK in its process.

    Names of headers are lower case.
    """
    clients = {_named(headers)}
    if headers.get("x-stainless-lang") == "python":  # whatever a subclass, or who stands on it, calls itself
        clients.add("anthropic" if "anthropic-version" in headers else "openai")
    return frozenset(quirk.trait for quirk in QUIRKS if quirk.client in clients and path.endswith(quirk.path))


def _named(sent: Mapping[str, str]) -> str:
    told = (sent.get("user-agent", ""), sent.get("x-goog-api-client", ""))
    for mark, client in _AGENTS:
        if any(one.startswith(mark) for one in told):
            return client
    # aiohttp says first which Python it is on.
    return "aiohttp" if told[0].startswith("Python/") and " aiohttp/" in told[0] else ""


__all__ = ["QUIRKS", "Quirk", "Trait", "client_of", "traits_of", "traits_told"]
