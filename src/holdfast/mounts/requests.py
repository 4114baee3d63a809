"""Holdfast inside a `requests.Session`, as an adapter.

The pipe runs on the background loop; what blocks there, sending and reading, does so in a thread of its own for each
attempt, which ends with it. What asks for no stream is sent in the caller's thread, as ever. What is no stream of
events passes untouched.

A thread that waits for a head cannot be woken: a request that asks for a stream and has no timeout gets one that is
longer than any clock, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar, Unpack

import requests
from requests import exceptions as theirs
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_ACCEPT_ENCODING
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from holdfast._background import Pump, Worker, background
from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    MissingExtra,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._types import Head, Request
from holdfast.machines.inflate import inflater
from holdfast.machines.statuses import retryable, status_error
from holdfast.moments import Report
from holdfast.mounts._failures import story
from holdfast.mounts._policy import IDEMPOTENT, Policy, document, is_stream
from holdfast.mounts._relay import EXTENSION, Mount, Settings
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import CONNECT_SECONDS, ERROR_BODY_SECONDS, MAX_ERROR_BODY, Unpacking, cause, encode, where

_LONGEST_WAIT = 900.0
"""Seconds for a socket to say anything, where the caller allows any number: more than the clocks of all dialects."""
_PIECE = 64 * 1024  # bytes of one read
_AHEAD = 16  # pieces read that nobody has asked for yet
_CLOSING_SECONDS = 1.0
"""How long closing waits for a thread to let go."""
_FINAL = (theirs.SSLError, theirs.RetryError)
"""What no other try mends; urllib3's own tries are over when it gives up on them."""
_open: set[Pump[bytes]] = set()
"""The answers that are being read: held here, so that a response which nobody closed is collected before its answer."""
_RETRYABLE = (theirs.ConnectionError, theirs.Timeout, theirs.ChunkedEncodingError)


class RequestsAdapter(HTTPAdapter):
    """Mends event streams in a `requests.Session`: `session.mount("https://", RequestsAdapter())`.

    An answer that breaks is retried or resumed, and reads as one whole stream; where nothing helps, reading raises
    `requests.exceptions.ChunkedEncodingError` (`ConnectionError` where a clock ran out), ours being its cause.
    Everything else is as without it, but for this: a request that may be repeated is, before a head has come, as the
    layers say. The keywords are those of all mounts; `adapter` holds those of `HTTPAdapter`.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_mount"]  # noqa: RUF012 - what is pickled, as HTTPAdapter declares it

    def __init__(self, adapter: dict[str, Any] | None = None, **settings: Unpack[Settings]) -> None:
        self._mount = Mount(**settings)
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
        attempts = _Attempts(self._mount, request, send)
        policy = attempts.policy
        if policy.repeatable and policy.asks:
            if timeout is None:
                attempts.send = partial(send, timeout=(CONNECT_SECONDS, _LONGEST_WAIT))
            return background().call(_relayed(self._mount, attempts))
        try:
            response = super().send(request, stream=stream, **settings)
        except _RETRYABLE as error:
            if not policy.repeatable or not self._mount.retries or isinstance(error, _FINAL):
                raise
            attempts.at_hand = error
        else:
            if attempts.is_stream(response):
                attempts.at_hand = response
                return background().call(_relayed(self._mount, attempts))
            if not policy.repeatable or not self._mount.retries or not retryable(_head_of(response, "")):
                return response
            attempts.at_hand = response
        response = background().call(_tried(self._mount, attempts))
        if not attempts.is_stream(response):
            return response
        attempts.at_hand = response
        return background().call(_relayed(self._mount, attempts))


async def _tried(mount: Mount, attempts: _Attempts) -> requests.Response:
    """Sends what asks for no stream, with the tries that the policy has for it; the first of them was made."""
    source: Source[bytes] = attempts
    for layer in mount.retries:
        source = layer(source)
    call = Call(clock=mount.clock, random=mount.random, max_requests=mount.max_requests)
    try:
        await source.open(replace(attempts.asked, call=call))
    except (StreamError, UsageError) as failure:
        return attempts.instead(failure, call.report)
    except BaseException:
        attempts.drop()
        raise
    return attempts.given_away()


async def _relayed(mount: Mount, attempts: _Attempts) -> requests.Response:
    """Opens the pipe, and gives what the caller shall read."""
    relay = mount.relay(attempts, attempts.asked)
    try:
        await relay.open()
    except (StreamError, UsageError) as failure:
        return attempts.instead(failure, relay.reader.report)
    except BaseException:
        attempts.drop()
        raise
    response, attempts.first = attempts.first, None  # else what is read would hold its reader
    if response is None:
        try:
            await relay.aclose()
        except BaseException:
            attempts.drop()
            raise
        return attempts.given_away()

    async def read() -> bytes | None:
        return await relay.receive() or None

    pump: Pump[bytes] = Pump(background(), read, relay.aclose)
    for name in ("Content-Length", "Content-Encoding"):  # with a seam in it a body may be longer; it is inflated
        response.headers.pop(name, None)
    response.raw = _Raw(response.raw, pump, response.headers)
    vars(response)["extensions"] = {EXTENSION: relay.reader.report}
    pump.start()
    return response


class _Attempts:
    """What one request of the caller's becomes: as many as it takes. A `Source[bytes]`, on the background loop."""

    __slots__ = ("_request", "asked", "at_hand", "begun", "error", "first", "passed", "policy", "refused", "send")
    gives: ClassVar[type] = bytes

    def __init__(self, mount: Mount, request: requests.PreparedRequest, send: Callable[..., requests.Response]) -> None:
        self._request = request
        self.send = send
        body: Any = request.body
        content = body.encode() if isinstance(body, str) else body
        replayable = content is None or isinstance(content, bytes)
        self.asked = Request(
            url=request.url or "",
            method=request.method or "GET",
            headers={name: str(value) for name, value in request.headers.items()},
            body=document(content) if replayable else None,
        )
        self.policy = Policy.of(self.asked, mount, replayable=replayable)
        self.at_hand: requests.Response | Exception | None = None
        """What has come already of the first attempt."""
        self.begun = False
        """The pipe has had a stream: from now on it judges all that comes."""
        self.first: requests.Response | None = None
        """The response of that stream."""
        self.passed: requests.Response | None = None
        """A response that is none of ours."""
        self.refused: requests.Response | None = None
        self.error: Exception | None = None
        """What requests raised at the last attempt."""

    # -- as a source -----------------------------------------------------------------------------

    async def open(self, request: Request) -> Stream[bytes]:
        """Sends, or takes what is there already. A response that is none of ours is left in `passed`."""
        at_hand, self.at_hand = self.at_hand, None
        ours = self.begun or (at_hand is not None and self._is_ours_already(at_hand))
        if at_hand is None:
            self._refuse(request)
            self.drop()
        worker = Worker()
        response = None
        try:
            response = await self._response(at_hand, request, worker)
            return await self._judged(response, request, worker, ours=ours)
        except BaseException:
            if response is not None and response is not self.refused:
                worker.submit(partial(_close, response.raw))
            worker.end()
            raise

    def _is_ours_already(self, at_hand: requests.Response | Exception) -> bool:
        return isinstance(at_hand, requests.Response) and self.is_stream(at_hand)

    def _refuse(self, request: Request) -> None:
        """What must not happen twice is sent once: a later request has to be another, or one that does no harm."""
        if not self.begun or self.policy.repeatable:
            return
        if request.method not in IDEMPOTENT or request.body is not None:
            raise BudgetExhausted(f"this {request.method} was sent, and nothing says that it may be sent again")

    async def _response(
        self, at_hand: requests.Response | Exception | None, request: Request, worker: Worker
    ) -> requests.Response:
        if isinstance(at_hand, requests.Response):
            return at_hand
        self.error = None
        try:
            if at_hand is not None:
                raise at_hand
            sending = worker.submit(partial(self.send, self._made(request)))
            waited = asyncio.wrap_future(sending)
            try:
                return await asyncio.shield(waited)
            except asyncio.CancelledError:
                waited.add_done_callback(_look_at)
                sending.add_done_callback(_drop)
                raise
        except _RETRYABLE as error:
            self.error = error
            failure = _before_head(error, request.url)
        raise failure

    async def _judged(
        self, response: requests.Response, request: Request, worker: Worker, *, ours: bool
    ) -> Stream[bytes]:
        head = _head_of(response, request.url)
        if head.status < 200:
            raise ConnectError(f"{where(request.url)}: an interim response came, which http.client takes for the last")
        if not 200 <= head.status < 300:
            body = await _explanation(response, worker)
            if not ours:
                self.refused = response
            raise status_error(head, body, request.call.clock.wall())
        if not ours and not (self.policy.takes(head.content_type) and _can_inflate(head)):
            self.passed = response
            worker.end()
            return _Nothing(head)
        if not self.begun:
            self.begun, self.first = True, response
        return _Attempt(response.raw, head, where(request.url), worker)

    def is_stream(self, response: requests.Response) -> bool:
        """Says whether a response is an event stream that can be read here."""
        head = _head_of(response, self.asked.url)
        return is_stream(self.asked.method, head.status, head.content_type) and _can_inflate(head)

    # -- requests ----------------------------------------------------------------------------------

    def _made(self, request: Request) -> requests.PreparedRequest:
        """Makes the request to send: the caller's own with what the layers have changed."""
        asked, made = self.asked, self._request.copy()
        made.method = request.method
        if request.url != asked.url:
            made.url = request.url
        for name, value in request.headers.items():
            if asked.headers.get(name) != value:
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

    # -- what is not relayed -----------------------------------------------------------------------

    def given_away(self) -> requests.Response:
        """Gives the response that is none of ours."""
        response, self.passed = self.passed, None
        if response is None:
            raise AssertionError("what is no stream is passed on")
        return response

    def instead(self, failure: StreamError | UsageError, report: Report) -> requests.Response:
        """Gives the response that refused, or raises what the users of requests catch."""
        refused, self.refused = self.refused, None
        if refused is not None and isinstance(failure, StatusError):
            vars(refused)["extensions"] = {EXTENSION: report}
            return refused
        if refused is not None:
            _close(refused.raw)
        if self.error is not None:
            self.error.add_note(str(failure) if isinstance(failure, UsageError) else story(failure))
            raise self.error from failure
        if isinstance(failure, UsageError):
            raise failure
        kind = theirs.ReadTimeout if isinstance(failure, DeadlineExceeded) else theirs.ConnectionError
        raise kind(story(failure), request=self._request) from failure

    def drop(self) -> None:
        """Closes what nobody was given."""
        for response in (self.refused, self.passed, self.at_hand):
            if isinstance(response, requests.Response):
                _close(response.raw)
        self.refused = self.passed = self.at_hand = None


def _head_of(response: requests.Response, url: str) -> Head:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Head(
        status=response.status_code, headers=headers, url=url, encoding=headers.get("content-encoding", "identity")
    )


def _can_inflate(head: Head) -> bool:
    try:
        inflater(head.encoding)
    except (DecodeError, MissingExtra):
        return False
    return True


def _before_head(error: Exception, url: str) -> ConnectError:
    words = "took too long" if isinstance(error, theirs.Timeout) else "the connection was refused, failed, or was lost"
    root = _root(error)
    failure = ConnectError(f"{where(url)}: {words}{cause(root, url)}", retryable=not isinstance(error, _FINAL))
    failure.__cause__ = ForeignError(root)
    return failure


def _root(error: BaseException) -> BaseException:
    """Gives what an error was made of: requests and urllib3 hand the one before on as an argument."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or next(
            (arg for arg in error.args if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _close(raw: Any) -> None:
    with contextlib.suppress(Exception):
        raw.close()
        raw.release_conn()


def _hang_up(raw: Any) -> None:
    """Wakes the thread that waits for the network: closing a socket would not."""
    with contextlib.suppress(ValueError, RuntimeError, OSError, AttributeError):
        raw.shutdown()


def _look_at(waited: asyncio.Future[Any]) -> None:
    if not waited.cancelled():
        waited.exception()  # else asyncio complains that nobody asked for it


def _drop(sending: Future[requests.Response]) -> None:
    """Closes a response that came when nobody waited for it any more."""
    if not sending.cancelled() and sending.exception() is None:
        _close(sending.result().raw)


async def _explanation(response: requests.Response, worker: Worker) -> bytes:
    """Reads the beginning of a body that tells why, and leaves it to be read again."""
    raw, begun = response.raw, bytearray()

    def read() -> None:
        with contextlib.suppress(HTTPError, OSError):  # its reader will meet that, too
            while len(begun) < MAX_ERROR_BODY and (piece := raw.read(_PIECE, decode_content=False)):
                begun.extend(piece)

    reading = asyncio.wrap_future(worker.submit(read))
    try:
        done, _ = await asyncio.wait([reading], timeout=ERROR_BODY_SECONDS)
    except BaseException:
        _hang_up(raw)
        raise
    if not done:
        _hang_up(raw)
        await reading
    worker.end()
    response.raw = HTTPResponse(
        body=_Again(bytes(begun), raw),
        headers=raw.headers,
        status=raw.status,
        reason=raw.reason,
        version=raw.version,
        preload_content=False,
        original_response=getattr(raw, "_original_response", None),
    )
    with contextlib.suppress(StreamError, MissingExtra):
        machine = inflater(response.headers.get("content-encoding", "identity"))
        return bytes(begun if machine is None else machine.feed(bytes(begun)))[:MAX_ERROR_BODY]
    return b""


class _Again(io.RawIOBase):
    """A body whose beginning was read, from its beginning."""

    def __init__(self, begun: bytes, raw: Any) -> None:
        self._begun = begun
        self._raw = raw
        self._over = False

    def isclosed(self) -> bool:
        """Says what http.client's bodies say at their end: urllib3 reads until then."""
        return self._over

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if self._begun:
            cut = len(self._begun) if size < 0 else size
            data, self._begun = self._begun[:cut], self._begun[cut:]
            return data if size >= 0 else data + self.read()
        data = self._raw.read(None if size < 0 else size, decode_content=False)
        self._over = size < 0 or not data
        return bytes(data or b"")

    def close(self) -> None:
        _close(self._raw)
        super().close()


class _Nothing:
    """Stands for a response that is none of ours."""

    def __init__(self, head: Head) -> None:
        self.head = head

    async def receive(self) -> Sequence[bytes]:
        raise EndOfStream

    async def aclose(self) -> None:
        pass


class _Attempt:
    """One response, read ahead in a thread by a bounded number of pieces."""

    __slots__ = (
        "_closed",
        "_end",
        "_loop",
        "_over",
        "_pieces",
        "_raw",
        "_reading",
        "_room",
        "_told",
        "_unpacking",
        "_waiter",
        "_where",
        "_worker",
        "head",
    )

    def __init__(self, raw: Any, head: Head, where: str, worker: Worker) -> None:
        self.head = head
        self._raw = raw
        self._where = where
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        machine = inflater(head.encoding)
        self._unpacking = Unpacking(machine) if machine is not None else None
        self._pieces: deque[bytes] = deque()
        self._over: Exception | None = None
        """What follows the pieces."""
        self._room: SimpleQueue[None] = SimpleQueue()
        """One for each piece that may be read ahead."""
        for _ in range(_AHEAD):
            self._room.put(None)
        self._told = False
        self._waiter: asyncio.Future[None] | None = None
        self._end: Exception | None = None
        self._reading = self._closed = False
        worker.submit(self._read_on)

    # -- what the thread does --------------------------------------------------------------------

    def _read_on(self) -> None:
        over: Exception = EndOfStream()
        try:
            read = getattr(self._raw, "read1", None) or self._raw.read
            while True:
                self._room.get()
                if self._closed or not (piece := read(_PIECE, decode_content=False)):
                    break
                self._pieces.append(piece)
                self._tell()
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to: the reader is told
            root = _root(error)
            over = StreamBroken(f"{self._where}: the connection was lost, or the body's framing broken{cause(root)}")
            over.__cause__ = ForeignError(root)
        self._over = over
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, with the interpreter
                self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._told = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the reader does --------------------------------------------------------------------

    async def receive(self) -> Sequence[bytes]:
        if self._end is not None:
            raise self._end
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            data = await (self._take() if self._unpacking is None else self._unpacking.next(self._take))
        except (StreamError, UsageError) as failure:
            self._end = failure
            raise
        finally:
            self._reading = False
        if data:
            return (data,)
        self._end = EndOfStream()
        raise self._end

    async def _take(self) -> bytes:
        """Gives what has come, nothing at the clean end."""
        while not self._pieces:
            if self._closed:
                raise UsageError("this stream was closed")
            over = self._over
            if over is not None and not self._pieces:  # it may have been appended in between
                if isinstance(over, EndOfStream):
                    return b""
                raise over
            if not self._pieces:
                self._waiter = self._loop.create_future()
                try:
                    if not self._pieces and self._over is None:
                        await self._waiter
                finally:
                    self._waiter = None
        taken = [self._pieces.popleft() for _ in range(len(self._pieces))]
        for _ in taken:
            self._room.put(None)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._end is None and not self._reading:
            self._end = UsageError("this stream was closed")
        if self._over is None:
            _hang_up(self._raw)
            self._room.put(None)
        closing = asyncio.wrap_future(self._worker.submit(partial(_close, self._raw)))
        self._worker.end()
        await asyncio.wait([closing], timeout=_CLOSING_SECONDS)


class _Raw(BaseHTTPResponse):
    """The body that the caller reads, as urllib3 would give it."""

    def __init__(self, raw: Any, pump: Pump[bytes], headers: Any) -> None:
        super().__init__(
            headers=dict(headers),
            status=raw.status,
            version=getattr(raw, "version", 11),
            version_string=getattr(raw, "version_string", "HTTP/1.1"),
            reason=raw.reason,
            decode_content=True,
            request_url=getattr(raw, "_request_url", None),
        )
        self._original_response = getattr(raw, "_original_response", None)  # where sessions look for cookies
        self._pump = pump
        _open.add(pump)
        self._buffer = bytearray()
        self._over = False
        self._shut = False

    def _end(self) -> None:
        self._pump.close()
        _open.discard(self._pump)

    def _more(self) -> bool:
        """Waits for more; says whether there was any."""
        if self._over:
            return False
        if self._shut:
            raise theirs.ConnectionError("the response was closed before its end")
        lost: Exception
        try:
            piece = self._pump.next()
        except StreamError as failure:
            kind = theirs.ConnectionError if isinstance(failure, DeadlineExceeded) else theirs.ChunkedEncodingError
            lost = kind(story(failure))
            lost.__cause__ = failure
        except UsageError:
            lost = theirs.ConnectionError("the response was closed before its end")
        else:
            if piece is not None:
                self._buffer += piece
                return True
            self._over = True
            self._end()
            return False
        self._end()
        raise lost

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:  # noqa: FBT001, FBT002 - urllib3's
        """Reads so many bytes, and fewer only at the end."""
        while (amt is None or amt < 0 or len(self._buffer) < amt) and self._more():
            pass
        return self._cut(len(self._buffer) if amt is None or amt < 0 else amt)

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: FBT001 - urllib3's
        """Reads what is there, and waits only where nothing is."""
        if amt == 0 or (not self._buffer and not self._more()):
            return b""
        return self._cut(len(self._buffer) if amt is None or amt < 0 else amt)

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: FBT001
        """Yields what comes, each piece at once."""
        while data := self.read1(amt):
            yield data

    read_chunked = stream

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads a line."""
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0 and (size is None or size < 0 or len(self._buffer) < size):
            looked = len(self._buffer)
            if not self._more():
                end = looked - 1
                break
        length = end + 1 if end >= 0 or self._over else len(self._buffer)
        return self._cut(length if size is None or size < 0 else min(size, length))

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.read()

    @property
    def url(self) -> str | None:
        """The path that was asked for."""
        return self._request_url

    @url.setter
    def url(self, url: str | None) -> None:
        self._request_url = url

    @property
    def connection(self) -> None:
        """There may be several, one after another."""
        return

    @property
    def closed(self) -> bool:
        """True where there is nothing left to read."""
        return self._shut or (self._over and not self._buffer)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Gives the connection back, or ends it where the body is not over."""
        self._shut = True
        self._end()

    release_conn = drain_conn = shutdown = close

    def __del__(self) -> None:
        if hasattr(self, "_pump"):
            self._pump.abandon()
            _open.discard(self._pump)


__all__ = ["RequestsAdapter"]
