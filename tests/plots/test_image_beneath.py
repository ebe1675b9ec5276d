"""The slide lies beneath the spots of a run's captures, where scanpy draws it."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from view_run import GENES, GRID, image, write_run

from iscale import open_run
from iscale.captures.spots import Capture
from iscale.captures.stage import write_capture
from iscale.plots.overview import image_beneath
from iscale.results import Run

TURNED = np.array([[0.0, -1.5, 3000.0], [1.5, 0.0, 200.0], [0.0, 0.0, 1.0]])
"""A quarter turn, and half as large again: of the capture's own pixels to the slide's."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    store = write_run(tmp_path)
    own = np.array([[x, y] for y in (100.0, 400.0, 900.0) for x in (150.0, 600.0, 1100.0)])
    counts = np.random.default_rng(1).poisson(5, (len(own), len(GENES))).astype(np.float32)
    at = own @ TURNED[:2, :2].T + TURNED[:2, 2]
    capture = Capture(
        "C2",
        tuple(f"s{i}" for i in range(len(own))),
        GENES,
        sparse.csr_matrix(counts),
        at,
        27.5,
        transform=TURNED,
        source_xy_px=own,
    )
    write_capture(store, capture, GRID)
    return open_run(tmp_path)


def beneath(to_mother: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(c, ...) the image's colours, which rise smoothly, at positions of a capture."""
    at = np.stack([x, y], axis=-1) @ to_mother[:2, :2].T + to_mother[:2, 2]
    j, i = np.moveaxis(np.floor(at).astype(int), -1, 0)
    h, w = GRID.shape_px
    return np.asarray(image()[:, np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)], float)


def test_every_pixel_of_the_picture_is_the_slide_at_that_place(run: Run) -> None:
    for name, transform in (("C2", TURNED), ("D1", np.eye(3))):
        adata = run.captures[name]
        about = adata.uns["spatial"][name]
        picture, scale = about["images"]["hires"], about["scalefactors"]["tissue_hires_scalef"]
        far = adata.obsm["spatial"].max(axis=0)
        assert (np.array(picture.shape[1::-1]) >= far * scale).all()
        assert max(picture.shape) <= 3000
        rows, columns = np.mgrid[: picture.shape[0] : 7, : picture.shape[1] : 7]
        expected = beneath(transform, (columns + 0.5) / scale, (rows + 0.5) / scale)
        found = np.moveaxis(picture[::7, ::7].astype(float), -1, 0)
        assert np.abs(found - expected).max() <= 2  # a coarser level is a pixel or two beside


def test_scanpy_draws_a_capture_over_the_slide(run: Run) -> None:
    matplotlib.use("Agg")
    import scanpy as sc

    adata = run.captures["C2"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy would rather have squidpy draw, matplotlib other calls
        (axes,) = sc.pl.spatial(adata, color="ERBB2", show=False)
    (drawn,) = axes.get_images()
    np.testing.assert_array_equal(drawn.get_array(), adata.uns["spatial"]["C2"]["images"]["hires"])
    assert len(axes.collections[0].get_paths()) == adata.n_obs
    matplotlib.pyplot.close("all")


def test_where_the_slide_ends_the_picture_is_white(run: Run) -> None:
    moved = np.array([[1.0, 0.0, -500.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    picture, scale = image_beneath(run.store, moved, np.array([[0.0, 10.0], [900.0, 700.0]]), 55.0)
    assert scale == 1.0
    assert picture.shape == (755, 955, 3)
    assert (picture[:, :500] == 255).all()
    assert (picture[:, 500:] != 255).all()
