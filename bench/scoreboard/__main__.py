"""Plays the scoreboard and writes docs/scoreboard.md and docs/scoreboard.svg: `python -m bench.scoreboard`.

With `--only NAME ...` some contenders play and nothing is written. What came of the last whole run stays in
build/scoreboard.json, and `--redraw` writes the page and the picture from it once more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from bench.scoreboard.contenders import CONTENDERS
from bench.scoreboard.page import page
from bench.scoreboard.picture import picture
from bench.scoreboard.plan import Plan
from bench.scoreboard.run import ROOT, Card, play_all

KEPT = ROOT / "build" / "scoreboard.json"


def _keep(cards: list[Card], streams: int) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps({"streams": streams, "cards": [asdict(card) for card in cards]}), encoding="utf-8")


def _draw(docs: Path) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    plan, cards = Plan(streams=kept["streams"]), [Card(**card) for card in kept["cards"]]
    (docs / "scoreboard.md").write_text(page(cards, plan), encoding="utf-8")
    (docs / "scoreboard.svg").write_text(picture(cards, plan), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scoreboard", description="Clients against the same faults.")
    parser.add_argument("--streams", type=int, default=300, help="streams of the mix, for each kind of server")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="play these, write nothing")
    parser.add_argument("--redraw", action="store_true", help="play nobody, write what came of the last run")
    options = parser.parse_args()
    if not options.redraw:
        cards = asyncio.run(play_all(Plan(streams=options.streams), options.only or list(CONTENDERS)))
        if options.only:
            return
        _keep(cards, options.streams)
    _draw(ROOT / "docs")


if __name__ == "__main__":
    main()
