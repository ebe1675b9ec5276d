"""Runs that were never run, with maps, spread and depth that a test knows; and areas written in every format."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import sparse

from iscale.geometry import SlideGrid
from iscale.results import Run, open_run
from iscale.store import layout
from iscale.store.run_store import RunStore

RAW_UM, PIXEL_UM = 0.25, 0.5
SUPERPIXEL_RAW = 32
"""Side of a superpixel in full-resolution pixels; it is 8 um."""


def write_run(folder: Path, maps: NDArray[np.floating], *, spread: bool = True) -> Run:
    """A run of genes G0, G1 ... that predicts these (gene, y, x) maps; their spread is a tenth, depth their sum."""
    store = RunStore(folder)
    store.create()
    shape = maps.shape[1], maps.shape[2]
    grid = SlideGrid((SUPERPIXEL_RAW * shape[0], SUPERPIXEL_RAW * shape[1]), RAW_UM, PIXEL_UM)
    assert grid.superpixel_shape == shape
    about = {"raw_shape_px": list(grid.raw_shape_px), "raw_pixel_size_um": RAW_UM, "pixel_size_um": PIXEL_UM}
    store.make_group("image", about)
    store.make_group("expression", {})
    for name, values in {"expression": maps, **({"uncertainty": maps / 10} if spread else {})}.items():
        store.make(layout.genes(f"expression/{name}", len(maps), shape))
        store.array(f"expression/{name}", "r+")[...] = values.astype(np.float16)
    store.make(layout.plane("expression/depth", shape))
    store.array("expression/depth", "r+")[...] = maps.sum(axis=0).astype(np.float16)
    store.put("expression/gene", tuple(f"G{i}" for i in range(len(maps))), ("gene",))
    store.put_coordinates("expression", shape, grid.superpixel_um)
    return open_run(folder)


def some_maps(genes: int = 3, shape: tuple[int, int] = (144, 160), seed: int = 0) -> NDArray[np.float32]:
    """Maps with glass around a disc, which float16 holds exactly."""
    maps = np.random.default_rng(seed).integers(1, 200, (genes, *shape)).astype(np.float32) / 4
    y, x = np.mgrid[: shape[0], : shape[1]]
    maps[:, (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 > (0.45 * shape[1]) ** 2] = np.nan
    return maps


def add_capture(run: Run, name: str, transform: NDArray[np.float64], um_per_px: float) -> None:
    """A capture of one spot that lies on the slide as ``transform`` says."""
    captures = zarr.open_group(run.store.root, mode="r+").require_group("captures")
    uns = {"transform": transform, "spatial": {name: {"scalefactors": {"microns_per_pixel": um_per_px}}}}
    data = ad.AnnData(X=sparse.csr_matrix(np.ones((1, 1), np.float32)), uns=uns)
    with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        ad.io.write_elem(captures, name, data)


def feature(rings: list[list[list[float]]], number: str | None = None, **properties: object) -> dict[str, object]:
    """A feature with one polygon."""
    geometry = {"type": "Polygon", "coordinates": rings}
    found: dict[str, object] = {"type": "Feature", "geometry": geometry, "properties": properties}
    return found | ({} if number is None else {"id": number})


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    """A closed ring."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def write_geojson(path: Path, features: list[dict[str, object]]) -> Path:
    """A FeatureCollection, as QuPath writes it."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path
