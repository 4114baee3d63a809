"""The page of `holdfast logs --html`: what is on it, that no line of a log gets out of its place, and its bounds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import main
from holdfast.telemetry.health import Health
from holdfast.telemetry.page import Page
from holdfast.telemetry.pictures import histogram
from holdfast.telemetry.timeline import LogReader
from holdfast.telemetry.words import seconds
from tests.binaries import in_chromium

HOSTILE = "\"'></title></style></svg><script>document.title='pwned'</script><img src=x onerror=\"alert()\">&lt;"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "b", "div", "span", "label"),
    *("input", "svg", "defs", "pattern", "rect", "line", "text", "g", "details", "summary", "table", "tr", "td"),
}
VOID = {"meta", "input"}


class Checker(HTMLParser):
    """Takes nothing but the page's own tags and attributes, each closed where it must be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"style", "href", "src"}
            assert not (value or "").startswith("javascript:")
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            assert (self.get_starttag_text() or "").endswith("/>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def line(event: str, stream: str, at: float = 0.0, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "timestamp": f"2026-01-01T00:00:{at:06.3f}Z",
        "event": event,
        "stream_id": stream,
        "elapsed": at,
        "attempt": attempt,
        **fields,
    }


def stream(name: str, *, failed: bool = False, text: str = "x") -> list[dict[str, Any]]:
    error: dict[str, Any] = {"error": text, "error_message": text}
    return [
        line("stream.started", name, attempt=0, url=text, dialect=text, labels={text: text}),
        line("attempt.opened", name, 0.5, status=200, seconds=0.5),
        line("stream.first_delta", name, 1.0, seconds=1.0),
        line("stream.stalled", name, 4.0, clock=text, seconds=2.0),
        line("stream.resuming", name, 4.0, rung=text, delay=1.0, **error),
        line("attempt.opened", name, 5.0, attempt=2, seconds=0.5),
        line("stream.resumed", name, 6.0, attempt=2, rung=text, guarantee=text, gap=2.0, swallowed=1),
        line("breaker.changed", name, 6.0, attempt=2, breaker=text, old="closed", new=text),
        line(
            "stream.ended", name, 9.0, attempt=2, outcome=text if failed else "resumed", seconds=9.0, items=80, seams=1
        )
        | (error if failed else {"verdict": "resumed", "guarantee": text}),
    ]


def page_of(*lines: Any, most: int = 500, title: str = "t") -> str:
    reader, health = LogReader(), Health()
    page = Page(health, most=most)
    lives = [life for one in lines for life in reader.feed(json.dumps(one).encode())]
    for life in (*lives, *reader.unfinished()):
        health.add(life.ending())
        page.add(life)
        for name, state in life.breakers():
            health.note_breaker(name, state)
    return "".join(page.write(title, title))


def read(page: str) -> str:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return " ".join(" ".join(checker.text).split())


def test_it_says_what_the_summary_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.html"
    told = [*stream("a"), *stream("b", failed=True, text="Truncated"), {"not": "ours"}]
    log.write_text("".join(json.dumps(one) + "\n" for one in told))
    assert main(["logs", str(log), "--html", str(out), "--objective", "first_chunk_p99=0.5"]) == 0
    summary = capsys.readouterr().out
    text = read(out.read_text("utf-8"))
    assert "2 streams: 1 resumed, 1 Truncated" in summary
    assert ("MISSED" in summary, text.count("MISSED")) == (True, 2)
    for said in ("log.jsonl", "50.00", "1.000", "at most 0.5", "1 foreign line of 19 not used", "Streams: all 2"):
        assert said in text
    for said in ("p50 1.00 s", "RESUMED (1 seam, x)", "2 attempts · 2 faults", "SEAM x by x, gap 2.00 s", "breaker x"):
        assert said in text


def test_a_log_is_not_overwritten(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(stream("a")[0]))
    assert main(["logs", str(log), "--html", str(tmp_path / "." / "log.jsonl")]) == 2
    assert json.loads(log.read_text())["event"] == "stream.started"


def test_a_hostile_log_stays_text() -> None:
    text = read(page_of(*stream(HOSTILE, text=HOSTILE), *stream("b", failed=True, text=HOSTILE), title=HOSTILE))
    assert text.count("<script>") > 10


@given(st.text(), st.floats(allow_nan=True), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
def test_any_text_and_any_number_stay_in_their_place(text: str, number: float, labels: dict[str, str]) -> None:
    lines = [one | {"labels": labels, "seconds": number} for one in stream("a", failed=True, text=text)]
    wild = [one | {"elapsed": number, "attempt": number, "items": number, "loser": number} for one in stream("b")]
    hedge = [line("stream.hedge_ended", "b", 1.0, winner=number, loser=number)]
    read(page_of(*(one for one in (*lines, *hedge, *wild)), title=text))


def test_the_worst_are_drawn_and_all_are_summed() -> None:
    lines = [one for number in range(20) for one in (stream(f"s{number}", failed=number == 3))]
    lines += [one for n in range(20) for one in (line("stream.started", f"w{n}"), line("stream.ended", f"w{n}", 0.1))]
    page = page_of(*lines, most=5)
    assert page.count("<details") == 5
    assert "<b>s3</b>" in page
    assert "<b>w" not in page
    assert "Streams: the 5 worst of 40" in page


def test_a_histogram_counts_every_value() -> None:
    values = [0.0, 1e-9, 0.1, 0.11, 5.0, 1e9]
    drawn = histogram(values, [(1.5, "objective", "bad")], seconds, "x")
    bars = [int(part.split("</title>")[0].rsplit(" ", 1)[1]) for part in drawn.split("<title>")[1:]]
    assert sum(bars) == len(values)
    assert "nothing was told" in histogram([], [], seconds, "x")


@pytest.mark.timeout(300)
def test_chromium_opens_it_without_a_word(tmp_path: Path) -> None:
    page, control = tmp_path / "page.html", tmp_path / "control.html"
    page.write_text(page_of(*stream(HOSTILE, text=HOSTILE), title="Streams of " + HOSTILE), "utf-8")
    document, console = in_chromium(page, tmp_path / "profile")
    assert console == []
    assert "Streams of" in document.split("</title>")[0]
    assert "<script" not in document
    # What the page forbids is noticed: with a script let into it, the console would have said so.
    control.write_text(
        page.read_text("utf-8").replace("<header>", "<header><script>document.title = 1</script>"), "utf-8"
    )
    document, console = in_chromium(control, tmp_path / "profile")
    assert any("Content Security Policy" in one for one in console)
    assert "<title>Streams of" in document
