"""A mask that the user drew: an image of the slide's shape, or polygons (QuPath's GeoJSON export)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image, UnidentifiedImageError

from iscale.arrays import block_share
from iscale.errors import InputError
from iscale.geometry import STRAY, SUPERPIXEL_PX, Region, SlideGrid
from iscale.slide.base import any_size

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Bounds of a polygon in superpixels: x0, y0, x1, y1."""

ASPECT = 0.02
"""A mask image has the slide's aspect ratio within this, relatively."""

OVERSAMPLING = 4
"""Polygons are drawn with so many points to a side of a superpixel; half of them inside make it tissue."""

POLYGONS = "Export the annotations from QuPath: File, Export objects as GeoJSON."


class UserMask(Protocol):
    """Where the user says that tissue is; ``notices`` say what its positions are taken to count from."""

    notices: tuple[str, ...]

    def superpixels(self, region: Region) -> Mask:
        """Which superpixels (y, x) of a region are tissue."""
        ...


def read_user_mask(path: Path | str, grid: SlideGrid) -> UserMask:
    """The user's mask: ``.png`` as an image, ``.geojson`` and ``.json`` as polygons.

    Raises
    ------
    InputError
        The file is missing, not what its suffix says, empty of tissue, or does not fit the slide.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file", "Check the path of the tissue mask.")
    if path.suffix.lower() in (".geojson", ".json"):
        return PolygonMask(path, grid)
    if path.suffix.lower() == ".png":
        return ImageMask(path, grid)
    raise InputError(f"{path} has the suffix {path.suffix!r}", "Give the tissue mask as .png or as .geojson.")


class ImageMask:
    """A mask image of any size that shows the whole slide, or what of it was scanned; what is not 0 is tissue.

    Nor is transparent. It is held at its own size, one byte a pixel: workers should open it once.
    """

    def __init__(self, path: Path, grid: SlideGrid) -> None:
        self._mask = _decode(path)
        self._part, self.notices = _shown(path, self._mask.shape, grid)
        self._scale, self._content = grid.scale, grid.content_shape_px
        if not self._mask.any():
            h, w = self._mask.shape
            raise InputError(f"{path} marks no tissue: all its {h} x {w} px are 0", "Mark tissue with values above 0.")

    def superpixels(self, region: Region) -> Mask:
        """Which superpixels (y, x) of a region are tissue: by the mask's pixel at their centre."""
        (h, w), part, scale = self._content, self._part, self._scale
        top, left, high, wide = (0.0, 0.0, float(h), float(w))
        if part is not None:
            top, left, high, wide = (n * scale for n in (part.y0, part.x0, *part.shape))
        rows, row_inside = _mask_index(region.y0, region.y1, top, high, self._mask.shape[0])
        columns, column_inside = _mask_index(region.x0, region.x1, left, wide, self._mask.shape[1])
        picked: Mask = self._mask[np.ix_(rows, columns)] & row_inside[:, None] & column_inside
        return picked


def _shown(path: Path, shape: tuple[int, int], grid: SlideGrid) -> tuple[Region | None, tuple[str, ...]]:
    """The part of the slide that an image of a shape shows, None for all of it, and what to tell of that."""
    h, w = shape
    frames = {None: grid.raw_shape_px} | ({grid.bounds_px: grid.bounds_px.shape} if grid.bounds_px else {})
    off = {part: abs(w * raw_h - h * raw_w) / (h * raw_w) for part, (raw_h, raw_w) in frames.items()}
    part = min(off, key=lambda one: (off[one], one is None))
    # One pixel of rounding is always granted: small masks of long slides cannot do better.
    if off[part] > max(ASPECT, 1.0 / min(h, w)):
        raw_h, raw_w = grid.raw_shape_px
        less = grid.bounds_px
        scanned = f", the scanned part of it {less.shape[0]} x {less.shape[1]} px" if less else ""
        raise InputError(
            f"{path} is {h} x {w} px (height x width, ratio {h / w:.3f}), the slide is {raw_h} x {raw_w} px "
            f"(ratio {raw_h / raw_w:.3f}){scanned}",
            "Draw the mask over the whole slide, as it is stored: not cropped, turned or padded.",
        )
    if len(frames) == 1:
        return None, ()
    told = f"the scanned part of the slide ({part})" if part else "the whole slide"
    return part, (f"{path.name} is laid over {told}, by its ratio of {h / w:.3f}",)


@dataclass(frozen=True)
class _Polygon:
    """Rings (n, 2) of x, y in superpixels: the outline, then holes."""

    rings: tuple[Ring, ...]
    box: Box


class PolygonMask:
    """Polygons in full-resolution pixels of the slide, drawn for each region alone.

    Where the slide states what of it was scanned, they may count from the corner of that: `SlideGrid.corner_of_others`.
    They come as GeoJSON: a FeatureCollection, a list of features, a feature or a geometry.
    """

    def __init__(self, path: Path, grid: SlideGrid) -> None:
        scale = grid.scale / SUPERPIXEL_PX
        raw = [rings for geometry in geometries_of(_load(path)) for rings in rings_of(path, geometry)]
        if not raw:
            raise InputError(f"{path} has no Polygon or MultiPolygon in it", POLYGONS)
        low, high = (tuple(f([f(rings[0], 0) for rings in raw], 0).tolist()) for f in (np.min, np.max))
        corner, told = grid.corner_of_others(path.name, low, high)
        self.notices: tuple[str, ...] = (told,) if told else ()
        raw = [[ring + corner for ring in rings] for rings in raw]
        _check_inside(path, raw, grid.raw_shape_px)
        self._polygons = [
            _Polygon(tuple(ring * scale for ring in rings), (*(rings[0].min(0) * scale), *(rings[0].max(0) * scale)))
            for rings in raw
        ]

    def superpixels(self, region: Region) -> Mask:
        """Which superpixels (y, x) of a region lie in a polygon, and not in its holes, by more than half."""
        h, w = region.shape
        inside = np.zeros((h * OVERSAMPLING, w * OVERSAMPLING), bool)
        for polygon in self._polygons:
            x0, y0, x1, y1 = polygon.box
            if x1 > region.x0 and x0 < region.x1 and y1 > region.y0 and y0 < region.y1:
                inside |= _draw(polygon, region)
        return np.asarray(block_share(inside, OVERSAMPLING) > 0.5)


def _decode(path: Path) -> Mask:
    try:
        with any_size(), Image.open(path, formats=("PNG",)) as image:
            w, h = image.size
            needed, free = h * w * (4 * len(image.getbands()) + 2), psutil.virtual_memory().available
            if needed > free:
                raise InputError(
                    f"{path}: decoding {h} x {w} px takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB free",
                    "Give the mask at a lower resolution (a pixel for each 16 x 16 of the slide) or as GeoJSON.",
                )
            values = np.asarray(image)
            alpha = image.mode in ("LA", "RGBA")
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a PNG image", "Save the mask as PNG.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be decoded ({error})", "Save the mask again.") from error
    if values.ndim == 2:
        return np.asarray(values != 0)
    if alpha:
        return np.asarray((values[..., :-1] != 0).any(-1) & (values[..., -1] != 0))
    return np.asarray((values != 0).any(-1))


def _mask_index(start: int, stop: int, corner_px: float, side_px: float, n: int) -> tuple[npt.NDArray[np.intp], Mask]:
    """Index into a mask side of ``n`` for the centres of superpixels, and which centres lie on what the mask shows."""
    centre = ((np.arange(start, stop) + 0.5) * SUPERPIXEL_PX - corner_px) / side_px
    return np.clip(np.floor(centre * n), 0, n - 1).astype(np.intp), (centre >= 0) & (centre < 1)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error})", POLYGONS) from error


def geometries_of(value: Any) -> list[dict[str, Any]]:
    """All geometries of a FeatureCollection, a list, a feature, a collection or a geometry."""
    if isinstance(value, list):
        return [geometry for item in value for geometry in geometries_of(item)]
    if not isinstance(value, dict):
        return []
    for key in ("features", "geometries", "geometry"):
        if value.get(key) is not None:
            return geometries_of(value[key])
    return [value] if value.get("type") in ("Polygon", "MultiPolygon") else []


def rings_of(path: Path, geometry: dict[str, Any], least: int = 3) -> list[list[Ring]]:
    """The polygons of a geometry, each a list of rings (n, 2) of at least so many points; all numbers are finite."""
    coordinates = geometry.get("coordinates") or []
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    try:
        found = [[np.asarray(ring, np.float64)[:, :2] for ring in polygon] for polygon in polygons]
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: a {geometry['type']} has coordinates that are not x, y pairs ({error})", POLYGONS
        ) from error
    for polygon in found:
        for ring in polygon:
            if ring.shape[1] == 2 and not np.isfinite(ring).all():
                at = ring[~np.isfinite(ring).all(axis=1)][0].tolist()
                raise InputError(f"{path}: a {geometry['type']} has a point at {at}.", "Positions must be numbers.")
            if len(ring) < least or ring.shape[1] != 2:
                raise InputError(f"{path}: a {geometry['type']} has a ring of {len(ring)} usable points", POLYGONS)
    return [polygon for polygon in found if polygon]


def _check_inside(path: Path, polygons: list[list[Ring]], raw_shape_px: tuple[int, int]) -> None:
    """Polygons must lie on the slide, but for a drawn outline that strays a little over its border."""
    h, w = raw_shape_px
    low = np.min([rings[0].min(0) for rings in polygons], axis=0)
    high = np.max([rings[0].max(0) for rings in polygons], axis=0)
    margin = STRAY * max(h, w)
    if (low < -margin).any() or high[0] > w + margin or high[1] > h + margin:
        limit = (w + margin, h + margin)
        outside = sum(bool((r[0].min(0) < -margin).any() or (r[0].max(0) > limit).any()) for r in polygons)
        raise InputError(
            f"{path}: {outside} of {len(polygons)} polygons reach out of the slide: they span x {low[0]:.0f} to "
            f"{high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}; the slide is {w} px wide and {h} px high",
            "Coordinates must be pixels of this slide at full resolution, x to the right and y down.",
        )


def _draw(polygon: _Polygon, region: Region) -> Mask:
    """Points (y, x) of a region, `OVERSAMPLING` to a superpixel's side, that lie in a polygon (even-odd rule).

    Coordinates stay those of the slide, so that a point is decided alike in every region.
    """
    ends = [np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1) for ring in polygon.rings]
    x0, y0, x1, y1 = np.concatenate(ends).T
    near = (np.maximum(y0, y1) > region.y0) & (np.minimum(y0, y1) <= region.y1) & (y0 != y1)
    x0, y0, x1, y1 = x0[near], y0[near], x1[near], y1[near]
    rows, columns = (
        (np.arange(start * OVERSAMPLING, stop * OVERSAMPLING) + 0.5) / OVERSAMPLING
        for start, stop in ((region.y0, region.y1), (region.x0, region.x1))
    )
    inside = np.zeros((len(rows), len(columns)), bool)
    for i, y in enumerate(rows):
        crossed = (y0 <= y) != (y1 <= y)
        if crossed.any():
            at = x0[crossed] + (y - y0[crossed]) * (x1[crossed] - x0[crossed]) / (y1[crossed] - y0[crossed])
            inside[i] = np.searchsorted(np.sort(at), columns) % 2 == 1
    return inside
