"""One player at work: `python -m bench.sdks.worker MODULE WAY WITH|WITHOUT THREADS`, as the scoreboard's does."""

from __future__ import annotations

import importlib
import logging
import ssl
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from bench.scoreboard.ask import Ask, Show
from bench.scoreboard.worker import work
from bench.sdks.plan import WATCHDOG


@dataclass(slots=True, frozen=True, kw_only=True)
class Contender:
    """A player's module as a contender of the scoreboard, used in one way."""

    module: Any
    way: str
    mounted: bool

    @property
    def CATCH(self) -> tuple[type[Exception], ...]:  # noqa: N802 - what contenders call it
        catch: tuple[type[Exception], ...] = self.module.CATCH
        return catch

    @property
    def PACKAGES(self) -> tuple[str, ...]:  # noqa: N802 - as above
        packages: tuple[str, ...] = self.module.PACKAGES
        return packages

    def read(self, ask: Ask, show: Show) -> None:
        read, line = self.module.WAYS[self.way]
        read(ask, show, line() if self.mounted else {})


def contender(module: str, way: str, *, mounted: bool) -> Contender:
    """Gives a player as a contender."""
    return Contender(module=importlib.import_module(f"bench.sdks.players.{module}"), way=way, mounted=mounted)


if __name__ == "__main__":
    # Every client reads all certificates anew, which takes more CPU than a stream; none of them is looked at here.
    ssl.SSLContext.load_verify_locations = lambda *_, **__: None  # type: ignore[method-assign]  # see above
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    name, way, mounted, threads = sys.argv[1:]
    work(contender(name, way, mounted=mounted == "with"), int(threads), sys.stdin, WATCHDOG)
