"""Maps from files: on the run's superpixels, or one clear error with both shapes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small_runs import write_run

from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.trust.open_truth import open_truth
from iscale.trust.truth import MapTruth, Reading

GRID = SlideGrid((32 * 16, 48 * 16), 0.5, 0.5)
GENES = ("A", "B", "C")
MAPS = np.random.default_rng(0).random((3, 32, 48)).astype(np.float32)
Y, X = (np.arange(32) + 0.5) * 8, (np.arange(48) + 0.5) * 8


def opened(path: Path, grid: SlideGrid = GRID) -> MapTruth:
    truth = open_truth(path, grid, Reading())
    assert isinstance(truth, MapTruth)
    return truth


def write(folder: Path, kind: str) -> Path:
    path = folder / f"measured.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, genes=np.array(GENES), expected=MAPS)
    elif kind == "npz compressed":
        np.savez_compressed(path, gene_names=np.array(GENES), maps=np.moveaxis(MAPS, 0, -1), y=Y, x=X)
    elif kind == "npy":
        np.save(path, np.asfortranarray(MAPS))
        (folder / "measured-genes.txt").write_text("A\nB\nC\n")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(dict(zip(GENES, MAPS, strict=True))))
    elif kind == "zarr":
        maps = xr.DataArray(
            MAPS, dims=("gene", "y", "x"), coords={"gene": np.array(GENES, dtype=object), "y": Y, "x": X}
        )
        maps.to_dataset(name="expression").to_zarr(path, zarr_format=3, consolidated=False)
    else:
        path = folder / "run"
        write_run(path, MAPS, GENES)
    return path


@pytest.mark.parametrize("kind", ["npz", "npz compressed", "npy", "pickle", "zarr", "run"])
def test_maps_are_read_by_gene_and_by_place(tmp_path: Path, kind: str) -> None:
    truth = opened(write(tmp_path, kind))
    assert truth.genes == GENES
    assert truth.region == Region(0, 32, 0, 48)
    assert truth.name == ("run" if kind == "run" else "measured")
    expected = MAPS.astype(np.float16).astype(np.float32) if kind == "run" else MAPS
    part = Region(5, 20, 7, 40)
    np.testing.assert_array_equal(truth.maps.read([2, 0], part), expected[[2, 0], 5:20, 7:40])


def test_a_zarr_may_be_of_a_part_of_the_slide(tmp_path: Path) -> None:
    maps = xr.DataArray(MAPS[:, :10, :20], dims=("gene", "y", "x"), coords={"gene": np.array(GENES, dtype=object)})
    maps = maps.assign_coords(y=Y[3:13], x=X[8:28])
    maps.to_dataset(name="expression").to_zarr(tmp_path / "part.zarr", zarr_format=3, consolidated=False)
    truth = opened(tmp_path / "part.zarr")
    assert truth.region == Region(3, 13, 8, 28)
    around = truth.maps.read([1], Region(0, 16, 0, 32))[0]
    np.testing.assert_array_equal(around[3:13, 8:28], MAPS[1, :10, :20])
    assert np.isnan(around).sum() == 16 * 32 - 200


def test_a_map_without_the_padding_is_of_the_same_superpixels(tmp_path: Path) -> None:
    padded = SlideGrid((500, 700), 0.5, 0.5)
    assert padded.superpixel_shape == (32, 48)
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=MAPS[:, :32, :44])
    assert opened(tmp_path / "t.npz", padded).region == Region(0, 32, 0, 44)
    np.savez(tmp_path / "u.npz", genes=np.array(GENES), expected=MAPS[:, :31, :43])
    assert opened(tmp_path / "u.npz", padded).region == Region(0, 31, 0, 43)


def test_another_shape_is_told_with_both_shapes(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=MAPS[:, ::2, ::2])
    with pytest.raises(InputError, match=r"16 x 24 cells, the run has 32 x 48 superpixels of 8 um.*of 16 um") as error:
        opened(tmp_path / "t.npz")
    assert "--pixel-size" in error.value.remedy


@pytest.mark.parametrize(
    ("y", "x", "told"),
    [
        (2 * Y, 2 * X, r"32 x 48 cells, 16 um apart in y, the run has 32 x 48 superpixels of 8 um"),
        (Y + 4, X, r"first centre in y is at 8 um"),
        (Y + 8, X, r"first centre in y is at 12 um, its last at 260 um"),
    ],
)
def test_another_size_or_place_is_told_with_both(tmp_path: Path, y: np.ndarray, x: np.ndarray, told: str) -> None:
    np.savez(tmp_path / "t.npz", genes=np.array(GENES), expected=MAPS, y=y, x=x)
    with pytest.raises(InputError, match=told):
        opened(tmp_path / "t.npz")


def test_damaged_or_incomplete_files_are_one_clear_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "nameless.npz", expected=MAPS)
    np.savez(tmp_path / "few.npz", genes=np.array(GENES[:2]), expected=MAPS)
    np.savez(tmp_path / "twice.npz", genes=np.array(["A", "A", "B"]), expected=MAPS)
    np.savez(tmp_path / "text.npz", genes=np.array(GENES), expected=MAPS.astype(str))
    np.savez(tmp_path / "pandas.npz", genes=np.array(GENES, dtype=object), expected=MAPS)
    np.savez(tmp_path / "none.npz", genes=np.array([], dtype=str), expected=MAPS[:0])
    np.save(tmp_path / "alone.npy", MAPS)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "objects-genes.txt").write_text("A\n")
    np.savez(tmp_path / "whole.npz", genes=np.array(GENES), expected=MAPS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    (tmp_path / "table.csv").write_text("gene\n")
    (tmp_path / "empty").mkdir()
    for name, told in {
        "nameless.npz": r"needs `genes`.*it has expected of 3 x 32 x 48",
        "few.npz": r"shape 3 x 32 x 48, and there are 2 names",
        "twice.npz": "1 of 3 genes more than once",
        "text.npz": "not of numbers",
        "pandas.npz": r"holds Python objects.*\n.*np\.array\(names, dtype=str\)",
        "none.npz": "it names no gene",
        "alone.npy": "alone-genes.txt is not beside it",
        "objects.npy": "cannot be read",
        "cut.npz": "cannot be read",
        "table.csv": "nothing that a run can be held against",
        "empty": "is an empty folder",
        "absent.npz": "does not exist",
    }.items():
        with pytest.raises(InputError, match=told):
            opened(tmp_path / name)
