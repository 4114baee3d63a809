"""What a body says that ended cleanly, in every dialect alike: an error, an answer, no stream at all, or a cut one."""

from __future__ import annotations

from collections.abc import Callable

from holdfast._errors import EndOfStream, NotAStream, StreamError, Truncated, UpstreamError
from holdfast._types import Head
from holdfast.dialects._dialect import Evidence
from holdfast.machines.cursor import Cursor


def wrong_with(
    cursor: Cursor,
    head: Head,
    error_in: Callable[[bytes], UpstreamError | None],
    *,
    missing: str,
    pieces: int,
    foreign: int = 0,
    kind: str = "an answer of this dialect",
    ask: str = 'the request must have "stream": true',
) -> StreamError | None:
    """Gives what is wrong with a body that ended cleanly, None where the answer is proven.

    `missing` is what is still to come, in words, empty when nothing is; `pieces` counts the events that were of the
    dialect, `foreign` those that had nothing of it. `kind` names what was expected, `ask` what makes a server send it.
    """
    stray = bytes(cursor.stray)
    reported = error_in(stray) if stray else None
    if reported is not None or not missing:
        return reported
    came = f"the server answered {head.status} with" if head.status else "what came is"
    if not cursor.received:
        return NotAStream(f"{came} an empty body")
    if not pieces and stray:
        # A page may be a proxy's bad moment; a JSON document is an answer, to a request that was not for a stream.
        is_json = stray.lstrip()[:1] in (b"{", b"[")
        what = head.content_type or ("JSON" if is_json else "something")
        return NotAStream(f"{came} {what}, not an event stream{f'; {ask}' if is_json else ''}", retryable=not is_json)
    if not pieces and foreign:
        return NotAStream(
            f"{foreign} events came, and none is a piece of {kind}: are dialect and url right?", retryable=False
        )
    tail = f", and it broke off inside an event ({cursor.unfinished} bytes of it)" if cursor.unfinished else ""
    return Truncated(f"the body ended without {missing}{tail}: the answer is not whole")


def is_done(payload: bytes, evidence: Evidence, *, ends: bool) -> bool:
    """Says whether an event's data is `[DONE]`, which by itself proves nothing: it must find the answer proven.

    Raises `Truncated` where it does not, and `EndOfStream` where it `ends` the answer.
    """
    if not payload.lstrip().startswith(b"[DONE]"):
        return False
    if not evidence.complete:
        raise Truncated(f"[DONE] came, but not {evidence.missing}: the answer is not whole")
    if ends:
        raise EndOfStream
    return True
