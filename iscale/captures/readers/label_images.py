"""Label images of a SpatialData store: where each label lies, and its size, read chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.readers.files import check_inside
from iscale.captures.readers.transformations import to_global
from iscale.errors import InputError
from iscale.words import by

BLOCK_PX = 2048
"""Side of what is read at once, where chunks are smaller."""

LARGEST_CHUNK = 1 << 30
REMEDY = "Write it again, as spatialdata does."


def place_labels(store: Path, name: str, wanted: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (label, 2) and areas (label,) of these labels in the coordinate system ``global``.

    A pixel covers from its index to the next, so that its middle is at a half. A label that is not in the image has the
    area 0. An InputError where the image cannot be read as one of two dimensions.
    """
    folder = store / "labels" / name
    check_inside(store, folder, what="the labels")
    array, stored = _finest(zarr.open_group(folder, mode="r"), str(folder))
    matrix = to_global(stored, str(folder))
    order = np.argsort(wanted, kind="stable")
    count, x, y = _sums(array, wanted[order])
    with np.errstate(invalid="ignore"):
        centre = np.column_stack([x / count, y / count])
    xy, area = np.empty_like(centre), np.empty(len(count))
    xy[order] = centre @ matrix[:2, :2].T + matrix[:2, 2]
    area[order] = count * abs(float(np.linalg.det(matrix[:2, :2])))
    return xy, area


def _finest(group: zarr.Group, source: str) -> tuple[zarr.Array[Any], Any]:
    """The image at full resolution, with axes y, x, and the transformations of the element."""
    attributes: Any = group.attrs.asdict()
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales or not scales[0].get("datasets"):
        raise InputError(f"{source} is no image of labels: it has no multiscales.", REMEDY)
    array = group[str(scales[0]["datasets"][0]["path"])]
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", ())]
    if not isinstance(array, zarr.Array) or axes != ["y", "x"] or array.ndim != 2 or array.dtype.kind not in "iu":
        shown = f"{by(array.shape)} of {array.dtype}" if isinstance(array, zarr.Array) else "no array"
        raise InputError(
            f"{source} has axes {', '.join(map(str, axes)) or 'without names'} and is {shown}; "
            "labels of the axes y, x, in whole numbers, are read.",
            REMEDY,
        )
    n_bytes = math.prod(array.shards or array.chunks) * array.dtype.itemsize
    if n_bytes > LARGEST_CHUNK:
        raise InputError(
            f"{source} has chunks of {n_bytes:,} bytes; {LARGEST_CHUNK:,} are the most.",
            "Write it with smaller chunks.",
        )
    return array, scales[0].get("coordinateTransformations", [])


def _sums(array: zarr.Array[Any], wanted: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Pixels of each label (ascending), and the sums of their x and of their y."""
    sums = np.zeros((3, len(wanted)))
    for top, left, block in _blocks(array):
        flat = block.ravel()
        is_start = np.empty(block.shape, bool)
        is_start[:, 0] = True
        np.not_equal(block[:, 1:], block[:, :-1], out=is_start[:, 1:])
        starts = np.flatnonzero(is_start)
        length = np.diff(np.append(starts, flat.size)).astype(np.float64)
        label = flat[starts].astype(np.int64)
        at = np.minimum(np.searchsorted(wanted, label), len(wanted) - 1)
        known = wanted[at] == label
        at, length, starts = at[known], length[known], starts[known]
        row, column = np.divmod(starts, block.shape[1])
        x, y = left + column + length / 2, top + row + 0.5
        for i, values in enumerate((length, length * x, length * y)):
            np.add.at(sums[i], at, values)
    return tuple(sums)


def _blocks(array: zarr.Array[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Blocks of whole chunks, with the row and column of their corner."""
    high, wide = (max(1, BLOCK_PX // side) * side for side in array.shards or array.chunks)
    for top in range(0, array.shape[0], high):
        for left in range(0, array.shape[1], wide):
            yield top, left, np.asarray(array[top : top + high, left : left + wide])
