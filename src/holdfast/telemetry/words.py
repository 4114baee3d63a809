"""A stream's life in a person's words: its outcome, its numbers, each attempt and step. For terminals and pages.

Words come with a style, in rich's own terms ("bold red"); nothing is said by colour alone. What is told is a stranger's
text as `timeline` let it through: whoever draws it escapes it.
"""

from __future__ import annotations

from typing import Literal

from holdfast.telemetry.health import Check
from holdfast.telemetry.timeline import Lane, Life, Step


def verdict(life: Life) -> tuple[str, str]:
    """Gives the outcome in words, with its style."""
    if life.outcome == "resumed":
        guarantee = life.end.text("guarantee") if life.end is not None else ""
        return f"RESUMED ({', '.join(filter(None, (count(life.seams, 'seam'), guarantee)))})", "bold green"
    if life.outcome == "complete":
        return "COMPLETE", "bold green"
    if life.failed:
        return life.outcome, "bold red"
    return {"running": "NO END IN THIS LOG", "cancelled": "GIVEN UP"}.get(life.outcome, life.outcome), "bold yellow"


def numbers(life: Life) -> list[str]:
    """Gives attempts, faults, times and tokens."""
    told = [count(life.attempts, "attempt")]
    if life.faults:
        told.append(count(len(life.faults), "fault"))
    if life.first_delta_seconds is not None:
        told.append(f"first text {seconds(life.first_delta_seconds)}")
    told.append(f"{seconds(life.seconds)} in all")
    if life.end is None:
        return told
    gap, tokens, billed = (life.end.number(name) for name in ("longest_gap", "total_tokens", "billed_tokens"))
    if gap is not None and gap >= 1:
        told.append(f"longest gap {seconds(gap)}")
    if tokens is not None:
        told.append(count(tokens, "token") + (f" ({billed:.0f} billed)" if billed and billed > tokens else ""))
    return told


def end_of(lane: Lane, life: Life) -> Literal["proven", "left", "fault"]:
    """Tells how an attempt ended."""
    if lane.how in ("complete", "resumed"):
        return "proven"
    if lane.how == "overtaken" or (lane.how in ("cancelled", "ended") and not life.failed):
        return "left"
    return "fault"


def label(lane: Lane, life: Life) -> str:
    """Gives how an attempt ended in words."""
    if lane.how in ("complete", "resumed"):
        return "proven whole"
    if not lane.how:
        return "" if life.end is not None else "no end"
    return {"cancelled": "given up", "lost": "its node was lost"}.get(lane.how, lane.how)


def count(number: float, noun: str) -> str:
    """Writes "1 seam", "2 seams"."""
    return f"{number:.0f} {noun}{'' if number == 1 else 's'}"


def seconds(value: float) -> str:
    """Writes a duration so that the eye can compare: three digits that matter."""
    if value >= 100:
        return f"{value:.0f} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


_CHECKS = {
    "chunks_per_second": ("chunks a second, median", "more than {:g}", "{:.1f}"),
    "first_chunk_p99": ("seconds to the first chunk, p99", "at most {:g}", "{:.3f}"),
    "errors": ("streams that failed, of 100", "at most {:g}", "{:.2f}"),
}


def judge(check: Check) -> tuple[str, str, str, str, str]:
    """Tells an objective: what is looked at, what was found, what was wanted, and the judgement with its style."""
    what, wanted, form = _CHECKS[check.name]
    scale = 100 if check.name == "errors" else 1
    found = "unknown" if check.found is None else form.format(check.found * scale)
    word, style = {True: ("ok", "green"), False: ("MISSED", "bold red"), None: ("-", "dim")}[check.met]
    return what, found, wanted.format(check.objective * scale), word, style


# -- the steps -------------------------------------------------------------------------------------

_SAID = {
    "stream.started": ("started  {url}", ""),
    "dialect.recognised": ("it speaks {dialect}, told by the {by}", ""),
    "attempt.opening": ("request sent", ""),
    "attempt.opened": ("head {status} after {seconds}  {request_id}", ""),
    "stream.first_delta": ("first text", "green"),
    "attempt.retrying": ("FAULT {error}; again in {delay}", "red"),
    "stream.resuming": ("FAULT {error}; {rung} in {delay}", "red"),
    "stream.resumed": ("SEAM {guarantee} by {rung}, gap {gap}, {swallowed} items came again", "magenta"),
    "stream.continued": ("leg {leg} begins after {reason}", ""),
    "stream.outlived": ("the line died after the answer was proven whole  {error}", "yellow"),
    "stream.diverged": ("the replay differed at character {position}", "red"),
    "stream.stalled": ("STALL the {clock} clock ran out after {seconds}", "yellow"),
    "attempt.waited": ("held back for {seconds}: {reason}", ""),
    "stream.hedged": ("no content after {delay}: asked once more", "yellow"),
    "stream.hedge_ended": ("attempt {winner} was first, attempt {loser} given up", ""),
    "stream.fell_back": ("FAULT {error}; on from {old} to {new}", "red"),
    "breaker.changed": ("breaker {breaker}: {old} -> {new}", "yellow"),
    "shared.lost": ("shared state {name} lost: {reason}", "yellow"),
    "shared.back": ("shared state {name} back after {seconds}", "yellow"),
    "stream.repaired": ("mended {count} x {what}", "yellow"),
    "events.dropped": ("dropped {count} events that came twice", ""),
    "recording.failed": ("the recording {path} was given up: {reason}", "yellow"),
    "stream.delivered": ("{items} items delivered, longest gap {longest_gap}", ""),
    "gateway.opened": ("asked at {surface}  {owner}", ""),
    "gateway.joined": ("joined by its idempotency key", ""),
    "gateway.read_again": ("a reader came back at record {place} of {last}", "magenta"),
    "gateway.cancelled": ("its owner cancelled it", "yellow"),
    "gateway.abandoned": ("nobody read it for {seconds}: given up", "yellow"),
    "gateway.taken_over": ("taken over from another node at record {last}", "magenta"),
    "gateway.handed_over": ("left to another node at record {last}", "yellow"),
    "gateway.lease_lost": ("another node writes it now", "yellow"),
    "attempt.billed": ("billed for the {part}: {input_tokens} tokens in, {output_tokens} out", ""),
}
_DURATIONS = frozenset(("seconds", "delay", "gap", "longest_gap"))


def say(step: Step) -> tuple[str, str]:
    """Tells a step in a person's words, with its style."""
    if step.event == "stream.ended":
        if "error" in step.facts:
            return f"ENDED {_error(step)}", "bold red"
        words = f"ended  {step.text('outcome')}  {step.text('finish_reason')}"
        return words, "green" if step.text("verdict") else "yellow"
    if step.event == "stream.resuming" and "error" not in step.facts:  # what broke it was on another node
        return f"goes on by {step.text('rung')}", "magenta"
    words, style = _SAID.get(step.event, (step.event, ""))
    return words.format_map(_Told(step)), style


class _Told(dict[str, str]):
    """What a step says, by name, as far as its line told it."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def __missing__(self, name: str) -> str:
        if name == "error":
            return _error(self._step)
        value = self._step.number(name)
        if name in _DURATIONS and value is not None:
            return seconds(value)
        return self._step.text(name)


def _error(step: Step) -> str:
    told = " ".join(filter(None, (step.text("error"), step.text("status"), step.text("code"))))
    message = step.text("error_message")
    return f"{told}: {message}" if message else told


__all__ = ["count", "end_of", "judge", "label", "numbers", "say", "seconds", "verdict"]
