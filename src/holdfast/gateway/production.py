"""A production: the one task that reads an answer from upstream and writes it down, whoever reads it or does not.

Nothing is shown to a reader that is not written. A failure becomes an error event in the words of the client's
dialect, the last record there is; one before the first record is the caller's to answer with a status, and the stream
is forgotten. A production whose lease is gone stops, and writes and asks nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from holdfast._errors import StreamError, UsageError
from holdfast._tasks import outlast
from holdfast._types import Head
from holdfast.gateway.journal import JournalError, LeaseLost, Shelved, Writer
from holdfast.gateway.log import Ending, EndKind
from holdfast.gateway.records import record
from holdfast.gateway.refusals import Refusal, Refused, error_event, refusal_of
from holdfast.gateway.surfaces import SURFACES

BOM = b"\xef\xbb\xbf"


class Answer(Protocol):
    """What is read: `mounts` has it as `Relay`."""

    async def open(self) -> Head:
        """Sends the request and returns its head. Raises a `StreamError`."""

    async def blocks(self) -> list[bytes]:
        """Returns what is ready, block by block, empty at the proven end. Raises a `StreamError`."""

    async def aclose(self) -> None:
        """Gives the connection back, or gives the answer up."""


class Production:
    """Writes one stream, from where its log ends. `answer` is not opened yet; `patience` is how long a client waits."""

    def __init__(self, writer: Writer, answer: Answer, *, patience: float) -> None:
        self.shelved: Shelved = writer.shelved
        self.refusal: Refusal | None = None
        """Why there is no stream at all, once that is known."""
        self._writer = writer
        self._answer = answer
        self._patience = patience
        self._number = self.shelved.log.last
        self._reason: EndKind | None = None
        self._ending = False
        """True once its last words are on their way, or it was told to say them."""
        self._handing_over = False
        self._running = False
        self._task = asyncio.create_task(self._run(), name=f"holdfast-production-{self.shelved.entry.stream[:8]}")
        self.begun = asyncio.Event()
        """Set once there is a head, or it is known that there will be none."""
        if self.shelved.log.head is not None:
            self.begun.set()

    @property
    def done(self) -> bool:
        """True once it writes nothing more."""
        return self._task.done()

    def then(self, call: Callable[[], None]) -> None:
        """Calls back once it writes nothing more."""
        self._task.add_done_callback(lambda _: call())

    async def stop(self, reason: EndKind) -> None:
        """Gives the answer up, upstream too; readers are told why. Returns when that is done."""
        self._reason = self._reason or reason
        self._interrupt()
        await asyncio.wait([self._task])

    async def hand_over(self) -> None:
        """Stops in the middle: another node goes on from the last record, and readers find it there."""
        self._handing_over = not self._ending
        self._interrupt()
        await asyncio.wait([self._task])

    def _interrupt(self) -> None:
        """Stops it once: whoever else comes must not cut off its last words, without which a stream has no end."""
        if not self._ending:
            self._ending = True
            if self._running:  # else it would never run, nor say anything: it sees by itself that it is to end
                self._task.cancel()

    async def wait(self) -> None:
        """Returns when nothing more is written."""
        await asyncio.wait([self._task])

    async def read_elsewhere(self) -> bool:
        """Says whether somebody reads it on another node."""
        return await self._writer.read_elsewhere()

    async def _run(self) -> None:
        self._running = True
        try:
            if self._ending:
                raise asyncio.CancelledError
            await self._produce()
        except LeaseLost:
            pass  # its records come from whoever has it now
        except StreamError as error:
            await self._fail(refusal_of(error))
        except JournalError as error:
            await self._fail(Refusal(503, "journal_unavailable", str(error)))
        except Refused as error:
            await self._fail(error.refusal)
        except (LookupError, UsageError) as error:
            await self._fail(Refusal(400, "invalid_request_error", str(error)))
        except asyncio.CancelledError:
            await self._stopped()
        except Exception as error:
            # A mistake of ours: whoever reads must not wait for ever, and whoever runs this must hear of it.
            await self._fail(Refusal(500, "internal_error", f"the gateway failed: {type(error).__name__}"))
            raise
        finally:
            self.begun.set()
            with contextlib.suppress(StreamError, UsageError, LeaseLost):
                await self._answer.aclose()

    async def _produce(self) -> None:
        answer, writer = self._answer, self._writer
        # Until there is something to show, a failure can be answered with a status; but no client, and no load balancer
        # before it, waits for a head for ever.
        late = asyncio.create_task(self._begin_late())
        try:
            head = await answer.open()
            blocks = await answer.blocks()
        finally:
            if not self.begun.is_set():
                late.cancel()
            await outlast(late)
        if not self.begun.is_set():  # what kept it from beginning late is met again, and raised, here
            await self._begin(head)
        stream = self.shelved.entry.stream
        if not self._number and blocks and blocks[0].startswith(BOM):
            blocks[0] = blocks[0][len(BOM) :]
        while blocks:
            number = self._number
            records = [record(stream, place, block) for place, block in enumerate(blocks, number + 1)]
            self._number = number + len(records)  # first: who is cancelled here has said them, and they will be shown
            await writer.write(records)
            blocks = await answer.blocks()
        self._ending = True
        await writer.end(Ending(kind="complete"))

    async def _begin_late(self) -> None:
        if not self.begun.is_set():
            await asyncio.sleep(self._patience)
            with contextlib.suppress(LeaseLost, JournalError):
                await self._begin(Head())

    async def _begin(self, head: Head) -> None:
        await self._writer.start(head)
        self.begun.set()

    async def _stopped(self) -> None:
        """Somebody gave it up, or goes on with it elsewhere."""
        with contextlib.suppress(LeaseLost, JournalError):
            if self._handing_over:
                try:
                    await self._writer.release()
                except JournalError as error:
                    await self._fail(Refusal(503, "shutting_down", str(error)))
            else:
                kind: EndKind = self._reason or "abandoned"
                await self._fail(Refusal(499, kind, f"the stream was {kind}"), kind=kind)

    async def _fail(self, refusal: Refusal, *, kind: EndKind = "failed") -> None:
        self._ending = True
        if not self.begun.is_set():
            self.refusal = refusal
            with contextlib.suppress(LeaseLost):  # else another node goes on with it, and it has no end yet
                with contextlib.suppress(JournalError):
                    await self._writer.drop()
                self.shelved.log.end(Ending(kind=kind, error=refusal.code))
            return
        entry = self.shelved.entry
        block = error_event(SURFACES[entry.surface], refusal)
        with contextlib.suppress(LeaseLost):
            with contextlib.suppress(JournalError):  # readers here are to hear it all the same
                await self._writer.write([record(entry.stream, self._number + 1, block)])
            with contextlib.suppress(JournalError):
                await self._writer.end(Ending(kind=kind, error=refusal.code))
