"""Fixtures of the vendors' tests: scanpy to compare with, and small Space Ranger folders."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from space_ranger_folders import hexagons, write_counts


@pytest.fixture(scope="session")
def scanpy() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("scanpy")


@pytest.fixture
def visium(tmp_path: Path) -> Path:
    """A Visium folder of today: the matrix holds the spots under tissue, in another order than the positions."""
    folder = tmp_path / "visium"
    (folder / "spatial").mkdir(parents=True)
    positions = hexagons()
    positions.to_csv(folder / "spatial/tissue_positions.csv", index=False)
    write_counts(
        folder / "filtered_feature_bc_matrix.h5", list(positions["barcode"][positions["in_tissue"] == 1])[::-1]
    )
    factors = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03, "spot_diameter_fullres": 260.0}
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    for kind in ("hires", "lowres"):
        Image.new("RGB", (8, 8)).save(folder / f"spatial/tissue_{kind}_image.png")
    return folder


@pytest.fixture
def visium_hd(visium: Path, tmp_path: Path) -> Path:
    """A Visium HD folder with bins of 2, 8 and 16 um, whose positions are those of ``visium``."""
    folder = tmp_path / "hd"
    for size in (2, 8, 16):
        bins = folder / f"binned_outputs/square_{size:03d}um"
        shutil.copytree(visium, bins)
        (bins / "spatial/tissue_positions.csv").unlink()
        hexagons().to_parquet(bins / "spatial/tissue_positions.parquet")
        factors = {"tissue_hires_scalef": 0.1, "bin_size_um": float(size), "microns_per_pixel": 0.5}
        (bins / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    return folder
