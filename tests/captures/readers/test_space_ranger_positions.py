"""Positions of Space Ranger: the same in every layout, a pixel from their lattice, one error for a bad table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from space_ranger_folders import BINS, COLUMNS, hexagons, write_counts

from iscale.captures.readers import space_ranger as space_ranger_positions
from iscale.captures.readers.space_ranger import read_visium, read_visium_hd
from iscale.errors import InputError


@pytest.mark.parametrize("flipped", [False, True])
def test_a_turned_and_mirrored_lattice_gives_the_pixel(visium: Path, flipped: bool) -> None:
    hexagons(0.31, turned=123, flipped=flipped).to_csv(visium / "spatial/tissue_positions.csv", index=False)
    assert_allclose(read_visium(visium).um_per_px, 0.31, rtol=1e-9)


def test_all_layouts_of_positions_are_the_same(visium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_visium(visium)
    monkeypatch.setattr(space_ranger_positions, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr("iscale.captures.readers.files.BLOCK", 100)
    positions = visium / "spatial/tissue_positions.csv"
    table = hexagons()
    shuffled = table[[*COLUMNS[3:], *COLUMNS[:3]]]
    for write in (
        lambda: table.to_csv(visium / "spatial/tissue_positions_list.csv", index=False, header=False),
        lambda: shuffled.to_csv(positions, index=False),
        lambda: shuffled.to_parquet(visium / "spatial/tissue_positions.parquet"),
    ):
        positions.unlink(missing_ok=True)
        write()
        found = read_visium(visium)
        assert_array_equal(found.xy_px, expected.xy_px)
        assert_array_equal(found.obs, expected.obs)
        assert_allclose(found.um_per_px, expected.um_per_px, rtol=1e-12)


def test_a_row_of_spots_has_no_lattice(visium: Path) -> None:
    table = hexagons()
    table[table["array_row"] == 4].to_csv(visium / "spatial/tissue_positions.csv", index=False)
    write_counts(visium / "filtered_feature_bc_matrix.h5", list(table["barcode"][table["array_row"] == 4]))
    found = read_visium(visium)
    assert found.um_per_px is None
    assert "form no lattice" in found.notices[-1]


def test_bins_without_a_pixel_size_are_sized_by_their_lattice(visium_hd: Path) -> None:
    spatial = visium_hd / BINS / "spatial"
    (spatial / "scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.1}')
    row, column = np.divmod(np.arange(120), 12)
    table = hexagons().assign(array_row=row, array_col=column)
    table = table.assign(pxl_row_in_fullres=9000.0 - 20 * column, pxl_col_in_fullres=100.0 + 20 * row)
    table.to_parquet(spatial / "tissue_positions.parquet")
    assert_allclose(read_visium_hd(visium_hd).um_per_px, 0.4)


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _positions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    return lambda folder: change(hexagons()).to_csv(folder / "spatial/tissue_positions.csv", index=False)


CSV = "spatial/tissue_positions.csv"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "twice": (_positions(lambda t: pd.concat([t, t.iloc[-1:]])), "more than one position for 'S119-1'"),
    "no place": (
        _positions(lambda t: t.assign(pxl_row_in_fullres=np.where(t.index == 119, np.inf, 1.0))),
        "the position of 'S119-1' is not finite",
    ),
    "columns": (_positions(lambda t: t[COLUMNS[:5]]), "it lacks pxl_col_in_fullres; its columns are barcode, in_t"),
    "cells": (_write(CSV, b"a,1,2,3,4\nb,1,2,3,4\n"), "5 columns, not 6"),
    "ragged": (_write(CSV, b"a,1,2,3,4,5\nb,1,2,3,4\n"), "cannot be read as positions"),
    "text": (_write(CSV, b"a,1,2,3,4,5\nb,1,2,3,4,x\n"), "cannot be read as positions"),
    "parquet": (_write("spatial/tissue_positions.parquet", b"PAR1xxxxPAR1"), "cannot be read as positions"),
}


@pytest.mark.parametrize("damage", BAD)
def test_bad_positions_are_one_error(visium: Path, damage: str) -> None:
    change, problem = BAD[damage]
    change(visium)
    with pytest.raises(InputError, match=problem) as error:
        read_visium(visium)
    assert str(visium) in error.value.problem
    assert error.value.remedy
