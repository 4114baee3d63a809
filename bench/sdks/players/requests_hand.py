"""requests by the hand of somebody careful: the status is looked at, and a timeout is set."""

from __future__ import annotations

import requests

from bench.scoreboard.ask import IDLE, Ask, Show
from bench.sdks.players._settings import SETTINGS, Line, Words
from holdfast import mounts

PACKAGES = ("requests", "urllib3")
CATCH = (requests.exceptions.RequestException,)


def _read(ask: Ask, show: Show, line: Line) -> None:
    words = Words()
    with requests.Session() as session:
        if line:
            session.mount("http://", line["adapter"])
        with session.post(ask.url, json=ask.body, stream=True, timeout=IDLE) as response:
            response.raise_for_status()
            for data in response.iter_content(None):
                for text in words.feed(data):
                    show(text)
                if words.done:
                    break


WAYS = {"sync": (_read, lambda: {"adapter": mounts.RequestsAdapter(**SETTINGS)})}
