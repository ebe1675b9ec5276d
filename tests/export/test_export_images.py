"""OME-Zarr and OME-TIFF: every level is the mean over tissue, at its place in um, under the genes' names."""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from whole_runs import GENES, write_whole_run

from iscale.export import command
from iscale.export.command import export_run
from iscale.results import Run

SHAPE = (1040, 1200)
WINDOW = (1000.0, 400.0, 5801.0, 4900.0)
CORNER = (50, 125)
"""First row and column of the window's superpixels of 8 um."""

ASKED = ("HLA-A", "ERBB2", "FASN")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three resolutions, and shards that end within the image."""
    return write_whole_run(tmp_path_factory.mktemp("images") / "iSCALE_output", SHAPE, parts=())


@pytest.fixture(scope="module")
def maps(run: Run) -> NDArray[np.float32]:
    return run.expression.sel(gene=list(ASKED)).values


def levels_of(maps: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Means over the tissue of blocks of 1, 2, 4 ..., as one would write it down."""
    found = []
    for side in (1, 2, 4):
        pad = [(0, 0), *((0, -n % side) for n in maps.shape[1:])]
        whole = np.pad(maps.astype(np.float64), pad, constant_values=np.nan)
        cut = whole.reshape(len(maps), whole.shape[1] // side, side, whole.shape[2] // side, side)
        count = np.isfinite(cut).sum(axis=(2, 4))
        found.append(np.nansum(cut, axis=(2, 4)) / np.maximum(count, 1))
    return found


@pytest.mark.parametrize("window", [None, WINDOW])
def test_levels_of_the_zarr_are_means_over_tissue(
    run: Run, maps: NDArray[np.float32], tmp_path: Path, window: tuple[float, float, float, float] | None
) -> None:
    export_run(run.store.folder, "ome-zarr", genes=ASKED, out=tmp_path / "genes.zarr", window=window)
    group = zarr.open_group(tmp_path / "genes.zarr", mode="r")
    seen = maps if window is None else maps[:, CORNER[0] : 613, CORNER[1] : 726]
    expected = levels_of(seen)
    scales = group.attrs["ome"]["multiscales"][0]
    assert [dataset["path"] for dataset in scales["datasets"]] == sorted(group.array_keys())
    assert len(scales["datasets"]) == (3 if window is None else 2)
    for level, dataset in enumerate(scales["datasets"]):
        array = group[dataset["path"]]
        np.testing.assert_allclose(array[...], expected[level], rtol=1e-5)
        scale, shift = dataset["coordinateTransformations"]
        step, corner = 8.0 * 2**level, (0, 0) if window is None else CORNER
        assert scale == {"type": "scale", "scale": [1.0, step, step]}
        assert shift["translation"] == [0.0, corner[0] * 8 + step / 2, corner[1] * 8 + step / 2]
        assert array.metadata.dimension_names == tuple(axis["name"] for axis in scales["axes"])
    assert sorted(group.keys()) == sorted(group.array_keys()), "what was only needed meanwhile is left"


READ = """
import importlib.util, json, sys
import numpy as np
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

(node,) = Reader(parse_url(sys.argv[1], mode="r"))()
np.savez(sys.argv[2], **{f"level{k}": np.asarray(level) for k, level in enumerate(node.data)})
if importlib.util.find_spec("ome_zarr_models"):
    from ome_zarr_models.v05.image import Image
    Image.from_zarr(zarr.open_group(sys.argv[1], mode="r"))
kept = ("channel_names", "contrast_limits", "coordinateTransformations")
print(json.dumps({key: node.metadata[key] for key in kept}))
"""


def test_ome_zarr_reads_it(run: Run, maps: NDArray[np.float32], tmp_path: Path) -> None:
    python = os.environ.get("ISCALE_SPATIALDATA_PYTHON")
    if not python:
        pytest.skip("ISCALE_SPATIALDATA_PYTHON is not set: it names the Python of an environment with ome-zarr")
    export_run(run.store.folder, "ome-zarr", genes=ASKED, out=tmp_path / "genes.zarr", window=WINDOW)
    command = [python, "-W", "ignore", "-c", READ, str(tmp_path / "genes.zarr"), str(tmp_path / "read.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["channel_names"] == list(ASKED)
    assert all(start == 0 < end for start, end in said["contrast_limits"])
    assert said["coordinateTransformations"][1][0]["scale"] == [1, 16, 16]
    with np.load(tmp_path / "read.npz") as read:
        for k, expected in enumerate(levels_of(maps[:, CORNER[0] : 613, CORNER[1] : 726])[:2]):
            np.testing.assert_allclose(read[f"level{k}"], expected, rtol=1e-5)


def test_channels_have_names_colours_and_ranges(run: Run, maps: NDArray[np.float32], tmp_path: Path) -> None:
    export_run(run.store.folder, "ome-zarr", genes=ASKED, out=tmp_path / "genes.zarr")
    ome = zarr.open_group(tmp_path / "genes.zarr", mode="r").attrs["ome"]
    channels = ome["omero"]["channels"]
    assert [channel["label"] for channel in channels] == list(ASKED)
    assert len({channel["color"] for channel in channels}) == 3
    for channel, one in zip(channels, maps, strict=True):
        window = channel["window"]
        assert (window["min"], window["start"]) == (0, 0)
        assert window["max"] == np.nanmax(one)
        assert np.nanmedian(one) < window["end"] < window["max"]


def test_the_tiff_is_a_tiled_pyramid_of_the_same(run: Run, maps: NDArray[np.float32], tmp_path: Path) -> None:
    export_run(run.store.folder, "ome-tiff", genes=ASKED, out=tmp_path / "genes.ome.tif", window=WINDOW)
    assert [path.name for path in tmp_path.iterdir()] == ["genes.ome.tif"]
    with tifffile.TiffFile(tmp_path / "genes.ome.tif") as file:
        (series,) = file.series
        assert (series.kind, series.axes, series.dtype) == ("ome", "CYX", np.dtype("float32"))
        expected = levels_of(maps[:, CORNER[0] : 613, CORNER[1] : 726])
        assert len(series.levels) == 2
        for level, values in zip(series.levels, expected, strict=False):
            assert level.keyframe.is_tiled
            np.testing.assert_allclose(level.asarray(), values, rtol=1e-5)
        about = ElementTree.fromstring(file.ome_metadata or "")
        resolution = file.pages[0].tags["XResolution"].value
    name = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    pixels = about.find(".//ome:Pixels", name)
    assert pixels is not None
    assert [pixels.get(key) for key in ("PhysicalSizeX", "PhysicalSizeXUnit")] == ["8.0", "µm"]
    assert [channel.get("Name") for channel in pixels.findall("ome:Channel", name)] == list(ASKED)
    plane = pixels.find("ome:Plane", name)
    assert plane is not None
    assert (plane.get("PositionX"), plane.get("PositionY")) == (str(CORNER[1] * 8.0), str(CORNER[0] * 8.0))
    assert resolution[0] / resolution[1] == pytest.approx(1e4 / 8)


def test_an_image_of_one_gene_and_one_level(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 48), parts=())
    export_run(run.store.folder, "ome-tiff", genes="KRT8", out=tmp_path / "one.ome.tif")
    found = tifffile.imread(tmp_path / "one.ome.tif")
    np.testing.assert_array_equal(found.squeeze(), np.nan_to_num(run.expression.sel(gene="KRT8").values))


def test_without_names_an_image_has_few_channels_and_says_so(tmp_path: Path) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output", (32, 48), parts=())
    text = export_run(run.store.folder, "ome-zarr")
    target = run.store.folder / "export" / "genes.ome.zarr"
    assert zarr.open_array(target, path="0", mode="r").shape[0] == command.CHANNELS < len(GENES)
    assert f"The first {command.CHANNELS} genes" in text
    assert str(target) in text
