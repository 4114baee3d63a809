"""Holdfast inside an `aiohttp.ClientSession`, as a client middleware.

The caller gets a copy of the first response whose body is ours: it is read from the pipe, which calls the rest of the
session's middlewares again for each further attempt. There is no task between: who reads the body drives the pipe, so
back-pressure, cancelling and the session's timeouts are aiohttp's own. Closing the response reaches whatever attempt
is current. What is no stream of events passes untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import aiohttp
from aiohttp.hdrs import ACCEPT_ENCODING
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict
from yarl import URL

from holdfast._core import Stream
from holdfast._errors import DeadlineExceeded, StreamBroken, StreamError, UsageError
from holdfast._types import Head, Request
from holdfast.machines.statuses import status_error
from holdfast.moments import Report
from holdfast.mounts._aiohttp_body import PulledBody, relayed_response
from holdfast.mounts._attempts import Attempts, Came, Nothing, caused
from holdfast.mounts._failures import story
from holdfast.mounts._policy import IDEMPOTENT, Policy, document
from holdfast.mounts._relay import EXTENSION, Mount, Relay, Settings, mount_of
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, encode, where
from holdfast.sources.aiohttp import ResponseStream, before_head, drop, head_of

_LARGE_BODY = 512 * 1024  # bytes; see sources/aiohttp.py


def aiohttp_middleware(**settings: Unpack[Settings]) -> aiohttp.ClientMiddlewareType:
    """Gives a middleware for `aiohttp.ClientSession(middlewares=[...])`, which mends streams of events under it.

    An answer that breaks is retried or resumed, and reads as one whole stream; where nothing helps, reading raises
    `aiohttp.ClientPayloadError` (`SocketTimeoutError` where a clock ran out), ours being its cause. Everything else is
    aiohttp's own response, but for this: a request that may be repeated is, before a head has come, as the layers say.
    The keywords are those of all mounts. Middlewares behind it see every attempt.
    """
    mount = mount_of(settings)

    async def holdfast(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if "Upgrade" in request.headers or request.method == "CONNECT":
            return await handler(request)
        body = request.body
        replayable = not body or (isinstance(body, aiohttp.BytesPayload) and "Expect" not in request.headers)
        content = await body.as_bytes() if body and replayable else None
        attempts = _Attempts(mount, request, handler, content, replayable=replayable)
        if attempts.may_retry and attempts.policy.asks:
            return await attempts.relayed()
        if attempts.may_retry and mount.retries:
            response = await attempts.tried()
        else:
            response = await handler(request)
        if not attempts.is_stream(response):
            return response
        attempts.at_hand = response
        return await attempts.relayed()

    return holdfast


class _Attempts(Attempts[aiohttp.ClientResponse]):
    """The attempts at one request, through the rest of the session's middlewares."""

    def __init__(
        self,
        mount: Mount,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        content: bytes | None,
        *,
        replayable: bool,
    ) -> None:
        self._handler = handler
        self._request = request
        asked = Request(
            url=str(request.url), method=request.method, headers=dict(request.headers), body=document(content)
        )
        super().__init__(mount, asked, Policy.of(asked, mount, replayable=replayable))

    # -- as a source -----------------------------------------------------------------------------

    async def _attempt(
        self, request: Request, at_hand: aiohttp.ClientResponse | None, came: Came[aiohttp.ClientResponse]
    ) -> Stream[bytes]:
        response = at_hand if at_hand is not None else await self._send(request, came)
        try:
            head = head_of(response)
            if not 200 <= head.status < 300:
                error = status_error(head, await _explanation(response), request.call.clock.wall())
                if not self.begun:
                    came.refused = response
                raise error
        except BaseException:
            if response is not came.refused:
                drop(response)
            raise
        if not self._is_ours(response):
            came.passed = response
            return Nothing(head, came)
        came.response = response
        return _Attempt(ResponseStream(response, where(request.url), self), head)

    async def _send(self, request: Request, came: Came[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        try:
            return await self._handler(await self._made(request))
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the session's total timeout: it is over the whole call
            came.error = error
            failure = before_head(error, request.url)
        raise failure

    def _over(self) -> str:
        return "the session was closed" if self._request.session.closed else ""

    def _kind(self, response: aiohttp.ClientResponse) -> tuple[int, str]:
        return response.status, response.headers.get("Content-Type", "")

    def _can_read(self, response: aiohttp.ClientResponse) -> bool:
        """Says whether a body does not come in a coding that its reader wants to undo."""
        coding = response.headers.get("Content-Encoding", "identity").lower()
        return coding == "identity" or self._request.session.auto_decompress

    # -- requests ----------------------------------------------------------------------------------

    async def _made(self, request: Request) -> aiohttp.ClientRequest:
        """Makes the request to send: the caller's own with what the layers have changed."""
        asked = self.asked
        made = copy.copy(self._request)
        made.headers = CIMultiDict(self._request.headers)
        # It goes out from a task of the pipe, too, and aiohttp's timer keeps account of one task alone.
        made._timer = TimerNoop()  # noqa: SLF001
        made.method = request.method
        if request.url != asked.url:
            made.url = made.original_url = URL(request.url, encoded=True)
        not_for_it, host = self.moved(request)
        for name in not_for_it:
            made.headers.popall(name, None)
        if host:
            made.headers["Host"] = host
        for name, value in request.headers.items():
            if name.lower() in not_for_it or asked.headers.get(name) != value:
                made.headers[name] = value
        if self.policy.asks and made.headers.get(ACCEPT_ENCODING) == made.DEFAULT_HEADERS[ACCEPT_ENCODING]:
            made.headers[ACCEPT_ENCODING] = "identity"  # proxies that compress a stream hold tokens back to do so
        if request.body is not asked.body:
            await _rewrite(made, request.body)
        return made

    # -- for the client --------------------------------------------------------------------------

    def _response(self, relay: Relay, begun: bytes, came: Came[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        if came.response is None:
            raise AssertionError("what is relayed has a first response")
        timer = getattr(self._request, "_timer", None)
        return relayed_response(came.response, relay, lambda: self._last(relay.attempt).response, timer)

    def _refusal(self, refused: aiohttp.ClientResponse, report: Report) -> aiohttp.ClientResponse:
        vars(refused)["extensions"] = {EXTENSION: report}
        return refused

    def _failure(self, failure: StreamError | UsageError, came: Came[aiohttp.ClientResponse]) -> Exception:
        if came.error is not None and not self._would_go_out_again(came.error):
            came.error.add_note(str(failure) if isinstance(failure, UsageError) else story(failure))
            return caused(came.error, failure)
        if isinstance(failure, UsageError):
            return failure
        kind = aiohttp.ServerTimeoutError if isinstance(failure, DeadlineExceeded) else aiohttp.ClientConnectionError
        return caused(kind(story(failure)), failure)

    def _would_go_out_again(self, error: Exception) -> bool:
        """A session itself sends an idempotent request once more after these: all our tries would be had twice."""
        if isinstance(error, aiohttp.ClientConnectorError) or self.asked.method not in IDEMPOTENT:
            return False
        return isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)

    async def _drop(self, response: aiohttp.ClientResponse) -> None:
        drop(response)


async def _rewrite(made: aiohttp.ClientRequest, body: Mapping[str, Any] | bytes | None) -> None:
    data = encode(body) if isinstance(body, Mapping) else body
    if data is None:
        made.headers.popall("Content-Type", None)
    await made.update_body(io.BytesIO(data) if data is not None and len(data) > _LARGE_BODY else data)


async def _explanation(response: aiohttp.ClientResponse) -> bytes:
    """Reads the beginning of a body that tells why, and leaves it to be read again."""
    body, content = bytearray(), response.content
    with contextlib.suppress(aiohttp.ClientError, OSError):  # its reader will meet that, too
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BODY and (piece := await content.readany()):
                body += piece
    pieces = [bytes(body)]

    async def again() -> bytes:
        return pieces.pop() if pieces and pieces[0] else await content.readany()

    response.content = PulledBody(again, content)
    return bytes(body[:MAX_ERROR_BODY])


@dataclass(slots=True)
class _Attempt:
    inner: ResponseStream
    head: Head

    async def receive(self) -> Sequence[bytes]:
        try:
            return await self.inner.receive()
        except StreamBroken as failure:
            cause = failure.__cause__
            if isinstance(cause, ForeignError) and cause.kind == "TimeoutError" and cause.errno is None:
                raise TimeoutError from failure  # the session's total timeout: no other attempt has more of it
            raise

    async def aclose(self) -> None:
        await self.inner.aclose()


__all__ = ["aiohttp_middleware"]
