"""What the library is tested with, for its users to test with: time held still, faults on demand, the contract.

The faults themselves are in `holdfast.testing.faults`, Hypothesis strategies in `holdfast.testing.strategies` (extra
`testing`). pytest finds the fixtures `chaos_server` and `fake_clock` by itself.
"""

from __future__ import annotations

from holdfast.testing.acts import Asked, Play
from holdfast.testing.answers import Answer, CalledTool, write_answer
from holdfast.testing.background import in_background
from holdfast.testing.books import Served
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.clock import FakeClock
from holdfast.testing.contract import check_layer, check_source
from holdfast.testing.driving import cancel_everywhere
from holdfast.testing.faults import EVIDENT, FINAL, SILENT, VOCABULARY, Fault
from holdfast.testing.faults_layer import Faults
from holdfast.testing.idiom import Idiom
from holdfast.testing.proxy import ChaosProxy
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ScriptedServer
from holdfast.testing.shapes import (
    SHAPES,
    AnthropicShape,
    ChatShape,
    CohereShape,
    GeminiShape,
    InteractionsShape,
    PlainShape,
    Question,
    ResponsesShape,
    Shape,
)

__all__ = [
    "EVIDENT",
    "FINAL",
    "SHAPES",
    "SILENT",
    "VOCABULARY",
    "Answer",
    "AnthropicShape",
    "Asked",
    "CalledTool",
    "ChaosProxy",
    "ChaosServer",
    "ChatShape",
    "CohereShape",
    "FakeClock",
    "Fault",
    "Faults",
    "GeminiShape",
    "Idiom",
    "InteractionsShape",
    "PlainShape",
    "Play",
    "Question",
    "ResponsesShape",
    "Schedule",
    "ScriptedServer",
    "Served",
    "Shape",
    "cancel_everywhere",
    "check_layer",
    "check_source",
    "in_background",
    "write_answer",
]
