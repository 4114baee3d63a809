"""What a mount costs is measured by `python -m bench mounts`; here only that nothing has gone badly wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import mounts as bench


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with bench.upstream() as url:
        yield url


@pytest.mark.parametrize("name", ["httpx2, async", "httpx2"])
def test_a_mount_costs_a_few_times_its_client_at_the_very_most(upstream: str, name: str) -> None:
    figures = bench.medians(bench.measure(name, upstream, rounds=3, seconds=0.1))
    plain, ours = figures["without"], figures["with"]
    assert 0 < plain["16"] < plain["1"]
    for events_a_read in ("1", "16"):
        # Machines are busy: what is bounded is a mistake that costs as much as the client itself, several times over.
        assert ours[events_a_read] < 6 * plain[events_a_read] + 100, f"{events_a_read} a read, in us: {plain}, {ours}"


def test_the_table_has_a_row_for_each_client_and_the_page_takes_it(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path_factory.mktemp("docs") / "mounts.md"
    page.write_text("# Mounts\n\n## Timeouts\n\nText.\n\n## aiohttp\n\nMore.\n", encoding="utf-8")
    monkeypatch.setattr(bench, "PAGE", page)
    figures = {"1": 100.0, "16": 10.0, "first": 1.0}
    measured = {
        name: {"without": figures, "with": figures, "added": dict.fromkeys(figures, 5.0)} for name in bench.CLIENTS
    }
    hot = bench.floor(20, 0)
    bench.write(measured, 3, hot, hot)
    once = page.read_text(encoding="utf-8")
    bench.write(measured, 3, hot, hot)
    assert page.read_text(encoding="utf-8") == once
    assert once.index("Text.") < once.index("## What it costs") < once.index("## aiohttp")
    assert "| openai, async | 10 us | +5 us (+50%) | 100 us | +5 us (+5%) | 1.0 ms | +5.0 ms | 10 % |" in once
    assert 0 < hot["parse"] < hot["pipe"]
    assert f"| the pipe: that, and all layers | {hot['pipe']:.1f} |" in once
    assert "| requests | 10 us | +5 us | 100 us | +5 us | 1.0 ms | +5.0 ms | 10 us |" in once
