"""SpatialData: the table of a ``.zarr`` store, its spots placed by the shapes or labels that it annotates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from iscale.captures.readers.anndata_group import AnnDataTable, anndata_errors, check_unique, read_table, rows_of
from iscale.captures.readers.blocks import parquet_errors
from iscale.captures.readers.files import check_inside, find_file
from iscale.captures.readers.h5ad import UNIT_SETTING, assemble, by_extent, positions_of, visium_of
from iscale.captures.readers.label_images import place_labels
from iscale.captures.readers.own_image import IMAGE_SETTING
from iscale.captures.readers.sections import SECTION_SETTING, several, take_section
from iscale.captures.readers.transformations import SYSTEM, to_global
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


def shape_ids(path: Path) -> list[str]:
    """Ids of the shapes of a file, without its shapes."""
    with parquet_errors(path, "Write it again."):
        index = json.loads((pq.read_schema(path).metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        named = index and isinstance(index[0], str)
        return _ids(pq.read_table(path, columns=index[:1]), index) if named else []


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


def told(path: Path) -> tuple[str, ...]:
    """What places the spots of the only table, by what its attributes name."""
    store = _store(path)
    names = _tables(store) if store is not None else []
    if store is None or len(names) != 1:
        return ()
    named: Any = zarr.open_group(store / "tables" / names[0], mode="r").attrs.asdict().get("region")
    for kind in ("shapes", "labels"):
        if isinstance(named, str) and _is_there(store, kind, named):
            same = " (or the outlines of the same cells)" if kind == "labels" else ""
            return (f"Its table is of {kind}/{named}, which place its rows{same}, not obsm['spatial'].",)
    return ("Its table names neither shapes nor labels in the store: other shapes or obsm['spatial'] place its rows.",)


def read(
    path: Path,
    table: str | None = None,
    *,
    pixel_size_um: float | None = None,
    section: str | None = None,
    unit: str | None = None,
) -> Measured:
    """Read the table of a SpatialData store, or of the one in a folder; its name is needed where there are several.

    Spots lie where the shapes or labels that the table annotates lie in ``global``. ``unit`` (px or um) is of
    ``obsm["spatial"]``, which is used where the store has neither, ``pixel_size_um`` brings um into pixels.

    Raises
    ------
    InputError
        Where there is no such table, it is of several regions, or its spots cannot be placed.
    """
    store = _store(path)
    if store is None:
        raise InputError(f"{path} is no SpatialData store: a folder *.zarr with tables/.", "Name the store itself.")
    if section is not None and section in _tables(store):
        table, section = section, None
    name = _table_name(store, table)
    check_inside(store, store / "tables" / name, what="the table")
    source = f"{store}/tables/{name}"
    with anndata_errors(source):
        group = zarr.open_group(store / "tables" / name, mode="r")
    with anndata_errors(source, group):
        every = read_table(group, source)
        attributes = dict(group.attrs)
        rows, region = _region(every.obs, attributes, section, source)
        found = every if rows is None else rows_of(every, rows, f"section {section}")
        check_unique(found, source)
        placed = _placed_by_elements(store, region, found, attributes, source)
        if placed is None:
            placed = _placed_by_table(group, every.obs, rows, source, unit, pixel_size_um)
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


def _tables(store: Path) -> list[str]:
    return sorted(
        p.name for p in (store / "tables").iterdir() if (p / "zarr.json").is_file() or (p / ".zgroup").is_file()
    )


def _table_name(store: Path, table: str | None) -> str:
    found = _tables(store)
    if table is None and len(found) == 1:
        return found[0]
    if table not in found:
        wanted = "one is needed" if table is None else f"there is no {table!r}"
        raise InputError(
            f"{store} has {len(found)} tables, {wanted}; there are: {', '.join(found[:8]) or 'none'}.",
            f"Name the table ({SECTION_SETTING}).",
        )
    return table


def _region(
    obs: pd.DataFrame, attributes: Mapping[str, Any], section: str | None, source: str
) -> tuple[NDArray[np.intp] | None, str | None]:
    """The one element that the table annotates, or that is asked for of several; then also the table's rows of it."""
    region = attributes.get("region")
    regions = list(region) if isinstance(region, list | tuple | np.ndarray) else [] if region is None else [region]
    key = attributes.get("region_key")
    if key in obs.columns:
        regions = sorted({str(name) for name in obs[key]})
    regions = [str(name) for name in regions]
    if len(regions) < 2:
        return None, next(iter(regions), None)
    if section not in regions:
        if section is None:
            raise several(source, regions, "regions that it annotates")
        there = ", ".join(regions)
        raise InputError(f"{source} has no section {section!r}: {there}.", f"Name one of these ({SECTION_SETTING}).")
    return np.flatnonzero(obs[key].astype(str) == section), section


def _placed_by_table(
    group: zarr.Group,
    every: pd.DataFrame,
    rows: NDArray[np.intp] | None,
    source: str,
    unit: str | None,
    pixel_size_um: float | None,
) -> Placed:
    """Positions of these of every row that the table itself holds; an InputError where nothing says their unit."""
    found = positions_of(group, every, source, unit)
    obs, xy = (every, found.xy) if rows is None else (every.iloc[rows], found.xy[rows])
    take_section(obs, xy, (), None, source)
    if found.in_um:
        size = pixel_size_um or 1.0
        notice = f"{found.source} is in um: positions are in pixels of {size:g} um."
        return Placed(xy / size, (*found.notices, notice), um_per_px=size)
    if unit is None and visium_of(obs, xy) is None:
        raise InputError(
            f"{source}: no shapes nor labels in the store place the {len(xy)} spots, and nothing states the unit "
            f"of {found.source}, which spans {by_extent(xy)}.",
            f"Say whether it is px of the capture's image or um ({UNIT_SETTING}).",
        )
    return Placed(xy, (*found.notices, f"Positions are {found.source}, in full-resolution pixels."))


def _placed_by_elements(
    store: Path, region: str | None, table: AnnDataTable, attributes: Mapping[str, Any], source: str
) -> Placed | None:
    """Positions of the shapes that the table annotates, of shapes of the same cells, or of its labels; None without.

    Outlines come before labels, which are drawn of them in whole pixels.
    """
    key = attributes.get("instance_key")
    if _is_there(store, "shapes", region):
        return _placed_by_shapes(store, str(region), _instances(table.obs, key, region, source), source)
    for column in dict.fromkeys((key, "cell_id")):
        ids = {str(name) for name in table.obs[column]} if column in table.obs.columns else set()
        if ids and not all(name.isdigit() for name in ids):  # numbers are the same in all elements
            for path in sorted((store / "shapes").glob("*/shapes.parquet")):
                check_inside(store, path, what="the shapes")
                if ids <= set(shape_ids(path)):
                    placed = _placed_by_shapes(store, path.parent.name, table.obs[column], source)
                    notice = f"The table is of {region or 'no element'}; its column {column} names the same shapes."
                    return replace(placed, notices=(notice, *placed.notices))
    if _is_there(store, "labels", region):
        return _placed_by_labels(store, str(region), _instances(table.obs, key, region, source), source)
    return None


def _is_there(store: Path, kind: str, region: str | None) -> bool:
    return region is not None and region == Path(region).name and (store / kind / region).is_dir()


def _instances(obs: pd.DataFrame, key: Any, region: str | None, source: str) -> pd.Series[Any]:
    if key not in obs.columns:
        raise InputError(f"{source} has no column {key!r} that names the instances of {region}.", "Write it again.")
    named: pd.Series[Any] = obs[key]
    return named


def _placed_by_shapes(store: Path, region: str, instances: pd.Series[Any], source: str) -> Placed:
    folder = store / "shapes" / region
    check_inside(store, folder, what="the shapes")
    path = find_file(folder, "shapes.parquet", what=f"the shapes {region}")
    element = zarr.open_group(folder, mode="r")
    stored: Any = element.attrs.asdict().get("coordinateTransformations", [])
    matrix = to_global(stored, str(folder))
    shapes = read_shapes(path)
    row_of = {name: i for i, name in enumerate(shapes.ids)}
    wanted = [str(name) for name in instances]
    _check_found(f"shapes/{region}", [name for name in wanted if name not in row_of], len(wanted), source)
    rows = [row_of[name] for name in wanted]
    scale = abs(float(np.linalg.det(matrix[:2, :2])))
    xy = shapes.xy[rows] @ matrix[:2, :2].T + matrix[:2, 2]
    return _placed(xy, shapes.area[rows] * scale, f"shapes/{region}")


def _placed_by_labels(store: Path, region: str, instances: pd.Series[Any], source: str) -> Placed:
    wanted = pd.to_numeric(instances, errors="coerce").to_numpy(np.float64)
    if not (np.isfinite(wanted).all() and (wanted == np.round(wanted)).all()):
        raise InputError(
            f"{source}: obs {instances.name} names instances of labels/{region} that are no whole numbers, such as "
            f"{instances.iloc[int(np.argmax(~np.isfinite(wanted)))]!r}.",
            "Write it again.",
        )
    xy, area = place_labels(store, region, wanted.astype(np.int64))
    lost = [str(instances.iloc[i]) for i in np.flatnonzero(area == 0)]
    _check_found(f"labels/{region}", lost, len(wanted), source)
    return _placed(xy, area, f"labels/{region}")


def _check_found(element: str, lost: list[str], n: int, source: str) -> None:
    if lost:
        raise InputError(
            f"{source}: {len(lost)} of {n} spots are not in {element}: {', '.join(lost[:3])}.",
            "Take them out of the table (spatialdata.match_table_to_element).",
        )


def _placed(xy: NDArray[np.float64], area: NDArray[np.float64], element: str) -> Placed:
    diameter_px = 2 * float(np.sqrt(np.median(area) / np.pi))
    factors = {"spot_diameter_fullres": diameter_px} if diameter_px > 0 else {}
    return Placed(xy, (f"Positions are those of {element} in {SYSTEM!r}.",), factors)
