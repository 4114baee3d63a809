"""The journal of many nodes, in Redis: any node serves any stream, and another goes on with what one has left.

What is shown has been written: a writer waits for Redis before its log grows. Where Redis says nothing for a quarter of
a second, readers here are fed from memory for a while, and the line catches up, in order, when it is back. Each append
is held against a fencing token, so that a node which lost its lease in the meantime writes nothing; what it has shown
by itself is then withdrawn, and no number of it is ever used again (`Log.leave_out()`). Extra `redis`.

Redis keeps prompts and answers for as long as streams can be read: it must be as private as the gateway itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from holdfast._clock import SystemClock
from holdfast._types import Head
from holdfast.gateway.journal import Entry, JournalError, LeaseLost, Pulse, Shelved, Writer, _scripts
from holdfast.gateway.journal._follow import Follower, fold
from holdfast.gateway.journal._line import Line, Said
from holdfast.gateway.log import Ending, Log
from holdfast.machines.settings import check_count, check_kind, check_seconds

LEFT_OUT = 4096
"""Numbers that nobody uses behind a takeover: more than a node shows before they are written."""
_ALONE = 30.0
"""Seconds for which readers are fed while Redis is silent."""
_AHEAD = 512 * 1024
"""Bytes of one stream that may be shown before they are written, and all that a log keeps is twice that."""
_AHEAD_OF_ALL = 64 * 1024 * 1024
_CHUNK = 64 * 1024
_RENEWED = 250
"""Leases that one script renews: it must not keep others waiting."""
_LEAST_LOG = 64 * 1024
_OFTEN = 1.0
"""Seconds from one renewal to the next, at most: so soon a cancellation elsewhere is heard of here."""


@dataclass(slots=True, frozen=True)
class Taken:
    """What a node took over: the right to write, and what there was. `last` is the number of its last record."""

    writer: RedisWriter
    last: int
    takeovers: int
    """How many nodes lost it without handing it over."""
    notes: dict[str, bool | str]
    cancelled: bool


class RedisJournal:
    """A `Journal` in the Redis at `url`, for every node that names the same `prefix`.

    Streams that ended can be read for `keep` seconds; `max_stream` bytes of each are kept there, and `max_memory` of
    all, the oldest of those that ended being dropped first. As much is the most that logs take here. A node that says
    nothing for `lease` seconds loses what it writes to another one. Needs Redis 6.2 or newer. Raises `MissingExtra`
    where the package `redis` is not installed.
    """

    shared = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "holdfast:gateway",
        node: str = "",
        keep: float = 600.0,
        max_stream: int = 16 * 1024 * 1024,
        max_memory: int = 256 * 1024 * 1024,
        lease: float = 5.0,
    ) -> None:
        check_kind("url", url, str, "an address such as redis://localhost:6379/0")
        check_kind("prefix", prefix, str, "a string")
        for name, value in (("keep", keep), ("lease", lease)):
            check_seconds(name, value, optional=False)
        for name, count in (("max_stream", max_stream), ("max_memory", max_memory)):
            check_count(name, count)
        self.lease = lease
        self.node = node or secrets.token_hex(8)
        self.freed: Callable[[], None] = lambda: None
        """Called when a node gives a stream back in its middle."""
        self._prefix = f"{prefix}:"
        self._keep = math.ceil(max(keep, 2 * lease) * 1000)
        self._lease = math.ceil(lease * 1000)
        self._max_stream = max_stream
        self._max_memory = max_memory
        self._now = SystemClock.now
        self._line = Line(url, _scripts.ALL)
        self._follower = Follower(url, self._prefix, self.node, self._freed)
        self._known: dict[str, Shelved] = {}
        self._writers: dict[str, RedisWriter] = {}
        self._read: dict[str, Shelved] = {}
        self._cancelled: Callable[[str], None] = lambda _: None
        self._renewal: asyncio.Task[None] | None = None
        self._sweeps = 0

    @property
    def pulse(self) -> Pulse:
        self._line.pulse.silent = self._line.silent
        return self._line.pulse

    async def start(self, cancelled: Callable[[str], None]) -> None:
        self._cancelled = cancelled
        try:
            await self._line.start()
        except Exception as error:
            raise JournalError(f"Redis cannot be had: {type(error).__name__}: {error}"[:200]) from error
        self._follower.start()
        self._renewal = asyncio.create_task(self._renew(), name="holdfast-leases")

    async def secret(self) -> str:
        told: bytes = await self._ask(_scripts.SIGNING, secrets.token_hex(32))
        return told.decode()

    # -- streams ---------------------------------------------------------------------------------

    async def begin(self, entry: Entry) -> Writer | Shelved:
        named = f"{entry.owner}\0{entry.idempotency_key}".encode()
        digest = hashlib.sha256(named).hexdigest() if entry.idempotency_key else ""
        packed, at = msgspec.msgpack.encode(entry), self._now()
        self._check()
        try:
            told = await self._ask(_scripts.BEGIN, entry.stream, digest, packed, self._lease, self._keep)
        except (JournalError, asyncio.CancelledError):
            # It may be opened all the same, a little later: then nobody would write it, and others would take it over.
            ending, slim = msgspec.msgpack.encode(Ending(kind="abandoned")), msgspec.msgpack.encode(_slim(entry))
            args = (self._prefix, entry.stream, 1, ending, slim, self._keep, 1, 0)
            self._line.say(_scripts.END, *args, then=lambda _: None)
            raise
        if told.decode() != entry.stream:
            known = await self.find(told.decode())
            if known is None:
                raise JournalError("the stream with this idempotency key is gone at this moment")
            return known
        shelved = Shelved(entry, Log(max_bytes=2 * _AHEAD))
        return self._write(shelved, at)

    def _write(self, shelved: Shelved, at: float) -> RedisWriter:
        stream = shelved.entry.stream
        self._follower.discard(stream)
        self._known[stream] = shelved
        writer = self._writers[stream] = RedisWriter(self, self._line, shelved)
        writer.renewed(at)
        return writer

    async def find(self, stream: str) -> Shelved | None:
        known = self._known.get(stream)
        if known is not None:
            return known
        entry, head, last, ending, fence, left_out = await self._ask(_scripts.FIND, stream)
        if stream in self._known:  # somebody else has found it meanwhile
            return self._known[stream]
        if entry is None:
            return None
        shelved = Shelved(msgspec.msgpack.decode(entry, type=Entry), Log(max_bytes=2 * _AHEAD), int(fence))
        log = shelved.log
        log.begin_at(int(last) + 1)
        log.left_out += _left_out(left_out)
        if head is not None:
            log.start(msgspec.msgpack.decode(head, type=Head))
        if ending is not None:
            log.end(msgspec.msgpack.decode(ending, type=Ending))
        self._known[stream] = shelved
        self._follow(shelved)
        return shelved

    async def read(self, shelved: Shelved, after: int) -> tuple[bytes, int]:
        out, place, size = [], after, 0
        for number, records in await self.entries(shelved.entry.stream, after + 1):
            if number > place + 1:
                break
            if number <= place < number + len(records) - 1 and not records[0]:
                raise JournalError("what was read last is none of this stream: the node that served it was lost")
            fresh = records[place + 1 - number :]
            out += fresh
            place += len(fresh)
            size += sum(map(len, fresh))
        if place == after and shelved.log.first > after + 1:
            raise JournalError("the records behind that place are no longer kept")
        return b"".join(out), place

    async def entries(self, stream: str, number: int) -> list[tuple[int, list[bytes]]]:
        """Gives records from the one of a number on, or from before it, about 64 KiB of them."""
        found = []
        for place, flat in await self._ask(_scripts.READ, stream, number, _CHUNK):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            first = int(place.partition(b"-")[0])
            if b"d" in fields:
                found.append((first, msgspec.msgpack.decode(fields[b"d"], type=list[bytes])))
            elif b"k" in fields:
                found.append((first, [b""] * int(fields[b"k"])))
        return found

    async def cancel(self, shelved: Shelved) -> None:
        await self._ask(_scripts.CANCEL, shelved.entry.stream)

    def held(self, shelved: Shelved, readers: int) -> None:
        stream = shelved.entry.stream
        if not readers:
            if self._read.get(stream) is shelved:  # else others read what the journal has of it by now
                del self._read[stream]
        elif self._read.get(stream) is not shelved:
            self._read[stream] = shelved
            if stream not in self._writers and not self._line.silent:  # else it is said when leases are renewed
                args = (self._prefix, self._presence, self._keep, 0, self.node, stream)
                self._line.say(_scripts.RENEW, *args, then=lambda _: None)

    def forget(self, shelved: Shelved) -> None:
        stream = shelved.entry.stream
        if stream not in self._writers and self._known.get(stream) is shelved:
            del self._known[stream]
            self._follower.discard(stream)

    def sweep(self) -> None:
        most = max(_LEAST_LOG, min(2 * _AHEAD, self._max_memory // max(1, len(self._known))))
        for shelved in self._known.values():
            shelved.log.max_bytes = most
        self._sweeps += 1
        if self._line.silent and asyncio.get_running_loop().time() > self._line.silent_since + _ALONE:
            for stream in self._follower:
                self._lose(stream)
        if not self._line.silent and self._sweeps % 4 == 0:
            args = (self._prefix, self._keep, self._max_memory)
            self._line.say(_scripts.SWEEP, *args, then=lambda _: None)

    async def aclose(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._follower.aclose()
        await self._line.aclose()

    # -- taking over -----------------------------------------------------------------------------

    async def due(self, most: int) -> list[str]:
        """Gives streams that nobody writes; for a while after a silence, when others are late, those handed over."""
        if self._line.silent:
            return []
        back_at = self._line.back_at
        late = asyncio.get_running_loop().time() < back_at + self.lease
        due = await self._ask(_scripts.DUE, most, int(late))
        if self._line.back_at != back_at:  # the silence came between the question and its answer
            return []
        return [name.decode() for name in due]

    async def take(self, stream: str) -> Taken | None:
        """Takes the lease of a stream that nobody writes, None where somebody does."""
        if stream in self._writers:  # we do, and are only late
            return None
        at = self._now()
        found = await self._ask(_scripts.TAKE, stream, self._lease, self._keep, LEFT_OUT)
        if found is None:
            return None
        entry, head, last, fence, notes, cancelled, left_out, handed = found
        shelved = self._known.get(stream)
        if shelved is None:
            shelved = Shelved(msgspec.msgpack.decode(entry, type=Entry), Log(max_bytes=2 * _AHEAD))
            shelved.log.begin_at(last + 1)
        log = shelved.log
        shelved.fence = fence
        self._follower.discard(stream)
        if head:
            log.start(msgspec.msgpack.decode(head, type=Head))
            if log.last < last + LEFT_OUT:
                try:
                    await self._catch_up(shelved, last)
                except BaseException:
                    if self._known.get(stream) is shelved:  # its readers here shall hear whoever writes it then
                        self._follow(shelved)
                    raise
                log.leave_out(LEFT_OUT)
        log.left_out[:] = _left_out(left_out)
        writer = self._write(shelved, at)
        told = msgspec.msgpack.decode(notes) if notes else {}
        writer.notes.update(told)
        return Taken(writer, last, fence - 1 - handed, told, bool(cancelled))

    async def _catch_up(self, shelved: Shelved, last: int) -> None:
        """Brings a log that was followed to where its forerunner had come to."""
        log = shelved.log
        log.withdraw(min(log.last, last))
        while log.last < last:
            before = log.last
            for number, records in await self.entries(shelved.entry.stream, before + 1):
                packed = msgspec.msgpack.encode(records[: last + 1 - number])
                fold(log, number, {b"d": packed})
            if log.last == before:
                log.begin_at(last + 1)

    # -- what runs beside ------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Keeps leases, and says what is read here, once a second or more often."""
        pause = min(_OFTEN, self.lease / 4)
        while True:
            await asyncio.sleep(pause)
            if self._line.silent:
                continue
            writers = list(self._writers.values())
            for begin in range(0, len(writers), _RENEWED):
                await self._renew_some(writers[begin : begin + _RENEWED], ())
            read = [stream for stream in self._read if stream not in self._writers]
            for begin in range(0, len(read), _RENEWED):
                await self._renew_some((), read[begin : begin + _RENEWED])

    async def _renew_some(self, writers: Sequence[RedisWriter], read: Sequence[str]) -> None:
        owned = [one for writer in writers for one in (writer.shelved.entry.stream, writer.shelved.fence)]
        lease = self._lease if writers else self._presence
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        args = (self._prefix, lease, self._keep, len(writers), *owned, self.node, *read)

        def then(results: Any) -> None:
            if isinstance(results, list):  # else leases end, where this goes on
                for writer, result in zip(writers, results, strict=False):
                    writer.told(result, said.at)
                for stream, result in zip(read, results[len(writers) :], strict=True):
                    if result == -1:
                        self._lose(stream)
            if not answered.done():
                answered.set_result(None)

        said = self._line.say(_scripts.RENEW, *args, then=then)
        await answered

    @property
    def _presence(self) -> int:
        """Milliseconds that it is known elsewhere of a reader here."""
        return 3 * max(self._lease, round(_OFTEN * 1000))

    def _follow(self, shelved: Shelved) -> None:
        if shelved.log.ending is None:
            self._follower.add(shelved)
            self._line.say(_scripts.WAKE, self._prefix, self.node, then=lambda _: None)

    def _lose(self, stream: str) -> None:
        """What is read here, and written elsewhere, is no longer to be had: nobody must wait for the rest of it."""
        shelved = self._read.get(stream) or self._known.get(stream)
        if shelved is None or stream in self._writers:
            return
        if self._known.get(stream) is shelved:
            del self._known[stream]
            self._follower.discard(stream)
        shelved.log.lose()

    def _left(self, writer: RedisWriter) -> None:
        """A writer writes no more: whoever reads here what it wrote reads what the journal has of it."""
        stream = writer.shelved.entry.stream
        if self._writers.get(stream) is writer:
            del self._writers[stream]
            if writer.alone:  # what was shown here last is in no journal
                self._known.pop(stream, None)
            elif writer.shelved.log.ending is None:
                self._follow(writer.shelved)

    def _freed(self) -> None:
        self.freed()

    def _cancel(self, stream: str) -> None:
        self._cancelled(stream)

    def _check(self) -> None:
        if self._line.hopeless:
            raise JournalError("Redis does not answer")

    async def _ask(self, script: str, *args: str | bytes | int) -> Any:
        self._check()
        try:
            return await self._line.ask(script, self._prefix, *args)
        except TimeoutError as error:
            raise JournalError("Redis does not answer") from error
        except Exception as error:
            raise JournalError(f"Redis refuses: {type(error).__name__}"[:200]) from error


class RedisWriter:
    """A `Writer`: see there. What it says goes out over the journal's line, behind all that was said before."""

    __slots__ = (
        "_journal",
        "_left",
        "_line",
        "_number",
        "_prefix",
        "_unseen",
        "_until",
        "_wait",
        "acked",
        "ahead",
        "alone",
        "notes",
        "notes_sent",
        "shelved",
        "why",
    )

    def __init__(self, journal: RedisJournal, line: Line, shelved: Shelved) -> None:
        self._journal = journal
        self._left = False
        self._line = line
        self._number = shelved.log.last
        self.alone = False
        """True once readers here are told what is in no journal: the last words of a stream that it cannot have."""
        self._prefix = journal._prefix  # noqa: SLF001 - two halves of one thing
        self._unseen: list[Callable[[], None]] = []
        self._until = 0.0
        self._wait: asyncio.Future[None] | None = None
        self.acked = self._number
        """The number of the last record that Redis has."""
        self.ahead = 0
        """Bytes that were said, and not answered."""
        self.notes: dict[str, bool | str] = {}
        self.notes_sent: dict[str, bool | str] = {}
        self.shelved = shelved
        self.why: Exception | None = None
        """Why nothing more is written."""

    # -- the right -------------------------------------------------------------------------------

    def check(self) -> None:
        if self.why is None and self._journal._now() >= self._until:  # noqa: SLF001 - two halves of one thing
            self._lose(LeaseLost("the lease is not known to hold any more"))
        self._raise()

    def let_go(self) -> None:
        """Writes nothing more; the lease ends by itself, and another node has it then."""
        self._lose(LeaseLost("this node does not write this stream any more"))

    def renewed(self, at: float) -> None:
        """The lease was given, or prolonged, by what was said at that time: it holds a little less than that long."""
        self._until = at + 0.9 * self._journal.lease

    def told(self, result: int, at: float) -> None:
        """Hears what became of the lease."""
        if result in (1, 2):
            # The line tells time by the loop, and nobody says that its clock is the other one.
            self.renewed(self._journal._now() - (asyncio.get_running_loop().time() - at))  # noqa: SLF001 - as above
            if result == 2:
                self._journal._cancel(self.shelved.entry.stream)  # noqa: SLF001 - as above
        else:
            self._refused(result)

    def _raise(self) -> None:
        if self.why is not None:
            raise self.why

    def _refused(self, result: int) -> None:
        if result == -1:
            self.alone = True
            self._lose(JournalError("the journal has lost this stream"))
        else:
            self._lose(LeaseLost("another node writes this stream"))

    def _lose(self, why: Exception) -> None:
        if self.why is not None:
            return
        self.why = why
        if not self._left:
            if isinstance(why, LeaseLost):
                self.shelved.log.withdraw(max(self.acked, 0))
                self._unseen.clear()
            self._leave()
        self._wake()

    def _leave(self) -> None:
        self._left = True
        self._journal._left(self)  # noqa: SLF001 - two halves of one thing

    # -- writing ---------------------------------------------------------------------------------

    def note(self, **state: bool | str) -> None:
        self.notes.update(state)

    async def start(self, head: Head, *, upstream: str = "") -> None:
        if upstream:
            self.note(upstream=upstream)
        self._say(_scripts.START, msgspec.msgpack.encode(head), self._keep, shown=lambda: self.shelved.log.start(head))
        await self._shown()

    async def write(self, records: Sequence[bytes]) -> None:
        if self.alone:  # the last words of a stream that the journal does not have: who reads here shall hear them
            self._show_all()
            self.shelved.log.extend(records)
            return
        self._raise()
        packed, first = msgspec.msgpack.encode(records), self._number + 1
        self._number += len(records)
        notes = b""
        if self.notes != self.notes_sent:
            self.notes_sent = dict(self.notes)
            notes = msgspec.msgpack.encode(self.notes_sent)
        last = self._number
        self.ahead += len(packed)

        def acked() -> None:
            self.acked = last
            self.ahead -= len(packed)

        most = self._journal._max_stream  # noqa: SLF001 - two halves of one thing
        args = (first, len(records), packed, notes, most)
        self._say(_scripts.APPEND, *args, shown=lambda: self.shelved.log.extend(records), acked=acked)
        await self._shown()

    async def end(self, ending: Ending) -> None:
        await self._end(ending, forget=False)

    async def drop(self) -> None:
        await self._end(Ending(kind="failed"), forget=True)

    async def _end(self, ending: Ending, *, forget: bool) -> None:
        if self.alone:
            self._show_all()
            self.shelved.log.end(ending)
            return
        self._raise()
        packed = msgspec.msgpack.encode(ending), msgspec.msgpack.encode(_slim(self.shelved.entry))
        args = (*packed, self._keep, int(forget), self._number)
        self._say(_scripts.END, *args, shown=lambda: self.shelved.log.end(ending), acked=self._leave)
        try:
            await self._shown()
        except JournalError:
            self._show_all()

    async def release(self) -> None:
        if self.why is None and not self._left:
            self._say(_scripts.RELEASE, shown=lambda: None)
            self._lose(LeaseLost("another node is to go on with this stream"))

    async def read_elsewhere(self) -> bool:
        journal, stream = self._journal, self.shelved.entry.stream
        try:
            return bool(await journal._ask(_scripts.HEARD, stream, journal.node))  # noqa: SLF001 - two halves of one thing
        except JournalError:
            return True  # nobody knows

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def _keep(self) -> int:
        return self._journal._keep  # noqa: SLF001 - two halves of one thing

    def _say(
        self, script: str, *args: bytes | int, shown: Callable[[], None], acked: Callable[[], None] = lambda: None
    ) -> None:
        """Says something, and shows it once it is written, or Redis is silent: in the order in which it was said."""
        shows = _Once(shown)
        self._unseen.append(shows)

        def then(result: Any) -> None:
            if self._left and self.why is not None:
                return
            if isinstance(result, Exception):
                self.alone = True
                self._lose(JournalError(f"Redis refuses what is written: {type(result).__name__}"))
            elif result not in (1, 2):
                self._refused(result)
            else:
                acked()
                self._show(shows)
                if result == 2:
                    self._journal._cancel(self.shelved.entry.stream)  # noqa: SLF001 - two halves of one thing

        said: Said = self._line.say(
            script, self._prefix, self.shelved.entry.stream, self.shelved.fence, *args, then=then, quiet=self._quiet
        )
        if self._line.silent:
            said.quiet = None
            self._quiet()

    def _show(self, shows: _Once) -> None:
        if self._unseen and self._unseen[0] is shows:
            self._unseen.pop(0)
        shows()
        self._wake()

    def _quiet(self) -> None:
        """Redis is silent: readers here go on, for as long and as far as may be."""
        room = self.ahead <= _AHEAD and self._line.waiting <= _AHEAD_OF_ALL and self._number - self.acked < LEFT_OUT - 1
        if room and self.why is None and self._left_alone > 0 and self._held_it:
            self._show_all()
        else:
            self._wake()

    @property
    def _held_it(self) -> bool:
        """Whether the lease held when the silence began: where this node had been frozen, another one writes by now."""
        silent_for = asyncio.get_running_loop().time() - self._line.silent_since
        return self._until > self._journal._now() - silent_for  # noqa: SLF001 - two halves of one thing

    def _show_all(self) -> None:
        unseen, self._unseen = self._unseen, []
        for shows in unseen:
            shows()
        self._wake()

    async def _shown(self) -> None:
        """Returns once what was said last is shown. Raises `LeaseLost` where it never will be."""
        while self._unseen and self.why is None:
            self._wait = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._left_alone if self._line.silent else None):
                    await self._wait
            except TimeoutError:
                self.alone = True
                self._lose(JournalError(f"Redis has been silent for {_ALONE:g} s"))
        self._raise()

    @property
    def _left_alone(self) -> float:
        """Seconds for which readers may still be fed."""
        return max(0.0, self._line.silent_since + _ALONE - asyncio.get_running_loop().time())

    def _wake(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None and not wait.done():
            wait.set_result(None)


class _Once:
    """Something that is done once, by whoever comes first."""

    __slots__ = ("_do",)

    def __init__(self, do: Callable[[], None]) -> None:
        self._do: Callable[[], None] | None = do

    def __call__(self) -> None:
        do, self._do = self._do, None
        if do is not None:
            do()


def _slim(entry: Entry) -> Entry:
    """Gives what is kept of a stream that ended: nobody asks for it again."""
    return msgspec.structs.replace(entry, body=b"", headers={})


def _left_out(told: bytes | None) -> list[tuple[int, int]]:
    """Reads the first and the last of numbers that are left out, of which the last one is a place."""
    numbers = [int(one) for one in (told or b"").split()]
    return [(first, last - 1) for first, last in zip(numbers[::2], numbers[1::2], strict=True)]


__all__ = ["RedisJournal", "Taken"]
