"""Clients that are no Python through a gateway: curl, Node's fetch, and the makers' SDK for Node.

Those that resume lose their own connection, too, and each time in another place.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from holdfast.testing.chaos import ChaosServer
from holdfast.testing.faults import FinInsideChunk, ResetMidStream
from holdfast.testing.schedule import Schedule
from tests.binaries import binary, node_modules
from tests.gateway.cutting import cutting
from tests.gateway.serving import serving, settings
from tests.gateway.told import told_text

HERE = Path(__file__).parent
CUTS = (ResetMidStream(after=10), FinInsideChunk(after=60))
SCHEDULE = Schedule(
    streams={
        "cut": CUTS,
        "cut too": CUTS,
        "broken": [ResetMidStream(after=20)] * 20,
        "broken too": [ResetMidStream(after=20)] * 20,
    }
)


async def run(*command: str, **environment: str) -> tuple[int, bytes]:
    """Runs a program, and gives its code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "*", **environment},
    )
    try:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out


async def test_the_sdk_for_node_reads_whole_answers_and_meets_its_own_errors() -> None:
    script, modules = str(HERE / "node/openai.mjs"), str(node_modules())
    async with ChaosServer(schedule=SCHEDULE) as upstream, serving(settings(upstream.url)) as served:
        code, out = await run(binary("node"), script, served.url, MODULES=modules)
        cut, cut_too, broken, broken_too, refused = map(json.loads, out.splitlines())
        assert code == 0
        assert cut == {"text": upstream.answer("cut").text}
        assert cut_too == {"text": upstream.answer("cut too").text}
        assert (broken["error"], broken_too["error"]) == ("APIError", "APIError")
        assert "cut short" in broken["message"] or "connection" in broken["message"]
        assert (refused["error"], refused["status"]) == ("BadRequestError", 400)


async def test_a_loop_of_fetch_goes_on_where_its_connection_was_cut() -> None:
    async with ChaosServer(schedule=SCHEDULE) as upstream, serving(settings(upstream.url)) as served:
        async with cutting(served.url, (3000, 1500, 9000, 700)) as network:
            _, out = await run(binary("node"), str(HERE / "node/resume.mjs"), network.url, "cut")
        said: dict[str, Any] = json.loads(out)
        assert said["text"] == upstream.answer("cut").text
        assert said["connections"] == 6  # four that were cut, the one that read to the end, and the 204
        assert len(upstream.served) == 3  # cut twice, and asked for no more by those who came back


async def test_curl_goes_on_with_the_same_post() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "cut"}], "stream": True})
    async with ChaosServer(schedule=SCHEDULE) as upstream, serving(settings(upstream.url)) as served:
        async with cutting(served.url, (3000, 1500, 9000)) as network:
            got, code, asked = b"", 1, 0
            while code and asked < 9:
                asked += 1
                last = got.rpartition(b"\nid: ")[2].split(b"\n")[0].decode() if b"\nid: " in got else ""
                headers = ("-H", f"Last-Event-ID: {last}") if last else ()
                command = (binary("curl"), "-sN", "-d", body, *headers, f"{network.url}/v1/chat/completions")
                code, out = await run(*command)
                got += out[: out.rfind(b"\n\n") + 2] if b"\n\n" in out else b""  # half an event is none
        assert asked == 4
        assert told_text(got) == upstream.answer("cut").text
        assert len(upstream.served) == 3
