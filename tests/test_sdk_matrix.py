"""The page of SDKs holds what the promise says, has every fault, and can be played again with the SDKs at hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench.scoreboard.ask import Ask
from bench.scoreboard.judge import judge
from bench.scoreboard.page import named
from bench.scoreboard.plan import FAULTS
from bench.scoreboard.worker import hear
from bench.sdks.page import BAD, HUNG, LEAK, MIXED, NOTHING, SILENT, page, told
from bench.sdks.plan import KEYS, MOST, PARTS, key, rows, server
from bench.sdks.players import PLAYERS
from bench.sdks.run import Card, Cell
from bench.sdks.tools import ToolShape
from bench.sdks.worker import contender
from holdfast.testing import EVIDENT, FINAL, Fault, in_background
from holdfast.testing import faults as f
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import SHAPES, Shape

PAGE = Path(__file__).resolve().parent.parent / "docs/sdk-matrix.md"


def tables(text: str) -> dict[str, list[tuple[str, list[str]]]]:
    """Reads the matrices of a page: by title, the names of their rows and the cells."""
    found = {}
    for section in text.split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        lines = [line.strip("|").split("|") for line in body.partition("\n## ")[0].splitlines() if line.startswith("|")]
        found[title] = [(cells[0].strip(), [cell.strip() for cell in cells[1:]]) for cells in lines]
    return found


WRITTEN = tables(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("part", PARTS)
def test_under_a_mount_the_promise_is_kept_in_every_cell(part: str) -> None:
    table = WRITTEN[f"{part}, with Holdfast"]
    broken = [(row, cell) for row, cells in table for cell in cells if any(word in cell for word in (*BAD, "!"))]
    assert broken == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("which", ["with", "without"])
def test_every_player_has_a_column_and_every_fault_a_row(part: str, which: str) -> None:
    table = WRITTEN[f"{part}, {which} Holdfast"]
    assert table[0] == ("fault", list(PLAYERS))
    wanted = [named(fault) for faults in rows(PARTS[part][1]).values() for fault in faults]
    assert [row for row, cells in table[2:] if all(cells)] == wanted


def test_with_ids_all_that_leaves_a_trace_is_played() -> None:
    played = {str(type(fault)) for faults in rows("ids").values() for fault in faults}
    assert {str(type(fault)) for fault in (*EVIDENT, *FINAL)} == played
    assert len(KEYS) == sum(len(faults) for _, mode in PARTS.values() for faults in rows(mode).values())


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (Cell(outcome="exact", requests=2), "✓ 2"),
        (Cell(outcome="exact", requests=MOST + 1), f"✓ {MOST + 1} **!**"),
        (Cell(outcome="typed", error="openai.APIConnectionError", requests=4), "APIConnectionError 4"),
        (Cell(outcome="foreign", error="json.JSONDecodeError", requests=1), f"**{LEAK}** JSONDecodeError 1"),
        (Cell(outcome="wrong", requests=1), f"**{SILENT}** 1"),
        (Cell(outcome="wrong", error="openai.APIError", requests=1), f"**{MIXED}** APIError 1"),
        (Cell(outcome="hang", requests=1), f"**{HUNG}** 1"),
    ],
)
def test_a_cell_says_what_came_of_a_stream(cell: Cell, said: str) -> None:
    assert told(cell) == said


def test_the_page_merges_ways_that_agree_and_leaves_out_what_means_nothing() -> None:
    def cards(player: str) -> list[Card]:
        bad = Cell(outcome="wrong", requests=1)
        return [
            Card(player=player, way=way, mounted=mounted, versions={"sdk": "1"}, cells=dict.fromkeys(KEYS, cell))
            for mounted in (True, False)
            for way in PLAYERS[player].ways
            for cell in [bad if way == "sync" and not mounted else Cell(outcome="exact", requests=2)]
        ]

    text = page([*cards("openai 3"), *cards("mcp 2")])
    read = {title: dict(rows) for title, rows in tables(text).items()}
    assert read["A fault once, a server with ids, with Holdfast"]["another answer to Last-Event-ID"] == ["✓ 2", NOTHING]
    assert read["A fault at every request, without Holdfast"]["empty body, status 200"] == [
        f"a: ✓ 2<br>s: **{SILENT}** 1",
        "✓ 2",
    ]
    assert f"| openai 3, sync | sdk 1 | 0 | 0 | **{len(KEYS)}** | {len(KEYS)} | 0 | 0 |" in text


@pytest.mark.parametrize("shape", [*SHAPES, ToolShape()], ids=lambda shape: type(shape).__name__)
def test_every_fault_finds_its_place_in_every_answer(shape: Shape) -> None:
    upstream = server("any")
    reached = max(getattr(fault, "after", None) or 0 for fault in FAULTS)
    assert all(len(shape.events(upstream.answer(key), "a", ids=False)) > reached for key in KEYS[::5])


def test_a_tools_answer_is_found_again_by_its_last_event_id() -> None:
    asking = {"arguments": {"prompt": "a b/c"}, "_meta": {"progressToken": 3}}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": asking}).encode()
    called = ReceivedRequest(method="POST", path="/mcp", headers={}, body=body, port=1, at=0.0)
    asked = ToolShape().read(called)
    assert asked is not None
    assert asked.shape is not None
    events = asked.shape.events(server("mcp_").answer("a b/c"), "a", ids=True)
    place = events[3].partition(b"id: ")[2].partition(b"\n")[0].decode()
    again = ReceivedRequest(method="GET", path="/mcp", headers={"last-event-id": place}, body=b"", port=1, at=0.0)
    assert ToolShape().read(again) == asked


HERE = (
    *("openai 3", "google-genai"),
    *("httpx2 by hand", "httpx by hand", "aiohttp by hand", "requests by hand"),
)
"""Of those whose SDK the tests have; the others live in environments of their own, or in `mounts/test_sdks.py`, too."""
SAMPLE: tuple[tuple[str, type[Fault], str], ...] = (
    ("once no-ids", f.CleanCut, "exact"),
    ("once no-ids", f.JsonAnswer, "typed"),
)


@pytest.mark.parametrize(("player", "way"), [(name, way) for name in HERE for way in PLAYERS[name].ways])
async def test_a_sample_comes_out_as_the_page_says(player: str, way: str) -> None:
    told = PLAYERS[player]
    playing = contender(told.module, way, mounted=True)
    with in_background(server(told.module)) as upstream:
        for part, kind, outcome in SAMPLE:
            fault = next(fault for fault in FAULTS if type(fault) is kind)
            asked = Ask(key=key(part, fault), base_url=upstream.url)
            heard = await asyncio.to_thread(hear, playing, asked, 30.0)
            said = {name: getattr(heard, name) for name in ("text", "error", "typed", "hung")}
            assert (kind, judge(said, [one.text for one in upstream.answers(asked.key)])) == (kind, outcome), heard
            assert upstream.attempts[asked.key] == (2 if outcome == "exact" else 1)
