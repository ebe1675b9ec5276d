"""SpatialData stores, written here to the format: spots lie where their shapes lie in ``global``."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from anndata.io import write_elem
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.readers.spatialdata import centre_and_area, looks_like, read
from iscale.errors import InputError

N = 12
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2, (N, 4)).astype(np.float32)
XY = RNG.uniform(10, 500, (N, 2))
CELLS = [f"cell{i}" for i in range(N)]
AXES = [{"name": name, "type": "space", "unit": "unit"} for name in "xy"]
ENDS = {"input": {"name": "xy", "axes": AXES}, "output": {"name": "global", "axes": AXES}}


def point(x: float, y: float) -> bytes:
    return struct.pack("<BIdd", 1, 1, x, y)


def polygon(*rings: list[tuple[float, float]]) -> bytes:
    wkb = struct.pack("<BII", 1, 3, len(rings))
    for ring in rings:
        closed = [*ring, ring[0]]
        wkb += struct.pack(f"<I{2 * len(closed)}d", len(closed), *np.ravel(closed))
    return wkb


def box(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def table(region: str = "cells", **obsm: NDArray[np.float64]) -> ad.AnnData:
    obs = pd.DataFrame({"region": pd.Categorical([region] * N), "instance": CELLS}, index=[f"s{i}" for i in range(N)])
    return ad.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=list("ABCD")), obsm=obsm)


def write_store(
    path: Path,
    adata: ad.AnnData | None = None,
    *,
    shapes: list[bytes] | None = None,
    transformation: dict[str, Any] | None = None,
    zarr_format: Any = 3,
) -> Path:
    """One table, and its shapes in the reverse order of the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        tables = root.require_group("tables")
        write_elem(tables, "table", table() if adata is None else adata)
    tables["table"].attrs.update({"region": "cells", "region_key": "region", "instance_key": "instance"})
    element = root.require_group("shapes").require_group("cells")
    element.attrs["coordinateTransformations"] = [transformation or {"type": "identity", **ENDS}]
    frame = pd.DataFrame(
        {"geometry": shapes or [point(x, y) for x, y in XY], "radius": np.full(N, 27.5)}, index=CELLS
    ).iloc[::-1]
    written = pa.Table.from_pandas(frame)
    geo = {b"geo": json.dumps({"primary_column": "geometry"}).encode()}
    pq.write_table(
        written.replace_schema_metadata({**written.schema.metadata, **geo}), path / "shapes/cells/shapes.parquet"
    )
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_counts_and_circles(tmp_path: Path, zarr_format: int) -> None:
    found = read(write_store(tmp_path / "s.zarr", zarr_format=zarr_format))
    assert (found.platform, found.spot_ids, found.gene_symbols) == (
        "spatialdata",
        [f"s{i}" for i in range(N)],
        list("ABCD"),
    )
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS)
    np.testing.assert_allclose(found.xy_px, XY)
    assert found.scalefactors == {"spot_diameter_fullres": pytest.approx(55)}
    assert (found.um_per_px, found.spot_diameter_um, found.image) == (None, None, None)


TRANSFORMATIONS: dict[str, tuple[dict[str, Any], NDArray[np.float64]]] = {
    "scale": ({"type": "scale", "scale": [2.0, 3.0]}, np.array([[2, 0, 0], [0, 3, 0]])),
    "translation": ({"type": "translation", "translation": [5.0, -7.0]}, np.array([[1, 0, 5], [0, 1, -7]])),
    "affine": ({"type": "affine", "affine": [[0, -2, 5], [3, 0, 7], [0, 0, 1]]}, np.array([[0, -2, 5], [3, 0, 7]])),
    "sequence": (
        {
            "type": "sequence",
            "transformations": [
                {"type": "scale", "scale": [2.0, 3.0], **ENDS},
                {"type": "translation", "translation": [5.0, -7.0], **ENDS},
            ],
        },
        np.array([[2, 0, 5], [0, 3, -7]]),
    ),
}


@pytest.mark.parametrize("kind", list(TRANSFORMATIONS))
def test_shapes_are_taken_to_global(tmp_path: Path, kind: str) -> None:
    stored, matrix = TRANSFORMATIONS[kind]
    found = read(write_store(tmp_path / "s.zarr", transformation=stored | ENDS))
    np.testing.assert_allclose(found.xy_px, XY @ matrix[:, :2].T + matrix[:, 2])
    area = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    assert found.scalefactors["spot_diameter_fullres"] == pytest.approx(55 * area)


def test_axes_are_told_by_name(tmp_path: Path) -> None:
    swapped = {"input": {"name": "yx", "axes": AXES[::-1]}, "output": {"name": "global", "axes": AXES}}
    stored = {"type": "affine", "affine": [[0, 2, 5], [3, 0, 7], [0, 0, 1]], **swapped}  # x' = 2 x + 5, y' = 3 y + 7
    found = read(write_store(tmp_path / "s.zarr", transformation=stored))
    np.testing.assert_allclose(found.xy_px, XY * (2, 3) + (5, 7))


def test_positions_of_the_table_wait_behind_those_of_the_shapes(tmp_path: Path) -> None:
    """Readers of Xenium leave um in obsm, and a transformation to pixels at the shapes."""
    adata = table(spatial=XY)
    path = write_store(tmp_path / "s.zarr", adata, transformation={"type": "scale", "scale": [4.0, 4.0], **ENDS})
    np.testing.assert_allclose(read(path).xy_px, XY * 4)


def label_store(path: Path, image: NDArray[np.uint16], adata: ad.AnnData, zarr_format: Any, **stored: Any) -> Path:
    """A store whose table is of labels; with shapes of other names."""
    write_store(path, adata, zarr_format=zarr_format)
    tables = zarr.open_group(path / "tables/table")
    tables.attrs.update({"region": "cell_labels", "region_key": "region", "instance_key": "label"})
    group = zarr.open_group(path, mode="a", zarr_format=zarr_format).require_group("labels/cell_labels")
    scale = {
        "axes": [{"name": name, "type": "space"} for name in "yx"],
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}],
        "coordinateTransformations": [stored or {"type": "identity", **ENDS}],
    }
    group.attrs.update({"multiscales": [scale]} if zarr_format == 2 else {"ome": {"multiscales": [scale]}})
    group.create_array("s0", shape=image.shape, dtype=image.dtype, chunks=(16, 20))[...] = image
    return path


def labelled(first: int = 7) -> tuple[NDArray[np.uint16], NDArray[np.float64], ad.AnnData]:
    """An image of 12 boxes, their middles, and a table of them in another order, with um in obsm."""
    image, middle = np.zeros((90, 130), np.uint16), np.empty((N, 2))
    for i in range(N):
        top, left = 5 + 28 * (i // 4), 3 + 30 * (i % 4)
        image[top : top + 8, left : left + 10] = first + 3 * i
        middle[i] = left + 5, top + 4
    adata = table("cell_labels", spatial=XY)
    adata.obs["label"] = first + 3 * np.arange(N)[::-1]
    adata.obs["instance"] = [f"other{i}" for i in range(N)]
    return image, middle[::-1], adata


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_region_of_labels_is_placed_by_them(
    tmp_path: Path, zarr_format: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iscale.captures.readers.label_images.BLOCK_PX", 32)
    image, middle, adata = labelled()
    found = read(label_store(tmp_path / "s.zarr", image, adata, zarr_format))
    np.testing.assert_allclose(found.xy_px, middle)
    assert np.pi * (found.scalefactors["spot_diameter_fullres"] / 2) ** 2 == pytest.approx(80)
    assert "Positions are those of labels/cell_labels in 'global'." in found.notices
    yx = [{"name": name, "type": "space"} for name in "yx"]
    ends = {"input": {"name": "yx", "axes": yx}, "output": {"name": "global", "axes": yx}}
    scaled = label_store(tmp_path / "t.zarr", image, adata, zarr_format, type="scale", scale=[3.0, 2.0], **ends)
    np.testing.assert_allclose(read(scaled).xy_px, middle * (2, 3))


def test_outlines_of_the_same_cells_come_before_labels(tmp_path: Path) -> None:
    """As today's reader of a Xenium folder leaves it: labels annotated, boundaries in um beside them, um in obsm."""
    image, _, adata = labelled()
    adata.obs["cell_id"] = CELLS
    path = label_store(tmp_path / "s.zarr", image, adata, 3)
    shapes = zarr.open_group(path / "shapes/cells")
    shapes.attrs["coordinateTransformations"] = [{"type": "scale", "scale": [1 / 0.2125] * 2, **ENDS}]
    found = read(path)
    np.testing.assert_allclose(found.xy_px, XY / 0.2125)
    assert "The table is of cell_labels; its column cell_id names the same shapes." in found.notices


def test_a_unit_that_nothing_states_is_asked_for(tmp_path: Path) -> None:
    adata = table("away", spatial=XY)
    adata.obs["instance"] = [str(i) for i in range(N)]
    path = write_store(tmp_path / "s.zarr", adata)
    with pytest.raises(InputError, match=r"nothing states the unit of obsm\['spatial'\], which spans x") as caught:
        read(path)
    assert "unit in [capture.NAME]" in caught.value.remedy
    np.testing.assert_array_equal(read(path, unit="px").xy_px, XY)
    in_um = read(path, unit="um", pixel_size_um=0.25)
    np.testing.assert_allclose(in_um.xy_px, XY * 4)
    assert in_um.um_per_px == 0.25
    adata = table("away")
    adata.obs["instance"] = [str(i) for i in range(N)]
    write_store(tmp_path / "t.zarr", adata)
    with pytest.raises(InputError, match="holds no positions"):
        read(tmp_path / "t.zarr")


def test_labels_that_are_not_there_are_told(tmp_path: Path) -> None:
    image, _, adata = labelled()
    adata.obs["label"] = [999, *adata.obs["label"][1:]]
    with pytest.raises(InputError, match="1 of 12 spots are not in labels/cell_labels: 999"):
        read(label_store(tmp_path / "s.zarr", image, adata, 3))


def test_a_region_is_taken_by_its_name(tmp_path: Path) -> None:
    adata = table()
    adata.obs["region"] = pd.Categorical(["cells"] * 5 + ["b"] * (N - 5))
    found = read(write_store(tmp_path / "s.zarr", adata), section="cells")
    assert found.spot_ids == [f"s{i}" for i in range(5)]
    np.testing.assert_allclose(found.xy_px, XY[:5])
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[:5])


def test_polygons_have_their_centroid(tmp_path: Path) -> None:
    shapes = [polygon(box(x - 4, y - 4, 8)) for x, y in XY]
    found = read(write_store(tmp_path / "s.zarr", shapes=shapes))
    np.testing.assert_allclose(found.xy_px, XY)
    assert np.pi * (found.scalefactors["spot_diameter_fullres"] / 2) ** 2 == pytest.approx(64)


def test_holes_and_parts_count_by_their_area() -> None:
    holed = polygon(box(1e6, 0, 4), box(1e6 + 2, 2, 2)[::-1])
    np.testing.assert_allclose(centre_and_area(holed)[0], [1e6 + (16 * 2 - 4 * 3) / 12, (16 * 2 - 4 * 3) / 12])
    assert centre_and_area(holed)[1] == pytest.approx(12)
    parts = struct.pack("<BII", 1, 6, 2) + polygon(box(0, 0, 2)) + polygon(box(10, 10, 4)[::-1])
    centre, area = centre_and_area(parts)
    np.testing.assert_allclose(centre, np.full(2, (4 * 1 + 16 * 12) / 20))
    assert area == 20
    with pytest.raises(ValueError, match="WKB type 2"):
        centre_and_area(struct.pack("<BII4d", 1, 2, 2, 0, 0, 1, 1))


def two_regions(path: Path) -> None:
    adata = table()
    adata.obs["region"] = pd.Categorical(["a", *["b"] * (N - 1)])
    write_store(path, adata)


def two_tables(path: Path) -> None:
    write_store(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_elem(zarr.open_group(path / "tables"), "other", table())


def strangers(path: Path) -> None:
    adata = table()
    adata.obs["instance"] = ["nobody", *CELLS[1:]]
    write_store(path, adata)


def elsewhere(path: Path) -> None:
    write_store(path, transformation={"type": "identity", **ENDS, "output": {"name": "hires", "axes": AXES}})


def unknown_kind(path: Path) -> None:
    write_store(path, transformation={"type": "rotation", **ENDS})


def lines_as_shapes(path: Path) -> None:
    write_store(path, shapes=[struct.pack("<BII4d", 1, 2, 2, 0, 0, 1, 1)] * N)


def linked_away(path: Path) -> None:
    write_store(path)
    shapes = path / "shapes/cells/shapes.parquet"
    shapes.rename(path.parent / "away.parquet")
    shapes.symlink_to(path.parent / "away.parquet")


def no_chunks(path: Path) -> None:
    write_store(path)
    (path / "tables/table/X/zarr.json").unlink()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "two regions": (two_regions, r"holds 2 sections, each with pixels of its own: a, b \(regions"),
    "two tables": (two_tables, "has 2 tables, one is needed; there are: other, table"),
    "strangers": (strangers, "1 of 12 spots are not in shapes/cells: nobody"),
    "elsewhere": (elsewhere, r"no transformation to the coordinate system 'global' \(there is: hires\)"),
    "unknown kind": (unknown_kind, "of the type 'rotation' is not read"),
    "lines": (lines_as_shapes, "shape of 'cell11' cannot be read: it is of WKB type 2"),
    "link": (linked_away, "is a link that leads out"),
    "damaged": (no_chunks, "cannot be read as AnnData|holds no raw counts: there is no X"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(tmp_path / "s.zarr")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "s.zarr")
    assert caught.value.remedy


def test_a_table_is_chosen_by_name(tmp_path: Path) -> None:
    two_tables(tmp_path / "s.zarr")
    np.testing.assert_allclose(read(tmp_path / "s.zarr", table="table").xy_px, XY)


def test_what_looks_like_one(tmp_path: Path) -> None:
    assert not looks_like(tmp_path)
    path = write_store(tmp_path / "s.zarr")
    assert looks_like(path)
    assert looks_like(tmp_path)
    np.testing.assert_array_equal(read(tmp_path).counts.toarray(), COUNTS)
    zarr.open_group(tmp_path / "image.zarr", mode="w")
    assert not looks_like(tmp_path / "image.zarr")
    with pytest.raises(InputError, match="is no SpatialData store"):
        read(tmp_path / "image.zarr")
