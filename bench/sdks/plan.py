"""What every SDK meets: the scoreboard's matrix, but for silent corruption, for which nobody can be blamed.

The parts: a fault that meets the first request, of a server without ids and of one with; and one that meets every
request. Which faults there are, and where they strike, is the scoreboard's to say.
"""

from __future__ import annotations

from dataclasses import replace

from bench.scoreboard.plan import CORRUPTION, FAULTS, Plan, groups
from bench.sdks.tools import ToolShape
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.faults import AnotherAnswer, EndlessLine, Fault, StallBehindEmptyDeltas

WATCHDOG = 45.0
"""Seconds after which an answer hangs: an SDK's own tries come on top of a call that took all of its time."""
MOST = 8
"""Requests that a mount's policy allows to one call."""
MEANINGLESS: dict[str, tuple[type, ...]] = {"mcp 2": (AnotherAnswer, StallBehindEmptyDeltas)}
"""What leaves no trace for some player: a tool's result comes whole, and another one, or an empty one, is a result."""
PLAN = Plan(streams=0)
PARTS: dict[str, tuple[str, Mode]] = {
    "A fault once, a server without ids": ("once no-ids", "no-ids"),
    "A fault once, a server with ids": ("once ids", "ids"),
    "A fault at every request": ("always no-ids", "no-ids"),
}


def rows(mode: Mode) -> dict[str, list[Fault]]:
    """Gives the rows of one part by their groups."""
    return {name: list(faults) for name, faults in groups(mode).items() if name != CORRUPTION}


def key(part: str, fault: Fault) -> str:
    """Gives the scoreboard's key of a cell: the prompt that meets the fault."""
    return f"{part} {FAULTS.index(fault)}"


KEYS = [key(part, fault) for part, mode in PARTS.values() for faults in rows(mode).values() for fault in faults]


def shifts() -> tuple[list[str], list[str]]:
    """The keys in two processes: over a line without an end some SDKs keep a core busy for minutes."""
    heavy = [k for k in KEYS if isinstance(PLAN.schedule.fault(k, 1), EndlessLine)]
    return [k for k in KEYS if k not in heavy], heavy


def server(module: str) -> ChaosServer:
    """Gives the server of one player."""
    made = PLAN.server()
    made.schedule = replace(PLAN.schedule, rate=0.0)  # what is asked beside the plan goes well
    if module == "mcp_":
        made.shape = ToolShape()
    return made
