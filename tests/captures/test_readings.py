"""Files of a capture are read once for all who ask, until they are forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from iscale.captures import platforms as read
from iscale.captures import read as module
from iscale.captures.read import Readings


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def reader(*names: object, **options: object) -> object:
        asked.append((*names, *sorted(options.items())))
        return object()

    monkeypatch.setattr(read, "read_measured", reader)
    monkeypatch.setattr(module, "read_matched", reader)
    readings = Readings()
    first = readings.measured(tmp_path / "a", bin_um=8.0, platform=None)
    assert readings.measured(tmp_path / "a", platform=None, bin_um=8.0) is first
    assert readings.measured(tmp_path / "a", platform=None, bin_um=16.0) is not first
    tables = readings.matched("a", tmp_path / "cnts.tsv", tmp_path / "locs.tsv")
    assert readings.matched("a", tmp_path / "cnts.tsv", tmp_path / "locs.tsv") is tables
    assert len(asked) == 3
    readings.forget()
    assert readings.measured(tmp_path / "a", bin_um=8.0, platform=None) is not first
