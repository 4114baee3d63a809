"""`holdfast gateway` on the loop that is named: `python -m bench.gateway.ours uvloop|asyncio ARGUMENTS...`."""

from __future__ import annotations

import sys

from holdfast.cli import main

if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it was not installed
    sys.exit(main(["gateway", *sys.argv[2:]]))
