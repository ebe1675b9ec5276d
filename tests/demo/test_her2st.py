"""The her2st case is laid out as its description says, and nothing of the truth is in the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iscale.captures.integrate import integrate
from iscale.captures.read import read_aligned_capture, spot_radius_um
from iscale.demo.her2st import PIXEL_SIZE_UM, RAW_PIXEL_SIZE_UM, lay_out_her2st
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import CaptureFiles, find_project, read_number

pytestmark = pytest.mark.real
GRID = SlideGrid((9916, 9278), RAW_PIXEL_SIZE_UM, PIXEL_SIZE_UM)


def test_covered_case_is_a_project_that_can_be_read(her2st_few_genes: Path, tmp_path: Path) -> None:
    layout = lay_out_her2st(her2st_few_genes, tmp_path / "case")
    files = find_project(layout.project)
    assert [c.name for c in files.captures] == ["C3", "C5"]
    assert files.pixel_size_raw is not None
    sizes = {"raw_pixel_size_um": read_number(files.pixel_size_raw), "pixel_size_um": PIXEL_SIZE_UM}
    captures = []
    for capture in files.captures:
        radius = spot_radius_um(files, capture, **sizes)
        assert radius == pytest.approx(50)
        captures.append(
            read_aligned_capture(
                capture, radius_um=radius, pixel_size_um=PIXEL_SIZE_UM, analysis_shape_px=GRID.content_shape_px
            )
        )
    assert {c.name: len(c.spot_ids) for c in captures} == layout.kept
    assert sum(layout.kept.values()) + sum(layout.beside.values()) == 361
    spots = integrate(
        captures, n_genes=100, dist_st_px=100, analysis_shape_px=GRID.content_shape_px, pixel_size_um=PIXEL_SIZE_UM
    )
    assert spots.counts.shape[1] == 100
    assert not [p for p in layout.project.rglob("*") if "C4" in p.name]
    truth = read_aligned_capture(
        CaptureFiles("C4", layout.truth / "cnts.tsv.gz", layout.truth / "locs.tsv", None),
        radius_um=50,
        pixel_size_um=PIXEL_SIZE_UM,
        analysis_shape_px=GRID.content_shape_px,
    )
    assert len(truth.spot_ids) == len((layout.truth / "scored.tsv").read_text().split())


def test_neighbouring_sections_agree_where_they_are_laid_on_each_other(her2st_few_genes: Path, tmp_path: Path) -> None:
    """A wrong composition of the alignments would put unlike tissue on unlike tissue."""
    for mother in ("C3", "C4", "C5"):
        layout = lay_out_her2st(her2st_few_genes, tmp_path / mother, mother=mother)
        own, genes = None, ["GAPDH", "ERBB2", "COL1A1", "FASN"]
        for folder in (layout.truth, *sorted((layout.project / "DaughterCaptures/AllignedToMother").iterdir())):
            locs = pd.read_csv(folder / "locs.tsv", sep="\t", index_col=0)
            counts = np.log1p(pd.read_csv(folder / "cnts.tsv.gz", sep="\t", index_col=0).loc[locs.index, genes])
            if own is None:
                own = (locs.to_numpy(), counts.to_numpy())
                continue
            distance = np.linalg.norm(own[0][:, None] - locs.to_numpy()[None], axis=-1)
            nearest = distance.argmin(axis=1)
            near = distance.min(axis=1) < 200 / PIXEL_SIZE_UM
            r = [np.corrcoef(own[1][near, g], counts.to_numpy()[nearest[near], g])[0, 1] for g in range(len(genes))]
            assert near.mean() > 0.9
            assert np.median(r) > 0.4


def test_uncovered_parts_are_uncovered(her2st_few_genes: Path, tmp_path: Path) -> None:
    covered = lay_out_her2st(her2st_few_genes, tmp_path / "covered")
    layout = lay_out_her2st(her2st_few_genes, tmp_path / "uncovered", setting="uncovered")
    mother = pd.read_csv(layout.truth / "locs.tsv", sep="\t", index_col=0)
    limit = mother.min() + 0.4 * (mother.max() - mother.min())
    for name, axis in (("C3", "x"), ("C5", "y")):
        folder = layout.project / "DaughterCaptures/AllignedToMother" / name
        locs = pd.read_csv(folder / "locs.tsv", sep="\t", index_col=0)
        counts = pd.read_csv(folder / "cnts.tsv.gz", sep="\t", index_col=0)
        assert 20 < len(locs) == layout.kept[name] < covered.kept[name]
        assert set(locs.index) == set(counts.index)
        assert locs[axis].max() <= limit[axis]
    scored = mother.loc[(layout.truth / "scored.tsv").read_text().split()]
    assert len(scored) > 40
    assert (scored >= limit - 1e-3).all(axis=None)


def test_faults(her2st_few_genes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks 10 of the 10 her2st files"):
        lay_out_her2st(tmp_path, tmp_path / "case")
    with pytest.raises(InputError, match="no section 'C9'"):
        lay_out_her2st(her2st_few_genes, tmp_path / "case", mother="C9")
    (tmp_path / "case/MotherImage").mkdir(parents=True)
    with pytest.raises(InputError, match="has MotherImage already"):
        lay_out_her2st(her2st_few_genes, tmp_path / "case")
