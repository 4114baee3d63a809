"""Every way a stream can fail, and one word for each.

    StreamError                  .retryable .attempts .partial .report
    ├── ConnectError             no head arrived
    ├── StatusError              .status .retry_after .body
    ├── NotAStream               200 with HTML, JSON or nothing
    ├── StreamBroken             cut after the head
    │   └── Truncated            the framing ended cleanly, but the answer is unproven
    ├── DeadlineExceeded         .clock: "open" | "first_token" | "progress" | "throughput" | "total"
    ├── DecodeError              not UTF-8 (strict), not JSON, not the dialect, over a size limit; .offset in bytes
    ├── IntegrityError           .expected .actual
    ├── UpstreamError            the provider reported an error inside the stream; .code .type
    ├── CircuitOpen              rejected here, nothing was sent; .retry_after
    └── BudgetExhausted          nothing was sent, or a Budget stopped the answer in its middle

A `StreamError` is the world's fault, a `UsageError` the programmer's. `EndOfStream` is how streams tell their
readers of a clean end; it never leaves the library. Messages name the cause and what to do, and hold no text of
a prompt or an answer: they reach logs.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from holdfast._types import Head, Partial

if TYPE_CHECKING:
    from holdfast.moments import Report

ClockName = Literal["open", "first_token", "progress", "throughput", "total", "unread"]
"""`throughput` is a `Throughput` layer's floor, `unread` how long what `client.start()` opened waits for a reader."""


def _again(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Makes an error anew of its text: what its class is called with is in its attributes, which come after."""
    return kind.__new__(kind, *args)


class EndOfStream(Exception):
    """The clean end of a stream."""


class UsageError(Exception):
    """The program asked for something that cannot be: a second reader, a stream read before it was opened."""


class MissingExtra(UsageError, ImportError):
    """A feature needs a package that is not installed; the message says which extra brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra package: pip install 'holdfast[{extra}]'")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args), vars(self)


class SharedStateError(Exception):
    """`RedisState.ping()` had no decision of its Redis; the message says why. Streams go on without one."""


class StreamError(Exception):
    """A stream failed. `retryable` says whether the same request may succeed when sent again.

    The edge adds `attempts` (requests sent), `partial` (what arrived) and `report`, and each of them to nothing else.
    It can be pickled and copied, all of these with it; a request that cannot be is left out of the `partial`.
    """

    retryable: bool = True
    attempts: int = 0
    partial: Partial = Partial()
    report: Report = None  # type: ignore[assignment]  # set at the edge, on every error that leaves the library
    retry_after: float | None = None
    """Seconds the server asked us to wait before another try; None: it did not say."""

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(vars(self))
        if "partial" in state:
            state["partial"] = _to_carry(self.partial)
        return _again, (type(self), self.args), state


def _to_carry(partial: Partial) -> Partial:
    try:
        pickle.dumps(partial)
    except Exception:  # noqa: BLE001 - whatever the values of somebody's request raise
        return replace(partial, request=None)
    return partial


class ConnectError(StreamError):
    """No head arrived: the name did not resolve, nobody listened, TLS failed, or the line died first."""


class StatusError(StreamError):
    """The server answered with another status than 2xx. `body` holds at most its first 64 KiB.

    `code`, `type` and `message` are the provider's own words, empty where it gave none. `message` is no part of the
    error's text: providers quote keys and prompts in it.
    """

    def __init__(
        self,
        message: str,
        *,
        head: Head,
        body: bytes = b"",
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.head = head
        self.status = head.status
        self.body = body
        self.retry_after = retry_after
        self.code = ""
        self.type = ""
        self.message = ""


class NotAStream(StreamError):
    """The server said 200 and sent something else than events: a page, a JSON document, nothing."""


class StreamBroken(StreamError):
    """The connection was lost after the head, inside the answer."""


class Truncated(StreamBroken):
    """The body ended cleanly, and nothing in it proves that the answer was whole."""


class DeadlineExceeded(StreamError):
    """A clock ran out; `clock` says which, `seconds` what it allowed. All are retryable but `total` and `unread`."""

    def __init__(self, clock: ClockName, seconds: float, message: str | None = None) -> None:
        super().__init__(
            message or f"the {clock} clock ran out after {seconds:g} s; allow more with Timeouts({clock}=...)"
        )
        self.clock: ClockName = clock
        self.seconds = seconds
        self.retryable = clock not in ("total", "unread")


class DecodeError(StreamError):
    """Bytes that are not what they must be. `offset` counts bytes of the body before the place."""

    def __init__(self, message: str, *, offset: int = 0, retryable: bool | None = None) -> None:
        super().__init__(message, retryable=retryable)
        self.offset = offset


class IntegrityError(StreamError):
    """What came is not what was announced, or asked for: `expected` and `actual` length, digest or kind of text."""

    def __init__(self, message: str, *, expected: str, actual: str, retryable: bool | None = None) -> None:
        super().__init__(f"{message}: expected {expected}, got {actual}", retryable=retryable)
        self.expected = expected
        self.actual = actual


class UpstreamError(StreamError):
    """The provider reported an error in the place of an answer.

    `code`, `type` and `message` are its own words, and `body` all that it sent as its error, where that was an object;
    `message` and `body` are no part of the error's text.
    """

    def __init__(self, message: str, *, code: str = "", type: str = "", retryable: bool = False) -> None:
        super().__init__(message, retryable=retryable)
        self.code = code
        self.type = type
        self.message = ""
        self.body: dict[str, Any] | None = None


class CircuitOpen(StreamError):
    """A circuit breaker refused: the upstream failed too often. Nothing was sent; see `retry_after`."""

    retryable = False


class BudgetExhausted(StreamError):
    """A limit of this side refused, and nothing was sent; a `Budget` may also stop an answer in its middle.

    `reason` is a `Budget`'s: its money is "spent", or what was asked for is "unpriced". Empty for other limits.
    """

    retryable = False
    reason: Literal["", "spent", "unpriced"] = ""
