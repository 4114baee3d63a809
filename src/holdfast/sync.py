"""The facade for programs that are not asynchronous: its names without `async`, over the very same pipe.

Streams run on one event loop in a background thread, which all clients of a process share; any thread may use any
client. It decides nothing: what an answer is, and which error it ends in, the asynchronous client says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import aiohttp
import pybreaker

from holdfast import client as asynchronous
from holdfast._background import Background, Pump, background
from holdfast._clock import Clock, Random
from holdfast._core import Source
from holdfast._errors import UsageError
from holdfast._pipe import Pipe
from holdfast._reader import Reader as AsyncReader
from holdfast._types import Completion, Delta, Head, Partial
from holdfast.dialects import Dialect, Timeouts
from holdfast.health import HealthCheck
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.fallback import Fallback
from holdfast.machines.ladder import Seams
from holdfast.machines.retry_budget import RetryBudget
from holdfast.moments import Listener, Report
from holdfast.upstreams import Upstream


class Settings(TypedDict, total=False):
    """The keywords of `holdfast.Client`, which say there what they are."""

    api_key: str | None
    base_url: str | None
    upstreams: Sequence[Upstream] | Fallback | None
    session: aiohttp.ClientSession | None
    source: Source[bytes] | None
    timeouts: Timeouts | None
    headers: Mapping[str, str] | None
    seams: Seams | bool
    auto_continue: AutoContinue | bool | None
    schema: Mapping[str, Any] | bool
    traffic: asynchronous.Layers
    layers: asynchronous.Layers | None
    max_requests: int
    retry_budget: RetryBudget | None
    clock: Clock | None
    random: Random | None
    listeners: Iterable[Listener]


class Asking(TypedDict, total=False):
    """What may be said of one call; see `holdfast.Client.stream()`."""

    timeouts: Timeouts | None
    headers: Mapping[str, str] | None
    labels: Mapping[str, str] | None


class Client:
    """`holdfast.Client` for programs that are not asynchronous. It takes the same keywords, and raises the same errors.

    A `session` or `source` must belong to the background loop, since it is used there.
    """

    def __init__(self, dialect: str | Dialect = asynchronous.DEFAULT, **settings: Unpack[Settings]) -> None:
        self._make: Callable[[], asynchronous.Client] = lambda: asynchronous.Client(dialect, **settings)
        self._client = self._make()
        self._at: Background | None = None
        self._inherited: list[asynchronous.Client] = []  # not to be collected: its connections are the parent's

    def _here(self) -> tuple[Background, asynchronous.Client]:
        """The loop of this process, and the client in it: after a fork the connections are the parent's."""
        loop = background()
        if self._at is not None and self._at is not loop:
            self._inherited.append(self._client)
            self._client = self._make()
        self._at = loop
        return loop, self._client

    @property
    def pipe(self) -> Pipe[Delta]:
        """The pipe that `stream()` reads through; print it to see its layers."""
        return self._client.pipe

    @property
    def breaker(self) -> pybreaker.CircuitBreaker:
        """The circuit breaker that all streams of this client share."""
        return self._client.breaker

    def stream(self, request: Mapping[str, Any], *, keep: bool = True, **asking: Unpack[Asking]) -> Reader:
        """Gives the stream of one answer, a context manager and iterator of deltas."""
        loop, client = self._here()
        return Reader(loop, client.stream(request, keep=keep, **asking))

    def start(
        self, request: Mapping[str, Any], *, max_items: int = 1024, keep: bool = True, **asking: Unpack[Asking]
    ) -> Reader:
        """Gives the stream of one answer, opened at once and read ahead; see `holdfast.Client.start()`."""
        loop, client = self._here()

        async def start() -> AsyncReader[Delta]:
            return client.start(request, max_items=max_items, keep=keep, **asking)

        return Reader(loop, loop.call(start()), begun=True)

    def resume(self, partial: Partial, **asking: Unpack[Asking]) -> Reader:
        """Gives the stream of the rest of an answer, of which another process may have read the beginning."""
        loop, client = self._here()
        return Reader(loop, client.resume(partial, **asking))

    def complete(self, request: Mapping[str, Any], **asking: Unpack[Asking]) -> Completion:
        """Streams an answer and returns it whole."""
        loop, client = self._here()
        return loop.call(client.complete(request, **asking))

    def health_check(
        self, *, every: float = 30.0, timeout: float = 5.0, path: str = ""
    ) -> AbstractContextManager[HealthCheck]:
        """Gives a context manager that probes idle upstreams in the background loop; see `HealthCheck`.

        Raises `UsageError` for a client of one upstream.
        """
        loop, client = self._here()
        return _entered(loop, client.health_check(every=every, timeout=timeout, path=path))

    def close(self) -> None:
        """Closes the client's own session; a shared one, and a source of yours, stay open. Idempotent."""
        if self._at is not None and self._at is background():
            self._at.call(self._client.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<holdfast.sync.{repr(self._client)[1:]}"


class Reader:
    """The edge of one stream: a context manager and iterator of deltas.

    Iteration ends when the answer is proven whole and raises a `StreamError` otherwise; asked again, it says the same.
    A few batches are read ahead: until the end, `report` and `partial` may know of more than was iterated over.
    """

    def __init__(self, loop: Background, reader: AsyncReader[Delta], *, begun: bool = False) -> None:
        self._loop = loop
        self._reader = reader
        self._pump: Pump[Sequence[Delta]] = Pump(loop, partial(_read, reader), reader.aclose)
        self._ready: Iterator[Delta] = iter(())
        self._entered = False
        self._begun = begun  # there is something to close

    async def _open(self) -> None:
        await self._reader.__aenter__()
        self._pump.start()

    def __enter__(self) -> Self:
        self._loop.call(self._open())
        self._entered = self._begun = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the stream; one that was not read to its end counts as given up. Idempotent."""
        self._ready = iter(())
        self._pump.close()

    def __del__(self) -> None:
        if getattr(self, "_begun", False) and not self._pump.closed:  # one half made has nothing to close
            warnings.warn(f"{self!r} was never closed: use it with `with`", ResourceWarning, stacklevel=2, source=self)
            self._pump.abandon()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        for delta in self._ready:
            return delta
        self._ready = iter(self._batch() or ())
        return next(self._ready)

    def _batch(self) -> Sequence[Delta] | None:
        if not self._entered:
            raise UsageError("enter the stream first: with ... as stream")
        return self._pump.next()

    def batches(self) -> Iterator[Sequence[Delta]]:
        """Iterates over what arrives in the batches it arrives in: cheaper per item, and no later."""
        if left := list(self._ready):
            yield left
        while batch := self._batch():
            yield batch

    def text(self) -> Iterator[str]:
        """Iterates over the text of the first choice, piece by piece."""
        for delta in self:
            if delta.text and not delta.choice:
                yield delta.text

    @property
    def head(self) -> Head:
        """Status and headers of the attempt now being read."""
        return self._reader.head

    @property
    def dialect(self) -> Dialect | None:
        """Whose stream it is; None while nobody knows."""
        return self._reader.dialect

    @property
    def report(self) -> Report:
        """The story so far."""
        return self._reader.report

    @property
    def completion(self) -> Completion:
        """The whole answer, once it is proven whole. Raises the stream's error, or `UsageError` before its end."""
        return self._reader.completion

    @property
    def partial(self) -> Partial:
        """What has arrived, and all that going on from there needs."""
        return self._reader.partial


@contextmanager
def _entered(loop: Background, check: HealthCheck) -> Iterator[HealthCheck]:
    loop.call(check.__aenter__())
    try:
        yield check
    finally:
        if loop is background():  # after a fork it is the parent's
            loop.call(check.__aexit__(None, None, None))


async def _read(reader: AsyncReader[Delta]) -> Sequence[Delta] | None:
    return await reader.read() or None


__all__ = ["Client", "Reader"]
