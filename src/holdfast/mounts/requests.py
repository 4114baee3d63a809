"""Holdfast inside a `requests.Session`, as an adapter.

The pipe runs in the thread of whoever reads, or, where layers of the caller's are in it, on the background loop; what
must not block there, sending for one, does so in a thread of its own for each attempt, which ends with it. What asks
for no stream is sent in the caller's thread, as ever. What is no stream of events passes untouched.

A thread that waits for a head cannot be woken: a request that asks for a stream and has no timeout gets one that is
longer than any clock, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Unpack

import requests
from requests import exceptions as theirs
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_ACCEPT_ENCODING
from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

from holdfast._background import Pump, Worker, background
from holdfast._core import Stream
from holdfast._errors import ConnectError, DeadlineExceeded, StreamError, UsageError
from holdfast._foreground import Foreground, Pull, foreground
from holdfast._types import Head, Request
from holdfast.machines.statuses import retryable, status_error
from holdfast.moments import Report
from holdfast.mounts._attempts import Attempts, Came, Nothing, can_inflate, caused
from holdfast.mounts._failures import story
from holdfast.mounts._policy import Policy, document
from holdfast.mounts._relay import EXTENSION, Mount, Relay, Settings, mount_of
from holdfast.mounts._requests_body import PumpedResponse
from holdfast.mounts._requests_read import close, explanation, root_of, stream_of
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import CONNECT_SECONDS, cause, encode, where

_LONGEST_WAIT = 900.0
"""Seconds for a socket to say anything, where the caller allows any number: more than the clocks of all dialects."""
_FINAL = (theirs.SSLError, theirs.RetryError)
"""What no other try mends; urllib3's own tries are over when it gives up on them: they and ours would multiply."""
_RETRYABLE = (theirs.ConnectionError, theirs.Timeout, theirs.ChunkedEncodingError)

_ITS_OWN = frozenset(inspect.signature(HTTPAdapter).parameters)


class RequestsAdapter(HTTPAdapter):
    """Mends event streams in a `requests.Session`: `session.mount("https://", RequestsAdapter())`.

    An answer that breaks is retried or resumed, and reads as one whole stream; where nothing helps, reading raises
    `requests.exceptions.ChunkedEncodingError` (`ConnectionError` where a clock ran out), ours being its cause.
    Everything else is as without it, but for this: a request that may be repeated is, before a head has come, as the
    layers say. The keywords are those of all mounts; `adapter` holds those of `HTTPAdapter`.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_mount"]  # noqa: RUF012 - what is pickled, as HTTPAdapter declares it

    def __init__(self, adapter: dict[str, Any] | None = None, **settings: Unpack[Settings]) -> None:
        for name in settings:
            if name in _ITS_OWN:
                raise UsageError(f"{name}= is HTTPAdapter's: write adapter={{{name!r}: ...}}")
        self._mount = mount_of(settings)
        super().__init__(**(adapter or {}))

    def send(  # noqa: PLR0917 - HTTPAdapter's
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - it is HTTPAdapter's
        timeout: Any = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Sends a request and returns its response once the head is in. Raises what `HTTPAdapter` raises."""
        settings = {"timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        send = partial(super().send, stream=True, **settings)
        attempts = _Attempts(self._mount, request, send, self.max_retries)
        policy = attempts.policy
        if policy.repeatable and policy.asks:
            if timeout is None:
                attempts.send = partial(send, timeout=(CONNECT_SECONDS, _LONGEST_WAIT))
            return self._run(attempts.relayed())
        try:
            response = super().send(request, stream=stream, **settings)
        except _RETRYABLE as error:
            if not policy.repeatable or not self._mount.retries or _is_final(error, self.max_retries):
                raise
            attempts.lost = error
        else:
            if attempts.is_stream(response):
                attempts.at_hand = response
                return self._run(attempts.relayed())
            if not policy.repeatable or not self._mount.retries or not _may_do_better(response):
                return response
            attempts.at_hand = response
        response = self._run(attempts.tried())
        if not attempts.is_stream(response):
            return response
        attempts.at_hand = response
        return self._run(attempts.relayed())

    def _run(self, coroutine: Coroutine[Any, Any, requests.Response]) -> requests.Response:
        there = background()  # it must be there before anything can be forgotten
        return foreground().run(coroutine) if self._mount.runs_anywhere else there.call(coroutine)


class _Attempts(Attempts[requests.Response]):
    """The attempts at one request, on the background loop; what blocks of each is in a thread of its own."""

    def __init__(
        self,
        mount: Mount,
        request: requests.PreparedRequest,
        send: Callable[..., requests.Response],
        own_tries: Retry,
    ) -> None:
        self._request = request
        self.send = send
        self._own_tries = own_tries
        body: Any = request.body
        content = body.encode() if isinstance(body, str) else body
        replayable = content is None or isinstance(content, bytes)
        asked = Request(
            url=request.url or "",
            method=request.method or "GET",
            headers={name: str(value) for name, value in request.headers.items()},
            body=document(content) if replayable else None,
        )
        super().__init__(mount, asked, Policy.of(asked, mount, replayable=replayable))
        self.lost: Exception | None = None
        """What became of the first attempt, where it was made already and there was no head."""

    # -- as a source -----------------------------------------------------------------------------

    async def _attempt(
        self, request: Request, at_hand: requests.Response | None, came: Came[requests.Response]
    ) -> Stream[bytes]:
        worker = Worker()
        response = at_hand
        try:
            if response is None:
                response = await self._answer(request, worker, came)
            return await self._judged(response, request, worker, came)
        except BaseException:
            if response is not None and response is not came.refused:
                worker.submit(partial(close, response.raw))
            worker.end()
            raise

    async def _answer(self, request: Request, worker: Worker, came: Came[requests.Response]) -> requests.Response:
        lost, self.lost = self.lost, None
        try:
            if lost is not None:
                raise lost
            sending = worker.submit(partial(self.send, self._made(request)))
            waited = asyncio.wrap_future(sending)
            try:
                return await asyncio.shield(waited)
            except asyncio.CancelledError:
                waited.add_done_callback(_look_at)
                sending.add_done_callback(_drop)
                raise
        except _RETRYABLE as error:
            came.error = error
            failure = _before_head(error, request.url, final=_is_final(error, self._own_tries))
        raise failure

    async def _judged(
        self, response: requests.Response, request: Request, worker: Worker, came: Came[requests.Response]
    ) -> Stream[bytes]:
        head = _head_of(response, request.url)
        if head.status < 200:
            raise ConnectError(f"{where(request.url)}: an interim response came, which http.client takes for the last")
        if not 200 <= head.status < 300:
            tried_again = _was_tried_again(response)
            body = await explanation(response, worker)
            if not self.begun:
                came.refused = response
            failure = status_error(head, body, request.call.clock.wall())
            failure.retryable = failure.retryable and not tried_again
            raise failure
        if not self._is_ours(response):
            came.passed = response
            worker.end()
            return Nothing(head, came)
        came.response = response
        return stream_of(response, head, where(request.url), worker)

    def _kind(self, response: requests.Response) -> tuple[int, str]:
        return response.status_code, response.headers.get("Content-Type", "")

    def _can_read(self, response: requests.Response) -> bool:
        return can_inflate(response.headers.get("Content-Encoding", "identity"))

    # -- requests ----------------------------------------------------------------------------------

    def _made(self, request: Request) -> requests.PreparedRequest:
        """Makes the request to send: the caller's own with what the layers have changed."""
        asked, made = self.asked, self._request.copy()
        made.method = request.method
        if request.url != asked.url:
            made.url = request.url
        not_for_it, host = self.moved(request)
        for name in not_for_it:
            made.headers.pop(name, None)
        if host:
            made.headers["Host"] = host
        for name, value in request.headers.items():
            if name.lower() in not_for_it or asked.headers.get(name) != value:
                made.headers[name] = value
        if self.policy.asks and made.headers.get("Accept-Encoding") == DEFAULT_ACCEPT_ENCODING:
            made.headers["Accept-Encoding"] = "identity"  # proxies that compress a stream hold tokens back to do so
        if request.body is not asked.body:
            body = request.body
            made.body = encode(body) if body is not None and not isinstance(body, bytes) else body
            for name in (
                ("Content-Length", "Transfer-Encoding") if body is not None else ("Content-Length", "Content-Type")
            ):
                made.headers.pop(name, None)
            if made.body is not None:
                made.headers["Content-Length"] = str(len(made.body))
        return made

    # -- for the client --------------------------------------------------------------------------

    def _response(self, relay: Relay, begun: bytes, came: Came[requests.Response]) -> requests.Response:
        response, came.response = came.response, None  # else what is read would hold its reader
        if response is None:
            raise AssertionError("what is relayed has a first response")

        pump = _reading(relay)
        for name in ("Content-Length", "Content-Encoding"):  # with a seam in it a body may be longer; it is inflated
            response.headers.pop(name, None)
        response.raw = PumpedResponse(response.raw, pump, response.headers)
        vars(response)["extensions"] = {EXTENSION: relay.reader.report}
        return response

    def _refusal(self, refused: requests.Response, report: Report) -> requests.Response:
        vars(refused)["extensions"] = {EXTENSION: report}
        return refused

    def _failure(self, failure: StreamError | UsageError, came: Came[requests.Response]) -> Exception:
        if came.error is not None:
            came.error.add_note(str(failure) if isinstance(failure, UsageError) else story(failure))
            return caused(came.error, failure)
        if isinstance(failure, UsageError):
            return failure
        kind = theirs.ReadTimeout if isinstance(failure, DeadlineExceeded) else theirs.ConnectionError
        return caused(kind(story(failure), request=self._request), failure)

    async def _drop(self, response: requests.Response) -> None:
        close(response.raw)


def _reading(relay: Relay) -> Pump[bytes] | Pull[bytes]:
    loop = asyncio.get_running_loop()
    if isinstance(loop, Foreground):
        return Pull(loop, relay.receive, relay.aclose)

    async def read() -> bytes | None:
        return await relay.receive() or None

    pump: Pump[bytes] = Pump(background(), read, relay.aclose)
    pump.start()
    return pump


def _head_of(response: requests.Response, url: str) -> Head:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Head(
        status=response.status_code, headers=headers, url=url, encoding=headers.get("content-encoding", "identity")
    )


def _may_do_better(response: requests.Response) -> bool:
    return retryable(_head_of(response, "")) and not _was_tried_again(response)


def _was_tried_again(response: requests.Response) -> bool:
    """Says whether urllib3 has had its own tries, of which this is the last."""
    return bool(getattr(getattr(response.raw, "retries", None), "history", ()))


def _is_final(error: Exception, own_tries: Retry) -> bool:
    if isinstance(error, _FINAL):
        return True
    gave_up = any(isinstance(one, MaxRetryError) for one in error.args)  # it does so without a try of its own, too
    return gave_up and (own_tries.total is None or own_tries.total > 0)


def _before_head(error: Exception, url: str, *, final: bool) -> ConnectError:
    words = "took too long" if isinstance(error, theirs.Timeout) else "the connection was refused, failed, or was lost"
    root = root_of(error)
    failure = ConnectError(f"{where(url)}: {words}{cause(root, url)}", retryable=not final)
    failure.__cause__ = ForeignError(root)
    return failure


def _look_at(waited: asyncio.Future[Any]) -> None:
    if not waited.cancelled():
        waited.exception()  # else asyncio complains that nobody asked for it


def _drop(sending: Future[requests.Response]) -> None:
    """Closes a response that came when nobody waited for it any more."""
    if not sending.cancelled() and sending.exception() is None:
        close(sending.result().raw)


__all__ = ["RequestsAdapter"]
