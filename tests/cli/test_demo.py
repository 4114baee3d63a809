"""The demo on real TCP: what it promises a newcomer, and what its exit code says."""

from __future__ import annotations

import argparse
import asyncio
import io

import aiohttp
import pytest

from holdfast.cli import demo, main
from holdfast.cli._naive import naive_stream
from holdfast.cli._paper import Paper, columns
from holdfast.cli._stage import Act, Side, frame, legend, plain_frame, stage_for, table_head, table_row
from holdfast.testing.answers import Answer
from holdfast.testing.server import ScriptedServer, respond

TRUTH = Answer(pieces=("潮起", "潮落，", "the kelp ", "holds.\n\n", "It holds."))


def act(naive: str, holdfast: str, *, exact: bool = True) -> Act:
    sides = (Side(text=naive, said="done", over=True), Side(text=holdfast, said="exact", over=True, seams=[4]))
    return Act(
        number=1,
        total=2,
        name="reset mid-stream",
        truth=TRUTH,
        naive=sides[0],
        holdfast=sides[1],
        exact=exact,
        requests=2,
    )


def plain(rows: list[list[tuple[str, str]]]) -> list[str]:
    return ["".join(text for text, _ in row) for row in rows]


def test_a_few_streams_come_out_exact_and_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--streams", "2", "--rate", "3000", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "2 of 2 exact: 1 seam" in out
    assert "Stream 2 (reset mid-stream)" in out
    assert "SEAM verified by replay" in out
    assert all(columns(line) <= 80 for line in out.splitlines())
    assert not [c for c in out if ord(c) < 32 and c != "\n"]


def test_a_text_that_is_not_exact_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play(args: argparse.Namespace, stage: object) -> list[Act]:
        await asyncio.sleep(0)
        return [act("潮起", "潮起潮", exact=False)]

    monkeypatch.setattr(demo, "_play", play)
    assert main(["demo"]) == 1
    assert "0 of 1 exact" in capsys.readouterr().out


def test_a_seed_draws_the_same_misfortunes_and_another_one_others() -> None:
    assert demo._programme(7, 30) == demo._programme(7, 30)
    assert demo._programme(7, None) != demo._programme(8, None)
    assert len(demo._programme(7, 30)) == 30


@pytest.mark.parametrize("arguments", [["--streams", "0"], ["--rate", "0"], ["--rate", "fast"], ["--seed", "x"]])
def test_arguments_that_cannot_be_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_lost_characters_count_from_the_first_that_differs() -> None:
    assert act("", "").lost(Side(text="潮起X落")) == len(TRUTH.text) - 2
    assert act("", "").lost(Side(text=TRUTH.text)) == 0


def test_what_never_came_is_struck_out_beside_what_did() -> None:
    rows = frame(act("潮起", TRUTH.text), 80, 6)
    struck = "".join(text for row in rows for text, style in row if "strike" in style)
    assert "".join(struck.split()) == "".join(TRUTH.text[2:].split())
    assert ("┿", "bold magenta") in [piece for row in rows for piece in row]
    assert len({columns(line.split("│")[0]) for line in plain(rows)[1:]}) == 1


def test_where_a_client_ended_too_early_stands_a_sign_of_fault() -> None:
    for early, cut in (("潮起", True), (TRUTH.text, False)):
        told = act(early, TRUTH.text)
        drawn = [plain_frame(told, 80, unicode=True), plain_frame(told, 80, unicode=False), frame(told, 80, 6)]
        left = ["\n".join(line[:37] for line in plain(rows)) for rows in drawn]
        assert [sign in pane for pane, sign in zip(left, ("潮起✗", "????x", "潮起✗"), strict=True)] == [cut] * 3
        assert [pane.count("✗") for pane in left] == [cut, 0, cut]


def test_the_signs_are_explained_before_the_first_stream(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--streams", "1", "--rate", "3000"])
    first, second, blank, stream = capsys.readouterr().out.splitlines()[:4]
    assert (first[:7], second[:8], blank) == ("┿ seam:", "✗ fault:", "")
    assert stream.startswith("stream 1 of 1")
    assert all(columns(line) <= 80 for struck in (True, False) for line in plain(legend(struck=struck)))


async def test_the_naive_client_is_no_straw_man_about_statuses() -> None:
    shown: list[str] = []
    async with ScriptedServer([respond(b"busy", 503)]) as server:
        with pytest.raises(aiohttp.ClientResponseError, match="503"):
            await naive_stream(server.url, "hi", shown.append, timeout=5)
    assert shown == []


def test_without_signs_for_chinese_the_columns_still_stand() -> None:
    lines = plain(plain_frame(act("潮起", TRUTH.text), 80, unicode=False))
    assert all(line.isascii() for line in lines)
    assert {line.index("|") for line in lines[1:-1]} == {39}


class Screen(io.StringIO):
    """A terminal, as far as anybody asks."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_text_moves_and_the_table_grows_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen()
    with stage_for(Paper(screen)) as stage:
        stage.draw(act("潮", "潮"))
        stage.finish(act("潮起", TRUTH.text))
    shown = screen.getvalue()
    assert "\x1b[" in shown
    assert shown.index("it said") < shown.index("stream 1 of 2") < shown.rindex("reset mid-stream")
    assert "\x1b[?25h" in shown  # the cursor is back


def test_the_table_stays_within_its_paper() -> None:
    widest = act("", "")
    widest.seams, widest.seconds = 12, 123.0
    assert all(columns(line) <= 80 for line in plain([*table_head(), table_row(widest)]))
