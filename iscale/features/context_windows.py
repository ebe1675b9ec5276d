"""Context from windows: each patch seen in the window in whose middle it lies. Cost linear in the slide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from iscale.encoders.base import ContextModel
from iscale.encoders.batches import run_context
from iscale.engine.progress import tell
from iscale.features.patch_lattice import PatchLattice, Vectors
from iscale.geometry import Region


def windowed(
    model: ContextModel,
    lattice: PatchLattice,
    places: Region,
    read: Callable[[Region], Vectors],
    blank: NDArray[np.float32],
) -> Vectors:
    """Context of the patches of ``places``, from windows that slide by half their side.

    Windows begin at odd quarters of their side, on the slide and beyond its edges, so that every patch lies in the
    middle half of exactly one window, in both directions.

    Returns
    -------
    ndarray
        (y, x, feature) over ``places``; NaN where a patch has no vector.
    """
    assert model.window is not None
    block = model.window // 2 * lattice.shifts
    result = np.full((*places.shape, model.width), np.nan, np.float32)
    blocks = list(places.tiles(block))
    for done, part in enumerate(blocks):
        tell(done, len(blocks))
        middle = part.coarsened(block).scaled(block)
        found = _window(model, lattice, middle, read, blank)
        if found is not None:
            result[part.within(places)] = found[part.within(middle)]
    return result


def _window(
    model: ContextModel,
    lattice: PatchLattice,
    middle: Region,
    read: Callable[[Region], Vectors],
    blank: NDArray[np.float32],
) -> Vectors | None:
    """Context of a block of places that are the middle of one window per shift; ``None`` if none has a vector."""
    assert model.window is not None
    window, shifts, quarter = model.window, lattice.shifts, model.window // 4
    margin = quarter * shifts
    box = Region(max(0, middle.y0 - margin), middle.y1 + margin, max(0, middle.x0 - margin), middle.x1 + margin)
    own = read(middle)
    there = np.isfinite(own[..., 0])
    if not there.any():
        return None
    vectors = np.empty((window * shifts, window * shifts, len(blank)), np.float32)
    vectors[...] = blank
    read_box = read(box)
    top, left = margin - (middle.y0 - box.y0), margin - (middle.x0 - box.x0)
    view = vectors[top : top + box.shape[0], left : left + box.shape[1]]
    encoded = np.isfinite(read_box[..., 0])
    view[encoded] = read_box[encoded]
    # Every shift's window by itself: place = shifts * patch + shift.
    grids = vectors.reshape(window, shifts, window, shifts, -1).transpose(1, 3, 0, 2, 4)
    found = run_context(model, grids.reshape(shifts * shifts, window, window, -1))
    core = found.reshape(shifts, shifts, window, window, -1)[:, :, quarter:-quarter, quarter:-quarter]
    context: Vectors = core.transpose(2, 0, 3, 1, 4).reshape(*middle.shape, -1)
    context[~there] = np.nan
    return context
