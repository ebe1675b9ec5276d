"""Context from the slide as a whole: all patches of a shift as one grid, as published. Cost quadratic in the area."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.encoders.base import ContextModel, PatchEncoder
from iscale.encoders.batches import encode_batches, plan_batches, run_context
from iscale.engine.progress import tell
from iscale.features.patch_lattice import PatchLattice, Vectors
from iscale.geometry import PATCH_PX, SUPERPIXEL_PX, Region


def whole_slide(
    encoder: PatchEncoder,
    model: ContextModel,
    lattice: PatchLattice,
    vectors: Vectors,
    read: Callable[[Region], NDArray[np.uint8]],
) -> Vectors:
    """Context of all patches of a slide, each shift's patches seen as one grid (method, section 2).

    A shift of n steps takes the slide without its first n steps, and without the last that are missing to a whole
    patch: one row and one column of patches fewer than the slide has. The grid is then padded to a multiple of 16
    patches with patches of repeated edge pixels. The published shifts, 0 to 192 px, leave out the slide's last row and
    column of patches; a shift of 256 px gives them their context.

    Parameters
    ----------
    vectors
        Of all places.
    read
        Pixels (c, y, x) of a region of the analysis image.
    """
    result = np.full((*lattice.places, model.width), np.nan, np.float32)
    rows, columns = (list(_offsets(n, lattice.shifts)) for n in lattice.places)
    for done, (y, x) in enumerate((y, x) for y in rows for x in columns):
        tell(done, len(rows) * len(columns))
        grid = vectors[y.grid, x.grid]
        padded = _pad(encoder, lattice, grid, (y.grid.start, x.grid.start), read)
        found = run_context(model, padded[None])[0]
        result[y.places, x.places] = found[y.patches, x.patches]
    return result


@dataclass(frozen=True)
class _Offset:
    """One axis of a shift: the places of its grid, those of them that take their context from it, as places and as
    patches of the grid.
    """

    grid: slice
    places: slice
    patches: slice


def _offsets(places: int, shifts: int) -> Iterator[_Offset]:
    """The shifts of one axis of ``places`` places: the published ones, and one more for the last place."""
    patches = (places - 1) // shifts
    if patches == 0:
        yield _Offset(slice(0, 1), slice(0, 1), slice(0, 1))
        return
    for start in range(shifts):
        places_of_shift = slice(start, start + shifts * patches, shifts)
        yield _Offset(places_of_shift, places_of_shift, slice(0, patches))
    last = slice(shifts, shifts + shifts * patches, shifts)
    yield _Offset(last, slice(places - 1, places), slice(patches - 1, patches))


GRID_MULTIPLE = 16
"""A slide seen as a whole is padded to a multiple of this many patches."""

PADDING_AT_ONCE = 8
"""Patches of padding that are encoded at the same time."""


def _pad(
    encoder: PatchEncoder,
    lattice: PatchLattice,
    grid: Vectors,
    start: tuple[int, int],
    read: Callable[[Region], NDArray[np.uint8]],
) -> Vectors:
    """A shift's grid of vectors with those of the padding.

    The padding repeats the last row of pixels below the image, the last column right of it and the last pixel in the
    corner, so all its patches under one column are the same, and all beside one row: each is encoded once.

    Parameters
    ----------
    start
        Place of the grid's first patch.
    """
    h, w, width = grid.shape
    below, beside = -h % GRID_MULTIPLE, -w % GRID_MULTIPLE
    padded = np.empty((h + below, w + beside, width), np.float32)
    padded[:h, :w] = grid
    step = lattice.step * SUPERPIXEL_PX
    top, left = start[0] * step, start[1] * step
    bottom, right = top + h * PATCH_PX, left + w * PATCH_PX
    row = read(Region(bottom - 1, bottom, left, right))
    column = read(Region(top, bottom, right - 1, right))
    under = row.reshape(3, 1, w, PATCH_PX).transpose(2, 0, 1, 3).repeat(PATCH_PX, axis=2)
    right_of = column.reshape(3, h, PATCH_PX, 1).transpose(1, 0, 2, 3).repeat(PATCH_PX, axis=3)
    corner = np.broadcast_to(row[None, :, :, -1:], (1, 3, PATCH_PX, PATCH_PX))
    if below:
        padded[h:, :w] = _encode_vectors(encoder, under)
    if beside:
        padded[:h, w:] = _encode_vectors(encoder, right_of)[:, None]
    if below and beside:
        padded[h:, w:] = _encode_vectors(encoder, corner)
    return padded


def _encode_vectors(encoder: PatchEncoder, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vectors (patch, feature) of (patch, c, y, x) pixels."""
    plan = plan_batches(encoder, PADDING_AT_ONCE * encoder.patch_bytes())
    batches = ((i, np.ascontiguousarray(patches[i : i + plan.size])) for i in range(0, len(patches), plan.size))
    found = [vectors.cpu().numpy() for _, (_, vectors) in encode_batches(encoder, batches, plan) if vectors is not None]
    return np.concatenate(found)
