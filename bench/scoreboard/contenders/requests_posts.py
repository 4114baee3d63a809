"""requests as blog posts and providers' guides use it: no timeout, no look at the status, lines with data."""

from __future__ import annotations

import json

import requests

from bench.scoreboard.ask import Ask, Show

PACKAGES = ("requests", "urllib3")
CATCH = (requests.exceptions.RequestException,)


def read(ask: Ask, show: Show) -> None:
    with requests.post(ask.url, json=ask.body, headers=ask.headers, stream=True) as response:
        for line in response.iter_lines():
            if not line.startswith(b"data: "):
                continue
            data = line[6:]
            if data == b"[DONE]":
                break
            content = json.loads(data)["choices"][0]["delta"].get("content")
            if content:
                show(content)
