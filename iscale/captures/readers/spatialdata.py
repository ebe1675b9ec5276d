"""SpatialData: the table of a ``.zarr`` store, its spots placed by the shapes that it annotates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from numpy.typing import NDArray

from iscale.captures.measured import Measured
from iscale.captures.readers.anndata_group import AnnDataTable, anndata_errors, read_table
from iscale.captures.readers.blocks import parquet_errors
from iscale.captures.readers.files import check_inside, find_file
from iscale.captures.readers.h5ad import assemble, positions_of
from iscale.captures.readers.own_image import IMAGE_SETTING
from iscale.errors import InputError

POINT, POLYGON, MULTIPOLYGON = 1, 3, 6
REMEDY = "Write points, polygons or multipolygons in two dimensions, as spatialdata does."


@dataclass(frozen=True)
class Shapes:
    """Shapes of an element in its own coordinates: ids, (shape, 2) points or centroids, areas of discs or polygons."""

    ids: list[str]
    xy: NDArray[np.float64]
    area: NDArray[np.float64]


def read_shapes(path: Path) -> Shapes:
    """Read ``shapes.parquet``; an InputError where it cannot be read, or holds other geometries."""
    with parquet_errors(path, "Write it again."):
        table = pq.read_table(path)
    metadata = table.schema.metadata or {}
    geometry = json.loads(metadata.get(b"geo", b"{}")).get("primary_column", "geometry")
    if geometry not in table.column_names or not pa.types.is_binary(table.schema.field(geometry).type):
        raise InputError(f"{path} has no column {geometry!r} of shapes in WKB.", REMEDY)
    ids = _ids(table, json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", []))
    centres = np.empty((len(table), 2))
    area = np.zeros(len(table))
    for i, wkb in enumerate(table.column(geometry).to_pylist()):
        try:
            centres[i], area[i] = centre_and_area(wkb)
        except (ValueError, shapely.errors.ShapelyError, TypeError) as error:
            raise InputError(f"{path}: the shape of {ids[i]!r} cannot be read: {error}.", REMEDY) from None
    if "radius" in table.column_names:
        area = np.where(area == 0, np.pi * table.column("radius").to_numpy().astype(np.float64) ** 2, area)
    return Shapes(ids, centres, area)


def _ids(table: pa.Table, index: list[Any]) -> list[str]:
    """The index that pandas wrote: a column, or a range that only its description holds."""
    if index and isinstance(index[0], str):
        return [str(value) for value in table.column(index[0]).to_pylist()]
    start, step = (index[0]["start"], index[0]["step"]) if index else (0, 1)
    return [str(start + step * i) for i in range(len(table))]


def centre_and_area(wkb: bytes) -> tuple[NDArray[np.float64], float]:
    """Centroid (x, y) and area of a shape in well-known binary; holes count. A ValueError where it has no area.

    >>> centre_and_area(shapely.to_wkb(shapely.Point(3, 4)))
    (array([3., 4.]), 0.0)
    """
    kind = int.from_bytes(wkb[1:5], "little" if wkb[:1] == b"\1" else "big")
    if kind not in (POINT, POLYGON, MULTIPOLYGON):  # nor others in three dimensions
        raise ValueError(f"it is of WKB type {kind}, not a point (1), polygon (3) or multipolygon (6)")
    shape = shapely.from_wkb(wkb)
    if kind == POINT:
        return np.array([shapely.get_x(shape), shapely.get_y(shape)]), 0.0
    moment, area = np.zeros(2), 0.0
    for polygon in shapely.get_parts(shape):
        part, part_area = _moment_and_area(polygon)
        moment, area = moment + part, area + part_area
    if not area > 0:
        raise ValueError("it has no area")
    return moment / area, area


def _moment_and_area(polygon: shapely.Polygon) -> tuple[NDArray[np.float64], float]:
    """Area times centroid, and area; not shapely's own, whose last digits are others than in runs that there are."""
    moment, area = np.zeros(2), 0.0
    for number, ring in enumerate(shapely.get_rings(polygon)):
        points = shapely.get_coordinates(ring)
        origin = points[0]
        a, b = points[:-1] - origin, points[1:] - origin  # near 0: large coordinates would cost digits
        cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
        ring_area = cross.sum() / 2
        ring_moment = ((a + b) * cross[:, None]).sum(axis=0) / 6 + ring_area * origin
        sign = np.sign(ring_area) * (1 if number == 0 else -1)
        moment, area = moment + sign * ring_moment, area + float(sign * ring_area)
    return moment, area


SYSTEM = "global"
SPLIT_REMEDY = "Split it: write a store with one table, of one region, for each capture."


@dataclass(frozen=True)
class Placed:
    """Where the spots lie: (spot, 2) in pixels; from where; scanpy's scale factors and um_per_px where known."""

    xy: NDArray[np.float64]
    notices: tuple[str, ...]
    factors: dict[str, float] = field(default_factory=dict)
    um_per_px: float | None = None


def looks_like(path: Path) -> bool:
    """Whether a folder is a Zarr store with ``tables``, or holds just one that is."""
    return _store(path) is not None


def read(path: Path, table: str | None = None) -> Measured:
    """Read the table of a SpatialData store, or of the one in a folder; its name is needed where there are several.

    Raises
    ------
    InputError
        Where there is no such table, it is of several regions, or its spots cannot be placed.
    """
    store = _store(path)
    if store is None:
        raise InputError(f"{path} is no SpatialData store: a folder *.zarr with tables/.", "Name the store itself.")
    name = _table_name(store, table)
    check_inside(store, store / "tables" / name, what="the table")
    source = f"{store}/tables/{name}"
    with anndata_errors(source):
        group = zarr.open_group(store / "tables" / name, mode="r")
        found = read_table(group, source)
        attributes = dict(group.attrs)
        region = _region(found.obs, attributes, source)
        placed = _placed_by_shapes(store, region, found, attributes, source) if region else None
        if placed is None:
            placed = _placed_by_table(group, found, source)
    notices = (*placed.notices, f"Images of a SpatialData store are not read ({IMAGE_SETTING}).")
    return assemble(
        "spatialdata", found, placed.xy, placed.factors, image=None, um_per_px=placed.um_per_px, notices=notices
    )


def _store(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    if (path / "tables").is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        return path
    below = [p for p in path.iterdir() if p.suffix.lower() == ".zarr" and (p / "tables").is_dir()]
    return below[0] if len(below) == 1 else None


def _table_name(store: Path, table: str | None) -> str:
    found = sorted(
        p.name for p in (store / "tables").iterdir() if (p / "zarr.json").is_file() or (p / ".zgroup").is_file()
    )
    if table is None and len(found) == 1:
        return found[0]
    if table not in found:
        wanted = "one is needed" if table is None else f"there is no {table!r}"
        raise InputError(
            f"{store} has {len(found)} tables, {wanted}; there are: {', '.join(found[:8]) or 'none'}.", SPLIT_REMEDY
        )
    return table


def _region(obs: pd.DataFrame, attributes: Mapping[str, Any], source: str) -> str | None:
    """The one element that the table annotates."""
    region = attributes.get("region")
    regions = list(region) if isinstance(region, list | tuple | np.ndarray) else [] if region is None else [region]
    key = attributes.get("region_key")
    if key in obs.columns:
        regions = sorted({str(name) for name in obs[key]})
    if len(regions) > 1:
        raise InputError(
            f"{source} is of {len(regions)} regions: {', '.join(str(name) for name in regions[:5])}.", SPLIT_REMEDY
        )
    return str(regions[0]) if regions else None


def _placed_by_table(group: zarr.Group, table: AnnDataTable, source: str) -> Placed:
    """Positions that the table itself holds: which unit they have nothing says, unless they are Xenium's um."""
    found = positions_of(group, table.obs, source)
    if found.in_um:
        notice = f"{found.source} is in um: positions are in pixels of 1 um."
        return Placed(found.xy, (*found.notices, notice), um_per_px=1.0)
    return Placed(found.xy, (*found.notices, f"Positions are {found.source}, taken for full-resolution pixels."))


def _placed_by_shapes(
    store: Path, region: str, table: AnnDataTable, attributes: Mapping[str, Any], source: str
) -> Placed | None:
    """Positions of the shapes that the table annotates; None where its region is no shapes (labels, say)."""
    folder = store / "shapes" / region
    if region != Path(region).name or not folder.is_dir():
        return None
    check_inside(store, folder, what="the shapes")
    path = find_file(folder, "shapes.parquet", what=f"the shapes {region}")
    element = zarr.open_group(folder, mode="r")
    stored: Any = element.attrs.asdict().get("coordinateTransformations", [])
    matrix = to_global(stored, str(folder))
    shapes = read_shapes(path)
    key = attributes.get("instance_key")
    if key not in table.obs.columns:
        raise InputError(f"{source} has no column {key!r} that names the instances of {region}.", "Write it again.")
    row_of = {name: i for i, name in enumerate(shapes.ids)}
    wanted = [str(name) for name in table.obs[key]]
    lost = [name for name in wanted if name not in row_of]
    if lost:
        raise InputError(
            f"{source}: {len(lost)} of {len(wanted)} spots are not in shapes/{region}: {', '.join(lost[:3])}.",
            "Take them out of the table (spatialdata.match_table_to_element).",
        )
    rows = [row_of[name] for name in wanted]
    scale = abs(float(np.linalg.det(matrix[:2, :2])))
    diameter_px = 2 * float(np.sqrt(np.median(shapes.area[rows]) * scale / np.pi))
    xy = shapes.xy[rows] @ matrix[:2, :2].T + matrix[:2, 2]
    factors = {"spot_diameter_fullres": diameter_px} if diameter_px > 0 else {}
    return Placed(xy, (f"Positions are those of shapes/{region} in {SYSTEM!r}.",), factors)


def to_global(transformations: Sequence[Mapping[str, Any]], source: str) -> NDArray[np.float64]:
    """The matrix (3, 3) that takes an element's x, y, 1 to the coordinate system ``global``; else an InputError."""
    for transformation in transformations:
        if transformation.get("output", {}).get("name") == SYSTEM:
            matrix = _matrix(transformation, source)
            if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
                raise InputError(f"{source}: the transformation to {SYSTEM!r} is singular.", "Write it again.")
            return matrix
    names = ", ".join(str(t.get("output", {}).get("name")) for t in transformations) or "none"
    raise InputError(
        f"{source} has no transformation to the coordinate system {SYSTEM!r} (there is: {names}).",
        f"Set one (spatialdata.transformations.set_transformation(..., to_coordinate_system={SYSTEM!r})).",
    )


def _matrix(transformation: Mapping[str, Any], source: str) -> NDArray[np.float64]:
    kind = transformation.get("type")
    if kind == "sequence":
        matrix = np.eye(3)
        for part in transformation["transformations"]:
            matrix = _matrix(part, source) @ matrix
        return matrix
    axes = [[axis["name"] for axis in transformation[end]["axes"]] for end in ("input", "output")]
    matrix = np.eye(3)
    if kind == "identity":
        return matrix
    if kind in ("scale", "translation"):
        for name, value in zip(axes[0], transformation[kind], strict=True):
            if name in "xy":
                at = "xy".index(name)
                matrix[at, at if kind == "scale" else 2] = value
        return matrix
    if kind == "affine":
        stored = np.asarray(transformation["affine"], dtype=np.float64)
        columns = [*axes[0], "1"]
        for i, out in enumerate("xy"):
            for j, into in enumerate(("x", "y", "1")):
                matrix[i, j] = stored[axes[1].index(out), columns.index(into)]
        return matrix
    raise InputError(
        f"{source}: a transformation of the type {kind!r} is not read.",
        "Identity, scale, translation, affine and sequences of them are.",
    )
