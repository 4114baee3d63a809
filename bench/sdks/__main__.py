"""Plays the matrix and writes docs/sdk-matrix.md: `python -m bench.sdks`.

With `--only NAME ...` some players play, and take the place of what they did in the last run, which stays in
build/sdk-matrix.json; `--redraw` writes the page from it once more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict

from bench.scoreboard.run import ROOT
from bench.sdks.page import page
from bench.sdks.players import PLAYERS
from bench.sdks.run import Card, Cell, play_all

KEPT = ROOT / "build" / "sdk-matrix.json"
PAGE = ROOT / "docs" / "sdk-matrix.md"


def _kept() -> list[Card]:
    cards = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    return [
        Card(**{**card, "cells": {key: Cell(**cell) for key, cell in card["cells"].items()}})
        for card in cards
        if card["player"] in PLAYERS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sdks", description="SDKs against the same faults.")
    parser.add_argument("--only", nargs="+", choices=PLAYERS, help="let these play, keep what the others did")
    parser.add_argument("--redraw", action="store_true", help="play nobody, write what came of the last run")
    options = parser.parse_args()
    cards = _kept() if options.only or options.redraw else []
    if not options.redraw:
        names = options.only or list(PLAYERS)
        cards = [card for card in cards if card.player not in names] + asyncio.run(play_all(names))
        cards.sort(key=lambda card: (list(PLAYERS).index(card.player), card.way, card.mounted))
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps([asdict(card) for card in cards]), encoding="utf-8")
    PAGE.write_text(page(cards), encoding="utf-8")


if __name__ == "__main__":
    main()
