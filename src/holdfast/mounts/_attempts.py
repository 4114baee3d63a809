"""What one request of a client's becomes: as many as it takes. The same in every library that a mount is for.

What came for the client already is the first attempt, and the others are made of its request. One that is none of
ours is passed on, a refusal that nothing helped is given back, and of every other failure the client learns in its own
terms. A mount adds what is peculiar to its library, and nothing here knows one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from holdfast._core import Attempt, Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    DecodeError,
    MissingExtra,
    StatusError,
    StreamError,
    UsageError,
)
from holdfast._types import Head, Request
from holdfast.machines.inflate import inflater
from holdfast.machines.redact import of_one_server
from holdfast.moments import Report
from holdfast.mounts._policy import IDEMPOTENT, Policy, is_stream
from holdfast.mounts._relay import Mount, Relay

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Came(Generic[R]):
    """What came of one attempt. Two may race: what came of the loser must not be taken for what came of the winner."""

    call: Call | None = None
    attempt: Attempt | None = None
    response: R | None = None
    """Of it the pipe made a stream."""
    passed: R | None = None
    """It is none of ours."""
    refused: R | None = None
    """It refused, while there had been no stream."""
    error: Exception | None = None
    """What the library raised."""


class Attempts(ABC, Generic[R]):
    """The attempts at one request, a `Source[bytes]`; `R` is what the library has for a response."""

    gives: ClassVar[type] = bytes

    def __init__(self, mount: Mount, asked: Request, policy: Policy) -> None:
        self.mount = mount
        self.asked = asked
        self.sent: Mapping[str, str] = asked.headers
        """The client's headers, which tell who it is."""
        self.policy = policy
        self.may_retry = policy.repeatable
        """It may be sent again while no head has come."""
        self.at_hand: R | None = None
        """What has come already of the first attempt."""
        self.begun = False
        """The pipe has had a stream: from now on it judges all that comes."""
        self._upstreams: set[str] = set()
        """Who was sent it; nobody yet where it is empty."""
        self._came: list[Came[R]] = []

    # -- as a source -----------------------------------------------------------------------------

    async def open(self, request: Request) -> Stream[bytes]:
        """Sends, or takes what is there already. A response that is none of ours is left in `Came.passed`."""
        call, at_hand, self.at_hand = request.call, self.at_hand, None
        call.carried = self.sent
        self._upstreams.add(request.upstream)
        self.begun = self.begun or (at_hand is not None and self.is_stream(at_hand))
        most = call.max_requests
        if not self.policy.repeatable and not (self.begun and _goes_on_with_get(call)):
            call.max_requests = call.requests  # no layer is to wait for another try, or to send one beside this
        came: Came[R] = Came(call, call.attempt)
        before, self._came = self._came, [one for one in self._came if one.call is call.rival]
        self._came.append(came)
        await self._forget(*(one for one in before if one.call is not call.rival))
        try:
            stream = await self._attempt(request, at_hand, came)
        except StreamError:
            raise
        except BaseException:
            await self._forget(came)
            raise
        if came.passed is None:
            self.begun = True
            if _goes_on_with_get(call):
                call.max_requests = most
        return stream

    def refuse(self, request: Request) -> None:
        """Raises `BudgetExhausted` for a request that must not be sent after the ones before.

        What must not happen twice is sent once: a later request has to be another, which does no harm. Of what may, an
        SDK that tries again by itself is helped to no more than to ask elsewhere, or beside itself.
        """
        if not self._upstreams:
            return
        if over := self._over():
            raise BudgetExhausted(over)
        method = request.method
        if self.policy.repeatable:
            if (
                self.begun
                or self.may_retry
                or request.upstream not in self._upstreams
                or request.call.rival is not None
            ):
                return
            raise BudgetExhausted(f"the client tries this {method} again by itself")
        if not self.begun or method not in IDEMPOTENT or method == self.asked.method or request.body is not None:
            raise BudgetExhausted(f"this {self.asked.method} was sent, and nothing says that it may be sent again")

    def _over(self) -> str:
        """Says why nothing more is to be sent, whatever it is; empty where nothing keeps it."""
        return ""

    def moved(self, request: Request) -> tuple[set[str], str]:
        """Says which of the client's headers, in lower case, another server must not see, and what its `Host` is.

        Keys are for the server that was asked: another upstream brings its own. Nothing where it is the same one.
        """
        there = urlsplit(request.url)
        if there[:2] == urlsplit(self.asked.url)[:2]:
            return set(), ""
        return {"host", *of_one_server(self.sent)}, there.netloc

    def is_stream(self, response: R) -> bool:
        """Says whether a response is an event stream that can be read here."""
        status, kind = self._kind(response)
        return is_stream(self.asked.method, status, kind) and self._can_read(response)

    def _is_ours(self, response: R) -> bool:
        """Says whether the pipe is to have a response with status 2xx."""
        return self.begun or (self.policy.takes(self._kind(response)[1]) and self._can_read(response))

    # -- for the client --------------------------------------------------------------------------

    async def tried(self) -> R:
        """Sends what asks for no stream, with the tries that the policy has for it."""
        source: Source[bytes] = Guard(self)(self)
        for layer in self.mount.retries:
            source = layer(source)
        call = Call(clock=self.mount.clock, random=self.mount.random, max_requests=self.mount.max_requests)
        try:
            await source.open(replace(self.asked, call=call))
        except (StreamError, UsageError) as error:
            failed = error
        except BaseException:
            await self.drop()
            raise
        else:
            return await self._given_away(self._last(None))
        return await self._instead(failed, call.report, self._last(None))

    async def relayed(self) -> R:
        """Opens the pipe, and gives a response that reads from it."""
        relay, begun = self.mount.relay(self, self.asked, self.sent, Guard(self)), b""
        try:
            try:
                await relay.open()
                came = self._last(relay.attempt)
                if came.passed is None and not self._told_by_head(came):
                    begun = await relay.receive()
                    came = self._last(relay.attempt)
            except _PassedError as passed:  # a layer has read on in open()
                came = passed.came
            if came.passed is None:
                await self.drop()
                return self._response(relay, begun, came)
            await relay.aclose()
            return await self._given_away(came)
        except (StreamError, UsageError) as error:
            failed = error
        except BaseException:
            await self._give_up(relay)
            raise
        await relay.aclose()
        return await self._instead(failed, relay.reader.report, self._last(relay.attempt))

    def _last(self, attempt: Attempt | None) -> Came[R]:
        """What came of an attempt, or of the last one, where none was counted."""
        return next((came for came in reversed(self._came) if came.attempt is attempt), Came())

    async def _give_up(self, relay: Relay) -> None:
        try:
            await relay.aclose()
        finally:
            await self.drop()

    async def _given_away(self, came: Came[R]) -> R:
        response, came.passed = came.passed, None
        if response is None:
            raise AssertionError("what is no stream is passed on")
        try:
            await self.drop()
        except BaseException:
            await self._drop(response)
            raise
        return response

    async def _instead(self, failure: StreamError | UsageError, report: Report, came: Came[R]) -> R:
        """Gives the response that refused, or raises what the client's users catch."""
        refused = came.refused if isinstance(failure, StatusError) else None
        if refused is not None:
            came.refused = None
        try:
            await self.drop()
        except BaseException:
            if refused is not None:
                await self._drop(refused)
            raise
        if refused is not None:
            return self._refusal(refused, report)
        raise self._failure(failure, came)

    async def drop(self) -> None:
        """Closes what nobody was given."""
        at_hand, self.at_hand = self.at_hand, None
        await self._forget(*self._came, Came(passed=at_hand))

    async def _forget(self, *ones: Came[R]) -> None:
        for came in ones:
            left = (came.refused, came.passed)
            came.refused = came.passed = None
            for response in left:
                if response is not None:
                    await self._drop(response)

    # -- what is peculiar to a library -----------------------------------------------------------

    @abstractmethod
    async def _attempt(self, request: Request, at_hand: R | None, came: Came[R]) -> Stream[bytes]:
        """Reads from `at_hand`, or sends; leaves a response that is not `_is_ours()` in `passed`, and gives `Nothing`.

        Raises a `StatusError` for what is no 2xx, having left it in `refused` where there has been no stream.
        """

    @abstractmethod
    def _kind(self, response: R) -> tuple[int, str]:
        """Gives a response's status and content type."""

    @abstractmethod
    def _can_read(self, response: R) -> bool:
        """Says whether the coding of a response's body can be undone here."""

    def _told_by_head(self, came: Came[R]) -> bool:
        """Says whether the head is enough to give the client a response; else its body has to begin well, too."""
        return True

    @abstractmethod
    def _response(self, relay: Relay, begun: bytes, came: Came[R]) -> R:
        """Gives the client's response; `begun` has been read of the relay."""

    @abstractmethod
    def _refusal(self, refused: R, report: Report) -> R:
        """Gives a refusal back, with a report where the library has a place for it."""

    @abstractmethod
    def _failure(self, failure: StreamError | UsageError, came: Came[R]) -> Exception:
        """Gives what to raise before there is a response, with its cause."""

    @abstractmethod
    async def _drop(self, response: R) -> None:
        """Closes a response."""


@dataclass(slots=True)
class Nothing:
    """Stands for a response that is none of ours. It is `Attempts` that closes it."""

    head: Head
    came: Came[Any]

    async def receive(self) -> Sequence[bytes]:
        raise _PassedError(self.came)

    async def aclose(self) -> None:
        pass


class _PassedError(Exception):
    """A layer reads what is none of ours. No failure of a stream: nothing is to be tried instead, nor waited for."""

    def __init__(self, came: Came[Any]) -> None:
        super().__init__("this response is passed on as it came")
        self.came = came


@dataclass(slots=True, frozen=True)
class Guard:
    """A layer over the wall that counts: what must not be sent is no request."""

    attempts: Attempts[Any]
    gives: ClassVar[type] = bytes

    def __call__(self, inner: Source[bytes]) -> Source[bytes]:
        return _GuardedSource(inner, self.attempts)


@dataclass(slots=True)
class _GuardedSource:
    inner: Source[bytes]
    attempts: Attempts[Any]

    async def open(self, request: Request) -> Stream[bytes]:
        self.attempts.refuse(request)
        return await self.inner.open(request)


def _goes_on_with_get(call: Call) -> bool:
    return call.dialect is not None and call.dialect.event_ids == "get"


def can_inflate(coding: str) -> bool:
    """Says whether a coding can be undone here."""
    try:
        inflater(coding)
    except (DecodeError, MissingExtra):
        return False
    return True


def caused(error: Exception, cause: Exception) -> Exception:
    """Gives an error as `raise error from cause` would raise it."""
    error.__cause__ = cause
    return error


__all__ = ["Attempts", "Came", "Nothing", "can_inflate", "caused"]
