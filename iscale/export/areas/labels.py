"""Areas of a label image: every number but 0 is one, wherever its pixels lie."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy import sparse

from iscale.errors import InputError
from iscale.export.areas.areas import AREAS_AT_ONCE, Facts, Overlaps, nothing_there, shard_at, shard_grid
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.slide.base import any_size, check_free_memory
from iscale.words import by

REMEDY = "Save the labels as an image of whole numbers, one per pixel, 0 where nothing is: .npy, TIFF or 16-bit PNG."
MOST_FACTOR = 1024
BAND_BYTES = 64 << 20
ROUNDING = 1e-9

UNREADABLE = (
    *(OSError, ValueError, KeyError, IndexError, SyntaxError),
    *(tifffile.TiffFileError, UnidentifiedImageError),
)
"""What Pillow, tifffile and NumPy raise on damaged files."""


class Image2D:
    """A label image (``.npy``, TIFF or PNG) that is read window by window.

    Pixels of one without random access (PNG, TIFF without tiles) are copied to a folder.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path, self._npy = path, path
        suffix = path.suffix.lower()
        try:
            if suffix == ".npy":
                self._tiles = None
            elif suffix == ".png":
                self._tiles, self._npy = None, self._decoded(scratch)
            else:
                self._tiles = self._tiff(scratch)
            found = self._opened()
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read as labels: {error}.", REMEDY) from None
        if len(found.shape) != 2 or found.dtype.kind not in "ui":
            raise InputError(f"{path} holds {found.dtype} of shape {by(found.shape)}, not labels (y, x).", REMEDY)
        self.shape: tuple[int, int] = (int(found.shape[0]), int(found.shape[1]))

    def read(self, region: Region) -> NDArray[np.int64]:
        """Labels (y, x) of a window; what is mapped is let go again."""
        return np.asarray(self._opened()[region.slices]).astype(np.int64)

    def _opened(self) -> Any:
        return np.load(self._npy, mmap_mode="r", allow_pickle=False) if self._tiles is None else self._tiles

    def _decoded(self, scratch: Path) -> Path:
        with any_size(), Image.open(self._path, formats=("PNG",)) as image:
            width, height = image.size
            if image.mode not in ("L", "I", "I;16", "1"):
                raise InputError(f"{self._path} is an image of colours (mode {image.mode}), not of labels.", REMEDY)
            check_free_memory(self._path, 8 * width * height, (height, width))
            npy = scratch / "labels.npy"
            pixels = np.asarray(image)
            np.save(npy, pixels if pixels.dtype.kind in "ui" else pixels.astype(np.uint8))
            return npy

    def _tiff(self, scratch: Path) -> Any:
        """The first image of a TIFF: its tiles, or None where it was copied to be read by windows."""
        with tifffile.TiffFile(self._path) as file:
            series = file.series[0]
            page, shape = series.keyframe, tuple(n for n in series.shape if n > 1)
            kind = series.dtype.kind
            if len(shape) != 2 or kind not in "ui":
                raise InputError(
                    f"{self._path} holds {series.dtype} of shape {by(series.shape)} ({series.axes}), "
                    "not labels (y, x).",
                    REMEDY,
                )
            tiled = page.is_tiled and len(series.shape) == 2
        store = tifffile.imread(self._path, aszarr=True, level=0, series=0)
        weakref.finalize(self, store.close)
        array = zarr.open_array(store, mode="r")
        if tiled:
            return array
        flat = array if array.ndim == 2 else np.squeeze(np.asarray(array[...]))
        self._npy = scratch / "labels.npy"
        copy = np.lib.format.open_memmap(self._npy, "w+", dtype=flat.dtype, shape=flat.shape)
        band = max(1, BAND_BYTES // (flat.shape[1] * flat.dtype.itemsize))
        for top in range(0, flat.shape[0], band):
            copy[top : top + band] = flat[top : top + band]
        del copy
        return None


def pixel_in_superpixels(
    shape: tuple[int, int], grid: SlideGrid, source: str
) -> tuple[float, tuple[float, float], str]:
    """Side of a label pixel and the labels' corner (y, x), in superpixels, and what their grid is.

    That is a frame of the slide, or of the part of it that was scanned, or a whole factor coarser.

    >>> pixel_in_superpixels((250, 500), SlideGrid((1000, 2000), 0.25, 0.5), "labels.tif")
    (0.125, (0.0, 0.0), 'pixels of the slide at full resolution, 4 x 4 to a label pixel')
    """
    part = grid.bounds_px
    scanned = f"pixels of the scanned part of the slide, which begins at x {part.x0}, y {part.y0}," if part else ""
    frames = ({scanned: (part.shape, grid.scale)} if part else {}) | {
        "pixels of the slide at full resolution": (grid.raw_shape_px, grid.scale),
        "pixels of the analysis image": (grid.content_shape_px, 1.0),
        "pixels of the padded analysis image": (grid.shape_px, 1.0),
    }
    for name, (whole, scale) in frames.items():
        factor = round(max(whole) / max(shape))
        if 1 <= factor <= MOST_FACTOR and all(
            n in (size // factor, -(-size // factor)) for n, size in zip(shape, whole, strict=True)
        ):
            frame = name if factor == 1 else f"{name}, {factor} x {factor} to a label pixel"
            corner = (part.y0, part.x0) if part and name == scanned else (0, 0)
            y, x = (n * grid.scale / SUPERPIXEL_PX for n in corner)
            return factor * scale / SUPERPIXEL_PX, (y, x), frame
    sizes = "; ".join(f"{name} {h:,} x {w:,}" for name, ((h, w), _) in frames.items())
    raise InputError(
        f"{source} is {shape[0]:,} x {shape[1]:,} px (height x width); the slide's frames are: {sizes}.",
        "Labels must cover the whole slide, in one of these frames or a whole number of times coarser: not cropped.",
    )


@dataclass(frozen=True)
class _Pixels:
    """Pixels of one axis over some superpixels: pairs that overlap, and the share of the superpixel."""

    pixel: NDArray[np.int64]
    cell: NDArray[np.int64]
    share: NDArray[np.float64]


def _overlapping(start: int, stop: int, side: float, n: int, corner: float) -> _Pixels:
    """Pairs of pixels, numbered from the first, and superpixels ``start:stop``, numbered from there, of one axis."""
    first, last = _window(start, stop, side, n, corner)
    edges = corner + np.arange(first, last + 1) * side
    low = np.floor(edges[:-1] + ROUNDING).astype(np.int64)
    high = np.ceil(edges[1:] - ROUNDING).astype(np.int64)
    pixel = np.repeat(np.arange(last - first), high - low)
    nth = np.arange(len(pixel)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    cell = low[pixel] + nth
    share = np.minimum(edges[pixel + 1], cell + 1) - np.maximum(edges[pixel], cell)
    kept = (cell >= start) & (cell < stop)
    return _Pixels(pixel[kept], cell[kept] - start, share[kept])


def _window(start: int, stop: int, side: float, n: int, corner: float) -> tuple[int, int]:
    """Pixels that overlap superpixels ``start:stop``, the first pixel being at a corner."""
    first = int(np.floor((start - corner) / side + ROUNDING))
    last = int(np.ceil((stop - corner) / side - ROUNDING))
    return min(max(first, 0), n), min(max(last, 0), n)


class LabelAreas:
    """Areas of a label image, in the order of their numbers.

    Held in memory are a number, a size and a centre of each area; pixels are read a shard at a time.
    """

    def __init__(self, path: Path, image: Image2D, grid: SlideGrid) -> None:
        self._path, self._image, self._grid = path, image, grid
        self._side, self._corner, frame = pixel_in_superpixels(image.shape, grid, str(path))
        self.what, self.notices = f"labels of {path.name}: {frame}", list[str]()
        self._labels = np.zeros(0, np.int64)
        self._there: list[Region] = []

    def facts(self) -> Iterator[Facts]:
        """All labels, their sizes and centres."""
        found = [sums for shard in self._all_shards() if (sums := self._sums(shard)) is not None]
        if not found:
            raise nothing_there(
                f"{self._path} (all its {self._image.shape[0]:,} x {self._image.shape[1]:,} px are 0)", REMEDY
            )
        every = np.concatenate(found)
        self._labels, row = np.unique(every[:, 0].astype(np.int64), return_inverse=True)
        if self._labels[0] < 0:
            raise InputError(f"{self._path} has labels below 0, such as {self._labels[0]}.", REMEDY)
        n = len(self._labels)
        area, x, y = (np.bincount(row, every[:, i], n).astype(np.float64) for i in (1, 2, 3))
        centre = np.column_stack([x, y]) / area[:, None]
        for first in range(0, n, AREAS_AT_ONCE):
            part = slice(first, first + AREAS_AT_ONCE)
            ids = [str(label) for label in self._labels[part].tolist()]
            yield Facts(ids, {"label": self._labels[part]}, area[part], centre[part])

    def _all_shards(self) -> list[Region]:
        height, width = shard_grid(self._grid.superpixel_shape)
        return [shard_at(number, self._grid.superpixel_shape) for number in range(height * width)]

    def _sums(self, shard: Region) -> NDArray[np.float64] | None:
        """(label, 4): number, area, and area times x and y, of the part of each label on a shard."""
        pairs = self._pairs(shard)
        if pairs is None:
            return None
        self._there.append(shard)
        label, cell, share = pairs
        numbers, row = np.unique(label, return_inverse=True)
        y, x = np.divmod(cell, shard.shape[1])
        weights = (share, share * (x + shard.x0 + 0.5), share * (y + shard.y0 + 0.5))
        return np.column_stack([numbers, *(np.bincount(row, weight, len(numbers)) for weight in weights)])

    def _pairs(self, shard: Region) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
        """Labels and superpixels that overlap, and the share of the superpixel; None where there is no label."""
        height, width = self._image.shape
        axes = ((shard.y0, shard.y1, height, self._corner[0]), (shard.x0, shard.x1, width, self._corner[1]))
        rows, columns = (_window(a, b, self._side, n, corner) for a, b, n, corner in axes)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            return None
        labels = self._image.read(Region(*rows, *columns))
        if not labels.any():
            return None
        down, across = (_overlapping(a, b, self._side, n, corner) for a, b, n, corner in axes)
        found = [
            _row_pairs(labels[down.pixel[of]][:, across.pixel], across, down.share[of], cell, shard.shape[1])
            for cell in np.unique(down.cell)
            for of in (down.cell == cell,)
        ]
        label, place, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return label, place, share

    def shards(self) -> list[Region]:
        """Shards that have a label."""
        return self._there

    def overlaps(self, shard: Region, most: int) -> Iterator[Overlaps]:
        """Shares of the shard's superpixels that lie in each label."""
        pairs = self._pairs(shard)
        if pairs is None:
            return
        label, cell, share = pairs
        order = np.lexsort((cell, label))
        numbers, own = np.unique(label[order], return_inverse=True)
        rows = np.searchsorted(self._labels, numbers)
        ends = np.searchsorted(own, np.arange(len(rows) + 1))
        shares = sparse.csr_array((share[order], cell[order], ends), shape=(len(rows), shard.area))
        for first in range(0, len(rows), most):
            part = slice(first, min(first + most, len(rows)))
            yield Overlaps(rows[part], shares[part])


def _row_pairs(
    labels: NDArray[np.int64], across: _Pixels, weights: NDArray[np.float64], row: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Labels, superpixels and shares of one row of superpixels, of the pixels (y, x) that overlap it."""
    code, numbers = pd.factorize(labels.ravel())
    key = code.reshape(labels.shape) * width + across.cell
    sums = np.bincount(key.ravel(), (weights[:, None] * across.share).ravel(), len(numbers) * width)
    at = np.flatnonzero(sums > ROUNDING)
    label, column = np.divmod(at, width)
    kept = numbers[label] != 0
    return numbers[label[kept]], row * width + column[kept], sums[at[kept]]
