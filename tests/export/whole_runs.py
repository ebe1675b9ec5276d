"""Runs that were never run: all that a run can hold, its values known, its image of one colour per superpixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import SlideGrid
from iscale.results import Run, open_run
from iscale.store import layout
from iscale.store.ome import ome_metadata
from iscale.store.run_store import RunStore

GENES = ("ERBB2", "KRT8", "MS4A1", "CD3D", "COL1A1", "HLA-A", "ACTB", "IGKC", "FASN", "CXCL13")
LABELS = ("tumour", "stroma")
THRESHOLDS = (0.1, 0.25)


def tissue_of(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An ellipse, with a hole and a spur of single superpixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = ((y / shape[0] - 0.5) ** 2 + (x / shape[1] - 0.5) ** 2) < 0.2
    inside &= ~((abs(y - shape[0] // 2) < 6) & (abs(x - shape[1] // 2) < 9))
    inside[3, 5 : shape[1] - 5 : 3] = True
    return inside


def colours_of(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """(3, y, x): a colour for each superpixel that tells where it is."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y % 251, x % 251, np.where(tissue_of(shape), 90, 240)]).astype(np.uint8)


def write_whole_run(
    folder: Path,
    shape: tuple[int, int] = (160, 192),
    genes: tuple[str, ...] = GENES,
    *,
    parts: tuple[str, ...] = ("image", "cells", "clusters", "annotation", "embedding"),
    pixel_size_um: float = 0.5,
) -> Run:
    """A run over ``shape`` superpixels, which must be multiples of 16; with ``glass`` its image is white."""
    store = RunStore(folder)
    store.create()
    grid = SlideGrid((16 * shape[0], 16 * shape[1]), pixel_size_um, pixel_size_um)
    rng = np.random.default_rng(0)
    there = tissue_of(shape)
    _write_image(store, grid, parts)
    for group in ("tissue", "expression"):
        store.make_group(group, {})
        store.put_coordinates(group, shape, grid.superpixel_um)
    store.make(layout.mask("tissue/mask", shape))
    store.array("tissue/mask", "r+")[...] = there
    if "cells" in parts:
        store.make(layout.mask("tissue/cells", shape))
        store.array("tissue/cells", "r+")[...] = there & (rng.random(shape) < 0.6)
    store.make(layout.genes("expression/expression", len(genes), shape))
    for row in range(len(genes)):
        values = np.where(there, rng.gamma(2, 1 + row, shape), np.nan)
        store.array("expression/expression", "r+")[row] = values.astype(np.float16)
    store.put("expression/gene", genes, ("gene",))
    store.make(layout.plane("expression/depth", shape))
    store.array("expression/depth", "r+")[...] = np.where(there, rng.gamma(9, 5, shape), np.nan).astype(np.float16)
    _write_rest(store, shape, grid.superpixel_um, there, parts, rng)
    return open_run(folder)


def _write_image(store: RunStore, grid: SlideGrid, parts: tuple[str, ...]) -> None:
    shapes = layout.level_shapes(grid.shape_px)
    about = {"raw_shape_px": list(grid.raw_shape_px), "raw_pixel_size_um": grid.raw_pixel_size_um}
    ome = ome_metadata("he-raw.svs", len(shapes), grid.pixel_size_um)
    store.make_group("image", {**about, "pixel_size_um": grid.pixel_size_um, "ome": ome})
    colours = colours_of(grid.superpixel_shape)
    for level, shape in enumerate(shapes if {"image", "glass"} & set(parts) else ()):
        store.make(layout.image_level(level, shape))
        if "image" in parts:
            assert level <= 4, "a superpixel is no whole pixels"
            values = colours.repeat(16 >> level, axis=1).repeat(16 >> level, axis=2)
            store.array(f"image/{level}", "r+")[...] = values[:, : shape[0], : shape[1]]


def _write_rest(
    store: RunStore,
    shape: tuple[int, int],
    step_um: float,
    there: NDArray[np.bool_],
    parts: tuple[str, ...],
    rng: np.random.Generator,
) -> None:
    for group in {"clusters", "annotation", "embedding"} & set(parts):
        store.make_group(group, {})
        store.put_coordinates(group, shape, step_um)
    if "clusters" in parts:
        for name in ("labels", "refined"):
            store.make(layout.labels(f"clusters/{name}", 1, shape))
            classes = np.where(there, rng.integers(1, 5, shape), 0).astype(np.uint8)
            if name == "refined":
                classes[rng.random(shape) < 0.3] = 0
            store.array(f"clusters/{name}", "r+")[0] = classes
        store.put("clusters/n_clusters", np.array([4]), ("n_clusters",))
    if "annotation" in parts:
        for made in layout.annotation(len(LABELS), len(THRESHOLDS), shape):
            store.make(made)
        classes = np.where(there, rng.integers(1, len(LABELS) + 2, (len(THRESHOLDS), *shape)), 0)
        store.array("annotation/labels", "r+")[...] = classes.astype(np.uint8)
        store.put("annotation/label", LABELS, ("label",))
        store.put("annotation/threshold", np.array(THRESHOLDS), ("threshold",))
    if "embedding" in parts:
        store.make(layout.embedding(5, shape))
        values = np.where(there, rng.normal(size=(5, *shape)), np.nan)
        store.array("embedding/embedding", "r+")[...] = values.astype(np.float16)
        store.put("embedding/component", np.arange(5), ("component",))


def binned(values: NDArray[np.floating], side: int) -> NDArray[np.floating]:
    """Sums over blocks, as one would write it down: (..., y, x)."""
    *rest, h, w = values.shape
    cut = values.astype(np.float64).reshape(*rest, h // side, side, w // side, side)
    return np.nansum(cut, axis=(-3, -1))
