"""Plays the scoreboard and writes docs/scoreboard.md and docs/scoreboard.svg: `python -m bench.scoreboard`.

With `--only NAME ...` some contenders play and nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio

from bench.scoreboard.contenders import CONTENDERS
from bench.scoreboard.page import page
from bench.scoreboard.picture import picture
from bench.scoreboard.plan import Plan
from bench.scoreboard.run import ROOT, play_all


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scoreboard", description="Clients against the same faults.")
    parser.add_argument("--streams", type=int, default=300, help="streams of the mix, for each kind of server")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="play these, write nothing")
    options = parser.parse_args()
    plan = Plan(streams=options.streams)
    cards = asyncio.run(play_all(plan, options.only or list(CONTENDERS)))
    if options.only:
        return
    docs = ROOT / "docs"
    (docs / "scoreboard.md").write_text(page(cards, plan), encoding="utf-8")
    (docs / "scoreboard.svg").write_text(picture(cards, plan), encoding="utf-8")


if __name__ == "__main__":
    main()
