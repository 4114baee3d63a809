"""launchdarkly-eventsource with the reconnecting it is taken for: four tries, pauses from a tenth of a second.

It can only GET, so the pool that it may be given makes a POST of that.
"""

from __future__ import annotations

import json
from typing import Any

import urllib3
from ld_eventsource import SSEClient
from ld_eventsource.config import ConnectStrategy, ErrorStrategy
from ld_eventsource.errors import HTTPContentTypeError, HTTPStatusError

from bench.scoreboard.ask import IDLE, Ask, Show

PACKAGES = ("launchdarkly-eventsource", "urllib3")
CATCH = (HTTPStatusError, HTTPContentTypeError, urllib3.exceptions.HTTPError)


class _Posting:
    """A pool that asks as a completion endpoint wants to be asked."""

    def __init__(self, ask: Ask) -> None:
        self._pool = urllib3.PoolManager()
        self._ask = ask

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self._pool.request("POST", url, json=self._ask.body, **options)

    def clear(self) -> None:
        self._pool.clear()


def read(ask: Ask, show: Show) -> None:
    connect = ConnectStrategy.http(
        ask.url, headers=ask.headers, pool=_Posting(ask), urllib3_request_options={"timeout": IDLE}
    )
    client = SSEClient(connect, initial_retry_delay=0.1, error_strategy=ErrorStrategy.continue_with_max_attempts(4))
    try:
        for event in client.events:
            if event.data == "[DONE]":
                break
            chunk = json.loads(event.data)
            if chunk["choices"] and (content := chunk["choices"][0]["delta"].get("content")):
                show(content)
    finally:
        client.close()
