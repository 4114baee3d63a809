"""What one request of a client's becomes: as many as it takes. The same in every library that a mount is for.

What came for the client already is the first attempt, and the others are made of its request. One that is none of
ours is passed on, a refusal that nothing helped is given back, and of every other failure the client learns in its own
terms. A mount adds what is peculiar to its library, and nothing here knows one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    DecodeError,
    EndOfStream,
    MissingExtra,
    StatusError,
    StreamError,
    UsageError,
)
from holdfast._types import Head, Request
from holdfast.machines.inflate import inflater
from holdfast.machines.redact import is_secret
from holdfast.moments import Report
from holdfast.mounts._policy import IDEMPOTENT, Policy, is_stream
from holdfast.mounts._relay import Mount, Relay

R = TypeVar("R")


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
        self.passed: R | None = None
        """A response that is none of ours."""
        self.refused: R | None = None
        """The response that refused, while there has been no stream."""
        self.error: Exception | None = None
        """What the library raised at the last attempt."""

    # -- as a source -----------------------------------------------------------------------------

    async def open(self, request: Request) -> Stream[bytes]:
        """Sends, or takes what is there already. A response that is none of ours is left in `passed`."""
        at_hand, self.at_hand = self.at_hand, None
        self.begun = self.begun or (at_hand is not None and self.is_stream(at_hand))
        if at_hand is None:
            self._refuse(request)
            await self.drop()
            self.error = None
        stream = await self._attempt(request, at_hand)
        if self.passed is None:
            self.begun = True
            call = request.call
            if not self.policy.repeatable and (call.dialect is None or call.dialect.event_ids != "get"):
                call.max_requests = call.requests  # no layer is to wait for another try
        return stream

    def _refuse(self, request: Request) -> None:
        """What must not happen twice is sent once: a later request has to be another, or one that does no harm."""
        if not self.begun or self.policy.repeatable:
            return
        if request.method not in IDEMPOTENT or request.body is not None:
            raise BudgetExhausted(f"this {request.method} was sent, and nothing says that it may be sent again")

    def moved(self, request: Request) -> tuple[set[str], str]:
        """Says which of the client's headers, in lower case, another server must not see, and what its `Host` is.

        Keys are for the server that was asked: another upstream brings its own. Nothing where it is the same one.
        """
        there = urlsplit(request.url)
        if there[:2] == urlsplit(self.asked.url)[:2]:
            return set(), ""
        return {name.lower() for name in self.sent if is_secret(name) or name.lower() == "host"}, there.netloc

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
        source: Source[bytes] = self
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
            return self._given_away()
        return await self._instead(failed, call.report)

    async def relayed(self) -> R:
        """Opens the pipe, and gives a response that reads from it."""
        relay, begun = self.mount.relay(self, self.asked, self.sent), b""
        try:
            await relay.open()
            if self.passed is None and not self._told_by_head():
                begun = await relay.receive()
        except (StreamError, UsageError) as error:
            failed = error
        except BaseException:
            await self._give_up(relay)
            raise
        else:
            if self.passed is None:
                return self._response(relay, begun)
            try:
                await relay.aclose()
            except BaseException:
                await self.drop()
                raise
            return self._given_away()
        await relay.aclose()
        return await self._instead(failed, relay.reader.report)

    async def _give_up(self, relay: Relay) -> None:
        try:
            await relay.aclose()
        finally:
            await self.drop()

    def _given_away(self) -> R:
        response, self.passed = self.passed, None
        if response is None:
            raise AssertionError("what is no stream is passed on")
        return response

    async def _instead(self, failure: StreamError | UsageError, report: Report) -> R:
        """Gives the response that refused, or raises what the client's users catch."""
        if self.refused is not None and isinstance(failure, StatusError):
            refused, self.refused = self.refused, None
            return self._refusal(refused, report)
        await self.drop()
        raise self._failure(failure)

    async def drop(self) -> None:
        """Closes what nobody was given."""
        dropped = (self.refused, self.passed, self.at_hand)
        self.refused = self.passed = self.at_hand = None
        for response in dropped:
            if response is not None:
                await self._drop(response)

    # -- what is peculiar to a library -----------------------------------------------------------

    @abstractmethod
    async def _attempt(self, request: Request, at_hand: R | None) -> Stream[bytes]:
        """Reads from `at_hand`, or sends; leaves a response that is not `_is_ours()` in `passed`, and gives `Nothing`.

        Raises a `StatusError` for what is no 2xx, having left the first such response in `refused`.
        """

    @abstractmethod
    def _kind(self, response: R) -> tuple[int, str]:
        """Gives a response's status and content type."""

    @abstractmethod
    def _can_read(self, response: R) -> bool:
        """Says whether the coding of a response's body can be undone here."""

    def _told_by_head(self) -> bool:
        """Says whether the head is enough to give the client a response; else its body has to begin well, too."""
        return True

    @abstractmethod
    def _response(self, relay: Relay, begun: bytes) -> R:
        """Gives the client's response; `begun` has been read of the relay."""

    @abstractmethod
    def _refusal(self, refused: R, report: Report) -> R:
        """Gives a refusal back, with a report where the library has a place for it."""

    @abstractmethod
    def _failure(self, failure: StreamError | UsageError) -> Exception:
        """Gives what to raise before there is a response, with its cause."""

    @abstractmethod
    async def _drop(self, response: R) -> None:
        """Closes a response."""


@dataclass(slots=True)
class Nothing:
    """Stands for a response that is none of ours."""

    head: Head

    async def receive(self) -> Sequence[bytes]:
        raise EndOfStream

    async def aclose(self) -> None:
        pass


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


__all__ = ["Attempts", "Nothing", "can_inflate", "caused"]
