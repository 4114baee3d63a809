"""`--journal none`: answers that go through as they come, mended and checked as ever, and are kept nowhere.

Who asks is who reads: there are no ids, nobody joins or comes back, and an answer whose reader leaves is given up.
Errors are those of a stream with a journal: a status before the first event, behind it an error event and a body
without its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from holdfast._errors import StreamError, UsageError
from holdfast._tasks import outlast
from holdfast._types import Head
from holdfast.gateway.body import Body, begun
from holdfast.gateway.journal import Entry, Shelved
from holdfast.gateway.log import Ending, Log
from holdfast.gateway.production import Answer
from holdfast.gateway.reading import HEARTBEAT, Heart
from holdfast.gateway.refusals import Refusal, Refused, error_event, refusal_of
from holdfast.gateway.surfaces import SURFACES

Rewrite = Callable[[bytes], bytes]


class Tell(Protocol):
    """Who watches: see `Watch.tell()`."""

    def __call__(self, what: str, shelved: Shelved, /, **facts: Any) -> None: ...


class Through:
    """All answers that go through one gateway."""

    def __init__(self, heart: Heart, *, patience: float, max_streams: int, tell: Tell) -> None:
        self._heart = heart
        self._max_streams = max_streams
        self._patience = patience
        self._running: dict[asyncio.Task[Any] | None, _Passage] = {}
        self._tell = tell

    @property
    def producing(self) -> int:
        """How many there are."""
        return len(self._running)

    async def serve(
        self,
        request: web.Request,
        entry: Entry,
        answer: Callable[[Shelved], Answer],
        begin: Callable[[Head], web.StreamResponse],
        rewrite: Rewrite | None,
    ) -> web.StreamResponse:
        """Asks, and sends what comes. `begin` makes the response of a head. Raises `Refused` before there is one."""
        if len(self._running) >= self._max_streams:
            raise Refused(Refusal(503, "overloaded", "as many streams run here as may", 1.0))
        shelved = Shelved(entry, Log(max_bytes=1))  # for who watches: nothing is written into it
        passage = _Passage(shelved, answer(shelved), rewrite)
        task = asyncio.current_task()
        self._running[task] = passage
        self._tell("opened", shelved)
        try:
            head, blocks = await passage.open(self._patience)
            response = begin(head)
            passage.body = await begun(request, response)
            self._heart.add(passage)
            await passage.run(blocks)
            return response
        finally:
            self._heart.discard(passage)
            del self._running[task]
            try:
                await passage.aclose()
            finally:
                shelved.log.end(passage.ending)
                self._tell("ended", shelved)

    async def drain(self, seconds: float) -> None:
        """Lets what runs come to its end; what has not by then ends with an error."""
        tasks = [task for task in self._running if task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                if task in self._running:
                    self._running[task].stopped = True
                    task.cancel()


class _Passage:
    """One answer on its way."""

    __slots__ = ("_answer", "_first", "_rewrite", "_shelved", "body", "ending", "quiet", "stopped")

    def __init__(self, shelved: Shelved, answer: Answer, rewrite: Rewrite | None) -> None:
        self._answer = answer
        self._first: asyncio.Task[tuple[Head, list[bytes]]] | None = None
        """What came first, or is waited for."""
        self._rewrite = rewrite
        self._shelved = shelved
        self.body: Body | None = None
        self.ending = Ending(kind="abandoned")
        self.quiet = 0
        self.stopped = False
        """True where this node ends."""

    async def open(self, patience: float) -> tuple[Head, list[bytes] | None]:
        """Gives the head and the first blocks, None where they take longer than any client waits for a head."""
        first = self._first = asyncio.create_task(self._opened())
        try:
            done, _ = await asyncio.wait([first], timeout=patience)
            return await first if done else (Head(), None)
        except StreamError as error:
            refusal = refusal_of(error)
            self.ending = Ending(kind="failed", error=refusal.code)
            raise Refused(refusal) from error
        except Refused as refused:
            self.ending = Ending(kind="failed", error=refused.refusal.code)
            raise
        except (LookupError, UsageError) as error:
            raise Refused(Refusal(400, "invalid_request_error", str(error))) from error

    async def _opened(self) -> tuple[Head, list[bytes]]:
        head = await self._answer.open()
        self._shelved.log.start(head)
        return head, await self._answer.blocks()

    async def run(self, blocks: list[bytes] | None) -> None:
        """Sends all that comes, to its end, whatever that is. Raises `ConnectionError` where the reader is gone."""
        try:
            await self._pass(blocks)
            self.ending = Ending(kind="complete")
        except StreamError as error:
            await self._fail(refusal_of(error))
        except Refused as error:
            await self._fail(error.refusal)
        except asyncio.CancelledError:
            if not self.stopped:
                raise  # the reader has left
            await self._fail(Refusal(503, "shutting_down", "the gateway ends, and nobody goes on with this stream"))
        except (ConnectionError, UsageError):
            raise
        except Exception as error:
            await self._fail(Refusal(500, "internal_error", f"the gateway failed: {type(error).__name__}"))
            raise

    async def _pass(self, blocks: list[bytes] | None) -> None:
        body, rewrite, more = self.body, self._rewrite, self._answer.blocks
        if body is None:
            raise AssertionError("a body is sent behind its head")
        if blocks is None and self._first is not None:
            _, blocks = await self._first
        while blocks:
            data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            if rewrite is not None:
                data = rewrite(data)
            self.quiet = 0
            if body.has_room:
                body.push(data)
            elif data:
                await body.write(data)
            blocks = await more()

    async def _fail(self, refusal: Refusal) -> None:
        """A stream that broke must not look like one that ended."""
        self.ending = Ending(kind="failed", error=refusal.code)
        told = error_event(SURFACES[self._shelved.entry.surface], refusal)
        if self.body is not None:
            with contextlib.suppress(ConnectionError):
                await self.body.write(told if self._rewrite is None else self._rewrite(told))
            self.body.cut()

    async def aclose(self) -> None:
        """Gives the answer up, or back what is left of it."""
        try:
            if self._first is not None:
                self._first.cancel()
                await outlast(self._first)
                if not self._first.cancelled():
                    self._first.exception()  # it was told, or nobody is there any more to be told
        finally:
            with contextlib.suppress(StreamError, UsageError):
                await self._answer.aclose()

    # -- what a heart knows of it ------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """Nothing is kept that could be sent later."""
        return 0

    def beat(self) -> None:
        """Nothing was sent for a while; what was ended with a whole block."""
        self.quiet = 0
        if self.body is not None and self.body.has_room:
            self.body.push(HEARTBEAT if self._rewrite is None else self._rewrite(HEARTBEAT))

    def leave(self, *, everybody: bool = False) -> None:
        """There is nothing to come back for."""
