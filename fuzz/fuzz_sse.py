"""Throws mutated streams at the SSE parser, without any package beyond Holdfast's own.

    python fuzz/fuzz_sse.py --seconds 60              mutate fuzz/seeds/ for a minute
    python fuzz/fuzz_sse.py fuzz/crashes/1f0c.sse     try these files again

Two oracles. An input is accepted or refused with the one documented error, `DecodeError`; and however it is cut into
chunks, the same events come out of it (type, data, ids, offset, exact bytes), with the same ids, retry time and end.
The cuts are drawn from the input itself, so a stored crash fails again from its file alone.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from holdfast._errors import DecodeError
from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser

HERE = Path(__file__).resolve().parent
LONGEST = 4_096
CUTTINGS = 3
MODES: tuple[dict[str, Any], ...] = ({}, {"strict": True}, {"comments": True})
TIGHT = {"max_line": 40, "max_event": 80, "max_stream": 1_000}
# What the format is made of: mutations that know it reach further than noise.
WORDS = (
    *(b"data", b"data:", b"data: ", b"id:", b"id: 7", b"event: x", b"retry: 10", b": ping", b":", b" "),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\xef\xbb\xbf", b"\0", b"\xe2\x80\xa8"),
    *(b"\xf0\x9f\x92\xa9", b"\xff", b"\xc0\xaf", b"\xe4\xbd", b"[DONE]", b'{"choices":[]}', b"9" * 30),
)


def parse(chunks: list[bytes], **mode: Any) -> tuple[Any, ...]:
    """Gives all that a reader could see of these chunks. Raises what the parser should not have raised."""
    cursor = Cursor()
    parser = SseParser(cursor, **mode)
    events: list[Event] = []
    refused = False
    try:
        for chunk in chunks:
            parser.feed([chunk], events)
        parser.end(events)
    except DecodeError:
        refused = True
    if mode.get("comments"):
        # How silent bytes are grouped follows the chunks; that every byte comes back, and in order, does not.
        return [_said(e) for e in events if e.type], b"".join(e.wire for e in events), parser.last_event_id
    if refused or mode == TIGHT:
        return [_said(e) for e in events], refused
    data = b"".join(chunks)
    return (
        [_seen(e, data) for e in events],
        parser.last_event_id,
        parser.retry,
        bytes(cursor.stray),
        cursor.unfinished > 0,
    )


def _said(event: Event) -> tuple[Any, ...]:
    return event.type, event.payload, event.last_event_id, event.id


def _seen(event: Event, data: bytes) -> tuple[Any, ...]:
    """Gives an event with the place of its bytes, less the one thing that may follow the chunks.

    A blank line's CR hands its event over at once, so an LF that comes in a later chunk is the next event's first byte.
    """
    assert data[event.offset : event.end] == event.wire, f"{event.wire!r} is not what stands at {event.offset}"
    return *_said(event), _after_lf(data, event.offset), _after_lf(data, event.end)


def _after_lf(data: bytes, place: int) -> int:
    return place + (data[place - 1 : place + 1] == b"\r\n" if place else 0)


def cuttings(data: bytes) -> Iterable[list[bytes]]:
    """Gives ways to cut an input: single bytes, and some at random with empty chunks among them."""
    yield [data[i : i + 1] for i in range(len(data))]
    random = Random(hashlib.sha256(data).digest())
    for _ in range(CUTTINGS):
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(1, 12)))
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def check(data: bytes) -> None:
    """Tries one input in every mode. Raises `AssertionError`, or whatever the parser should not have raised."""
    for mode in MODES:
        whole = parse([data], **mode)
        if mode.get("comments"):
            assert whole[1] == data, f"{mode}: bytes were lost: {whole[1]!r}"
        for chunks in cuttings(data):
            cut = parse(chunks, **mode)
            assert cut == whole, f"{mode}: cut as {chunks!r}\n{cut!r}\nwhole\n{whole!r}"
    # Where a limit trips may follow the chunks; what was handed over before it is right all the same.
    everything = parse([data], comments=True)[0]
    for chunks in ([data], *cuttings(data)):
        events, refused = parse(chunks, **TIGHT)
        assert events == everything[: len(events)], f"{TIGHT}: cut as {chunks!r}\n{events!r}\nof\n{everything!r}"
        assert refused or len(events) == len(everything), f"{TIGHT}: cut as {chunks!r}: events were lost"


def mutate(random: Random, seeds: list[bytes]) -> bytes:
    """Makes a new input out of old ones."""
    data = bytearray(random.choice(seeds))
    steps: list[Callable[[int], None]] = [
        lambda at: data.insert(at, random.randrange(256)),
        lambda at: data.__setitem__(slice(at, at), random.choice(WORDS)),
        lambda at: data.__setitem__(slice(at, at + random.randrange(1, 9)), random.choice(WORDS)),
        lambda at: data.__delitem__(slice(at, at + random.randrange(1, 33))),
        lambda at: data.__setitem__(slice(at, at), data[at : at + random.randrange(1, 65)]),
        lambda at: data.__setitem__(slice(at, None), random.choice(seeds)[random.randrange(64) :]),
    ]
    for _ in range(random.randrange(1, 9)):
        random.choice(steps)(random.randrange(len(data) + 1))
    return bytes(data[:LONGEST])


def fails(data: bytes, name: str) -> bool:
    """Tries one input; says on stderr what went wrong."""
    try:
        check(data)
    except Exception:  # noqa: BLE001 - whatever it is, it is the finding
        print(f"FAILED: {name} ({len(data)} bytes)", file=sys.stderr)
        traceback.print_exc(limit=-2)
        return True
    return False


def fuzz(seconds: float, seed: int) -> int:
    """Mutates until the time is over. Returns how many inputs failed; each is stored under fuzz/crashes/."""
    seeds = [path.read_bytes() for path in sorted((HERE / "seeds").iterdir())]
    failed = sum(fails(data, "a seed") for data in seeds)
    random = Random(seed)
    tried = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds and failed < 10:
        data = mutate(random, seeds)
        tried += 1
        name = f"fuzz/crashes/{hashlib.sha256(data).hexdigest()[:12]}.sse"
        if fails(data, name):
            failed += 1
            (HERE / "crashes").mkdir(exist_ok=True)
            (HERE.parent / name).write_bytes(data)
    print(f"{tried} inputs in {time.monotonic() - started:.0f} s from seed {seed}: {failed} failed")
    return failed


def main() -> int:
    """Returns the exit status: 0 when nothing failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="*", type=Path, help="inputs to try again, instead of fuzzing")
    options.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    options.add_argument("--seed", type=int, default=None, help="of the mutations (another each time)")
    given = options.parse_args()
    if given.files:
        return int(sum(fails(path.read_bytes(), str(path)) for path in given.files) > 0)
    seed = given.seed if given.seed is not None else time.time_ns() % 1_000_000
    return int(fuzz(given.seconds, seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
