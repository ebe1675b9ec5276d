"""Random fields whose value depends on nothing but position and seed, so that any tile can be computed on its own.

Positions are given per axis (the rows' y, the columns' x), in um; a field is their outer product. All randomness comes
from hashing lattice indices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Positions = NDArray[np.floating]


def lattice_hash(rows: NDArray[np.int64], columns: NDArray[np.int64], seed: int) -> Floats:
    """Uniform numbers in [0, 1) at lattice points, (row, column)."""
    start = np.uint32(seed * 0xC2B2AE3D + 0x27D4EB2F & 0xFFFFFFFF)
    y = rows.astype(np.uint32) * np.uint32(0x85EBCA77)
    x = columns.astype(np.uint32) * np.uint32(0x9E3779B1)
    h = (y[:, None] ^ start) + x[None, :]
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def smooth(y_um: Positions, x_um: Positions, wavelength_um: float, seed: int) -> Floats:
    """Smooth field, about -1 to 1 (standard deviation near 0.4): cubic B-splines on a hashed lattice.

    Parameters
    ----------
    y_um, x_um
        (y,), (x,) positions.
    wavelength_um
        Distance of lattice points.
    seed
        Which field.

    Returns
    -------
    field
        (y, x) float32.
    """
    weights_y, rows = _spline(y_um / wavelength_um)
    weights_x, columns = _spline(x_um / wavelength_um)
    values = (lattice_hash(rows, columns, seed) - np.float32(0.5)) * np.float32(3)
    return np.asarray(weights_y @ (values @ weights_x.T))


def _spline(position: Positions) -> tuple[Floats, NDArray[np.int64]]:
    """(position, lattice point) weights and the lattice points."""
    base = np.floor(position).astype(np.int64)
    t = position - base
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    points = np.arange(base.min() - 1, base.max() + 3)
    weights = np.zeros((len(position), len(points)), dtype=np.float32)
    at = np.arange(len(position))
    for offset, part in enumerate(parts):
        weights[at, base - points[0] - 1 + offset] = part / 6
    return weights, points


def corner_blocks(position_um: Positions, cell_um: float) -> tuple[NDArray[np.int64], Floats]:
    """Index of the lattice corner nearest to each position, and the offset from it in um.

    Cells ``corner - 1`` and ``corner`` meet at a corner: whatever reaches no further than ``cell_um`` from the middle
    of its cell is seen by looking at these two only.
    """
    corner = np.floor(position_um / cell_um + 0.5).astype(np.int64)
    return corner, (position_um - corner * cell_um).astype(np.float32)


def nearest_centres(
    y_um: Positions, x_um: Positions, cell_um: float, jitter: float, seed: int
) -> tuple[Floats, Floats]:
    """Distance to the nearest and second nearest of jittered cell centres, in um (cellular noise).

    Parameters
    ----------
    y_um, x_um
        (y,), (x,) positions.
    cell_um
        Side of a cell; it has one centre.
    jitter
        How far centres stray from the middle of their cell, as a share of ``cell_um``; at most 0.25.
    seed
        Which field.
    """
    corner_y, dy = corner_blocks(y_um, cell_um)
    corner_x, dx = corner_blocks(x_um, cell_um)
    first = np.full((len(y_um), len(x_um)), np.inf, dtype=np.float32)
    second = first.copy()
    rows, columns = np.arange(corner_y.min() - 1, corner_y.max() + 1), np.arange(corner_x.min() - 1, corner_x.max() + 1)
    shift_y = (lattice_hash(rows, columns, seed) - np.float32(0.5)) * np.float32(2 * jitter * cell_um)
    shift_x = (lattice_hash(rows, columns, seed + 1) - np.float32(0.5)) * np.float32(2 * jitter * cell_um)
    for step_y in (0, 1):
        for step_x in (0, 1):
            at = np.ix_(corner_y - rows[0] - 1 + step_y, corner_x - columns[0] - 1 + step_x)
            middle_y, middle_x = ((step - 0.5) * cell_um for step in (step_y, step_x))
            off_y = (dy - np.float32(middle_y))[:, None] - shift_y[at]
            off_x = (dx - np.float32(middle_x)) - shift_x[at]
            squared = off_y * off_y + off_x * off_x
            np.minimum(second, np.maximum(first, squared), out=second)
            np.minimum(first, squared, out=first)
    return np.sqrt(first), np.sqrt(second)
