"""How well spots lie on the tissue of an image: by the outline of both, and by counts where the stain is dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal
from scipy.stats import rankdata

from iscale.align.outline import stain_of
from iscale.slide.overview import Overview

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

CELLS_PER_PITCH = 6
"""Outlines are compared on a grid of about so many cells to the distance of two spots: enough, and quick."""

MOST_CELLS = 256
"""... and of no more than so many to a side, which is quicker still for captures of many spots."""

REACH = 0.7
"""Discs of this many pitches cover the tissue between the spots of a square lattice, and half a pitch beyond them."""

RED = 0
"""Haematoxylin, so nuclei, absorbs red: the channel whose density tells how many cells a spot has."""

MOSTLY_ON = 0.8
"""Counts are compared with the stain where this share of the spots lies on tissue: off it both are just low."""

FEWEST = 16
"""A rank correlation of fewer spots tells nothing."""


@dataclass(frozen=True)
class Tissue:
    """An overview of an image as the positions of spots are held against.

    Attributes
    ----------
    mask
        (y, x) bool: tissue.
    stain
        (y, x) float32: optical density of red relative to glass.
    full_per_px
        Full-resolution pixels of the image per pixel of the overview.
    shape_px
        Height and width of the image at full resolution.
    """

    mask: Mask
    stain: NDArray[np.float32]
    full_per_px: float
    shape_px: tuple[int, int]

    @classmethod
    def of(cls, overview: Overview, shape_px: tuple[int, int]) -> Tissue:
        """The tissue of an overview of an image of ``shape_px``."""
        stain = stain_of(overview)
        return cls(stain.mask, stain.density[..., RED], overview.full_per_px, shape_px)

    def sample(self, values: NDArray[np.floating] | Mask, xy: Points) -> NDArray[np.float64]:
        """Values of an array of the overview at positions (spot, 2) in full-resolution pixels; NaN beside the image."""
        columns, rows = np.floor(xy / self.full_per_px).astype(np.int64).T
        h, w = self.mask.shape
        found = values[np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)].astype(np.float64)
        return np.where(self.inside(xy), found, np.nan)

    def inside(self, xy: Points) -> Mask:
        """(spot,): whether positions in full-resolution pixels lie on the image."""
        return np.asarray(np.all((xy >= 0) & (xy < (self.shape_px[1], self.shape_px[0])), axis=1))


@dataclass(frozen=True)
class Match:
    """How well spots fit the tissue at some place.

    Attributes
    ----------
    overlap
        Area that the spots' footprint and the tissue have in common, over the area of either.
    covered
        The same with only the tissue within the spots' convex hull: of captures that cover a part of the tissue.
    on_tissue
        Share of spots whose centre lies on tissue.
    depth
        Rank correlation over the spots of depth with the density of the stain; 0 where too few are on tissue.
    """

    overlap: float
    covered: float
    on_tissue: float
    depth: float


class Footprint:
    """Spots of one capture, to be held against the tissue at many places.

    Parameters
    ----------
    tissue
        The tissue of the image.
    depth
        (spot,) counts of all genes.
    pitch_px
        Distance of neighbouring spots as they are placed, in full-resolution pixels.
    """

    def __init__(self, tissue: Tissue, depth: NDArray[np.floating], pitch_px: float) -> None:
        self.tissue = tissue
        self.pitch_px = pitch_px
        finest = -(-max(tissue.mask.shape) // MOST_CELLS)
        self.times = max(1, int(pitch_px / tissue.full_per_px / CELLS_PER_PITCH), finest)
        self.cell_px = self.times * tissue.full_per_px
        self.mask = _reduced(tissue.mask, self.times)
        self.margin = max(self.mask.shape) // 4
        self._depth_ranks = rankdata(depth)
        blur = max(0.5, pitch_px / tissue.full_per_px / 4)
        self._stain = ndimage.gaussian_filter(tissue.stain, blur)

    def match(self, xy: Points, factor: float = 1.0) -> Match:
        """How well the spots fit at positions (spot, 2) in full-resolution pixels, their pitch times ``factor``."""
        discs, beyond = self._discs(xy, factor)
        inner = np.zeros_like(discs)
        m, (h, w) = self.margin, self.mask.shape
        inner[m : m + h, m : m + w] = self.mask
        common = float((discs & inner).sum())
        union = float((discs | inner).sum()) + beyond
        hull = float((discs | (inner & _hull(discs))).sum()) + beyond
        on = np.nan_to_num(self.tissue.sample(self.tissue.mask, xy)) > 0
        return Match(common / max(union, 1), common / max(hull, 1), float(on.mean()), self._depth(xy, on))

    def best_shift(self, xy: Points) -> Points:
        """The shift (2,), in full-resolution pixels, that brings most of the footprint onto tissue."""
        discs, _ = self._discs(xy - xy.mean(axis=0) + np.array(self.tissue.shape_px[::-1]) / 2, 1.0)
        m, (h, w) = self.margin, self.mask.shape
        inner = discs[m : m + h, m : m + w].astype(np.float64)
        hits = signal.fftconvolve(self.mask.astype(np.float64), inner[::-1, ::-1])
        row, column = np.unravel_index(int(hits.argmax()), hits.shape)
        moved = np.array([column - (w - 1), row - (h - 1)]) * self.cell_px
        return np.asarray(np.array(self.tissue.shape_px[::-1]) / 2 + moved - xy.mean(axis=0), dtype=np.float64)

    def _discs(self, xy: Points, factor: float) -> tuple[Mask, float]:
        """Discs about the spots on the grid with its margin, and the cells of those too far off to be on it."""
        m, (h, w) = self.margin, self.mask.shape
        at = np.floor(np.clip(xy / self.cell_px, -1e9, 1e9)).astype(np.int64) + m
        shown = np.all((at >= 0) & (at < (w + 2 * m, h + 2 * m)), axis=1)
        free = np.ones((h + 2 * m, w + 2 * m), np.bool_)
        free[at[shown, 1], at[shown, 0]] = False
        radius = max(REACH * self.pitch_px * factor / self.cell_px, 1.0)
        if not shown.any():
            return np.zeros_like(free), len(xy) * radius**2
        return np.asarray(ndimage.distance_transform_edt(free) <= radius), float((~shown).sum()) * 2 * radius**2

    def _depth(self, xy: Points, on: Mask) -> float:
        if on.sum() < FEWEST or on.mean() < MOSTLY_ON:
            return 0.0
        stain = np.nan_to_num(self.tissue.sample(self._stain, xy))
        return correlation(self._depth_ranks, rankdata(stain))


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson correlation; 0 where one of the two does not vary.

    >>> correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])), correlation(np.ones(3), np.arange(3.0))
    (1.0, 0.0)
    """
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return round(float((a * b).sum()) / size, 12) if size > 0 else 0.0


def _reduced(mask: Mask, times: int) -> Mask:
    """The mask on cells of ``times`` pixels to a side: tissue where half of a cell is."""
    h, w = mask.shape
    padded = np.pad(mask, ((0, -h % times), (0, -w % times)))
    cells = padded.reshape(padded.shape[0] // times, times, padded.shape[1] // times, times)
    return np.asarray(cells.mean(axis=(1, 3)) >= 0.5)


def _hull(cells: Mask) -> Mask:
    """The convex hull of true cells, by the widest reach in each of 16 directions."""
    rows, columns = np.nonzero(cells)
    if not len(rows):
        return cells
    inside = np.ones_like(cells)
    y, x = np.ogrid[: cells.shape[0], : cells.shape[1]]
    for angle in np.arange(16) * np.pi / 8:
        along = np.cos(angle) * x + np.sin(angle) * y
        inside &= along <= (np.cos(angle) * columns + np.sin(angle) * rows).max() + 1e-9
    return inside
