"""A synthetic tissue: what lies where, as smooth functions of position and seed that picture and genes follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
    """Smooth field (y, x), about -1 to 1 (standard deviation near 0.4): cubic B-splines on a hashed lattice.

    ``wavelength_um`` is the distance of lattice points.
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
    """Distances (y, x) to the nearest and second nearest of jittered cell centres, in um (cellular noise).

    Each cell of side ``cell_um`` has one centre, which strays from its middle by ``jitter`` of that, at most 0.25.
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


REGION_TYPES = ("stroma", "tumour", "lymphoid", "fat", "gland", "necrosis")
STROMA, TUMOUR, LYMPHOID, FAT, GLAND, NECROSIS = range(6)
NUCLEI_PER_CELL = np.array([0.35, 0.85, 0.25, 0.10, 0.0, 0.12], dtype=np.float32)
"""Share of cells of the large lattice that hold a nucleus, by region type (glands: along their walls)."""
LYMPHOCYTES_PER_CELL = np.array([0.03, 0.02, 0.90, 0.01, 0.03, 0.04], dtype=np.float32)
"""The same for the small lattice of lymphocytes."""
LARGE_CELL_UM, SMALL_CELL_UM = 12.0, 8.0
GLAND_CELL_UM, GLAND_LUMEN_UM, GLAND_WALL_UM = 110.0, 18.0, 40.0
EDGE = 0.03
"""Width of the passage from one region to the next, in units of the fields."""


@dataclass(frozen=True)
class Fields:
    """What lies at a grid of positions; all (y, x) float32.

    ``tissue`` is its share, 0 on glass; ``regions`` (type, y, x) the share of each region type, with sum 1;
    ``density`` a factor of the number of nuclei, about 0.6 to 1.2; ``gradient``, about -1 to 1, changes over a large
    distance and is seen in the balance of the stains and in some genes.
    """

    tissue: Floats
    regions: Floats
    density: Floats
    gradient: Floats


@dataclass(frozen=True)
class SyntheticTissue:
    """A tissue section of several fragments on glass, which cover ``tissue_fraction`` of the slide."""

    shape_px: tuple[int, int]
    pixel_size_um: float = 0.5
    seed: int = 0
    tissue_fraction: float = 0.45

    def fields(self, y_um: Positions, x_um: Positions) -> Fields:
        """What lies at the grid of positions (y,) x (x,), in um from the top left corner."""
        return Fields(
            tissue=self.share(y_um, x_um),
            regions=self._regions(y_um, x_um),
            density=np.float32(0.9) + np.float32(0.35) * smooth(y_um, x_um, 130, self._seed(1)),
            gradient=smooth(y_um, x_um, 700, self._seed(2)),
        )

    def share(self, y_um: Positions, x_um: Positions) -> Floats:
        """Share of tissue, (y, x): 0 on glass."""
        return _ramp(self._outline(y_um, x_um) - self._threshold, EDGE / 2)

    def nuclei(self, y_um: Positions, x_um: Positions) -> tuple[Fields, Floats, Floats]:
        """Fields, and the chance that a lattice cell there holds a (large nucleus, lymphocyte); (y, x)."""
        fields = self.fields(y_um, x_um)
        present = fields.density * (fields.tissue > 0.5)
        large = np.tensordot(NUCLEI_PER_CELL, fields.regions, axes=1)
        large += fields.regions[GLAND] * self._gland_nuclei(y_um, x_um)
        small = np.tensordot(LYMPHOCYTES_PER_CELL, fields.regions, axes=1)
        return fields, large * present, small * present

    def gland_distance(self, y_um: Positions, x_um: Positions) -> Floats:
        """Distance from the middle of the nearest gland, in um, uneven as glands are."""
        uneven = smooth(y_um, x_um, 45, self._seed(3)) * np.float32(9)
        return nearest_centres(y_um, x_um, GLAND_CELL_UM, 0.2, self._seed(4))[0] + uneven

    def _seed(self, field: int) -> int:
        return self.seed * 1000 + field * 10

    def _gland_nuclei(self, y_um: Positions, x_um: Positions) -> Floats:
        distance = self.gland_distance(y_um, x_um)
        in_wall = (distance > GLAND_LUMEN_UM + 4) & (distance < GLAND_WALL_UM)
        return np.where(distance < GLAND_LUMEN_UM + 4, 0, np.where(in_wall, 1.0, NUCLEI_PER_CELL[STROMA])).astype(
            np.float32
        )

    def _regions(self, y_um: Positions, x_um: Positions) -> Floats:
        """Tumour nests with necrotic cores; between them lymphoid aggregates, fat, glands, and stroma for the rest."""
        nests = smooth(y_um, x_um, 260, self._seed(5)) + np.float32(0.3) * smooth(y_um, x_um, 70, self._seed(6))
        follicles = smooth(y_um, x_um, 210, self._seed(7)) + np.float32(0.15) * smooth(y_um, x_um, 40, self._seed(8))
        lobes = smooth(y_um, x_um, 330, self._seed(9)) + np.float32(0.1) * smooth(y_um, x_um, 60, self._seed(10))
        shares = np.empty((len(REGION_TYPES), *nests.shape), dtype=np.float32)
        rest = np.ones_like(nests)
        for kind, level in (
            (NECROSIS, nests - np.float32(0.68)),
            (TUMOUR, nests - np.float32(0.18)),
            (LYMPHOID, follicles - np.float32(0.33)),
            (FAT, lobes - np.float32(0.26)),
            (GLAND, np.float32(-0.22) - lobes),
        ):
            shares[kind] = rest * _ramp(level, EDGE)
            rest -= shares[kind]
        shares[STROMA] = rest
        return shares

    def _outline(self, y_um: Positions, x_um: Positions) -> Floats:
        """Above the threshold lies tissue: a few uneven ellipses, away from the border of the slide."""
        height, width = (n * self.pixel_size_um for n in self.shape_px)
        y, x = (y_um / height).astype(np.float32), (x_um / width).astype(np.float32)
        rng = np.random.default_rng(self.seed)
        nearest = np.full((len(y), len(x)), np.inf, dtype=np.float32)
        for middle in ((0.29, 0.30), (0.31, 0.72), (0.71, 0.33), (0.70, 0.73)):
            row, column = np.array(middle, dtype=np.float32) + rng.uniform(-0.03, 0.03, 2).astype(np.float32)
            down, across = rng.uniform(0.19, 0.26, 2).astype(np.float32)
            squared = (((y - row) / down) ** 2)[:, None] + ((x - column) / across) ** 2
            np.minimum(nearest, squared, out=nearest)
        field: Floats = 1 - np.sqrt(nearest)
        side = min(height, width)
        field += np.float32(0.25) * smooth(y_um, x_um, side / 9, self._seed(11))
        field += np.float32(0.06) * smooth(y_um, x_um, side / 40, self._seed(12))
        to_border = np.minimum(np.minimum(y, 1 - y)[:, None], np.minimum(x, 1 - x)[None, :])
        field -= np.float32(20) * np.clip(np.float32(0.04) - to_border, 0, None)
        return field

    @cached_property
    def _threshold(self) -> np.float32:
        """Level of the outline that leaves the wanted share of the slide."""
        y_um, x_um = ((np.arange(256) + 0.5) / 256 * n * self.pixel_size_um for n in self.shape_px)
        return np.float32(np.quantile(self._outline(y_um, x_um), 1 - self.tissue_fraction))


def _ramp(level: Floats, width: float) -> Floats:
    """0 below ``-width``, 1 above ``width``, straight between."""
    return np.asarray(np.clip(level * np.float32(0.5 / width) + np.float32(0.5), 0, 1))
