"""`holdfast demo`: a naive client and Holdfast ask the same misbehaving upstream the same things, on real TCP.

Both meet the same faults at the same places, drawn from `--seed`; texts, faults and outcomes are the same each run,
only times differ. The exit code is 1 when anything that Holdfast delivered is not exact.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import time
from dataclasses import dataclass
from random import Random
from typing import Any

from holdfast._errors import StreamError
from holdfast.cli._paper import Paper, Row, wrap
from holdfast.cli._stage import Act, Stage, stage_for
from holdfast.moments import Moment, Resumed, Resuming, Retrying
from holdfast.telemetry.words import seconds
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.faults import (
    CleanCut,
    ErrorEvent,
    Fault,
    FinInsideChunk,
    HtmlPage,
    Refused,
    ResetMidStream,
    SplitCharacters,
    StallBehindPings,
)
from holdfast.testing.schedule import Schedule

_FRAMES = 15
"""Pictures a second: more than that no eye reads."""
_CLOCK = 1.0
"""Seconds without text after which the demo's Holdfast calls it a stall; in life it is patient for a minute."""
_PATIENCE = 3.0
"""Seconds that the naive client's timeout allows beyond what a healthy answer takes."""


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="watch a naive client lose text where Holdfast delivers all of it",
        description="A naive client and Holdfast stream answers from the same embedded upstream, which resets, cuts, "
        "stalls and refuses by seed. Takes about 20 seconds; needs no key and no network.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, metavar="N", help="draws texts and where faults strike (1)")
    add("--streams", type=_positive, metavar="N", help="how many answers (one for each kind of fault)")
    add("--rate", type=_rate, default=160.0, metavar="N", help="events per second (160)")
    add("--log", metavar="FILE", help="append Holdfast's log lines to FILE, for `holdfast logs FILE`")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"must be between 1 and 10000, not {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Plays, and sums up. Returns 1 when a text of Holdfast's is not exact."""
    from holdfast.telemetry.logs import configure_logs

    log, paper = io.StringIO(), Paper()
    configure_logs(log, json=True, level="debug")
    try:
        with stage_for(paper) as stage:
            acts = asyncio.run(_play(args, stage))
    finally:
        configure_logs(level=None)
        if args.log:
            with open(args.log, "a", encoding="utf-8") as file:  # noqa: PTH123 - the path as it was typed
                file.write(log.getvalue())
    paper.write([[], *_sums(acts, paper.width), [], *_timeline(log.getvalue(), acts, paper)])
    return 0 if all(act.exact for act in acts) else 1


# -- what goes wrong ---------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Scene:
    """One misfortune: its name, what an answer's requests meet, and how the server takes a second one."""

    name: str
    faults: tuple[Fault, ...] = ()
    mode: Mode = "no-ids"


def _scenes(chance: Random) -> list[_Scene]:
    """Draws one misfortune of each kind."""

    def place() -> int:
        return chance.randint(35, 75)

    cut = ResetMidStream
    return [
        _Scene("no fault"),
        _Scene("reset mid-stream", (cut(after=place()),)),
        _Scene("clean truncation", (CleanCut(after=place()),)),
        _Scene("stall behind pings", (StallBehindPings(after=place()),)),
        _Scene("429, Retry-After 1 s", (Refused(status=429, retry_after=1),)),
        _Scene("split characters", (SplitCharacters(),)),
        _Scene("error event mid-stream", (ErrorEvent(after=place()),)),
        _Scene("HTML with status 200", (HtmlPage(),)),
        _Scene("closed inside a chunk", (FinInsideChunk(after=place()),)),
        _Scene("503, then a reset", (Refused(status=503), cut(after=place()))),
        _Scene("3 cuts, server sends ids", (cut(after=place() // 2), CleanCut(after=30), cut(after=9)), mode="ids"),
    ]


def _programme(seed: int, streams: int | None) -> dict[str, _Scene]:
    """Draws the questions, and what becomes of each; without a number, one of each kind."""
    chance = Random(f"demo {seed}")  # noqa: S311 - reproducible on purpose
    scenes = _scenes(chance)
    while streams is not None and len(scenes) < streams:
        scenes += _scenes(chance)
    return {f"question {number}": scene for number, scene in enumerate(scenes[:streams], 1)}


# -- the play ----------------------------------------------------------------------------------


async def _play(args: argparse.Namespace, stage: Stage) -> list[Act]:
    from holdfast.client import Client
    from holdfast.dialects import Timeouts

    programme = _programme(args.seed, args.streams)
    schedule = Schedule(streams={prompt: scene.faults for prompt, scene in programme.items()})
    modes = {prompt: scene.mode for prompt, scene in programme.items()}
    acts: list[Act] = []

    def hear(moment: Moment) -> None:
        _hear(acts[-1], moment)

    def upstream() -> ChaosServer:  # one for each client: neither uses up a fault that the other should meet
        return ChaosServer(schedule=schedule, modes=modes, seed=args.seed, every=1 / args.rate)

    clocks = Timeouts(open=_CLOCK, first_token=2 * _CLOCK, progress=max(_CLOCK, 5 / args.rate))
    chance = Random(args.seed)  # noqa: S311 - the same pauses each run
    async with (
        upstream() as left,
        upstream() as right,
        Client("deepseek", base_url=right.url, timeouts=clocks, random=chance, listeners=[hear]) as client,
    ):
        for number, (prompt, scene) in enumerate(programme.items(), 1):
            act = Act(number=number, total=len(programme), name=scene.name, truth=right.answer(prompt))
            acts.append(act)
            painter = asyncio.create_task(_paint(stage, act))
            try:
                await asyncio.gather(_naive(act, left.url, prompt, args.rate), _holdfast(act, client, prompt))
            finally:
                painter.cancel()
                await asyncio.gather(painter, return_exceptions=True)
            stage.finish(act)
    return acts


async def _paint(stage: Stage, act: Act) -> None:
    while True:
        stage.draw(act)
        await asyncio.sleep(1 / _FRAMES)


async def _naive(act: Act, url: str, prompt: str, rate: float) -> None:
    from holdfast.cli._naive import naive_stream

    side, truth = act.naive, act.truth

    def show(piece: str) -> None:
        side.text += piece
        side.said = f"{len(side.text)} of {len(truth.text)} characters"

    patience = (len(truth.pieces) + len(truth.reasoning_pieces)) / rate + _PATIENCE
    try:
        await naive_stream(url, prompt, show, timeout=patience)
    except TimeoutError:
        act.naive_said = "hung"
    except Exception:  # noqa: BLE001 - the naive client's own habit: print it and go on
        act.naive_said = "an error"
    side.over = True
    lost = act.lost(side)
    said = {"done": "done", "hung": "hung", "an error": "showed an error"}[act.naive_said]
    side.said = f"{said}: {lost} of {len(truth.text)} lost" if lost else f"{said}: all {len(truth.text)}"


async def _holdfast(act: Act, client: Any, prompt: str) -> None:
    side, truth, started = act.holdfast, act.truth, time.monotonic()
    stream = client.stream({"messages": [{"role": "user", "content": prompt}]})
    try:
        async with stream as deltas:
            async for delta in deltas:
                side.text += delta.text
                if delta.text:
                    side.said = f"{len(side.text)} of {len(truth.text)} characters"
        act.exact = side.text == truth.text and stream.completion.reasoning == truth.reasoning
        seams = stream.report.seams
        how = f", {_count(len(seams), 'seam')} ({seams[-1].guarantee})" if seams else ""
        side.said = f"{'exact' if act.exact else 'NOT EXACT'}: all {len(truth.text)}{how}"
    except StreamError as error:
        side.said = f"{type(error).__name__}: {error}"
    side.over = True
    report = stream.report
    act.seconds, act.requests = time.monotonic() - started, report.attempts
    act.seams, act.retries = len(report.seams), report.retries
    if report.usage is not None:
        act.repaid = report.billed_tokens - (report.usage.total_tokens or 0)


def _hear(act: Act, moment: Moment) -> None:
    """Shows in a few words what Holdfast is doing about a fault."""
    side = act.holdfast
    match moment:
        case Retrying():
            side.said = f"{_word(moment.error)}: again in {seconds(moment.delay)}"
        case Resuming():
            side.said = f"{_word(moment.error) if moment.error else 'broken'}: going on in {seconds(moment.delay)}"
        case Resumed():
            side.seams.append(len(side.text))


def _word(error: StreamError) -> str:
    return str(getattr(error, "status", "") or type(error).__name__)


# -- afterwards --------------------------------------------------------------------------------


def _sums(acts: list[Act], width: int) -> list[Row]:
    total = sum(len(act.truth.text) for act in acts)
    lost = sum(act.lost(act.naive) for act in acts)
    short = [act for act in acts if act.lost(act.naive)]
    silent = sum(act.naive_said == "done" for act in short)
    naive = f"The naive client delivered {_percent(total - lost, total)} of {total:,} characters"
    if short:
        told = f"and in {silent} of them it said that all was well" if silent else "and noticed it"
        naive += f"; it lost text in {_count(len(short), 'answer')}, {told}"
    kept = total - sum(act.lost(act.holdfast) for act in acts)
    exact = sum(act.exact for act in acts)
    ours = (
        f"Holdfast delivered {_percent(kept, total)}, {exact} of {len(acts)} exact: "
        f"{_count(sum(act.seams for act in acts), 'seam')}, {_count(sum(act.retries for act in acts), 'retry')}, "
        f"about {_count(sum(act.repaid for act in acts), 'token')} paid again."
    )
    return [
        *([(line, "bold red" if lost else "")] for line in wrap(naive + ".", width)),
        *([(line, "bold green" if exact == len(acts) else "bold red")] for line in wrap(ours, width)),
    ]


def _percent(part: int, whole: int) -> str:
    # Rounded down: 99.9 % is not 100 %.
    return f"{100 * part // max(1, whole)} %"


def _count(number: int, noun: str) -> str:
    several = noun[:-1] + "ies" if noun.endswith("ry") else noun + "s"
    return f"{number:,} {noun if number == 1 else several}"


def _timeline(log: str, acts: list[Act], paper: Paper) -> list[Row]:
    """Draws the stream that went through the most, as `holdfast logs` draws it."""
    from holdfast.cli._lanes import ASCII, UNICODE, draw, legend
    from holdfast.telemetry.timeline import LogReader

    reader = LogReader()
    lives = [life for line in log.splitlines() for life in reader.feed(line.encode())]
    with contextlib.suppress(ValueError):
        number, life = max(enumerate(lives, 1), key=lambda numbered: len(numbered[1].faults))
        signs = UNICODE if paper.unicode else ASCII
        name = acts[number - 1].name
        title: Row = [(f"Stream {number} ({name}), as `holdfast logs` shows it:", "bold")]
        return [title, [], *legend(signs), [], *draw(life, width=paper.width, signs=signs)]
    return []


__all__ = ["add_parser", "run"]
