"""The one line to Redis over which a node says everything, in order: what piles up meanwhile goes out together.

It must lose nothing while Redis is silent: what was said is said again until there is an answer, so it must be such as
may be said twice. Who cannot wait is told after a quarter of a second that Redis is silent, and decides for himself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from holdfast._errors import MissingExtra
from holdfast.gateway.journal import Pulse

SILENT = 0.25
"""Seconds without an answer after which Redis counts as silent."""
_LATE = 0.1
"""Seconds: a timer that comes later than this says that we were frozen ourselves, and nothing of Redis."""
_ANSWER = 2.0
"""Seconds after which a connection is given up and another one made: the other end may be gone without a word."""
_MOST = 512
"""Commands that go out together."""
_MOST_BYTES = 1024 * 1024
"""What goes out together: all of it must be there, and answered, before a connection is given up."""
_PAUSES = (0.05, 0.1, 0.25, 0.5)
"""Seconds between tries to reach a Redis that is gone."""

_PASSING = ("ReadOnlyError", "BusyLoadingError", "MasterDownError")
"""What a Redis answers that will answer otherwise in a moment: it is as good as silent."""
_PASSING_WORDS = re.compile(r"(?:^|[ -])(?:READONLY|NOREPLICAS|BUSY|LOADING|MASTERDOWN) ")
"""The same in its own words: the library has no name for some, and before Redis 7 a script's error has them inside."""

Arg = str | bytes | int


class Said:
    """One command on its way. `then` gets its answer, or the error that Redis answered; `quiet` hears of silence."""

    __slots__ = ("args", "at", "quiet", "script", "size", "then", "withdrawn")

    def __init__(
        self, script: str, args: tuple[Arg, ...], then: Callable[[Any], None], quiet: Callable[[], None] | None
    ) -> None:
        self.script = script
        self.args = args
        self.then = then
        self.quiet = quiet
        self.at = 0.0
        """When it went out, the last time."""
        self.size = sum(len(one) for one in args if isinstance(one, bytes))
        self.withdrawn = False
        """True for one that need not go out any more."""


class Line:
    """`say()` puts a script into the queue, `ask()` waits for its answer."""

    def __init__(self, url: str, scripts: Sequence[str]) -> None:
        self._client = connect(url, socket_timeout=None)
        self._connection: Any = None
        self._heads = {script: _head_of(script) for script in scripts}
        self._queue: deque[Said] = deque()
        self._sent: list[Said] = []
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.pulse = Pulse()
        self.silent = False
        """True while Redis does not answer."""
        self.silent_since = 0.0
        self.back_at = float("-inf")
        """When it answered again after a silence, or first."""
        self.waiting = 0
        """Bytes that have no answer yet."""

    @property
    def hopeless(self) -> bool:
        """True where Redis has been silent for so long that it is not worth asking: nothing piles up then."""
        return self.silent and asyncio.get_running_loop().time() - self.silent_since > _ANSWER

    async def start(self) -> None:
        """Connects. Raises what the library does where Redis cannot be had."""
        async with asyncio.timeout(_ANSWER):
            self._connection = await self._connect()
        self.back_at = asyncio.get_running_loop().time()  # nobody knows what was before
        self._task = asyncio.create_task(self._run(), name="holdfast-journal")

    def say(
        self, script: str, *args: Arg, then: Callable[[Any], None], quiet: Callable[[], None] | None = None
    ) -> Said:
        """Sends a script with its arguments, behind all that was said before."""
        said = Said(script, args, then, quiet)
        self._queue.append(said)
        self.waiting += said.size
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
        return said

    async def ask(self, script: str, *args: Arg, seconds: float = _ANSWER) -> Any:
        """Gives a script's answer. Raises `TimeoutError` where there is none in time, and what Redis answers."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def then(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        said = self.say(script, *args, then=then)
        try:
            async with asyncio.timeout(seconds):
                result = await answer
        except (TimeoutError, asyncio.CancelledError):
            said.withdrawn = True
            if not said.at:  # it need not be held any longer
                self.waiting -= said.size
                said.args, said.size = (), 0
            raise
        if isinstance(result, Exception):
            raise result
        return result

    async def aclose(self, seconds: float = _ANSWER) -> None:
        """Says what is left, for a few seconds, and hangs up."""
        if self._task is not None:
            end = asyncio.get_running_loop().time() + seconds
            while (self._queue or self._sent) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - once a life
                await asyncio.sleep(0.01)
            await stop(self._task)
        if self._timer is not None:
            self._timer.cancel()
        await self._hang_up()
        with suppress(Exception):  # it may be gone in any way
            await self._client.aclose()
            await self._client.connection_pool.disconnect(inuse_connections=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                self._wake = loop.create_future()
                await self._wake
            self._sent = self._next()
            results = await self._answers()
            sent, self._sent = self._sent, []
            for said, result in zip(sent, results, strict=True):
                self.waiting -= said.size
                try:
                    said.then(result)
                except Exception as error:  # noqa: BLE001 - one that cannot bear its answer must not end the line
                    told = {"message": "an answer of the journal was not borne", "exception": error}
                    loop.call_exception_handler(told)

    def _next(self) -> list[Said]:
        """Takes what goes out together off the queue: one at the least, however much it is."""
        sent, size = list[Said](), 0
        while self._queue and len(sent) < _MOST and (not sent or size + self._queue[0].size <= _MOST_BYTES):
            said = self._queue.popleft()
            size += said.size
            sent.append(said)
        return sent

    async def _answers(self) -> list[Any]:
        """Gives the answers to what was sent, however long it takes."""
        loop, tries = asyncio.get_running_loop(), 0
        began = loop.time()
        self._watch()
        try:
            while True:
                try:
                    results = await self._exchange(loop.time())
                except Exception:  # noqa: BLE001 - Redis is gone, in whichever way: it is told again
                    await self._hang_up()
                    if tries:
                        self._fall_silent()
                    await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                    tries += 1
                else:
                    self.pulse.exchanges += 1
                    self.pulse.seconds += loop.time() - began
                    if self.silent:
                        self.silent, self.back_at = False, loop.time()
                    return results
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _exchange(self, now: float) -> list[Any]:
        """Says what is to be sent, in one write, and gives the answers."""
        async with asyncio.timeout(_ANSWER):
            if self._connection is None:
                self._connection = await self._connect()
            results: list[Any] = [None] * len(self._sent)
            left = [place for place, said in enumerate(self._sent) if not said.withdrawn]
            for _ in range(2):
                packed = []
                for place in left:
                    said = self._sent[place]
                    said.at = now
                    packed.append(_packed(self._heads[said.script], said.args))
                await self._connection.send_packed_command(packed, check_health=False)
                for place in left:
                    results[place] = await self._answer()
                left = [place for place in left if type(results[place]).__name__ == "NoScriptError"]
                if not left:
                    break
                await self._learn(self._connection)
        return results

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except _library().ResponseError as error:
            if type(error).__name__ in _PASSING or _PASSING_WORDS.search(str(error)):
                raise
            return error

    async def _connect(self) -> Any:
        # Not by way of its commands, whose packing and parsing cost more than all the rest of an append.
        connection = await self._client.connection_pool.get_connection()
        try:
            await self._learn(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
            raise
        return connection

    async def _learn(self, connection: Any) -> None:
        for script in self._heads:
            await connection.send_command("SCRIPT", "LOAD", script)
            await connection.read_response(disable_decoding=True)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be gone in any way
                await connection.disconnect(nowait=True)
                await self._client.connection_pool.release(connection)

    # -- silence ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + SILENT, self._look, loop.time() + SILENT)

    def _look(self, due: float) -> None:
        if asyncio.get_running_loop().time() - due > _LATE:
            self._watch()  # it was we who were frozen: the answer may lie there already
        else:
            self._fall_silent()

    def _fall_silent(self) -> None:
        if not self.silent:
            self.silent, self.silent_since = True, asyncio.get_running_loop().time()
            self.pulse.silences += 1
        for said in (*self._sent, *self._queue):
            quiet, said.quiet = said.quiet, None
            if quiet is not None:
                quiet()


async def stop(task: asyncio.Task[None]) -> None:
    """Cancels a task until it is done: a library beneath it may take one cancellation for something else."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


def _head_of(script: str) -> bytes:
    return b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n" % (
        hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()
    )


def _packed(head: bytes, args: Sequence[Arg]) -> bytes:
    """Gives a script's call as Redis reads it: https://redis.io/docs/latest/develop/reference/protocol-spec/."""
    parts = [b"*%d\r\n%b" % (len(args) + 3, head)]
    for arg in args:
        data = arg if type(arg) is bytes else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def connect(url: str, *, socket_timeout: float | None) -> Any:
    """Makes a client with one connection that leaves trying again to us."""
    library = _library()
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - an extra
    from redis.backoff import NoBackoff  # noqa: PLC0415 - an extra

    return library.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=socket_timeout,
        socket_connect_timeout=_ANSWER,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=False,
        max_connections=4,
    )


def _library() -> Any:
    try:
        from redis import asyncio as library  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtra("the journal in Redis", "redis") from error
    return library
