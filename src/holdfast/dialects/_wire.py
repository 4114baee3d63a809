"""What the readers of all dialects share: JSON out of events, and the words in which providers say that they failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from holdfast._errors import DecodeError, UpstreamError
from holdfast._types import Event, Request
from holdfast.machines.cursor import Cursor
from holdfast.machines.surrogates import decode_lenient

if TYPE_CHECKING:
    from holdfast.dialects._dialect import Dialect

D = TypeVar("D", bytes, str)
T = TypeVar("T")

_HOPELESS = (
    "quota",
    "billing",
    "balance",
    "credit",
    "payment",
    "invalid",
    "auth",
    "permission",
    "forbidden",
    "not_found",
    "notfound",
    "unsupported",
    "context_length",
    "content_filter",
    "content_policy",
    "moderation",
    "too_large",
    "tool_use_failed",
)
"""Parts of codes and types that no second try mends; each is some provider's own word."""
_MOST = 1_000_000_000
"""No answer has more tokens."""
_HOPEFUL_STATUS = {408, 409, 425, 429}
_NOT_UTF8 = "the event's data is not JSON: it is not UTF-8"
_PLAIN = msgspec.json.Decoder()
_NAME = re.compile(r"[\w.:/-]{1,64}")


def decode(decoder: msgspec.json.Decoder[T], event: Event, cursor: Cursor, *, halves: bool = False) -> T:
    """Decodes an event's data the slow way: says what is wrong, and mends what the standard says to mend.

    Bytes that are not UTF-8 become U+FFFD, counted in the cursor. With `halves`, escaped halves of characters are no
    fault and stay in the texts: such a reader, once it has come here, hands all texts through a `SurrogateJoiner`.
    Raises `DecodeError`, without the cause: a Unicode error holds the event's bytes, and tracebacks reach logs.
    """
    value, wrong = _decoded(decoder.decode, event.payload)
    if wrong == _NOT_UTF8:
        value, wrong = _decoded(decoder.decode, event.data)
        cursor.repaired += value is not None
    if value is None and halves and b"\\u" in event.payload:
        value, _ = _decoded(lambda text: decode_lenient(decoder, text), event.data)
    if value is None:  # here and not in an `except`: a Unicode error would hang on to it as its context
        raise DecodeError(wrong, offset=event.offset)
    return value


def _decoded(decode: Callable[[D], T], data: D) -> tuple[T | None, str]:
    """Gives the value, or what is wrong with the data."""
    try:
        return decode(data), ""
    except RecursionError:
        return None, "the event's JSON is nested too deeply to be an answer"
    except msgspec.ValidationError as error:
        return None, f"the event is not of its dialect: {error}"
    except UnicodeError:
        return None, _NOT_UTF8
    except msgspec.DecodeError as error:
        return None, f"the event's data is not JSON: {error}"


def plain(event: Event) -> Any:
    """Gives an event's data as plain JSON values, None where it is no JSON."""
    try:
        return event.json()
    except (ValueError, RecursionError):
        return None


def lenient(event: Event) -> Any:
    """Gives an event's data as plain JSON values in which halves of characters may stand, None where it is no JSON."""
    try:
        return event.json()
    except (ValueError, RecursionError):
        value, _ = _decoded(lambda text: decode_lenient(_PLAIN, text), event.data)
        return value


def number(values: Any, name: str) -> int | None:
    """Gives a count out of an object, None where it holds none, or one that cannot be: sums would be made of it."""
    value = values.get(name) if isinstance(values, dict) else None
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
    return value if counts else None


def asked(request: Request) -> Mapping[str, Any] | None:
    """Gives the JSON object that a request sends, None where it sends something else."""
    return plain_of(request.body)


def plain_of(body: Mapping[str, Any] | bytes | None) -> Mapping[str, Any] | None:
    """Gives a body as the JSON object that it is, None where it is none."""
    if isinstance(body, bytes):
        body = plain(Event(body))
    return body if isinstance(body, Mapping) else None


class _Named(msgspec.Struct):
    model: Any = None


_NAMED = msgspec.json.Decoder(_Named)


def model_of(request: Request, dialect: Dialect | None) -> str:
    """Names the model that a request asks, by its body or its address; empty where neither does."""
    body = request.body
    try:
        named = body.get("model") if isinstance(body, Mapping) else _NAMED.decode(body).model if body else None
    except (ValueError, RecursionError):
        named = None
    if isinstance(named, str) and named:
        return named
    return dialect.model_in(request.url) if dialect is not None else ""


def upstream_error(error: Any, *, kind: str = "") -> UpstreamError:
    """Makes the typed error of what a provider sent in its `error` key: an object, or just words.

    Its words are in `.message` and not in the error's text: some quote the key or the prompt.
    """
    for _ in range(4):  # some wrap it once more
        if not isinstance(error, dict) or "message" in error or not isinstance(error.get("error"), dict):
            break
        error = error["error"]
    if not isinstance(error, dict):
        return _upstream_error(_words(error), "", kind, retryable=True)
    code, type_ = _name(error.get("code")), _name(error.get("type")) or kind
    words = _words(error.get("message") or error.get("detail"))
    failure = _upstream_error(words, code, type_, retryable=is_hopeful(code, type_, error.get("status_code")))
    failure.body = error
    return failure


def _upstream_error(words: str, code: str, type_: str, *, retryable: bool) -> UpstreamError:
    named = ", ".join(name for name in dict.fromkeys((code, type_)) if name)
    failure = UpstreamError(
        f"the provider reported an error{f' ({named})' if named else ''}; its words are in .message",
        code=code,
        type=type_,
        retryable=retryable,
    )
    failure.message = words
    return failure


def is_hopeful(*words: Any) -> bool:
    """Says whether an error of these codes and types may pass. What nobody knows may: tries are bounded."""
    for word in words:
        if isinstance(word, str) and word.isascii() and word.isdecimal() and len(word) == 3:
            word = int(word)  # noqa: PLW2901 - the same code, as the other providers send it
        if isinstance(word, int) and 400 <= word < 500:
            return word in _HOPEFUL_STATUS
        if isinstance(word, str) and any(part in word.lower() for part in _HOPELESS):
            return False
    return True


def _name(value: Any) -> str:
    """A code or a type: a short word or number, or nothing. It stands in messages and logs."""
    return str(value) if isinstance(value, int) or (isinstance(value, str) and _NAME.fullmatch(value)) else ""


def _words(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()
    except (RecursionError, ValueError, TypeError):
        return ""
    text = " ".join(text.split()).encode("utf-8", "replace").decode()  # half a character may be in it
    return text if len(text) <= 300 else text[:300] + "..."


def error_in(body: bytes) -> UpstreamError | None:
    """Finds a provider's error in a bare document: an object with `error`, or one that is an error itself.

    Lines of an SSE field named `error:` count as one, because some servers write that.
    """
    text = body.strip()
    if text.startswith(b"error:"):
        text = text[len(b"error:") :].strip()
    if not text.startswith(b"{"):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if value.get("error"):
        return upstream_error(value["error"])
    if "choices" not in value and (value.get("detail") or value.get("message")):
        return upstream_error(value)
    return None
