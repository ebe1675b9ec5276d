"""Sums over areas are what arithmetic says, in every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
from area_runs import SUPERPIXEL_RAW, add_capture, box, feature, some_maps, write_geojson, write_run
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import Voronoi

from iscale.export.areas import polygons, sums
from iscale.export.areas.aggregate import aggregate_run
from iscale.results import Run

S = SUPERPIXEL_RAW


@pytest.fixture(scope="module")
def maps() -> NDArray[np.float32]:
    return some_maps()


@pytest.fixture(scope="module")
def run(maps: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two by two shards, those at the right and the bottom cut off."""
    return write_run(tmp_path_factory.mktemp("run"), maps)


def aggregated(run: Run, over: Path | str, tmp_path: Path, **options: Any) -> ad.AnnData:
    out = tmp_path / "found.h5ad"
    aggregate_run(run.store.folder, str(over), out=out, overwrite=True, **options)
    return ad.read_h5ad(out)


def test_a_cell_gets_the_share_of_each_superpixel_that_it_covers(
    run: Run, maps: NDArray[np.float32], tmp_path: Path
) -> None:
    r, c = 70, 60
    x, y = c * S, r * S
    features = [
        feature([box(x, y, x + S / 2, y + S / 2)], "quarter"),
        feature([box(x + S / 2, y + S / 2, x + 3 * S / 2, y + 3 * S / 2)], "four"),
        feature([box(x, y, x + 2 * S, y + S), box(x + S / 4, y + S / 4, x + S / 2, y + S / 2)], "hole"),
        feature([[[x, y], [x + 2 * S, y], [x, y + 2 * S], [x, y]]], "triangle"),
    ]
    found = aggregated(run, write_geojson(tmp_path / "cells.geojson", features), tmp_path)
    m = maps[:, r : r + 2, c : c + 2]
    expected = [
        m[:, 0, 0] / 4,
        m.sum(axis=(1, 2)) / 4,
        m[:, 0, 0] * 15 / 16 + m[:, 0, 1],
        m[:, 0, 0] + m[:, 0, 1] / 2 + m[:, 1, 0] / 2,
    ]
    np.testing.assert_allclose(found.X, expected, rtol=1e-6)
    np.testing.assert_allclose(found.layers["uncertainty"], np.array(expected) / 10, rtol=1e-3)  # float16
    np.testing.assert_allclose(found.obs["depth"], np.sum(expected, axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.obs["area_um2"], np.array([1 / 4, 1, 31 / 16, 2]) * 64)
    assert found.obs["n_superpixels"].tolist() == [1, 4, 2, 3]
    assert found.obs_names.tolist() == ["quarter", "four", "hole", "triangle"]
    np.testing.assert_allclose(found.obs["share_on_tissue"], 1)
    np.testing.assert_allclose(found.obsm["spatial"][0], [(c + 0.25) * 8, (r + 0.25) * 8])
    np.testing.assert_allclose(found.obsm["spatial_px"][1], [x + S, y + S])
    np.testing.assert_allclose(found.obs[["x_um", "y_um"]], found.obsm["spatial"])
    assert found.var_names.tolist() == ["G0", "G1", "G2"]


def voronoi(n: int, seed: int = 1) -> list[dict[str, object]]:
    """Cells that tile the slide and more around it."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform((0, 0), (160 * S, 144 * S), (n, 2))
    found = Voronoi(np.concatenate([middles * (sx, sy) + (ax, ay) for sx, sy, ax, ay in mirrors()]))
    cells = [found.vertices[found.regions[found.point_region[i]]] for i in range(n)]
    return [feature([[*cell.tolist(), cell[0].tolist()]], f"v{i}") for i, cell in enumerate(cells)]


def mirrors() -> list[tuple[int, int, int, int]]:
    """How points are mirrored at the sides, so that their cells end there."""
    w, h = 2 * 160 * S, 2 * 144 * S
    return [(1, 1, 0, 0), (-1, 1, 0, 0), (-1, 1, w, 0), (1, -1, 0, 0), (1, -1, 0, h)]


def test_areas_that_tile_the_slide_keep_its_total(run: Run, maps: NDArray[np.float32], tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "tiling.geojson", voronoi(800))
    found = aggregated(run, path, tmp_path)
    np.testing.assert_allclose(found.X.sum(axis=0, dtype=float), np.nansum(maps, axis=(1, 2), dtype=float), rtol=1e-6)
    np.testing.assert_allclose(found.obs["area_um2"].sum(), 144 * 160 * 64, rtol=1e-9)
    on_tissue = (found.obs["area_um2"] * found.obs["share_on_tissue"]).sum()
    np.testing.assert_allclose(on_tissue, np.isfinite(maps[0]).sum() * 64, rtol=1e-6)
    text = aggregate_run(run.store.folder, str(path), out=tmp_path / "again.h5ad")
    assert "overlap" not in text.replace("polygons of", "")
    assert "On no tissue, and 0 in the row" in text


def test_the_result_does_not_depend_on_what_is_worked_on_together(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_geojson(tmp_path / "tiling.geojson", [*voronoi(300), feature([box(0, 0, 100 * S, 140 * S)], "large")])
    usual = aggregated(run, path, tmp_path)
    monkeypatch.setattr(polygons, "POINTS_AT_ONCE", 500)
    monkeypatch.setattr(polygons, "CELLS_AT_ONCE", 3000)
    monkeypatch.setattr(sums, "GENES_AT_ONCE", 1)
    monkeypatch.setattr(sums, "BUFFER_BYTES", 8)
    monkeypatch.setattr(sums, "FEWEST_ROWS", 60)
    monkeypatch.setattr("iscale.export.areas.geojson.AREAS_AT_ONCE", 13)
    monkeypatch.setattr("iscale.slide.geojson.TEXT_AT_ONCE", 100)
    monkeypatch.setattr("iscale.export.areas.writer.CHUNK", 50)
    small = aggregated(run, path, tmp_path)
    np.testing.assert_array_equal(small.X, usual.X)
    np.testing.assert_array_equal(small.layers["uncertainty"], usual.layers["uncertainty"])
    pd.testing.assert_frame_equal(small.obs, usual.obs)
    assert small.obs_names[-1] == "large"


# Squares of whole superpixels, x0, y0, x1, y1: what every format can say exactly. One lies over four shards.
SQUARES = {"3": (40, 50, 44, 52), "5": (126, 126, 131, 130), "9": (80, 20, 81, 21), "20": (90, 90, 100, 101)}


def as_geojson(folder: Path) -> Path:
    return write_geojson(
        folder / "squares.geojson",
        [feature([box(*(v * S for v in square))], name) for name, square in SQUARES.items()],
    )


def corners() -> pd.DataFrame:
    return pd.DataFrame(
        [(name, x * 8, y * 8) for name, square in SQUARES.items() for x, y in box(*square)],
        columns=["cell_id", "vertex_x", "vertex_y"],
    ).astype({"vertex_x": np.float32, "vertex_y": np.float32})


def as_parquet(folder: Path) -> Path:
    corners().to_parquet(folder / "cell_boundaries.parquet", index=False)
    return folder / "cell_boundaries.parquet"


def as_csv(folder: Path) -> Path:
    corners().assign(label_id=1).to_csv(folder / "cell_boundaries.csv.gz", index=False)
    return folder / "cell_boundaries.csv.gz"


def labels(per_superpixel: int) -> NDArray[np.int32]:
    found = np.zeros((144 * per_superpixel, 160 * per_superpixel), np.int32)
    for name, square in SQUARES.items():
        x0, y0, x1, y1 = (v * per_superpixel for v in square)
        found[y0:y1, x0:x1] = int(name)
    return found


def as_npy(folder: Path) -> Path:
    np.save(folder / "labels.npy", labels(4))
    return folder / "labels.npy"


def as_tiled(folder: Path) -> Path:
    tifffile.imwrite(folder / "labels.ome.tif", labels(16).astype(np.uint16), tile=(256, 256), compression="zlib")
    return folder / "labels.ome.tif"


def as_strips(folder: Path) -> Path:
    tifffile.imwrite(folder / "strips.tif", labels(2).astype(np.uint32), rowsperstrip=7, compression="zlib")
    return folder / "strips.tif"


def as_png(folder: Path) -> Path:
    Image.fromarray(labels(8).astype(np.uint16)).save(folder / "labels.png")
    return folder / "labels.png"


@pytest.mark.parametrize("write", [as_parquet, as_csv, as_npy, as_tiled, as_strips, as_png])
def test_every_format_gives_the_same_of_the_same_areas(run: Run, tmp_path: Path, write: object) -> None:
    usual = aggregated(run, as_geojson(tmp_path), tmp_path)
    assert callable(write)
    found = aggregated(run, write(tmp_path), tmp_path)
    assert found.obs_names.tolist() == usual.obs_names.tolist() == list(SQUARES)
    np.testing.assert_allclose(found.X, usual.X, rtol=1e-6)
    columns = ["area_um2", "x_um", "y_um", "share_on_tissue", "n_superpixels", "depth"]
    pd.testing.assert_frame_equal(found.obs[columns], usual.obs[columns], check_index_type=False)


def test_labels_whose_pixels_do_not_fit_the_superpixels_keep_the_total(run: Run, maps: NDArray[np.float32]) -> None:
    from iscale.export.areas.labels import Image2D, LabelAreas
    from iscale.export.areas.sums import open_maps

    height, width = 144 * S // 20 + 1, 160 * S // 20  # 20 full-resolution pixels to a label pixel: 0.625 superpixels
    folder = run.store.folder
    image = np.random.default_rng(0).integers(1, 50, (height, width))
    np.save(folder / "odd.npy", image)
    found = aggregated(run, folder / "odd.npy", folder)
    np.testing.assert_allclose(found.X.sum(axis=0, dtype=float), np.nansum(maps, axis=(1, 2), dtype=float), rtol=1e-6)
    areas = LabelAreas(folder / "odd.npy", Image2D(folder / "odd.npy", folder), open_maps(run).grid)
    (facts,) = areas.facts()
    counts = np.bincount(image[:-1].ravel()) + np.bincount(image[-1]) * (144 * S / 20 % 1)
    np.testing.assert_allclose(facts.area, counts[1:] * 0.625**2, rtol=1e-9)


def test_bins_are_blocks_of_superpixels_that_touch_tissue(run: Run, maps: NDArray[np.float32], tmp_path: Path) -> None:
    found = aggregated(run, "bins:16", tmp_path, genes=["G2", "G0"])
    blocks = np.nan_to_num(maps).reshape(3, 72, 2, 80, 2).sum(axis=(2, 4))
    rows, columns = found.obs["array_row"], found.obs["array_col"]
    assert found.var_names.tolist() == ["G2", "G0"]
    np.testing.assert_allclose(found.X, blocks[[2, 0]][:, rows, columns].T, rtol=1e-6)
    touched = np.isfinite(maps[0]).reshape(72, 2, 80, 2).any(axis=(1, 3))
    assert len(found) == touched.sum()
    np.testing.assert_array_equal(found.obsm["spatial"][:, 0], (columns + 0.5) * 16)


def test_bins_that_do_not_fit_the_superpixels_keep_the_total(
    run: Run, maps: NDArray[np.float32], tmp_path: Path
) -> None:
    found = aggregated(run, "bins:11.3", tmp_path)
    np.testing.assert_allclose(found.X.sum(axis=0, dtype=float), np.nansum(maps, axis=(1, 2), dtype=float), rtol=1e-6)


def test_spots_are_discs_of_their_area(run: Run, tmp_path: Path) -> None:
    flat = write_run(tmp_path / "flat", np.full((1, 144, 160), 2.0, np.float32))
    (tmp_path / "locs.tsv").write_text("spot\tx\ty\na\t1100.5\t900\nb\t1300\t1000.25\n")
    found = aggregated(flat, tmp_path / "locs.tsv", tmp_path, radius_um=27.5)
    counts = np.pi * 27.5**2 / 64 * 2
    np.testing.assert_allclose(found.X, [[counts], [counts]], rtol=1e-5)
    np.testing.assert_allclose(found.obsm["spatial"], [[550.25, 450], [650, 500.125]])
    (tmp_path / "radius.txt").write_text("55\n")  # analysis pixels
    np.testing.assert_allclose(aggregated(flat, tmp_path / "locs.tsv", tmp_path).X, found.X, rtol=1e-6)
    table = pd.DataFrame({"barcode": ["a", "b"], "x": [550.25, 650], "y": [450, 500.125], "radius": [27.5, 55.0]})
    table.to_parquet(tmp_path / "spots.parquet", index=False)
    given = aggregated(flat, tmp_path / "spots.parquet", tmp_path, units="um")
    np.testing.assert_allclose(given.X, [[counts], [4 * counts]], rtol=1e-5)


def test_um_of_a_capture_are_placed_by_its_transform(run: Run, tmp_path: Path) -> None:
    usual = aggregated(run, as_parquet(tmp_path), tmp_path)
    turned = np.array([[0.0, -2.0, 5000.0], [2.0, 0.0, 10.0], [0, 0, 1]])  # mother pixels of 0.25 um
    add_capture(run, "X1", turned, um_per_px=0.5)
    table = corners()
    slide = np.column_stack([table["vertex_x"], table["vertex_y"], np.full(len(table), 0.25)]) / 0.25
    own = slide @ np.linalg.inv(turned).T * 0.5
    table.assign(vertex_x=own[:, 0], vertex_y=own[:, 1]).to_parquet(tmp_path / "own.parquet", index=False)
    found = aggregated(run, tmp_path / "own.parquet", tmp_path, capture="X1")
    np.testing.assert_allclose(found.X, usual.X, rtol=1e-5)
    np.testing.assert_allclose(found.obsm["spatial"], usual.obsm["spatial"], rtol=1e-5)


def test_what_qupath_says_of_an_object_is_kept(run: Run, tmp_path: Path) -> None:
    square = [box(80 * S, 80 * S, 82 * S, 82 * S)]
    objects = [
        feature(square, "a", objectType="cell", classification={"name": "Tumor", "color": [1, 2, 3]}),
        feature(square, "b", objectType="cell", name="odd one"),
        feature(square, "c", objectType="annotation", classification={"names": ["Immune", "CD8"]}),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}, "properties": {}},
        {
            "type": "Feature",
            "id": "d",
            "geometry": {"type": "MultiPolygon", "coordinates": [square, [box(90 * S, 80 * S, 91 * S, 81 * S)]]},
            "properties": None,
        },
    ]
    path = tmp_path / "objects.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(objects, indent=1).encode()))
    found = aggregated(run, path, tmp_path)
    assert found.obs_names.tolist() == ["a", "b", "c", "d"]
    assert found.obs["classification"].astype(object).fillna("-").tolist() == ["Tumor", "-", "Immune: CD8", "-"]
    assert found.obs["name"].tolist() == ["", "odd one", "", ""]
    assert set(found.obs["object_type"].cat.categories) == {"cell", "annotation"}
    assert found.obs["n_superpixels"].tolist() == [4, 4, 4, 5]
    assert "Areas overlap: on 4 superpixels" in aggregate_run(run.store.folder, str(path), out=tmp_path / "b.h5ad")


def test_ids_that_come_again_give_way_to_numbers(run: Run, tmp_path: Path) -> None:
    cells = [feature([box(80 * S, y * S, 82 * S, (y + 1) * S)], "PathCellDetection") for y in range(60, 64)]
    found = aggregated(run, write_geojson(tmp_path / "old.geojson", cells), tmp_path)
    assert found.obs_names.tolist() == ["0", "1", "2", "3"]
    assert set(found.obs["id"]) == {"PathCellDetection"}
    for cell in cells:
        del cell["id"]
    found = aggregated(run, write_geojson(tmp_path / "none.geojson", cells), tmp_path)
    assert found.obs_names.tolist() == ["0", "1", "2", "3"]
    assert "id" not in found.obs


def test_a_table_of_corners_is_read_alike_in_blocks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = aggregated(run, as_parquet(tmp_path), tmp_path)
    monkeypatch.setattr("iscale.captures.readers.blocks.ROWS_AT_ONCE", 3)
    found = aggregated(run, tmp_path / "cell_boundaries.parquet", tmp_path)
    np.testing.assert_array_equal(found.X, usual.X)
    assert found.obs_names.tolist() == list(SQUARES)
    folder = aggregated(run, tmp_path, tmp_path)  # as a Xenium folder
    np.testing.assert_array_equal(folder.X, usual.X)


def test_what_crosses_itself_is_repaired_and_what_is_flat_is_told(run: Run, tmp_path: Path) -> None:
    x, y = 80 * S, 70 * S
    bow = [[x, y], [x + 2 * S, y + 2 * S], [x + 2 * S, y], [x, y + 2 * S], [x, y]]
    line = [[x, y], [x + S, y + S], [x + 2 * S, y + 2 * S], [x, y]]
    path = write_geojson(tmp_path / "odd.geojson", [feature([bow], "bow"), feature([line], "line")])
    text = aggregate_run(run.store.folder, str(path), out=tmp_path / "odd.h5ad")
    assert "Outlines that cross themselves were repaired (make_valid): 1." in text
    assert "0 in the row of 1 area without any extent" in text
    found = ad.read_h5ad(tmp_path / "odd.h5ad")
    np.testing.assert_allclose(found.obs["area_um2"], [2 * 64, 0])
    assert not found.X[1].any()
    assert np.isfinite(found.obsm["spatial"]).all()


def test_a_run_without_spread_has_no_layer(tmp_path: Path, maps: NDArray[np.float32], run: Run) -> None:
    bare = write_run(tmp_path / "bare", maps, spread=False)
    assert not aggregated(bare, as_geojson(tmp_path), tmp_path).layers
    assert not aggregated(run, as_geojson(tmp_path), tmp_path, uncertainty=False).layers


def test_scanpy_reads_what_is_written(run: Run, tmp_path: Path) -> None:
    import scanpy as sc

    found = aggregated(run, "bins:64", tmp_path)
    found = found[found.obs["share_on_tissue"] > 0.5].copy()
    sc.pp.normalize_total(found, target_sum=1e4)
    sc.pp.log1p(found)
    assert np.isfinite(found.X).all()
    backed = ad.read_h5ad(tmp_path / "found.h5ad", backed="r")
    np.testing.assert_array_equal(backed[3:5].to_memory().X, ad.read_h5ad(tmp_path / "found.h5ad").X[3:5])
    backed.file.close()


@pytest.mark.parametrize("within", [True, False])
def test_polygons_count_from_the_corner_of_what_was_scanned(
    maps: NDArray[np.float32], tmp_path: Path, within: bool
) -> None:
    """Where the slide states that; polygons that reach out of it count from the slide's own corner."""
    bounded = write_run(tmp_path / "run", maps)
    high, wide = (len(maps[0]) - 30) * S, (len(maps[0, 0]) - 20) * S
    bounded.store.set_attributes("image", bounds=[10 * S, 10 * S + high, 8 * S, 8 * S + wide])
    dx, dy = (8, 10) if within else (0, 0)
    last = (100 if within else 150) * S
    boxes = [box(60 * S, 50 * S, 63 * S, 52 * S), box(last, 40 * S, last + S / 2, 41 * S)]
    said = str(tmp_path / "said.h5ad")
    text = aggregate_run(
        bounded.store.folder,
        str(write_geojson(tmp_path / "a.geojson", [feature([ring]) for ring in boxes])),
        out=Path(said),
    )
    found = ad.read_h5ad(said)
    np.testing.assert_allclose(found.X[0], maps[:, 50 + dy : 52 + dy, 60 + dx : 63 + dx].sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.obsm["spatial_px"][0], [(61.5 + dx) * S, (51 + dy) * S])
    assert ("the scanned part of the slide (x 256, y 320" if within else "the corner of the whole slide") in text


@pytest.mark.parametrize("times", [1, 4])
def test_labels_of_the_scanned_part_lie_there(maps: NDArray[np.float32], tmp_path: Path, times: int) -> None:
    bounded = write_run(tmp_path / "run", maps)
    high, wide = 100 * S, 120 * S
    bounded.store.set_attributes("image", bounds=[10 * S + 8, 10 * S + 8 + high, 8 * S, 8 * S + wide])
    labels = np.zeros((high // times, wide // times), np.int32)
    labels[50 * S // times : 52 * S // times, 60 * S // times : 63 * S // times] = 7
    labels[0, 0] = 9
    np.save(tmp_path / "labels.npy", labels)
    found = aggregated(bounded, tmp_path / "labels.npy", tmp_path)
    weights = np.array([0.75, 1, 0.25])[:, None]
    np.testing.assert_allclose(found.X[0], (maps[:, 60:63, 68:71] * weights).sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.obsm["spatial_px"][0], [69.5 * S, 61 * S + 8])
    assert "the scanned part of the slide, which begins at x 256, y 328" in found.uns["iscale"]["over"]
