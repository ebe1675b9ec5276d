"""Lattices: their pixel whatever the turn and the batches, and none where spots do not lie on one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from space_ranger_folders import hexagons

from iscale.captures.readers.lattice import VISIUM_STEP_UM, LatticeFit, st_lattice, visium_lattice
from iscale.captures.readers.space_ranger import read_visium


def fitted(at_um: NDArray[np.float64], xy_px: NDArray[np.float64], cuts: list[int]) -> LatticeFit:
    fit = LatticeFit()
    for at, xy in zip(np.split(at_um, cuts), np.split(xy_px, cuts), strict=True):
        fit.add(at, xy)
    return fit


def array(**how: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of spots on a Visium array, and x, y in pixels."""
    table = hexagons(**how)
    index = table[["array_col", "array_row"]].to_numpy(float)
    return index, table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()


@given(
    st.floats(0.1, 2.0),
    st.floats(-180, 180),
    st.booleans(),
    st.lists(st.integers(0, 120), max_size=5).map(sorted),
)
def test_the_similarity_is_that_of_the_lattice_whatever_the_batches(
    um_per_px: float, turned: float, flipped: bool, cuts: list[int]
) -> None:
    index, xy_px = array(um_per_px=um_per_px, turned=turned, flipped=flipped)
    at_um = index * VISIUM_STEP_UM
    found = fitted(at_um, xy_px, cuts).similarity()
    assert found is not None
    assert_allclose(found.um_per_px, um_per_px, rtol=1e-9)
    assert (np.linalg.det(found.turn) < 0) == flipped
    shift = xy_px - at_um @ found.turn / um_per_px
    assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-3)


def test_points_without_an_area_have_no_similarity() -> None:
    index, xy_px = array()
    at_um = index * VISIUM_STEP_UM
    one_row = index[:, 1] == 4
    assert LatticeFit().similarity() is None
    assert fitted(at_um[:2], xy_px[:2], []).similarity() is None
    assert fitted(at_um[one_row], xy_px[one_row], []).similarity() is None
    assert fitted(at_um, np.zeros_like(xy_px), []).similarity() is None


def test_points_that_are_not_finite_do_not_count() -> None:
    index, xy_px = array(um_per_px=0.31)
    xy_px[7] = np.nan, 3.0
    found = fitted(index * VISIUM_STEP_UM, xy_px, [50]).similarity()
    assert found is not None
    assert_allclose(found.um_per_px, 0.31, rtol=1e-9)


def test_spots_off_their_places_are_no_visium_array() -> None:
    index, xy_px = array(um_per_px=0.31)
    column, row = index.T
    off_px = np.random.default_rng(0).normal(size=xy_px.shape)
    near = visium_lattice(row, column, xy_px + 5 / 0.31 * off_px)
    assert near is not None
    assert (near.pitch_um, near.diameter_um) == (100, 55)
    assert near.residual_um == pytest.approx(5 * np.sqrt(2), rel=0.1)
    assert near.um_per_px == pytest.approx(0.31, rel=0.01)
    assert visium_lattice(row, column, xy_px + 30 / 0.31 * off_px) is None
    assert visium_lattice(row, column + 1, xy_px) is None  # row + column is odd
    assert visium_lattice(row[:9], column[:9], xy_px[:9]) is None


def test_spots_of_the_first_arrays_are_named_by_their_places() -> None:
    x, y = (values.ravel() for values in np.meshgrid(np.arange(5, 11), np.arange(3, 9)))
    names = [f"{i}x{j}" for i, j in zip(x.tolist(), y.tolist(), strict=True)]
    found = st_lattice(names, 200 / 0.5 * np.column_stack([x, y]).astype(float))
    assert found is not None
    assert (found.pitch_um, found.diameter_um) == (200, 100)
    assert found.um_per_px == pytest.approx(0.5)
    assert found.residual_um == pytest.approx(0, abs=1e-9)


@pytest.mark.real
def test_the_visium_sample_has_one_pixel_by_either_reading(data_dir: Path) -> None:
    names = ["barcode", "in_tissue", "row", "column", "y", "x"]
    table = pd.read_csv(data_dir / "visium/spatial/tissue_positions_list.csv", header=None, names=names)
    lattice = visium_lattice(table["row"].to_numpy(), table["column"].to_numpy(), table[["x", "y"]].to_numpy(float))
    assert lattice is not None
    assert lattice.um_per_px == pytest.approx(read_visium(data_dir / "visium").um_per_px, rel=1e-12)
    assert lattice.residual_um < 10  # its pixels are 0.7264 um wide and 0.7231 um high
