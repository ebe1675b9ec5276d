"""Figures are drawn from overviews that agree with the whole, and land in the published folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from iscale.plots.overview import mean_map, reduction
from iscale.project.layout import is_sheet


def test_an_overview_is_the_mean_of_what_is_there() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2100, 1300)).astype(np.float32)
    values[:, :500, :700] = np.nan
    array = zarr.create_array(zarr.storage.MemoryStore(), data=values, chunks=(1, 512, 512))
    factor = reduction(values.shape)
    assert factor == 4
    overview = mean_map(array, 1, factor)
    assert overview.shape == (525, 325)
    blocks = values[1].reshape(525, 4, 325, 4).astype(np.float64)
    np.testing.assert_allclose(overview[125:], blocks.mean(axis=(1, 3))[125:], atol=1e-5)
    assert np.isnan(overview[:125, :175]).all()
    assert np.isfinite(overview[:125, 175:]).all()


def test_published_folders_hold_a_picture_per_gene(tiny_original_run: Path) -> None:
    out = tiny_original_run / "iSCALE_output"
    folders = ["spot_level_st_plots/D1", "spot_level_st_plots/D2", "spot_level_st_plots/spots-integrated"]
    for folder in [*folders, "super_res_ST_plots", "super_res_ST_plots/refined"]:
        pictures = sorted(path for path in (out / folder).glob("*.png") if not is_sheet(path))
        assert len(pictures) == 3, folder
        pixels = np.asarray(Image.open(pictures[0]).convert("RGB"))
        assert pixels.shape[1] >= 840
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, "a picture with next to no colours shows nothing"
    assert (out / "super_res_ST_plots" / "contact-sheet.png").exists()
