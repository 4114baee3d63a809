"""How a client learns that an answer could not be saved: an exception of the family that its documentation names.

Ours is its cause. The text says what was wrong, what had been delivered and what was tried, and holds nothing of a
prompt or an answer: texts reach logs. An SDK is never imported here: who has it as a caller has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from holdfast._errors import DeadlineExceeded, StreamError, UpstreamError

_STAINLESS = (("openai", "OpenAI"), ("anthropic", "Anthropic"), ("groq", "Groq"))
"""SDKs of one making: the module, and what the names of their clients hold, which stand in their User-Agent."""
_GOOGLE = "google-genai-sdk"
"""What google-genai calls itself. Of its own exceptions it has only those for what a provider says."""
_ASKS_AGAIN = ("anthropic",)
"""Those that send again when they meet their own APIConnectionError before a response: our tries were all there are."""


def failure(
    error: StreamError,
    headers: Mapping[str, str],
    request: Any,
    other: Callable[[StreamError, str], Exception],
    *,
    responded: bool = True,
) -> Exception:
    """Gives what to raise, from `error`, to the client that sent `headers`; `request` is that client's own.

    `other` makes it for a client that brings no exceptions of its own. `responded`: the client has its response.
    """
    sdk = sdk_of(headers)
    if sdk is not None:
        made = _made(sdk, error, request, responded=responded)
    elif isinstance(error, UpstreamError) and responded and _GOOGLE in headers.get("user-agent", ""):
        made = _of_google(error)
    else:
        made = None
    return other(error, story(error)) if made is None else made


def story(error: StreamError, said: str = ".__cause__.message") -> str:
    """Tells how an answer was lost in one line; `said` is where the exception has the provider's words."""
    told = [f"{type(error).__name__}: {error}".replace("words are in .message", f"words are in {said}")]
    report = error.report
    if report is not None:
        characters = len(error.partial.text)
        told.append(f"delivered before: {report.items} deltas, {characters} characters of text")
        tried = [f"{report.attempts or 'no'} request{'s' if report.attempts > 1 else ''}"]
        tried += [f"resumed by {seam.rung}" for seam in report.seams]
        told.append("tried: " + ", ".join(tried))
    notes = getattr(error, "__notes__", ())
    told += [note for note in notes if note.startswith("it was not resumed")][:1]
    return "; ".join(told)


def sdk_of(headers: Mapping[str, str]) -> Any:
    """Finds the SDK that sent a request; a subclass of its client, or one that renames itself, by its version.

    Names of headers are lower case. None for one that is not known.
    """
    agent = headers.get("user-agent", "")
    loaded = [(sys.modules[name], mark) for name, mark in _STAINLESS if name in sys.modules]
    for sdk, mark in loaded:
        if mark in agent.partition("/")[0]:
            return sdk
    version = headers.get("x-stainless-package-version")
    known = [sdk for sdk, _ in loaded if version is not None and getattr(sdk, "__version__", None) == version]
    return known[0] if len(known) == 1 else None


def _made(sdk: Any, error: StreamError, request: Any, *, responded: bool) -> Exception | None:
    plain = not responded and sdk.__name__ in _ASKS_AGAIN
    text = story(error) if plain else story(error, ".body")
    try:
        made: Exception
        if plain:
            made = sdk.APIError(text, request=request, body=None)
        elif isinstance(error, DeadlineExceeded):
            made = sdk.APITimeoutError(request=request)
            made.args, made.message = (text,), text  # type: ignore[attr-defined]  # it takes no words of ours
        elif isinstance(error, UpstreamError):  # what the provider said, where this SDK keeps what a provider says
            if sdk.__name__ == "anthropic":
                body = {"type": "error", "error": _said(error)}
                made = sdk.APIStatusError(text, response=_answered(request), body=body)
            else:
                made = sdk.APIError(text, request=request, body=_said(error))
        else:
            made = sdk.APIConnectionError(message=text, request=request)
    except (AttributeError, TypeError):  # another version's classes take something else
        return None
    return made


def _said(error: UpstreamError) -> dict[str, Any]:
    """Gives what a provider sent as its error, or what comes nearest to it."""
    return error.body or {"code": error.code or None, "type": error.type or None, "message": error.message}


def _answered(request: Any) -> Any:
    """Gives a response like the one that is being read, with the status that all streams have; it has no body."""
    library = sys.modules[type(request).__module__.partition(".")[0]]
    return library.Response(200, request=request)


def _of_google(error: UpstreamError) -> Exception | None:
    errors = sys.modules.get("google.genai.errors")
    status = int(error.code) if error.code.isdecimal() else 0
    named = {4: "ClientError", 5: "ServerError"}.get(status // 100, "APIError")
    try:
        made: Exception = getattr(errors, named)(status, {"error": _said(error)})
    except (AttributeError, TypeError):
        return None
    made.args = (story(error, ".message"),)
    return made


__all__ = ["failure", "sdk_of", "story"]
