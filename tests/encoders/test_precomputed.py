from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from iscale.encoders.base import EncoderSpec, StoredFeatures
from iscale.encoders.precomputed import PrecomputedFeatures
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid

SLIDE = SlideGrid((2000, 3000), 0.25, 0.5)
"""1000 x 1500 analysis pixels: 8 x 12 cells of 128 px (256 px of the file, 64 um, 8 superpixels)."""
ROWS, COLUMNS = 8, 12
VALUES = np.random.default_rng(0).normal(size=(ROWS, COLUMNS, 5)).astype(np.float32)
NOTES = {"cell_px": 128, "pixel_size_um": 0.5}


def notes(path: Path, **entries: Any) -> None:
    path.with_name(f"{path.name}.json").write_text(json.dumps(NOTES | entries))


def opened(path: Path, grid: SlideGrid | None = SLIDE) -> PrecomputedFeatures:
    return PrecomputedFeatures(EncoderSpec(f"precomputed:{path}"), grid)


def places() -> np.ndarray:
    """x, y in pixels of the slide file, columns first, as TRIDENT lists them."""
    y, x = np.divmod(np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).T.ravel(), COLUMNS)
    return np.stack([x, y], axis=1) * 256


def npy(folder: Path) -> Path:
    np.save(folder / "features.npy", VALUES)
    notes(folder / "features.npy")
    return folder / "features.npy"


def npy_feature_first(folder: Path) -> Path:
    np.save(folder / "features.npy", VALUES.transpose(2, 0, 1))
    notes(folder / "features.npy", axes="fyx")
    return folder / "features.npy"


def npz(folder: Path) -> Path:
    at = places() // 256
    np.savez(folder / "f.npz", features=VALUES[at[:, 1], at[:, 0]], coords=at * 128)
    notes(folder / "f.npz")
    return folder / "f.npz"


def trident(folder: Path) -> Path:
    at = places()
    with h5py.File(folder / "slide.h5", "w") as file:
        file["features"] = VALUES[at[:, 1] // 256, at[:, 0] // 256]
        file["coords"] = at
        file["coords"].attrs.update(patch_size=256, patch_size_level0=256, overlap=0, name="slide")
    return folder / "slide.h5"


def clam(folder: Path) -> Path:
    at = places()
    with h5py.File(folder / "slide.h5", "w") as file:
        file["features"] = VALUES[at[:, 1] // 256, at[:, 0] // 256].astype(np.float16)
        file["coords"] = at
        file["coords"].attrs.update(patch_size=64, patch_level=1, downsample=(4.0, 4.0))
    return folder / "slide.h5"


def hdf5_grid(folder: Path) -> Path:
    with h5py.File(folder / "grid.hdf5", "w") as file:
        file.create_dataset("features", data=VALUES, chunks=(2, 2, 5))
        file["features"].attrs.update(NOTES)
    return folder / "grid.hdf5"


def zarr_array(folder: Path) -> Path:
    array = zarr.create_array(
        folder / "f.zarr", shape=(5, ROWS, COLUMNS), chunks=(5, 4, 4), dtype="f4", dimension_names=("feature", "y", "x")
    )
    array[:] = VALUES.transpose(2, 0, 1)
    array.attrs.update(NOTES)
    return folder / "f.zarr"


def zarr_group(folder: Path) -> Path:
    group = zarr.open_group(folder / "g.zarr", mode="w", zarr_format=2)
    at = places()
    group.create_array("features", data=VALUES[at[:, 1] // 256, at[:, 0] // 256])
    group.create_array("coords", data=at)
    group.attrs["cell_px"] = 256
    return folder / "g.zarr"


FORMATS = [npy, npy_feature_first, npz, trident, clam, hdf5_grid, zarr_array, zarr_group]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_cells(write: Callable[[Path], Path], tmp_path: Path) -> None:
    features = opened(write(tmp_path))
    (group,) = features.groups
    assert (group.name, group.stride, group.smooth) == ("precomputed", 8, 1)
    assert group.features == ("f0", "f1", "f2", "f3", "f4")
    tolerance = 1e-2 if write is clam else 0
    whole = features.read(group, Region(0, ROWS, 0, COLUMNS))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, VALUES.transpose(2, 0, 1), atol=tolerance)
    part = features.read(group, Region(3, 5, 7, 11))
    np.testing.assert_array_equal(part, whole[:, 3:5, 7:11])


@pytest.mark.parametrize("write", [npy, trident], ids=lambda write: write.__name__)
def test_beyond_the_file_there_is_nothing(write: Callable[[Path], Path], tmp_path: Path) -> None:
    features = opened(write(tmp_path))
    values = features.read(features.groups[0], Region(6, 10, 10, 14))
    np.testing.assert_array_equal(values[:, :2, :2], VALUES.transpose(2, 0, 1)[:, 6:, 10:])
    assert np.isnan(values[:, 2:]).all()
    assert np.isnan(values[:, :, 2:]).all()
    assert np.isnan(features.read(features.groups[0], Region(20, 22, 20, 22))).all()


def test_places_that_are_not_listed_are_empty(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=VALUES[:2, 0], coords=np.array([[0, 256], [512, 0]]))
    notes(tmp_path / "f.npz", cell_px=256, pixel_size_um=0.25)
    features = opened(tmp_path / "f.npz")
    values = features.read(features.groups[0], Region(0, 2, 0, 3))
    np.testing.assert_array_equal(np.isnan(values[0]), [[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(values[:, 1, 0], VALUES[0, 0])
    np.testing.assert_array_equal(values[:, 0, 2], VALUES[1, 0])


def overlapping(path: Path, **attributes: object) -> np.ndarray:
    """Patches of 512 px of the file at a step of 256, one for each place that lies whole on the slide: their x, y."""
    y, x = np.divmod(np.arange(6 * 10), 10)
    at = np.stack([x, y], axis=1) * 256
    with h5py.File(path, "w") as file:
        file["features"] = (at + 256).astype(np.float32)  # x, y of the middle of each patch
        file["coords"] = at
        file["coords"].attrs.update(attributes)
    return at


TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "overlap": 128, "level0_magnification": 40, "name": "s"}


@pytest.mark.parametrize(
    ("attributes", "beside"),
    [
        (TRIDENT, None),
        (TRIDENT, {"cell_px": 256}),
        ({}, {"cell_px": 256, "patch_px": 512}),
        ({}, {"cell_px": 128, "patch_px": 256, "pixel_size_um": 0.5}),
    ],
)
def test_patches_that_overlap_are_placed_by_their_middles(
    tmp_path: Path, attributes: dict[str, object], beside: dict[str, object] | None
) -> None:
    path = tmp_path / "slide.h5"
    at = overlapping(path, **attributes)
    if beside is not None and "pixel_size_um" in beside:
        with h5py.File(path, "r+") as file:
            file["coords"][...] = at // 2
    if beside is not None:
        path.with_name("slide.h5.json").write_text(json.dumps(beside))
    features = opened(path)
    (group,) = features.groups
    assert group.stride == 4  # half a cell of 8 superpixels
    side = 4 * 32  # in pixels of the file
    values = features.read(group, Region(0, 16, 0, 24))
    y, x = np.meshgrid((np.arange(16) + 0.5) * side, (np.arange(24) + 0.5) * side, indexing="ij")
    there = np.isfinite(values[0])
    np.testing.assert_array_equal(there, (x > 128) & (x < 128 + 2560) & (y > 128) & (y < 128 + 1536))
    # the nearest middle of a patch is half a cell away at most, on either axis
    assert (np.abs(values[0] - x)[there] == side / 2).all()
    assert (np.abs(values[1] - y)[there] == side / 2).all()
    part = features.read(group, Region(5, 9, 7, 12))
    np.testing.assert_array_equal(part, values[:, 5:9, 7:12])


def test_patches_that_overlap_and_do_not_say_so_are_told_with_their_step(tmp_path: Path) -> None:
    path = tmp_path / "slide.h5"
    overlapping(path, patch_size=512, patch_level=0)
    with pytest.raises(InputError, match=r"a grid of 512 px from 0, 0: .* at least 256 \(x\) and 256 \(y\)") as error:
        opened(path)
    assert "where patches overlap, their step as cell_px and their size as patch_px" in error.value.remedy


def test_middles_that_lie_on_no_superpixel_are_told(tmp_path: Path) -> None:
    path = tmp_path / "slide.h5"
    overlapping(path)
    path.with_name("slide.h5.json").write_text(json.dumps({"cell_px": 256, "patch_px": 288}))
    with pytest.raises(InputError, match=r"patches of 288 px overlap, .* that is 0\.5, 0\.5"):
        opened(path)
    path.with_name("slide.h5.json").write_text(json.dumps({"cell_px": 256, "patch_px": 128}))
    with pytest.raises(InputError, match="a patch of 128 px is smaller than its cell of 256 px"):
        opened(path)


def test_a_list_may_begin_whole_superpixels_from_the_corner(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=VALUES[:2, 0], coords=np.array([[64 + 256, 32], [64, 32 + 512]]))
    notes(tmp_path / "f.npz", cell_px=256, pixel_size_um=0.25, origin_px=[64, 32])
    features = opened(tmp_path / "f.npz")
    (group,) = features.groups
    assert group.stride == 1
    values = features.read(group, Region(0, 63, 0, 94))
    expected = np.full_like(values, np.nan)
    expected[:, 1:9, 10:18] = VALUES[0, 0][:, None, None]
    expected[:, 17:25, 2:10] = VALUES[1, 0][:, None, None]
    np.testing.assert_array_equal(values, expected)


def test_a_long_list_is_read_row_for_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    at = np.stack(np.divmod(rng.permutation(60 * 90), 60), axis=1)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = at.astype(np.float32)
        file["coords"] = at * 32
        file.attrs["cell_px"] = 32
    features = opened(tmp_path / "f.h5")
    values = features.read(features.groups[0], Region(10, 30, 40, 70))
    x, y = np.meshgrid(np.arange(40, 70), np.arange(10, 30))
    np.testing.assert_array_equal(values, np.stack([x, y]))


def test_cells_of_14_superpixels_are_repeated_on_a_lattice_that_divides_shards(tmp_path: Path) -> None:
    grid = SlideGrid((1120, 1568), 0.5, 0.5)
    np.save(tmp_path / "f.npy", VALUES[:5, :7])
    notes(tmp_path / "f.npy", cell_px=224)
    features = opened(tmp_path / "f.npy", grid)
    (group,) = features.groups
    assert group.stride == 2
    values = features.read(group, Region(5, 16, 13, 36))
    expected = VALUES[:5, :7].repeat(7, axis=0).repeat(7, axis=1).transpose(2, 0, 1)[:, 5:16, 13:36]
    np.testing.assert_array_equal(values, expected)


def test_a_grid_may_begin_whole_cells_from_the_corner(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", VALUES[2:, 1:])
    notes(tmp_path / "f.npy", origin_px=[128, 256], names=list("abcde"))
    features = opened(tmp_path / "f.npy")
    assert features.groups[0].features == tuple("abcde")
    values = features.read(features.groups[0], Region(0, ROWS, 0, COLUMNS))
    np.testing.assert_array_equal(values[:, 2:, 1:], VALUES.transpose(2, 0, 1)[:, 2:, 1:])
    assert np.isnan(values[:, :2]).all()
    assert np.isnan(values[:, :, 0]).all()


@pytest.mark.parametrize(
    ("entries", "grid", "message"),
    [
        ({}, SlideGrid((2000, 4000), 0.25, 0.5), r"8 x 12 cells of 64 um.*500 x 1000 um: 12 cells wide, 15 to"),
        ({"axes": "xyf"}, SLIDE, "has 12 x 8 cells"),
        ({"cell_px": 100}, SLIDE, "6.25 superpixels of 8 um: not a whole number"),
        ({"cell_px": 8}, SLIDE, "0.5 superpixels"),
        ({"origin_px": [0, 100]}, SLIDE, "the origin of 100 px is not a whole number of cells"),
        ({"origin_px": [-128, 0]}, SLIDE, "the origin of -128 px"),
        ({"names": ["a", "b"]}, SLIDE, "5 features and 2 names"),
        ({"names": ["a"] * 5}, SLIDE, "1 of them different"),
        ({"cell": 128}, SLIDE, "cell = 128"),
        ({"axes": "yx"}, SLIDE, "axes = 'yx'"),
        ({"cell_px": None}, SLIDE, "does not say how large the square is"),
    ],
)
def test_a_grid_that_does_not_fit_the_slide_is_refused(
    entries: dict[str, Any], grid: SlideGrid, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "f.npy", VALUES)
    notes(tmp_path / "f.npy", **entries)
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "f.npy", grid)


def test_a_cell_that_is_not_whole_superpixels_is_answered_with_the_pixel_size_that_makes_it_so(tmp_path: Path) -> None:
    path = trident(tmp_path)
    with pytest.raises(InputError, match="not a whole number") as error:
        opened(path, SlideGrid((2000, 3000), 0.26, 0.5))
    assert "--pixel-size 0.52 it is 8" in error.value.remedy
    assert opened(path, SlideGrid((2000, 3000), 0.26, 0.52)).groups[0].stride == 8


def test_a_pixel_size_that_is_a_little_off_is_accepted(tmp_path: Path) -> None:
    assert opened(trident(tmp_path), SlideGrid((2000, 3000), 0.2505, 0.5)).groups[0].stride == 8


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        ([[0, 0], [256, 13]], r"1 of 2 places do not lie on a grid of 256 px from 0, 0: the first is 256, 13"),
        ([[0, 0], [0, 1]], "1 of 2 places are in a cell of 256 px that has another"),
        ([[0, 0], [-256, 0]], "1 of 2 places"),
        ([[0, 0], [np.nan, 0]], "1 of 2 coords are not finite"),
        ([[0, 0]], r"coords have the shape 1 x 2, and there are 2 features"),
        ([[0, 0], [256 * 14, 0]], "15 cells wide"),
    ],
)
def test_places_off_the_grid_are_refused(coords: list[list[float]], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=VALUES[:2, 0], coords=np.array(coords))
    notes(tmp_path / "f.npz", cell_px=256, pixel_size_um=0.25)
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "f.npz")


def test_a_list_without_a_cell_size_is_answered_with_the_distance_of_its_places(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=VALUES[:3, 0], coords=np.array([[0, 0], [512, 0], [0, 256]]))
    with pytest.raises(InputError, match=r"at least 512 \(x\) and 256 \(y\) px apart"):
        opened(tmp_path / "f.npz")


def test_files_that_are_no_features_are_one_clear_error(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.full((2, 2, 2), "a"))
    np.save(tmp_path / "flat.npy", VALUES[0])
    np.savez(tmp_path / "other.npz", embedding=VALUES)
    (tmp_path / "features.csv").write_text("1,2\n")
    (tmp_path / "damaged.h5").write_bytes(b"no HDF5")
    (tmp_path / "empty.zarr").mkdir()
    for name, message in {
        "missing.npy": "does not exist",
        "objects.npy": "cannot be read",
        "text.npy": "not numbers",
        "flat.npy": r"shape 12 x 5, and there are no coords",
        "other.npz": "no array `features`; it has embedding",
        "features.csv": "suffix '.csv'",
        "damaged.h5": "cannot be read",
        "empty.zarr": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=message):
            opened(tmp_path / name)


def test_notes_that_are_no_json_object_are_refused(tmp_path: Path) -> None:
    path = npy(tmp_path)
    path.with_name("features.npy.json").write_text("[1]")
    with pytest.raises(InputError, match=r"features\.npy\.json is no JSON object"):
        opened(path)


def test_groups_must_not_be_asked_for_before_the_slide_is_known(tmp_path: Path) -> None:
    features = opened(npy(tmp_path), grid=None)
    assert isinstance(features, StoredFeatures)
    with pytest.raises(RuntimeError, match="check"):
        list(features.groups)
    features.check(SLIDE)
    assert [group.stride for group in features.groups] == [8]


@pytest.mark.parametrize("write", [npy, zarr_array], ids=lambda write: write.__name__)
def test_the_identity_follows_the_file_and_its_notes_but_not_its_place(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    path = write(tmp_path / "a")
    here, there = opened(path).identity(), opened(write(tmp_path / "b")).identity()
    assert here == there
    assert json.loads(json.dumps(here)) == here
    notes(path, names=list("abcde"), **({"axes": "fyx"} if path.is_dir() else {}))
    assert opened(path).identity() != here


def test_the_identity_of_a_zarr_folder_follows_its_chunks(tmp_path: Path) -> None:
    path = zarr_array(tmp_path)
    before = opened(path).identity()
    zarr.open_array(path, mode="r+")[:, :4, :4] = 0
    assert opened(path).identity() != before


def test_a_mapped_file_is_not_read_whole(tmp_path: Path) -> None:
    features = opened(npy(tmp_path))
    assert isinstance(features._file.features, np.memmap)


def test_an_empty_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.npy"
    path.touch()
    with pytest.raises(InputError, match=r"empty\.npy"):
        PrecomputedFeatures(EncoderSpec(f"precomputed:{path}"))
