"""Runs that were never run: a store with the maps that a test wants, and maps to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from iscale.geometry import SlideGrid
from iscale.results import Run, open_run
from iscale.store import layout
from iscale.store.run_store import RunStore


def write_run(folder: Path, maps: NDArray[np.floating], genes: tuple[str, ...], pixel_size_um: float = 0.5) -> Run:
    """A run that predicts these (gene, y, x) maps; rows and columns are multiples of 16."""
    store = RunStore(folder)
    store.create()
    shape = maps.shape[1], maps.shape[2]
    grid = SlideGrid((16 * shape[0], 16 * shape[1]), pixel_size_um, pixel_size_um)
    assert grid.superpixel_shape == shape
    about = {"raw_shape_px": list(grid.raw_shape_px), "raw_pixel_size_um": pixel_size_um}
    store.make_group("image", {**about, "pixel_size_um": pixel_size_um})
    store.make_group("expression", {})
    store.make(layout.genes("expression/expression", len(genes), shape))
    store.array("expression/expression", "r+")[...] = maps.astype(np.float16)
    store.put("expression/gene", genes, ("gene",))
    store.put_coordinates("expression", shape, grid.superpixel_um)
    return open_run(folder)


def true_and_guess(
    shape: tuple[int, int, int] = (6, 48, 64), seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Smooth maps and others that are like them, with glass around a disc, as a slide has."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 3, 3))
    true = np.exp(4 * smooth / smooth.std(axis=(1, 2), keepdims=True) / 3)
    guess = 3 * true * rng.lognormal(0, 0.3, shape) + 0.5
    y, x = np.mgrid[: shape[1], : shape[2]]
    glass = (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2 > (0.48 * shape[2]) ** 2
    true[:, y + x < 12] = np.nan
    guess[:, glass] = np.nan
    return true.astype(np.float32), guess.astype(np.float16)
