"""Tests over shared material must not vanish unseen: each of these skips loudly without it, and fails on CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import shared


def test_the_conformance_vectors_are_there() -> None:
    assert shared.vectors_file().is_file()
    assert len(shared.vectors()) > 100


def test_the_recorded_streams_are_there() -> None:
    folder = shared.recordings_folder()
    assert len(shared.recordings()) > 20
    assert all((folder / entry["file"]).is_file() for entry in shared.recordings())


def test_without_material_a_test_skips_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("HOLDFAST_VECTORS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="set HOLDFAST_VECTORS"):
        shared.vectors_file()


def test_without_material_a_test_fails_on_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("HOLDFAST_RECORDINGS", str(tmp_path / "missing"))
    with pytest.raises(pytest.fail.Exception, match="set HOLDFAST_RECORDINGS"):
        shared.recordings_folder()
