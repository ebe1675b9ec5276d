"""What is summed over: areas in blocks as readers give them, and how much of each superpixel an area takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.store.layout import SHARD_SUPERPIXELS

AREAS_AT_ONCE = 1 << 14
"""Areas that a reader gives together."""


@dataclass(frozen=True)
class Rings:
    """Polygons with their holes, several for an area maybe, as arrays.

    Attributes
    ----------
    xy
        (point, 2) float64, in the file's own unit.
    rings
        (ring + 1,): points of ring ``r`` are ``rings[r]:rings[r + 1]``.
    polygons
        (polygon + 1,): rings of polygon ``p``, the outline first, then holes.
    areas
        (area + 1,): polygons of area ``a``.
    """

    xy: NDArray[np.float64]
    rings: NDArray[np.int64]
    polygons: NDArray[np.int64]
    areas: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.areas) - 1


@dataclass(frozen=True)
class Block:
    """Some areas, in the order of their file.

    Attributes
    ----------
    ids
        Names of the areas; they need not be unique.
    rings
        Their polygons.
    columns
        What else is known of each area, by the name of its column: arrays of numbers or text, or ``pd.Categorical``.
    """

    ids: list[str]
    rings: Rings
    columns: dict[str, Any] = field(default_factory=dict)


def simple_rings(outlines: NDArray[np.float64]) -> Rings:
    """Rings of areas that are one polygon each, with equally many points: (area, point, 2)."""
    n, points = outlines.shape[:2]
    each = np.arange(n + 1, dtype=np.int64)
    return Rings(outlines.reshape(-1, 2), each * points, each, each)


@dataclass(frozen=True)
class Facts:
    """What is known of some areas before anything is summed.

    Attributes
    ----------
    ids
        (area,) names.
    columns
        More columns of ``obs``.
    area
        (area,) in superpixels.
    centre
        (area, 2): x, y of the centroid in superpixels.
    """

    ids: list[str]
    columns: dict[str, Any]
    area: NDArray[np.float64]
    centre: NDArray[np.float64]


@dataclass(frozen=True)
class Overlaps:
    """How areas and the superpixels of one shard overlap.

    Attributes
    ----------
    rows
        (k,): numbers of the areas, ascending.
    shares
        (k, superpixel) float64, CSR: the share of each superpixel of the shard, row by row, that lies in an area.
    """

    rows: NDArray[np.int64]
    shares: sparse.csr_array


class Areas(Protocol):
    """Areas that are laid over the superpixels of a slide.

    Attributes
    ----------
    what
        What they are, for people.
    notices
        What was found that the user should know of, complete once all `facts` were taken.
    """

    what: str
    notices: list[str]

    def facts(self) -> Iterator[Facts]:
        """All areas, block by block, in the order of their file; once, and before anything else is asked."""
        ...

    def shards(self) -> list[Region]:
        """Shards that areas lie on, row by row."""
        ...

    def overlaps(self, shard: Region, most: int) -> Iterator[Overlaps]:
        """Overlaps with a shard, at most so many areas at once."""
        ...


def shard_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of shards of a slide of so many superpixels."""
    return -(-shape[0] // SHARD_SUPERPIXELS), -(-shape[1] // SHARD_SUPERPIXELS)


def shard_at(number: int, shape: tuple[int, int]) -> Region:
    """A shard by its number, row by row, cut off at the slide's end."""
    row, column = divmod(number, shard_grid(shape)[1])
    y, x = row * SHARD_SUPERPIXELS, column * SHARD_SUPERPIXELS
    return Region(y, min(y + SHARD_SUPERPIXELS, shape[0]), x, min(x + SHARD_SUPERPIXELS, shape[1]))


def nothing_there(source: str, remedy: str) -> InputError:
    """The error of a file without any area."""
    return InputError(f"{source} has no area in it.", remedy)
