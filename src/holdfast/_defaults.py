"""The layers that a client and a mount put over a source where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pybreaker

from holdfast._core import Source
from holdfast.dialects import Dialect, Timeouts, find
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.deadline import Deadline
from holdfast.layers.expect_json import ExpectJson
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import Seams


def default_layers(
    dialect: str | Dialect,
    *,
    timeouts: Timeouts | None = None,
    seams: Seams | bool = False,
    breaker: pybreaker.CircuitBreaker | None = None,
    traffic: Iterable[Callable[[Source[Any]], Source[Any]]] = (),
    refused: set[str] | None = None,
    auto_continue: AutoContinue | bool | None = None,
    schema: Mapping[str, Any] | bool = False,
    relay: bool = False,
) -> list[Callable[[Source[Any]], Source[Any]]]:
    """Gives the layers that a `Client` puts over its source, from the wire to the reader: to print, or to change.

    The breaker stands right of Retry and Reconnect and so judges whole calls: a call that survived its faults is a
    success. Left of Retry it would count every attempt, and one bad call could shut the door on itself.
    `traffic` are layers that see every attempt, limits, hedges and fallbacks, in order from the wire to the reader:
    they stand behind the clocks, so that waiting for a permit is no slow server. `seams` is the ladder's policy: see
    `Seams`. `refused` is Reconnect's, `schema` ExpectJson's. `auto_continue` asks on at token limits; nothing does by
    default. `relay` hands over every event, for whoever passes the bytes on.
    """
    dialect = find(dialect)
    clocks = Timeouts.of(timeouts).over(dialect.timeouts)
    layers: list[Callable[[Source[Any]], Source[Any]]] = [
        parse_sse(comments=relay),
        verify(dialect, relay=relay),
        Deadline(open=clocks.open, first_token=clocks.first_token, progress=clocks.progress),
        *traffic,
        Retry(),
        Reconnect(seams=Seams.of(seams), refused=refused if refused is not None else set()),
    ]
    asking_on = AutoContinue.of(auto_continue)
    if asking_on is not None:
        layers.append(asking_on)
    if breaker is not None:
        layers.append(CircuitBreaker(breaker))
    # What the model writes is no fault of the upstream's: the breaker does not hear of it.
    return [*layers, ExpectJson(schema=schema), Deadline(total=clocks.total)]
