"""Arrays: means over blocks of cells, and the same code on NumPy or CuPy, chosen by device.

Blocks are squares of ``side`` cells, counted from the first cell; where the last ones are cut by the edge of an array,
means and shares are those of what is there. Functions written against the array API (`halve`) run on either library:
`apply_on` takes NumPy arrays to the device, calls such a function there, and brings the result back. Not tried on a
GPU.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of NumPy, of CuPy, or of another library that follows the array API."""


def block_view(values: NDArray[Any], side: int, beyond: float = 0) -> NDArray[Any]:
    """(..., y, x) as (..., y / side, side, x / side, side); ``beyond`` fills up blocks that the edge cuts.

    Without such blocks no value is copied.
    """
    *rest, height, width = values.shape
    if height % side or width % side:
        padding = [(0, 0)] * len(rest) + [(0, -height % side), (0, -width % side)]
        values = np.pad(values, padding, constant_values=beyond)
    return values.reshape(*rest, -(-height // side), side, -(-width // side), side)


def block_cells(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Put the cells of each block on a last axis: (..., y, x) to (..., y / side, x / side, side * side).

    What the edge cuts off is 0.

    >>> block_cells(np.arange(8).reshape(2, 4), 2).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    cells = np.moveaxis(block_view(values, side), -2, -3)
    return cells.reshape(*cells.shape[:-2], side * side)


def block_mean(values: NDArray[Any], side: int, least: float = 0.0) -> NDArray[Any]:
    """Means over blocks of (..., y, x) float32 or float64, of what is finite, in the same type.

    NaN where nothing is finite, or less than the share ``least`` of a whole block.

    >>> block_mean(np.array([[1, 3, np.nan], [np.nan, 2, np.nan]]), 2).tolist()
    [[2.0, nan]]
    """
    if side == 1:
        return values
    cells = block_view(values, side, np.nan)
    there = np.isfinite(cells)
    count = there.sum(axis=(-3, -1))
    total = np.where(there, cells, 0).sum(axis=(-3, -1))
    enough = count >= max(1, least * side**2)
    return np.where(enough, total / np.maximum(count, 1), np.nan).astype(values.dtype)


def block_share(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Share of each block of a (y, x) mask that is set.

    >>> block_share(np.array([[True, False, True], [True, True, False]]), 2).tolist()
    [[0.75, 0.5]]
    """
    return np.asarray(block_cells(mask, side).sum(axis=-1) / _sizes(mask.shape, side), np.float32)


def block_mode(labels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The most common label of each block of (y, x) other than 0, the lowest of several; 0 where there is none.

    >>> block_mode(np.array([[0, 0], [3, 2]], np.uint8), 2).tolist()
    [[2]]
    """
    if side == 1:
        return labels
    cells = block_cells(labels, side)
    best = np.zeros(cells.shape[:-1], np.uint8)
    most = np.zeros(cells.shape[:-1], np.int32)
    for label in np.unique(labels[labels > 0]):  # ascending
        count = (cells == label).sum(axis=-1)
        best[count > most] = label
        most = np.maximum(most, count)
    return best


def pixel_mean(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Means over blocks of pixels (y, x, c), exact but for float32."""
    if side == 1:
        return pixels.astype(np.float32)
    cells = block_view(np.moveaxis(pixels, -1, 0), side)
    total = cells.sum(axis=(-3, -1), dtype=np.uint32)
    return np.moveaxis(np.asarray(total / _sizes(pixels.shape[:2], side), np.float32), 0, -1)


def downsampled(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Means over blocks of pixels (y, x, c), rounded half up.

    >>> downsampled(np.array([[[1], [3], [9]], [[1], [4], [9]]], np.uint8), 2).ravel().tolist()
    [2, 9]
    """
    return pixels if side == 1 else np.asarray(pixel_mean(pixels, side) + 0.5, dtype=np.uint8)


def _sizes(shape: tuple[int, ...], side: int) -> NDArray[np.int64]:
    """Cells (y, x) of the blocks of a (y, x) array."""
    rows, columns = (np.minimum(side, n - np.arange(0, n, side)) for n in shape)
    return np.outer(rows, columns)


def halve(pixels: Array, *, channels_first: bool = False) -> Array:
    """The next level of a pyramid: means of 2 x 2 pixels, rounded half up.

    ``pixels`` are (y, x, c), or (c, y, x) with ``channels_first``: uint8, of NumPy or another library that follows the
    array API.

    >>> halve(np.array([[[0], [1]], [[1], [0]]], np.uint8)).tolist()
    [[[1]]]
    """
    from array_api_compat import array_namespace

    xp = array_namespace(pixels)
    before = (slice(None),) * (1 if channels_first else 0)
    for axis in (len(before), len(before) + 1):
        if pixels.shape[axis] % 2:  # what is there twice, in place of what is not
            last = pixels[(*(slice(None),) * axis, slice(-1, None), ...)]
            pixels = xp.concat([pixels, last], axis=axis)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    total = xp.astype(pixels[(*before, even, even, ...)], xp.uint16)
    for corner in ((even, odd), (odd, even), (odd, odd)):
        total += pixels[(*before, *corner, ...)]
    total += 2
    total >>= 2
    return xp.astype(total, xp.uint8)


def apply_on(device: str, function: Callable[..., Array], values: NDArray[Any], *rest: Any, **named: Any) -> Any:
    """Call a function of an array where its values are to be computed; the array and the result are on the host.

    The function takes an array of NumPy or of CuPy first, and gives one of the same kind. ``cpu`` is NumPy, ``cuda`` or
    ``cuda:1`` CuPy on that GPU; without CuPy, NumPy, which is said once.

    >>> apply_on("cpu", np.add, np.array([1, 2]), 1).tolist()
    [2, 3]
    """
    kind, _, number = device.partition(":")
    cupy = _cupy() if kind == "cuda" else None
    if cupy is None:
        return np.asarray(function(values, *rest, **named))
    with cupy.cuda.Device(int(number or 0)):
        return cupy.asnumpy(function(cupy.asarray(values), *rest, **named))


@lru_cache(maxsize=1)
def _cupy() -> Any:
    """CuPy, or None where it cannot be imported."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        logging.getLogger("iscale").warning(
            "Image pyramids and box smoothing are computed on the CPU: CuPy cannot be imported (%s). "
            "Networks run on the GPU all the same.",
            error,
        )
        return None
