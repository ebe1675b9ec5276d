"""A run says where the transform of a capture is another one by now."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from iscale import open_run

MATRIX = [[0.25, 0.5, 100.0], [-0.5, 0.25, 900.0], [0.0, 0.0, 1.0]]


def write_transform(project: Path, name: str, matrix: list[list[float]]) -> None:
    """As ``iscale align`` writes it, with what was measured beside it."""
    measured = project / "DaughterCaptures" / "UnallignedToMother" / name
    measured.mkdir(parents=True, exist_ok=True)
    (measured / "cnts.tsv").write_text("spot\tG\na\t1\n")
    (measured / "locs.tsv").write_text("spot\tx\ty\na\t1\t1\n")
    aligned = project / "DaughterCaptures" / "AllignedToMother" / name
    aligned.mkdir(parents=True, exist_ok=True)
    (aligned / "transform.json").write_text(json.dumps({"matrix": matrix}))


def placed(run: Path, name: str, matrix: list[list[float]]) -> None:
    """A capture of the run that was placed so."""
    captures = zarr.open_group(run / "iSCALE_output" / "run.zarr", mode="r+").require_group("captures")
    captures.require_group(f"{name}/uns").create_array("transform", data=np.array(matrix), overwrite=True)


def test_results_of_a_former_transform_are_told(tiny_run: Path) -> None:
    for name in ("D1", "D2"):
        placed(tiny_run, name, MATRIX)
        write_transform(tiny_run, name, MATRIX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "FORMER TRANSFORM" not in open_run(tiny_run).describe()
    moved = [[*MATRIX[0][:2], 101.0], *MATRIX[1:]]
    write_transform(tiny_run, "D2", moved)
    with pytest.warns(UserWarning, match=r"capture D2: .*transform\.json was replaced since") as told:
        run = open_run(tiny_run)
    assert len(told) == 1
    (line,) = [line for line in run.describe().splitlines() if "FORMER TRANSFORM" in line]
    assert "capture D2" in line
    assert line.endswith("what the run holds is of the former one. Run the project again.")


def test_the_project_of_an_output_that_lies_elsewhere_is_looked_at(tiny_run: Path, tmp_path: Path) -> None:
    placed(tiny_run, "D1", MATRIX)
    write_transform(tiny_run, "D1", [[*MATRIX[0][:2], 101.0], *MATRIX[1:]])
    out = Path(shutil.move(tiny_run / "iSCALE_output", tmp_path / "elsewhere"))
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps(report | {"project": str(tiny_run)}))
    with pytest.warns(UserWarning, match=r"capture D1: .*transform\.json was replaced since"):
        open_run(out)
    (out / "report.json").write_text(json.dumps(report | {"project": "/nowhere/at/all"}))
    assert "FORMER TRANSFORM" not in open_run(out).describe()
