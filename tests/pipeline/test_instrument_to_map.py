"""From a section's own tables and image to predicted maps, with the commands that a user gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import iscale
from iscale.check.project import run_check
from iscale.cli.init import init_project
from iscale.transform import read_transform

PIXEL_UM, ANALYSIS_UM = 13.8, 4.6
"""Of the image here, a third as large as the section's own, and of the analysis."""


@pytest.fixture(scope="module")
def project(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MOB1 as mother and capture: the slide from where it is, the capture of strong genes, with an image of its own."""
    folder, source = tmp_path_factory.mktemp("mob"), data_dir / "st_mob"
    (folder / "MOB1").mkdir()
    table = pd.read_csv(source / "MOB1.counts.tsv.gz", sep="\t", index_col=0)
    strong = table.columns[table.sum().argsort().to_numpy()[-1000:]]
    table[sorted(strong)].to_csv(
        folder / "MOB1" / "MOB1.counts.tsv.gz", sep="\t", compression={"method": "gzip", "compresslevel": 1}
    )
    spots = pd.read_csv(source / "MOB1.spots.tsv", sep="\t")
    spots[["pixel_x", "pixel_y"]] /= 3
    spots.to_csv(folder / "MOB1" / "MOB1.spots.tsv", sep="\t", index=False)
    with Image.open(source / "MOB1.jpg") as image:
        image.reduce(3).save(folder / "MOB1.jpg", quality=95)
    shutil.copy(folder / "MOB1.jpg", folder / "MOB1")
    init_project(folder / "P", folder / "MOB1.jpg", [f"MOB1={folder / 'MOB1'}"], pixel_size_raw=PIXEL_UM)
    (folder / "P" / "MotherImage" / "radius-raw.txt").write_text(f"{50 / PIXEL_UM:.3f}\n")
    settings = folder / "P" / "iscale.toml"
    chosen = f"pixel_size = {ANALYSIS_UM}\ndist_st = 0\nn_genes = 20\nn_plots = 1\nn_clusters = [4]\n"
    settings.write_text(chosen + settings.read_text())
    return folder / "P"


@pytest.mark.full
@pytest.mark.usefixtures("tissue_learnt_once")
def test_the_section_runs_end_to_end(project: Path) -> None:
    before = run_check(project)
    assert [finding.code for finding in before.findings] == ["not-aligned"]
    run = iscale.open_run(iscale.run(project))
    placed = read_transform(project / "DaughterCaptures" / "AllignedToMother" / "MOB1" / "transform.json")
    assert placed.how == "automatic"
    xy = run.captures["MOB1"].obsm["spatial"]
    assert np.hypot(*(placed.apply(xy) - xy).T).max() * PIXEL_UM < 50
    assert run.expression.sizes["gene"] == 20
    assert (project / "iSCALE_output" / "alignment" / "MOB1.png").is_file()

    um = iscale.on_mother(run.captures["MOB1"])
    at = run.expression.sel(y=um[:, 1].tolist(), x=um[:, 0].tolist(), method="nearest")
    seen = np.asarray(at)[:, np.arange(len(um)), np.arange(len(um))]
    measured = run.captures["MOB1"][:, at["gene"].values.tolist()].X.toarray().T
    there = np.isfinite(seen).all(axis=0)
    related = [np.corrcoef(np.log1p(a[there]), np.log1p(b[there]))[0, 1] for a, b in zip(seen, measured, strict=True)]
    assert there.mean() > 0.8
    assert np.median(related) > 0.4
    assert run_check(project).findings == ()
