"""One node: a gateway process as `holdfast gateway` runs it, with its settings as JSON in the first argument."""

from __future__ import annotations

import json
import sys

from holdfast.gateway.serve import run
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.gateway.workers import listen


def main() -> None:
    """Serves until a signal comes."""
    given = json.loads(sys.argv[1])
    upstreams = tuple(UpstreamSettings(**one) for one in given.pop("upstreams"))
    settings = Settings(upstreams=upstreams, **given)
    (sock,) = listen(settings)
    run(settings, sock, started=lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
