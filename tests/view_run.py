"""A small run whose every value is known, written straight into the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.spots import Capture
from iscale.captures.stage import write_capture
from iscale.geometry import Region, SlideGrid
from iscale.model.loadings import Loadings, coarse_means, write_loadings
from iscale.model.sizes import FACTORS
from iscale.store import layout
from iscale.store.ome import slide_metadata
from iscale.store.run_store import RunStore

SHAPE = (144, 272)
"""Superpixels: 2 x 3 shards, neither side a power of two."""
GENES = ("KRT5", "KRT14", "CD3E", "CD3D", "ERBB2", "COL1A1", "A,B", "GAPDH", "ACTB", "MUC1")
EXTRA = "XIST"
"""A gene that is not written, but computed from factors."""
GRID = SlideGrid((2300, 4340), 0.5, 0.5)
RADIUS_UM, SCALE = 27.5, 0.5


def tissue() -> NDArray[np.bool_]:
    """(y, x): an ellipse."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray(((y - 70) / 60) ** 2 + ((x - 130) / 120) ** 2 < 1)


def expression() -> NDArray[np.float32]:
    """(gene, y, x): stripes of a step of their own, to the half of a float16; NaN off tissue."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    maps = np.stack([(x * (g + 1) + 3 * y) % (40 + g) + g for g in range(len(GENES))])
    return np.where(tissue(), maps, np.nan).astype(np.float16).astype(np.float32)


def factors() -> NDArray[np.float32]:
    """(state, y, x): what the gene `EXTRA` is computed from, log1p of its counts in two states; NaN off tissue."""
    x = np.arange(SHAPE[1], dtype=np.float32)
    states = np.stack([1 + x / 128, 1.25 + x / 128])[:, None]
    return np.where(tissue(), states, np.nan).astype(np.float16).astype(np.float32)


def extra() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(y, x) each: expression of `EXTRA`, and its uncertainty."""
    counts = np.expm1(factors())
    return counts.mean(axis=0), counts.std(axis=0)


def cells() -> NDArray[np.bool_]:
    """(y, x): every third column has none."""
    return np.asarray(tissue() & (np.arange(SHAPE[1]) % 3 > 0))


def labels() -> NDArray[np.uint8]:
    """(y, x) of four clusters."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.where(tissue(), 1 + (x // 40 + y // 40) % 4, 0).astype(np.uint8)


def image() -> NDArray[np.uint8]:
    """(c, y, x): smooth, so that JPEG hardly changes it."""
    h, w = GRID.shape_px
    y, x = np.mgrid[:h, :w]
    return np.stack([60 + 120 * y // h, 60 + 120 * x // w, np.full((h, w), 200)]).astype(np.uint8)


def write_run(folder: Path, *, whole: bool = True) -> RunStore:
    """Write the run; only its image and tissue unless it is to be ``whole``."""
    store = RunStore(folder / "iSCALE_output")
    store.create()
    _write_image(store)
    store.make_group("tissue", {})
    _fill(store, layout.mask("tissue/mask", SHAPE), tissue())
    if not whole:
        return store
    _fill(store, layout.mask("tissue/cells", SHAPE), cells())
    store.make_group("expression", {"inputs": {"features": "f", "model": "m"}})
    _fill(store, layout.genes("expression/expression", len(GENES), SHAPE), expression())
    _fill(store, layout.genes("expression/uncertainty", len(GENES), SHAPE), expression() / 8)
    _fill(store, layout.plane("expression/depth", SHAPE), expression().sum(axis=0))
    store.put("expression/gene", GENES, ("gene",))
    store.put_coordinates("expression", SHAPE, GRID.superpixel_um)
    _write_basis(store)
    store.make_group("clusters", {})
    store.put_coordinates("clusters", SHAPE, GRID.superpixel_um)
    store.put("clusters/n_clusters", np.array([4]), ("n_clusters",))
    for which in ("labels", "refined"):
        _fill(store, layout.labels(f"clusters/{which}", 1, SHAPE), labels()[None])
        store.put(f"clusters/{which}_sizes", np.bincount(labels().ravel())[None, 1:], ("n_clusters", "cluster"))
    _write_annotation(store)
    _write_capture(store)
    (store.folder / "evaluation").mkdir(exist_ok=True)
    (store.folder / "evaluation" / "trust-region.tsv").write_text("gene\tword\tscore\nKRT5\treliable\t0.714\n")
    return store


def spots() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(spot, 2) x, y in um, and (spot, gene) counts."""
    xy = np.array([[x, y] for y in (300.0, 500.0) for x in (600.0, 900.0, 1200.0)])
    return xy, np.random.default_rng(0).poisson(6, (len(xy), len(GENES)))


def _write_image(store: RunStore) -> None:
    shapes = layout.level_shapes(GRID.shape_px)
    attributes = {
        "ome": slide_metadata("he-raw.tif", len(shapes), 0.5),
        "source": "he-raw.tif",
        "raw_pixel_size_um": 0.5,
        "pixel_size_um": 0.5,
        "content_shape_px": list(GRID.content_shape_px),
    }
    store.make_group("image", attributes)
    pixels = image()
    for level, shape in enumerate(shapes):
        _fill(store, layout.image_level(level, shape), pixels[:, : shape[0], : shape[1]])
        pixels = pixels[:, ::2, ::2]


def _write_basis(store: RunStore) -> None:
    """Two states, of which the first factor is the logarithm of `EXTRA`."""
    loading = np.zeros((FACTORS, len(GENES) + 1), np.float32)
    loading[0, -1] = 1
    n_genes = len(GENES) + 1
    write_loadings(
        store, Loadings((*GENES, EXTRA), loading, np.zeros(n_genes, np.float32), np.ones(n_genes, np.float32))
    )
    fine, coarse = layout.factors(2 * FACTORS, SHAPE)
    values = np.zeros((2 * FACTORS, *SHAPE), np.float32)
    values[[0, FACTORS]] = np.nan_to_num(factors())
    _fill(store, coarse, coarse_means(values, tissue()))
    values[:, ~tissue()] = np.nan
    _fill(store, fine, values)


def _write_annotation(store: RunStore) -> None:
    store.make_group("annotation", {})
    for array in layout.annotation(2, 2, SHAPE):
        values = np.zeros(array.shape)
        if array.path == "annotation/labels":
            values[:] = np.minimum(labels(), 3)
        _fill(store, array, values)
    store.put("annotation/label", ("Tumour", "Immune <b>"), ("label",))
    store.put("annotation/threshold", np.array([0.01, 0.2]), ("threshold",))


def _write_capture(store: RunStore) -> None:
    xy, counts = spots()
    store.make_group("captures", {})
    capture = Capture(
        "D1",
        tuple(f"s{i}" for i in range(len(xy))),
        GENES,
        sparse.csr_matrix(counts.astype(np.float32)),
        xy / 0.5,
        RADIUS_UM,
    )
    write_capture(store, capture, GRID)
    store.make_group("training", {"captures": ["D1"], "capture_scale": [SCALE]})


def _fill(store: RunStore, array: layout.ArrayLayout, values: NDArray[np.generic]) -> None:
    store.make(array)
    store.write(array.path, Region(0, array.shape[-2], 0, array.shape[-1]), np.asarray(values))
