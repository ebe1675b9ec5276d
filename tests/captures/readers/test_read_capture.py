"""One entry for all platforms: told by names of files, read with what the user states, or one clear error."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import get_args

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import iscale
from iscale.captures.platforms import PLATFORMS, detect_platform, read_capture, read_measured
from iscale.errors import InputError
from iscale.options import Platform

N = 12
XY = np.random.default_rng(0).uniform((0, 0), (300, 100), (N, 2))


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A folder with an AnnData of 12 spots of 20 px."""
    folder = tmp_path / "D1"
    folder.mkdir()
    adata = ad.AnnData(
        np.arange(N * 3, dtype=np.float32).reshape(N, 3), obs=pd.DataFrame(index=[f"c{i}" for i in range(N)])
    )
    adata.obsm["spatial"] = XY
    adata.uns["spatial"] = {"S": {"scalefactors": {"spot_diameter_fullres": 20.0, "microns_per_pixel": 0.5}}}
    adata.write_h5ad(folder / "s.h5ad")
    return folder


NAMES = {
    "visium": ["filtered_feature_bc_matrix.h5", "spatial/scalefactors_json.json"],
    "visium_hd": ["binned_outputs/square_008um/filtered_feature_bc_matrix.h5"],
    "xenium": ["experiment.xenium", "cell_feature_matrix.h5"],
    "cosmx": ["A_exprMat_file.csv", "A_metadata_file.csv"],
    "h5ad": ["sample.h5ad"],
    "spatialdata": ["zarr.json", "tables/zarr.json"],
    "st": ["C3.counts.tsv.gz", "C3.spots.tsv"],
    "tables": ["cnts.tsv", "locs.tsv"],
}


def make(folder: Path, *kinds: str) -> Path:
    for kind in kinds:
        for name in NAMES[kind]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
    return folder


def test_the_settings_name_the_same_platforms() -> None:
    assert set(PLATFORMS) == set(NAMES) == set(get_args(Platform))


@pytest.mark.parametrize("kind", PLATFORMS)
def test_a_platform_is_told_by_names(tmp_path: Path, kind: str) -> None:
    assert detect_platform(make(tmp_path, kind)) == kind


def test_a_h5ad_among_an_instruments_files_is_not_the_capture(tmp_path: Path) -> None:
    assert detect_platform(make(tmp_path, "visium", "h5ad")) == "visium"


def test_none_several_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        detect_platform(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"of no known platform: it holds notes\.txt") as caught:
        detect_platform(tmp_path)
    assert all(f"{kind}: " in caught.value.remedy for kind in PLATFORMS)
    with pytest.raises(InputError, match=r"no known platform: it is a file"):
        detect_platform(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="of 2 platforms: xenium, tables") as caught:
        detect_platform(make(tmp_path, "tables", "xenium"))
    assert "--platform xenium" in caught.value.remedy


@pytest.mark.parametrize("stated", PLATFORMS)
def test_a_stated_platform_that_it_is_not_says_what_it_looks_like(tmp_path: Path, stated: str) -> None:
    other = "tables" if stated != "tables" else "cosmx"
    with pytest.raises(InputError, match=f"not of the platform {stated}, .* looks like {other}"):
        read_measured(make(tmp_path, other), platform=stated)


@pytest.mark.parametrize("stated", PLATFORMS)
def test_a_stated_platform_of_an_unknown_folder_is_its_readers_error(tmp_path: Path, stated: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError) as caught:
        read_measured(tmp_path, platform=stated)
    assert str(tmp_path) in caught.value.problem
    assert caught.value.remedy


def test_what_is_stated_must_make_sense(cells: Path) -> None:
    with pytest.raises(InputError, match=r"bin_um is 8, but h5ad has no bins"):
        read_measured(cells, bin_um=8)
    with pytest.raises(InputError, match=r"pixel_size_um is -1"):
        read_measured(cells, pixel_size_um=-1)
    with pytest.raises(InputError, match=r"no platform 'merfish'"):
        read_measured(cells, platform="merfish")


def test_a_stated_pixel_size_counts_and_a_contradiction_is_told(cells: Path) -> None:
    found = read_measured(cells)
    assert (found.um_per_px, found.spot_diameter_um) == (0.5, 10)
    near = read_measured(cells, pixel_size_um=0.502)
    assert (near.um_per_px, near.notices) == (0.502, found.notices)
    far = read_measured(cells, pixel_size_um=0.25)
    assert (far.um_per_px, far.spot_diameter_um) == (0.25, 5)
    assert far.notices[-1] == "Warning: the pixel size is 0.25 um as you state it; the files say 0.5 um."
    np.testing.assert_array_equal(far.xy_px, found.xy_px)


def test_a_stated_image_is_the_full_resolution(cells: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100)).save(tmp_path / "slide.png")
    found = read_measured(cells, image=tmp_path / "slide.png")
    assert found.image == tmp_path / "slide.png"
    np.testing.assert_array_equal(found.image_from_full, np.eye(3))
    Image.new("RGB", (30, 10)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"% of 12 positions lie outside of small\.png, which is 30 px wide and 10"):
        read_measured(cells, image=tmp_path / "small.png")
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        read_measured(cells, image=tmp_path / "none.png")


def test_the_image_tells_the_pixel_size_where_nothing_else_does(cells: Path, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    adata = ad.read_h5ad(cells / "s.h5ad")
    adata.uns["spatial"] = {"S": {"scalefactors": {"spot_diameter_fullres": 20.0}}}
    adata.write_h5ad(cells / "s.h5ad")
    assert read_measured(cells).um_per_px is None
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3}
    image = tmp_path / "slide.ome.tif"
    tifffile.imwrite(image, np.zeros((128, 320, 3), np.uint8), tile=(64, 64), metadata=metadata)
    found = read_measured(cells, image=image)
    assert found.um_per_px == pytest.approx(0.3)
    assert found.spot_diameter_um == pytest.approx(6)
    assert "is the one that slide.ome.tif states" in found.notices[-1]
    assert read_measured(cells, image=image, pixel_size_um=0.4).um_per_px == 0.4


def test_a_capture_is_an_anndata_in_scanpys_layout(cells: Path) -> None:
    adata = iscale.read_capture(cells, pixel_size_um=0.5)
    assert iscale.read_capture is read_capture
    assert adata.shape == (N, 3)
    assert list(adata.uns["spatial"]) == ["D1"]
    assert adata.uns["spatial"]["D1"]["scalefactors"]["microns_per_pixel"] == 0.5
    np.testing.assert_array_equal(adata.obsm["spatial"], XY)
    assert list(read_capture(cells / "s.h5ad").uns["spatial"]) == ["s"]
    assert list(read_capture(cells, name="mine").uns["spatial"]) == ["mine"]


def test_what_is_written_again_is_the_same(cells: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100)).save(cells / "he.png")
    adata = read_capture(cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(tmp_path / "again.h5ad")
    again = read_capture(tmp_path / "again.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(again.obsm["spatial"], XY)
    assert again.uns["spatial"]["again"]["scalefactors"] == adata.uns["spatial"]["D1"]["scalefactors"]


@pytest.mark.real
def test_real_visium_is_what_scanpy_reads(data_dir: Path, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    outs = shutil.copytree(data_dir / "visium", tmp_path / "V1" / "outs")
    drawn = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)  # the sample's own images are blank
    for kind in ("hires", "lowres"):
        Image.fromarray(drawn).save(outs / "spatial" / f"tissue_{kind}_image.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = scanpy.read_visium(outs, library_id="V1")
    found = read_capture(outs)
    assert list(found.uns["spatial"]) == ["V1"]
    np.testing.assert_array_equal(found.X.toarray(), other.X.toarray())
    np.testing.assert_array_equal(found.obsm["spatial"], other.obsm["spatial"])
    ours, theirs = found.uns["spatial"]["V1"]["images"], other.uns["spatial"]["V1"]["images"]
    assert set(ours) == set(theirs) == {"hires", "lowres"}
    for kind, image in ours.items():
        np.testing.assert_array_equal(image, drawn)
        np.testing.assert_allclose(image / 255, theirs[kind], atol=1e-6)


@pytest.mark.real
def test_large_images_stay_on_disk(data_dir: Path, tmp_path: Path) -> None:
    outs = shutil.copytree(data_dir / "visium", tmp_path / "V1")
    Image.new("L", (8001, 10)).save(outs / "spatial" / "tissue_hires_image.png")
    found = read_capture(outs).uns["spatial"]["V1"]
    assert list(found["images"]) == ["lowres"]
    assert found["metadata"]["image_path"] == str(outs / "spatial" / "tissue_hires_image.png")


@pytest.mark.real
@pytest.mark.parametrize("platform", ["visium", "visium_hd", "cosmx", "h5ad"])
def test_real_folders_are_told_apart(data_dir: Path, platform: str) -> None:
    assert detect_platform(data_dir / platform) == platform


@pytest.mark.real
def test_the_examples_of_the_docs_run(data_dir: Path, cells: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "captures.md").read_text()
    Image.new("RGB", (300, 100)).save(tmp_path / "slide.png")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    code = code.replace("FOLDER", str(cells)).replace("SLIDE", str(tmp_path / "slide.png"))
    names: dict[str, object] = {}
    exec(code.replace("TRANSCRIPTS", str(data_dir / "cosmx")), names)
    assert isinstance(names["adata"], ad.AnnData)
    assert names["adata"].uns["spatial"]["cosmx"]["metadata"]["pitch_um"] == 16
