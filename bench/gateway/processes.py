"""What the kernel knows of processes: CPU time in nanoseconds and resident memory in bytes. Linux only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PAGE = 4096


def cpu_ns(pids: Iterable[int]) -> int:
    """Gives the CPU time of processes, all their threads together."""
    return sum(
        int((task / "schedstat").read_text(encoding="ascii").split()[0])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def rss(pids: Iterable[int]) -> int:
    """Gives the resident memory of processes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE for pid in pids)


def family(pid: int) -> list[int]:
    """Gives a process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(one for child in children for one in family(int(child)))]
