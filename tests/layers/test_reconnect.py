"""Reconnect over a scripted server, cut at every event and every byte: exact, or a typed error with the partial."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._errors import ConnectError, DecodeError, StatusError, StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Delta, Head, Request
from holdfast.layers.buffer import Buffer
from holdfast.layers.parse import parse_sse
from holdfast.layers.read_ahead import ReadAhead
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import Seams
from holdfast.testing import FakeClock
from tests.puppet import Puppet, PuppetStream, Script, Wait

USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
REQUEST = Request(url="http://upstream/v1", body={"messages": []})


def chunk(id_: str, *choices: dict[str, Any], **more: Any) -> str:
    return json.dumps({"id": id_, "choices": list(choices), **more}, ensure_ascii=False, separators=(",", ":"))


def says(index: int = 0, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    ending = {"finish_reason": finish} if finish else {}
    return {**({"index": index} if index else {}), "delta": delta, **ending}


def calls(index: int = 0, id_: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    call = {"index": index, "id": id_, "function": function} if id_ else {"index": index, "function": function}
    return says(tool_calls=[call])


def answer(id_: str = "one", text: Sequence[str] = ("Höl", "zer", "ne ", "ne "), call: str = "call_a") -> list[str]:
    """Reasoning, text with the same token twice, a tool call in pieces, the end, usage."""
    return [
        chunk(id_, says(role="assistant", content="")),
        chunk(id_, says(reasoning_content="Hmm")),
        chunk(id_, says(reasoning_content=", 你")),
        *(chunk(id_, says(content=token)) for token in text),
        chunk(id_, calls(0, call, "look")),
        chunk(id_, calls(0, arguments='{"a"')),
        chunk(id_, calls(0, arguments=": 1}")),
        chunk(id_, says(finish="tool_calls")),
        chunk(id_, usage=USAGE),
        "[DONE]",
    ]


def two_choices(id_: str = "one") -> list[str]:
    return [
        chunk(id_, says(0, role="assistant", content=""), says(1, role="assistant", content="")),
        chunk(id_, says(0, content="left")),
        chunk(id_, says(1, content="ri")),
        chunk(id_, says(0, finish="stop")),
        chunk(id_, says(1, content="ght")),
        chunk(id_, says(1, finish="length")),
        chunk(id_, usage=USAGE),
        "[DONE]",
    ]


def wire(payloads: Sequence[str], *, ids: bool = False, first: int = 0, prefix: str = "") -> list[bytes]:
    """Each payload as the bytes of its event, numbered from `first` where there are ids."""
    lines = enumerate(payloads, first)
    return [(f"id: {prefix}{n}\n" if ids else "").encode() + f"data: {p}\n\n".encode() for n, p in lines]


@dataclass
class Cut:
    """Where an attempt's body breaks off: after so many bytes."""

    at: int
    error: StreamError = field(default_factory=lambda: StreamBroken("connection reset"))


class Server(Puppet):
    """Serves one answer again and again. `cuts` break the first attempts off; `resumes` honours Last-Event-ID.

    `answers` are what each attempt from the first on would say; the last one counts for all further attempts.
    """

    def __init__(
        self,
        *answers: list[str],
        cuts: Sequence[Cut] = (),
        ids: bool = False,
        resumes: bool = True,
        prefixes: Sequence[str] = ("",),
        piece: int = 10**9,
        wait: float = 0.0,
    ) -> None:
        super().__init__()
        self.answers = answers
        self.cuts = list(cuts)
        self.ids = ids
        self.resumes = resumes
        self.prefixes = prefixes
        self.piece = piece
        self.wait = wait
        self.sent: list[bytes] = []

    async def open(self, request: Request) -> PuppetStream:
        turn = self.opens
        payloads = self.answers[min(turn, len(self.answers) - 1)]
        prefix = self.prefixes[min(turn, len(self.prefixes) - 1)]
        events = wire(payloads, ids=self.ids, prefix=prefix)
        last = request.headers.get("Last-Event-ID")
        if last is not None and self.resumes:
            assert last.startswith(prefix)
            events = events[int(last[len(prefix) :]) + 1 :]
        body = b"".join(events)
        ends: list[Any] = []
        if turn < len(self.cuts):
            cut = self.cuts[turn]
            body = body[: cut.at]
            ends = [cut.error]
        self.sent.append(body)
        steps = [body[i : i + self.piece] for i in range(0, len(body), self.piece)]
        self.scripts.append(Script(*steps, *ends, opening=(Wait(self.wait),)))
        return await super().open(request)


def pipe_over(source: Any, clock: FakeClock, **settings: Any) -> Pipe[Delta]:
    return (
        Pipe(source, clock=clock, max_requests=12)
        | parse_sse()
        | verify("openai")
        | Retry()
        | Reconnect(seams=Seams(**settings))
    )


async def read(reader: Reader[Delta]) -> tuple[list[Delta], StreamError | None]:
    got: list[Delta] = []
    try:
        async with reader:
            async for delta in reader:
                got.append(delta)  # noqa: PERF401 - what came before an error counts
    except StreamError as error:
        return got, error
    return got, None


def pieces(deltas: Sequence[Delta]) -> list[tuple[Any, ...]]:
    """What deltas say, character by character: where they are cut is no part of it."""
    said: list[tuple[Any, ...]] = []
    for d in deltas:
        said += [("reasoning", d.choice, c) for c in d.reasoning]
        said += [("text", d.choice, c) for c in d.text]
        for call in d.tool_calls:
            said += [("name", call.index, call.name)] if call.name else []
            said += [("arguments", call.index, c) for c in call.arguments]
        said += [("finish", d.choice, d.finish_reason)] if d.finish_reason else []
        said += [("usage", d.usage.total_tokens)] if d.usage else []
    return said


def every_byte(payloads: list[str], *, ids: bool = False) -> range:
    return range(len(b"".join(wire(payloads, ids=ids))))


def every_event(payloads: list[str], *, ids: bool = False) -> list[int]:
    """The end of every event, and a place inside each: before and in its JSON."""
    places, end = [0], 0
    for event in wire(payloads, ids=ids):
        places += [end + 3, end + len(event) - 9, end + len(event) - 1, end := end + len(event)]
    return places[:-1]


async def whole(payloads: list[str], clock: FakeClock, request: Request = REQUEST) -> list[tuple[Any, ...]]:
    got, error = await read(pipe_over(Server(payloads), clock).stream(request))
    assert error is None
    return pieces(got)


# -- with ids ----------------------------------------------------------------------------------


async def test_with_ids_nothing_is_read_again(clock: FakeClock) -> None:
    events = wire(answer(), ids=True)
    place = len(b"".join(events[:6]))
    server = Server(answer(), ids=True, cuts=[Cut(place + 5)])
    reader = pipe_over(server, clock).stream(REQUEST)
    got, error = await read(reader)
    assert error is None
    assert pieces(got) == await whole(answer(), clock)
    assert [r.headers.get("Last-Event-ID") for r in server.requests] == [None, "5"]
    assert server.sent[1] == b"".join(events[6:])
    assert str(reader.completion.verdict) == "RESUMED (1 seam, exact)"
    assert reader.report.seams[0].repaid_tokens == 0
    assert reader.completion.tool_calls[0].input == {"a": 1}


async def test_with_ids_a_cut_at_any_byte_ends_exact(clock: FakeClock) -> None:
    true = await whole(answer(), clock)
    for cut in every_byte(answer(), ids=True):
        server = Server(answer(), ids=True, cuts=[Cut(cut)])
        got, error = await read(pipe_over(server, clock).stream(REQUEST))
        assert error is None
        assert pieces(got) == true
        assert not server.live


async def test_a_server_that_repeats_events_after_a_resume_is_heard_once(clock: FakeClock) -> None:
    events = wire(answer(), ids=True)
    for back in range(1, 6):

        class Rewinding(Server):
            async def open(self, request: Request) -> PuppetStream:
                stream = await super().open(request)
                if "Last-Event-ID" in request.headers:
                    last = int(request.headers["Last-Event-ID"])
                    stream._steps = [b"".join(events[last + 1 - back :])]  # noqa: B023
                return stream

        server = Rewinding(answer(), ids=True, cuts=[Cut(len(b"".join(events[:6])))])
        reader = pipe_over(server, clock).stream(REQUEST)
        got, error = await read(reader)
        assert error is None
        assert pieces(got) == await whole(answer(), clock)
        assert reader.report.dropped == back


async def test_events_that_arrive_twice_on_one_connection_are_handed_over_once(clock: FakeClock) -> None:
    doubled = b"".join(event * 2 for event in wire(answer(), ids=True))
    got, error = await read(pipe_over(Puppet([doubled]), clock).stream(REQUEST))
    assert error is None
    assert pieces(got) == await whole(answer(), clock)


# -- a server that ignores Last-Event-ID ---------------------------------------------------------


@pytest.mark.parametrize("prefixes", [("",), ("", "b-")], ids=["same ids", "other ids"])
async def test_a_server_that_begins_again_is_compared(prefixes: tuple[str, ...], clock: FakeClock) -> None:
    true, again = await whole(answer(), clock), answer("two", call="call_b")
    for cut in every_event(answer(), ids=True):
        server = Server(answer(), again, ids=True, resumes=False, cuts=[Cut(cut)], prefixes=prefixes)
        reader = pipe_over(server, clock).stream(REQUEST)
        got, error = await read(reader)
        assert error is None
        assert pieces(got) == true
        assert {s.guarantee for s in reader.report.seams} <= {"verified"}


@pytest.mark.parametrize("other_id", ["one", "two"])
@pytest.mark.parametrize("prefixes", [("",), ("", "b-")], ids=["same ids", "other ids"])
async def test_a_server_that_begins_another_answer_gives_nothing_foreign(
    prefixes: tuple[str, ...], other_id: str, clock: FakeClock
) -> None:
    foreign = answer(other_id, ("Höl", "lisch", " heiß", "!"))
    true, other = await whole(answer(), clock), await whole(foreign, clock)
    for cut in every_event(answer(), ids=True):
        server = Server(answer(), foreign, ids=True, resumes=False, cuts=[Cut(cut)], prefixes=prefixes)
        got, error = await read(pipe_over(server, clock).stream(REQUEST))
        assert_true_or_typed(got, error, true, other)
        assert not server.live


def assert_true_or_typed(
    got: list[Delta], error: StreamError | None, true: list[tuple[Any, ...]], other: list[tuple[Any, ...]]
) -> None:
    """Exact, or a typed error: what came is one answer's, never a mixture, and a prefix only under an error."""
    said = pieces(got)
    if error is None:
        assert [p for p in said if p[0] != "usage"] in (
            [p for p in true if p[0] != "usage"],
            [p for p in other if p[0] != "usage"],
        )
        return
    assert said in (true[: len(said)], other[: len(said)])
    assert isinstance(error, StreamBroken)
    assert error.partial is not None
    assert error.partial.text == "".join(d.text for d in got)


# -- without ids -------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [10**9, 7], ids=["whole", "in pieces"])
async def test_without_ids_a_deterministic_server_ends_exact(piece: int, clock: FakeClock) -> None:
    true = await whole(answer(), clock)
    for cut in every_byte(answer()) if piece > 7 else every_event(answer()):
        server = Server(answer(), answer("two", call="call_b"), cuts=[Cut(cut)], piece=piece)
        got, error = await read(pipe_over(server, clock).stream(REQUEST))
        assert error is None
        # Proven whole before its usage came, no second answer is bought for it.
        assert pieces(got) == (true[:-1] if server.opens == 1 and not any(d.usage for d in got) else true)
        assert len([call.id for d in got for call in d.tool_calls if call.id]) == 1
        assert not server.live


async def test_without_ids_a_divergent_server_ends_in_a_typed_error(clock: FakeClock) -> None:
    foreign = answer("two", ("Höl", "lisch", " heiß", "!"))
    true, other = await whole(answer(), clock), await whole(foreign, clock)
    for cut in every_event(answer()):
        server = Server(answer(), foreign, cuts=[Cut(cut)])
        got, error = await read(pipe_over(server, clock).stream(REQUEST))
        assert_true_or_typed(got, error, true, other)
        assert not server.live


async def test_a_divergent_replay_hands_over_nothing_and_names_the_place(clock: FakeClock) -> None:
    place = len(b"".join(wire(answer())[:6]))
    server = Server(answer(), answer("two", ("Höl", "lisch")), cuts=[Cut(place)])
    reader = pipe_over(server, clock).stream(REQUEST)
    got, error = await read(reader)
    assert isinstance(error, StreamBroken)
    assert "differs" in str(error)
    assert "".join(d.text for d in got) == "Hölzerne "
    assert error.partial is not None
    assert (error.partial.text, error.partial.answer.reasoning) == ("Hölzerne ", "Hmm, 你")
    assert (error.attempts, reader.report.diverged) == (2, 1)
    assert server.opens == 2


async def test_a_replay_that_ends_before_what_was_delivered_is_another_answer(clock: FakeClock) -> None:
    place = len(b"".join(wire(answer())[:6]))
    short = [
        chunk("two", says(reasoning_content="Hmm, 你")),
        chunk("two", says(content="Höl", finish="stop")),
        "[DONE]",
    ]
    got, error = await read(pipe_over(Server(answer(), short, cuts=[Cut(place)]), clock).stream(REQUEST))
    assert isinstance(error, StreamBroken)
    assert "".join(d.text for d in got) == "Hölzerne "


# -- proofs, choices, tool calls -----------------------------------------------------------------


async def test_a_cut_after_the_finish_reason_asks_for_no_second_answer(clock: FakeClock) -> None:
    place = len(b"".join(wire(answer())[:-2]))
    server = Server(answer(), cuts=[Cut(place)])
    reader = pipe_over(server, clock).stream(REQUEST)
    _, error = await read(reader)
    assert error is None
    assert server.opens == 1
    assert str(reader.completion.verdict) == "COMPLETE"


async def test_with_ids_the_usage_after_the_finish_reason_is_fetched(clock: FakeClock) -> None:
    place = len(b"".join(wire(answer(), ids=True)[:-2]))
    server = Server(answer(), ids=True, cuts=[Cut(place)])
    reader = pipe_over(server, clock).stream(REQUEST)
    _, error = await read(reader)
    assert error is None
    assert server.opens == 2
    assert reader.completion.usage is not None


async def test_a_proven_answer_ends_well_though_its_usage_cannot_be_had(clock: FakeClock) -> None:
    events = wire(answer(), ids=True)
    proven = [*events[:-2], StreamBroken("reset")]
    refused = StatusError("no", head=Head(status=404), retryable=False)
    for failure in (refused, ConnectError("refused")):
        reader = pipe_over(Puppet(proven, *[failure] * 4), clock).stream(REQUEST)
        _, error = await read(reader)
        assert error is None
        assert reader.completion.finish_reason == "tool_calls"


@pytest.mark.parametrize("max_barren", [0, 5])
async def test_a_proven_answer_ends_well_though_no_request_is_left(max_barren: int, clock: FakeClock) -> None:
    server = Server(answer(), ids=True, cuts=[Cut(len(b"".join(wire(answer(), ids=True)[:-2])))])
    policy = Seams(max_barren=max_barren)
    pipe = Pipe(server, clock=clock, max_requests=1) | parse_sse() | verify("openai") | Reconnect(seams=policy)
    _, error = await read(pipe.stream(REQUEST))
    assert error is None
    assert server.opens == 1


@pytest.mark.parametrize("ids", [False, True])
async def test_a_cut_with_one_of_two_choices_finished_resumes(ids: bool, clock: FakeClock) -> None:  # noqa: FBT001
    asked = Request(url="http://upstream/v1", body={"n": 2})
    true = await whole(two_choices(), clock, asked)
    for cut in every_event(two_choices(), ids=ids):
        server = Server(two_choices(), two_choices("one" if ids else "two"), ids=ids, cuts=[Cut(cut)])
        reader = pipe_over(server, clock).stream(asked)
        got, error = await read(reader)
        assert error is None
        for choice in (0, 1):
            assert [p for p in pieces(got) if p[1] == choice] == [p for p in true if p[1] == choice]
        assert [(c.text, c.finish_reason) for c in reader.completion.choices] == [("left", "stop"), ("right", "length")]
        assert not server.live


@pytest.mark.parametrize("ids", [False, True])
async def test_two_cuts_end_exact(ids: bool, clock: FakeClock) -> None:  # noqa: FBT001
    size = len(b"".join(wire(answer(), ids=ids)))
    true = await whole(answer(), clock)
    for first in range(5, size, 61):
        for second in range(5, size, 53):
            server = Server(answer(), ids=ids, cuts=[Cut(first), Cut(second)])
            got, error = await read(pipe_over(server, clock).stream(REQUEST))
            assert error is None
            assert pieces(got) in (true, true[:-1])
            assert not server.live


async def test_after_a_replay_a_server_that_forgets_our_ids_is_still_heard_once(clock: FakeClock) -> None:
    """The second attempt is a replay and the third is asked to continue it, but begins at the beginning."""
    events = wire(answer(), ids=True)
    bare = wire(answer())
    for cut in range(2, len(events) - 2):
        for begun in range(1, len(events) - 2):
            scripts = (
                [*bare[:begun], StreamBroken("first")],
                [*events[:cut], StreamBroken("second")],
                [b"".join(events)],
            )
            got, error = await read(pipe_over(Puppet(*scripts, repeat=True), clock).stream(REQUEST))
            said, true = pieces(got), await whole(answer(), clock)
            assert said == true[: len(said)]
            assert error is not None or said in (true, true[:-1])


async def test_malformed_json_in_the_middle_is_mended_by_a_replay(clock: FakeClock) -> None:
    events = wire(answer())
    flipped = [*events[:5], events[5].replace(b"choices", b'cho"ces'), *events[6:]]
    reader = pipe_over(Puppet(flipped, events), clock).stream(REQUEST)
    got, error = await read(reader)
    assert error is None
    assert pieces(got) == await whole(answer(), clock)
    assert isinstance(reader.report.faults[0], DecodeError)


# -- cancellation and closing --------------------------------------------------------------------


@pytest.mark.parametrize("ids", [False, True])
async def test_a_receive_cancelled_at_any_tick_goes_on_where_it_was(ids: bool, clock: FakeClock) -> None:  # noqa: FBT001
    true = await whole(answer(), clock)
    cut = len(b"".join(wire(answer(), ids=ids)[:6])) + 3
    for tick in range(1, 40):
        server = Server(answer(), ids=ids, cuts=[Cut(cut), Cut(30), Cut(60)], wait=0.5 * (tick % 2))
        stream = await layered(server).open(request_on(clock))
        got: list[Delta] = []
        while True:
            task = asyncio.create_task(_receive(stream))
            for _ in range(tick):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
            try:
                got += await task
            except asyncio.CancelledError:
                got += await _receive(stream) or []
            if stream._end is not None:
                break
        await stream.aclose()
        assert pieces(got) == true
        assert not server.live


async def _receive(stream: Any) -> Any:
    try:
        return await stream.receive()
    except Exception:  # noqa: BLE001 - the stream keeps it
        return []


class NoPause(Random):
    """Draws no pause between attempts, so that a few ticks reach into the next open()."""

    def random(self) -> float:
        return 0.0


def layered(source: Any) -> Any:
    return Reconnect()(Retry()(verify("openai")(parse_sse()(source))))


def request_on(clock: FakeClock) -> Request:
    return replace(REQUEST, call=Call(clock=clock, random=NoPause(), max_requests=12))


async def test_closed_by_another_while_it_reopens_it_leaves_nothing_open(clock: FakeClock) -> None:
    cut = len(b"".join(wire(answer())[:6]))
    for tick in range(1, 60):
        server = Server(answer(), cuts=[Cut(cut)], wait=0.5)
        reader = pipe_over(server, clock).stream(REQUEST)

        async def consume(reader: Reader[Delta] = reader) -> None:
            async with reader:
                async for _ in reader:
                    pass

        task = asyncio.create_task(consume())
        for _ in range(tick):
            await asyncio.sleep(0 if tick < 30 else 1e-5)
        await reader.cancel()
        await task
        assert not server.live


async def test_it_gives_up_after_max_barren_reopenings(clock: FakeClock) -> None:
    cut = Cut(len(b"".join(wire(answer(), ids=True)[:6])))
    server = Server(answer(), ids=True, cuts=[cut, *[Cut(0)] * 20])
    pipe = Pipe(server, clock=clock, max_requests=50) | parse_sse() | verify("openai") | Reconnect()
    _, error = await read(pipe.stream(REQUEST))
    assert isinstance(error, StreamBroken)
    assert server.opens == 6
    assert error.attempts == 6
    assert not server.live


async def test_the_servers_retry_field_is_waited_for(clock: FakeClock) -> None:
    events = wire(answer(), ids=True)
    server = Puppet([b"retry: 7000\n\n", *events[:6], StreamBroken("reset")], events[6:])
    _, error = await read(pipe_over(server, clock).stream(REQUEST))
    assert error is None
    assert server.opened_at[1] >= 7


async def test_a_server_that_wants_more_than_a_minute_is_left(clock: FakeClock) -> None:
    server = Puppet([b"retry: 61000\n\n", *wire(answer(), ids=True)[:6], StreamBroken("reset")])
    _, error = await read(pipe_over(server, clock).stream(REQUEST))
    assert isinstance(error, StreamBroken)
    assert server.opens == 1


@pytest.mark.parametrize("settings", [{"max_barren": -1}, {"max_seams": -1}, {"max_repaid_tokens": -1}])
def test_bad_settings_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Seams(**settings)  # type: ignore[arg-type]  # the wrong values are the point


def test_an_unknown_rung_is_named() -> None:
    with pytest.raises(ValueError, match="elevator"):
        Seams(rungs=("elevator",))  # type: ignore[arg-type]  # the wrong value is the point


@pytest.mark.parametrize("layer", [Buffer(count=2), ReadAhead()])
def test_what_groups_or_reads_ahead_left_of_it_is_told(layer: Any) -> None:
    judged = Pipe(Puppet()) | parse_sse() | verify("openai")
    assert f"! {type(layer).__name__} belongs right of Reconnect" in str(judged | layer | Reconnect())
    assert "!" not in str(judged | Reconnect() | layer)
