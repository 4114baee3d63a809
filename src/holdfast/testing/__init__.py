"""What the library is tested with, for its users to test with: time held still, faults on demand, the contract.

The faults themselves are in `holdfast.testing.faults`, Hypothesis strategies in `holdfast.testing.strategies` (extra
`testing`). pytest finds the fixtures `chaos_server` and `fake_clock` by itself.
"""

from __future__ import annotations

from holdfast.testing.acts import Asked, Play
from holdfast.testing.answers import Answer, ChatShape, Question, Shape
from holdfast.testing.background import in_background
from holdfast.testing.books import Served
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.clock import FakeClock
from holdfast.testing.contract import check_layer, check_source
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.faults import EVIDENT, FINAL, SILENT, VOCABULARY, Fault
from holdfast.testing.faults_layer import Faults
from holdfast.testing.proxy import ChaosProxy
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ScriptedServer

__all__ = [
    "EVIDENT",
    "FINAL",
    "SILENT",
    "VOCABULARY",
    "Answer",
    "Asked",
    "ChaosProxy",
    "ChaosServer",
    "ChatShape",
    "FakeClock",
    "Fault",
    "Faults",
    "Play",
    "Question",
    "Schedule",
    "ScriptedServer",
    "Served",
    "Shape",
    "cancel_everywhere",
    "check_layer",
    "check_source",
    "in_background",
]
