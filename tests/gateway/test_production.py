"""Productions: what an answer says is written once, in order, with an end that tells how it was; nothing stays."""

from __future__ import annotations

import asyncio
import gc

import pytest

from holdfast._errors import StatusError, UsageError
from holdfast._types import Head
from holdfast.gateway.journal import Writer
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.log import Log
from holdfast.gateway.production import Answer
from holdfast.gateway.records import record
from holdfast.gateway.streams import Running, Streams
from holdfast.testing import cancel_everywhere
from tests.gateway.acting import Broke, ScriptedAnswer, entry, streams

BLOCKS = [b"data: one\n\n", b": comment\n\n", b"data: two\n\n"]


async def ended(running: Running) -> Log:
    assert running.production is not None
    async with asyncio.timeout(20):
        await running.production.wait()
    return running.shelved.log


async def test_what_comes_is_written_in_order_and_ends() -> None:
    answer = ScriptedAnswer([BLOCKS[:2], BLOCKS[2:]])
    running = await streams(answer).open(entry())
    log = await ended(running)
    stream = running.shelved.entry.stream
    assert log.after(0) == (b"".join(record(stream, n, one) for n, one in enumerate(BLOCKS, 1)), 3)
    assert log.ending is not None
    assert log.ending.kind == "complete"
    assert (answer.opened, answer.closed) == (1, 1)


async def test_a_byte_order_mark_at_the_beginning_is_left_out() -> None:
    running = await streams(ScriptedAnswer([[b"\xef\xbb\xbfdata: one\n\n"]])).open(entry())
    data, _ = (await ended(running)).after(0)
    assert data.startswith(b"data: one\nid: ")


@pytest.mark.parametrize("failure", [Broke("it broke"), UsageError("wrongly used"), LookupError("nobody")])
async def test_a_failure_before_the_first_record_is_a_refusal_and_no_stream(failure: Exception) -> None:
    made = streams(ScriptedAnswer([failure]))
    running = await made.open(entry())
    log = await ended(running)
    assert running.production is not None
    assert running.production.refusal is not None
    assert running.production.refusal.status in (400, 502)
    assert log.last == 0
    assert await made.journal.find(running.shelved.entry.stream) is None


async def test_a_refused_request_keeps_its_status() -> None:
    running = await streams(ScriptedAnswer([], head=StatusError("no", head=Head(status=429)))).open(entry())
    await ended(running)
    assert running.production is not None
    assert running.production.refusal is not None
    assert running.production.refusal.status == 429


async def test_a_failure_behind_the_first_record_is_the_last_record() -> None:
    running = await streams(ScriptedAnswer([BLOCKS, Broke("it broke")])).open(entry())
    log = await ended(running)
    data, last = log.after(3)
    assert last == 4 == log.last
    assert b'"error"' in data
    assert data.endswith(b"id: %b-4\n\n" % running.shelved.entry.stream.encode())
    assert log.ending is not None
    assert log.ending.kind == "failed"


async def test_whoever_waits_for_a_head_gets_one_after_a_while() -> None:
    late = asyncio.Event()
    running = await streams(ScriptedAnswer([late, BLOCKS]), patience=0.01).open(entry())
    assert running.production is not None
    async with asyncio.timeout(20):
        await running.production.begun.wait()
    assert running.shelved.log.head is not None
    assert running.shelved.log.last == 0
    late.set()
    assert (await ended(running)).last == 3


@pytest.mark.parametrize("how", ["cancelled", "handed over"])
async def test_a_stream_that_is_stopped_before_it_began_is_over_for_its_readers_too(how: str) -> None:
    made = streams(ScriptedAnswer([BLOCKS]))
    running = await made.open(entry())
    production = running.production
    assert production is not None
    async with asyncio.timeout(20):
        await (production.stop("cancelled") if how == "cancelled" else production.hand_over())
        await running.begun()
    assert production.refusal is not None
    assert running.shelved.log.ending is not None
    assert await made.journal.find(running.shelved.entry.stream) is None


async def test_a_stream_for_which_no_answer_can_be_made_is_not_kept() -> None:
    def fails(_: Writer) -> Answer:
        raise ValueError("a mistake of ours")

    journal = MemoryJournal(max_bytes=10_000)
    made = Streams(journal, fails, grace=60.0, patience=1.0, max_streams=10)
    for _ in range(9):
        asked = entry()
        with pytest.raises(ValueError, match="a mistake"):
            await made.open(asked)
        assert await journal.find(asked.stream) is None
        journal.sweep()


async def test_a_cancelled_stream_says_so_and_gives_its_answer_up() -> None:
    answer = ScriptedAnswer([BLOCKS, asyncio.Event()])
    made = streams(answer)
    running = await made.open(entry())
    assert running.production is not None
    await running.production.begun.wait()
    await made.cancel(running)
    log = await ended(running)
    assert log.ending is not None
    assert log.ending.kind == "cancelled"
    assert b'"error"' in log.after(3)[0]
    assert answer.closed == 1


async def test_nobody_for_the_grace_time_and_it_is_given_up() -> None:
    answer = ScriptedAnswer([BLOCKS, asyncio.Event()])
    made = streams(answer, grace=0.02)
    running = await made.open(entry())
    with running:
        await asyncio.sleep(0.05)
        assert running.shelved.log.ending is None
    log = await ended(running)
    assert log.ending is not None
    assert log.ending.kind == "abandoned"
    assert answer.closed == 1


async def test_a_reader_who_comes_back_within_the_grace_time_keeps_it() -> None:
    go_on = asyncio.Event()
    made = streams(ScriptedAnswer([BLOCKS, go_on, BLOCKS]), grace=0.05)
    running = await made.open(entry())
    with running:
        pass
    with running:
        await asyncio.sleep(0.08)
        go_on.set()
        log = await ended(running)
    assert log.ending is not None
    assert log.ending.kind == "complete"


async def test_cancelled_at_every_await_an_answer_is_closed_and_a_reader_told() -> None:
    made: list[tuple[Running, ScriptedAnswer]] = []

    async def scenario() -> None:
        answer = ScriptedAnswer([BLOCKS[:1], 0.0, BLOCKS[1:], Broke("it broke")])
        running = await streams(answer).open(entry())
        made.append((running, answer))
        production = running.production
        assert production is not None
        try:
            await production.wait()
        except asyncio.CancelledError:
            await production.stop("cancelled")
            raise

    def check() -> None:
        for running, answer in made:
            assert running.production is not None
            assert running.production.done
            assert answer.opened == answer.closed or not answer.opened
            assert running.shelved.log.ending is not None
        made.clear()

    assert await cancel_everywhere(scenario, check=check) > 3


async def test_two_thousand_streams_leave_no_task_behind() -> None:
    made = streams(grace=0.0)
    before = len(asyncio.all_tasks())
    others = {id(one) for one in gc.get_objects() if type(one) is Running}  # of gateways that aiohttp still knows
    for _ in range(2_000):
        running = await made.open(entry())
        with running:
            pass
    async with asyncio.timeout(10):
        while made.producing or len(asyncio.all_tasks()) > before or made._running:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    made.journal.sweep()
    del running
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Running and id(one) not in others]
