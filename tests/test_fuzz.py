"""The fuzz targets, briefly (`make fuzz` runs them for longer): every seed and every past crash passes.

And each target finds what it is there for: a subject that is wrong is a finding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fuzz import engine, targets
from fuzz.engine import Target
from fuzz.targets import assembly, dialects, sse, utf8
from holdfast._types import Completion, Delta, Event
from holdfast.dialects import DIALECTS
from holdfast.dialects.chat import ChatEvidence, ChatReader
from holdfast.machines.replay import Replay
from holdfast.machines.sse import SseParser
from holdfast.machines.utf8 import Utf8Decoder

TARGETS = list(targets.targets())
CRASHES = [(target, path) for target in TARGETS for path in engine.regressions(target.name)]


def by_name(value: Target | Path) -> str:
    return value.name


@pytest.mark.parametrize("target", TARGETS, ids=by_name)
def test_seeds_and_their_mutations_pass(target: Target) -> None:
    random, seeds = Random(20), engine.seeds(target)
    assert seeds
    for data in seeds[:40] + [engine.mutate(random, seeds, target) for _ in range(60)]:
        target.check(data)


@pytest.mark.parametrize(("target", "path"), CRASHES, ids=by_name)
def test_what_once_failed_passes(target: Target, path: Path) -> None:
    target.check(path.read_bytes())


def test_every_stored_crash_belongs_to_a_target() -> None:
    assert {path.name for path in engine.REGRESSIONS.iterdir()} <= {target.name for target in TARGETS}


def test_every_way_to_read_is_a_target() -> None:
    families = dialects.families()
    assert {dialect.name for family in families for dialect in family} == DIALECTS.keys()
    assert {family[0].name for family in families} <= {target.name for target in TARGETS}
    assert ["openai-compatible"] in [[dialect.name for dialect in family] for family in families]  # it forgives more


def test_a_finding_is_stored_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: bytes) -> None:
        assert b"7" not in data

    monkeypatch.setattr(engine, "CRASHES", tmp_path)
    target = Target(name="seven", check=refuse, seeds=("utf8",), words=(b"7",))
    assert engine.run_plain(target, 20, seed=1) == 1
    (stored,) = tmp_path.iterdir()
    assert b"7" in stored.read_bytes()
    assert f"stored as {stored}" in capsys.readouterr().err


def test_a_clean_run_tells_how_much_it_tried(capsys: pytest.CaptureFixture[str]) -> None:
    target = Target(name="calm", check=lambda data: None, seeds=("utf8",), words=(b"7",))
    assert engine.run_plain(target, 0.05, seed=1) == 0
    assert "stat::number_of_executed_units: " in capsys.readouterr().err


# -- broken subjects ---------------------------------------------------------------------------


def test_a_decoder_that_forgets_half_a_character_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Utf8Decoder):
        def feed(self, batch: Sequence[bytes], out: list[str]) -> None:
            out += [chunk.decode("utf-8", "replace") for chunk in batch]

    monkeypatch.setattr(utf8, "Utf8Decoder", Forgetful)
    with pytest.raises(AssertionError):
        utf8.check("你".encode())


def test_a_parser_that_depends_on_its_chunks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(SseParser):
        """Loses a line end that starts a chunk."""

        def feed(self, batch: Sequence[bytes], out: list[Event]) -> None:
            super().feed([chunk.removeprefix(b"\n") for chunk in batch], out)

    monkeypatch.setattr(sse, "SseParser", Forgetful)
    with pytest.raises(AssertionError):
        sse.check(b"data: x\n\n")


def test_a_reader_that_takes_any_end_for_success_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(self: ChatReader, out: list[Delta]) -> None:
        return

    monkeypatch.setattr(ChatReader, "end", end)
    with pytest.raises(AssertionError, match="without proof"):
        dialects.check(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', DIALECTS["deepseek"])


def test_a_reader_that_fails_in_its_own_words_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(self: ChatReader, batch: Sequence[Event], out: list[Delta]) -> None:
        raise KeyError("choices")

    monkeypatch.setattr(ChatReader, "feed", feed)
    with pytest.raises(KeyError):
        dialects.check(b"data: x\n\n", DIALECTS["openai"])


def test_a_replay_that_emits_before_it_compared_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(self: Replay, batch: Sequence[Delta], out: list[Delta]) -> None:
        out += batch

    monkeypatch.setattr(Replay, "feed", feed)
    monkeypatch.setattr(Replay, "end", lambda self: None)
    deltas = [Delta(Event(), "a"), Delta(Event(), "b")]
    with pytest.raises(AssertionError, match="something else"):
        assembly.replays(deltas, cut=1)


def test_a_house_that_takes_any_end_for_success_is_found_under_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatEvidence, "complete", True)
    target = targets.find("faults")
    random, seeds = Random(1), engine.seeds(target)
    inputs = [engine.mutate(random, seeds, target) for _ in range(200)]
    with pytest.raises(AssertionError):
        deque(map(target.check, inputs), maxlen=0)


def test_a_pipe_that_disagrees_with_the_offline_reader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def assemble(chunks: Any, dialect: Any) -> Completion:
        return Completion()

    monkeypatch.setattr(assembly, "assemble", assemble)
    with pytest.raises(AssertionError, match="disagree"):
        assembly.check((engine.SEEDS / "chat" / "text.sse").read_bytes())
