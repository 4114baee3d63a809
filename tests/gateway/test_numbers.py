"""The gateway's own numbers where several workers share them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from holdfast.gateway.journal import Pulse
from holdfast.gateway.numbers import SHARED_BY_WORKERS, Numbers

WORKER = """
import os
from holdfast.gateway.numbers import Numbers
child = os.fork()
numbers = Numbers()  # in each of them
numbers.told("opened", "chat", {})
numbers.state(running=3, readers=1, slow=0, draining=False)
if child:
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    print(numbers.text()[0].decode())
    os.waitpid(child, 0)
    print("# then")
    print(numbers.text()[0].decode())
"""


def found(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_any_worker_tells_of_all_of_them(tmp_path: Path) -> None:
    environment = {**os.environ, SHARED_BY_WORKERS: str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", WORKER], env=environment, capture_output=True, text=True, check=True)
    while_both_are_there, when_one_is_gone = map(found, ran.stdout.split("# then"))
    assert while_both_are_there["holdfast_gateway_readers"] == 2
    assert when_one_is_gone["holdfast_gateway_readers"] == 1
    assert when_one_is_gone['holdfast_gateway_opened_total{surface="chat"}'] == 2


def test_of_a_journal_elsewhere_each_exchange_is_counted_once() -> None:
    numbers = Numbers()
    for exchanges, seconds in ((10, 0.5), (10, 0.5), (30, 2.0)):
        numbers.journal(Pulse(exchanges=exchanges, seconds=seconds, silences=1, silent=exchanges == 30))
    told = found(numbers.text()[0].decode())
    assert told["holdfast_gateway_journal_exchanges_total"] == 30
    assert told["holdfast_gateway_journal_seconds_total"] == 2.0
    assert told["holdfast_gateway_journal_silences_total"] == 1
    assert told["holdfast_gateway_journal_silent"] == 1


def test_labels_are_bounded_whatever_is_asked_for() -> None:
    numbers = Numbers()
    for code in range(1000):
        numbers.refused(400, f"code-{code}")
    told = [name for name in found(numbers.text()[0].decode()) if name.startswith("holdfast_gateway_refused_total")]
    assert len(told) == 201
