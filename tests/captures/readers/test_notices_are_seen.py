"""What a reader did is seen by who gives the commands: in init by names, in check, align and a run as it was done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_spatialdata import label_store, labelled

from iscale.check.project import run_check
from iscale.cli.init import add_captures, init_project
from iscale.options import load_options
from iscale.pipeline.align import Wishes, align_project
from iscale.plan.job import Job
from iscale.transform import Transform, write_transform

NOTICE = "Positions are those of labels/cell_labels in 'global'."


class Heard:
    """A watcher that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    tissue = np.full((400, 400, 3), 245, np.uint8)
    tissue[60:340, 60:340] = np.random.default_rng(0).integers((120, 40, 110), (220, 140, 200), (280, 280, 3))
    Image.fromarray(tissue).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def test_where_labels_place_a_capture(tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _, adata = labelled()
    store = label_store(tmp_path / "cells.zarr", image, adata, 3)
    project = tmp_path / "P"
    text = init_project(project, slide, [f"D1={store}"], pixel_size_raw=2.0)
    assert "  Its table is of labels/cell_labels, which place its rows" in text
    (project / "MotherImage" / "radius-raw.txt").write_text("5\n")
    facts = run_check(project).facts
    assert NOTICE in json.dumps(dict(facts)).replace("\\u0027", "'")
    write_transform(tmp_path / "by.json", Transform(np.array([[2.0, 0, 70], [0, 2.0, 70], [0, 0, 1]]), "given"))
    monkeypatch.setattr("iscale.plots.alignment.draw_alignment", lambda *_: None)
    heard = Heard()
    align_project(project, Wishes(matrix=tmp_path / "by.json"), watcher=heard)
    assert f"D1: {NOTICE}" in heard.said
    job = Job(project, load_options(project, {}))  # as a run reads it; it says what is in its notices
    assert len(job.captures[0].spot_ids) == 12
    assert f"Capture D1: {NOTICE}" in job.notices


def test_what_a_reader_would_refuse_is_a_warning_of_init(tmp_path: Path, slide: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "experiment.xenium").write_text("{}")
    for which in ("he", "if"):
        (tmp_path / "one" / f"s_{which}_imagealignment.csv").write_text("1,0,0\n0,1,0\n0,0,1\n")
    for which in ("a", "b"):
        (tmp_path / "two" / f"s_{which}_imagealignment.csv").write_text("1,0,0\n0,1,0\n0,0,1\n")
    text = init_project(tmp_path / "P", slide, [f"D1={tmp_path / 'one'}"], pixel_size_raw=2.0)
    assert "  Of 2 alignments s_he_imagealignment.csv is taken" in text
    added = add_captures(tmp_path / "P", [f"D2={tmp_path / 'two'}"])
    assert "Warning: " in added
    assert "holds 2 files that may be the alignment of an H&E image" in added
