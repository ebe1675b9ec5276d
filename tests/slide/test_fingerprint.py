from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from iscale.errors import InputError
from iscale.slide.base import file_fingerprint


def test_it_tells_contents_not_names(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a.tif").write_bytes(data)
    (tmp_path / "b.tif").write_bytes(data)
    (tmp_path / "head.tif").write_bytes(b"x" + data[1:])
    (tmp_path / "tail.tif").write_bytes(data[:-1] + b"x")
    (tmp_path / "longer.tif").write_bytes(data + b"x")
    prints = {name: file_fingerprint(tmp_path / f"{name}.tif") for name in ("a", "b", "head", "tail", "longer")}
    assert prints["a"] == prints["b"]
    assert len(set(prints.values())) == 4


def test_a_large_file_costs_little(tmp_path: Path) -> None:
    with (tmp_path / "large.tif").open("wb") as file:
        file.truncate(10 << 30)
    before = psutil.Process().io_counters().read_chars
    file_fingerprint(tmp_path / "large.tif")
    assert psutil.Process().io_counters().read_chars - before < 100 << 20


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.svs"):
        file_fingerprint(tmp_path / "gone.svs")
