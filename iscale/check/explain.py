"""How well spots lie on the tissue, and why they do not: orientation, scale or shift, whichever makes them fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal
from scipy.stats import rankdata

from iscale.align.structure import stain_of
from iscale.arrays import block_mean, block_share
from iscale.check.sample import Pitch
from iscale.geometry import Region
from iscale.slide.overview import Overview
from iscale.slide.user_mask import UserMask

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

CELLS_PER_PITCH = 6
"""Outlines are compared on a grid of about so many cells to the distance of two spots: enough, and quick."""

CELLS_PER_BLUR = 4
"""The stain under spots is smoothed on a grid of as many cells to the standard deviation, or of single pixels."""

MOST_CELLS = 256
"""... and of no more than so many to a side, which is quicker still for captures of many spots."""

REACH = 0.7
"""Discs of this many pitches cover the tissue between the spots of a square lattice, and half a pitch beyond them."""

RED = 0
"""Haematoxylin, so nuclei, absorbs red: the channel whose density tells how many cells a spot has."""

MOSTLY_ON = 0.8
"""Counts are compared with the stain where this share of the spots lies on tissue: off it both are just low."""

ROWS_AT_ONCE = 256
"""Of superpixels of a user's mask."""

FEWEST = 16
"""A rank correlation of fewer spots tells nothing."""


@dataclass(frozen=True)
class Tissue:
    """An overview (y, x) of an image as positions of spots are held against: tissue, density of red over glass's.

    Also full-resolution pixels per pixel of it, and the image's height and width at full resolution.
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

    def drawn(self, mask: UserMask, scale: float, shape: tuple[int, int]) -> Mask:
        """Where on the overview (y, x) the user says that tissue is.

        ``shape`` is superpixels (y, x) of the slide, of which ``scale`` make a full-resolution pixel.
        """
        centres = ((np.arange(n) + 0.5) * self.full_per_px * scale for n in self.mask.shape)
        rows, columns = (np.minimum(at.astype(np.int64), n - 1) for at, n in zip(centres, shape, strict=True))
        drawn = np.zeros_like(self.mask)
        for y0 in range(0, shape[0], ROWS_AT_ONCE):
            strip = Region(y0, min(y0 + ROWS_AT_ONCE, shape[0]), 0, shape[1])
            here = (rows >= strip.y0) & (rows < strip.y1)
            drawn[here] = mask.superpixels(strip)[np.ix_(rows[here] - y0, columns)]
        return drawn

    def sample(self, values: NDArray[np.floating] | Mask, xy: Points, side: int = 1) -> NDArray[np.float64]:
        """Values at positions (spot, 2) in full-resolution pixels; NaN beside the image.

        The array (y, x) has one value per block of the overview, of so many pixels a side.
        """
        columns, rows = np.floor(xy / (self.full_per_px * side)).astype(np.int64).T
        h, w = values.shape
        found = values[np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)].astype(np.float64)
        return np.where(self.inside(xy), found, np.nan)

    def inside(self, xy: Points) -> Mask:
        """(spot,): whether positions in full-resolution pixels lie on the image."""
        return np.asarray(np.all((xy >= 0) & (xy < (self.shape_px[1], self.shape_px[0])), axis=1))


@dataclass(frozen=True)
class Match:
    """How well spots fit the tissue at some place.

    ``overlap`` is the area that the spots' footprint and the tissue have in common, over the area of either;
    ``covered`` the same with only the tissue within the spots' convex hull, of captures that cover a part of the
    tissue. ``on_tissue`` is the share of spots whose centre lies on tissue; ``depth`` the rank correlation over the
    spots of depth with the density of the stain, 0 where too few are on tissue.
    """

    overlap: float
    covered: float
    on_tissue: float
    depth: float


class Footprint:
    """Spots of one capture, to be held against the tissue at many places.

    By the counts of all genes (spot,), and the distance of neighbouring spots in full-resolution pixels.
    """

    def __init__(self, tissue: Tissue, depth: NDArray[np.floating], pitch_px: float) -> None:
        self.tissue = tissue
        self.pitch_px = pitch_px
        finest = -(-max(tissue.mask.shape) // MOST_CELLS)
        self.times = max(1, int(pitch_px / tissue.full_per_px / CELLS_PER_PITCH), finest)
        self.cell_px = self.times * tissue.full_per_px
        self.mask = block_share(tissue.mask, self.times) >= 0.5
        self.margin = max(self.mask.shape) // 4
        self._depth_ranks = rankdata(depth)
        blur = max(0.5, pitch_px / tissue.full_per_px / 4)
        self._side = max(1, int(blur / CELLS_PER_BLUR))
        self._stain = ndimage.gaussian_filter(block_mean(tissue.stain, self._side), blur / self._side)

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
        stain = np.nan_to_num(self.tissue.sample(self._stain, xy, self._side))
        return correlation(self._depth_ranks, rankdata(stain))


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson correlation; 0 where one of the two does not vary.

    >>> correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])), correlation(np.ones(3), np.arange(3.0))
    (1.0, 0.0)
    """
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return round(float((a * b).sum()) / size, 12) if size > 0 else 0.0


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


Kind = Literal["fits", "swapped", "mirrored", "rotated", "scaled", "shifted"]

WHOLE = 0.75
"""A footprint that shares this much with the tissue, in any way, is that of a whole section, not of a part."""

DEPTH_WEIGHT = 0.5
"""Weight of the correlation of depth with stain, beside the overlap of outlines."""

ORIENTATION_MARGIN = 0.15
"""An orientation must fit so much better. On real sections, whole, in part, and cut to where all is tissue, a wrong one
never fitted better than the right one by more than 0.06."""

CHANCE = 4.0
"""Over the square root of the number of spots: what chance makes the rank correlation of one orientation better than
that of another, the best of seven: with 36 spots 0.7, with 180 spots 0.3."""

PART_DEPTH = 0.3
"""A part of a section fits many places of the tissue: there counts must follow the stain as well."""

BACK_OF_ARRAY = 0.15
"""What it adds to a reflection that without it the array would be seen from its back."""

NEAR_ONE = 0.05
"""Scales this near to 1 are those of sections that shrank, not of other pixels."""

SCALE_MARGIN = 0.1
"""A scale that nothing but the outline supports must fit so much better ..."""

SUPPORTED_MARGIN = 0.03
"""... one that the pitch of the spots asks for, so much."""

FITS = 0.85
"""Outlines that agree so well are not at another scale."""

LEAST_OVERLAP = 0.8
"""A scale that only the outline supports must make the two fit so well."""

SHIFT_PENALTY = 0.03
"""Two free numbers always fit a little better."""

STEP = 0.025


@dataclass(frozen=True)
class Explanation:
    """What makes the spots fit the tissue: ``fits`` where they do as they are, or nothing makes them.

    The orientation in words, what the coordinates are to be multiplied by, and what is to be added to them, in
    full-resolution pixels of the image; that only for whole sections: a part finds room in many places. ``before`` and
    ``after`` are how well they fit as they are, and with it.
    """

    kind: Kind
    before: Match
    after: Match
    how: str = ""
    factor: float = 1.0
    shift_px: tuple[float, float] = (0.0, 0.0)


def orientations(xy: Points, shape_px: tuple[int, int]) -> dict[str, tuple[Kind, bool, Points]]:
    """Positions in the seven other orientations of an image: in words, their kind, whether they reflect, positions."""
    h, w = shape_px
    x, y = xy.T
    return {
        "x and y swapped": ("swapped", True, np.column_stack([y, x])),
        "mirrored horizontally (x counted from the right)": ("mirrored", True, np.column_stack([w - x, y])),
        "mirrored vertically (y counted from below)": ("mirrored", True, np.column_stack([x, h - y])),
        "mirrored along the other diagonal": ("mirrored", True, np.column_stack([w - y, h - x])),
        "turned by 180 degrees": ("rotated", False, np.column_stack([w - x, h - y])),
        "turned by 90 degrees clockwise": ("rotated", False, np.column_stack([w - y, x])),
        "turned by 90 degrees counter-clockwise": ("rotated", False, np.column_stack([y, h - x])),
    }


def explain(
    tissue: Tissue, xy: Points, depth: NDArray[np.floating], pitch: Pitch, expected: Sequence[float] = ()
) -> Explanation:
    """Find what makes spots at (spot, 2), in full-resolution pixels of the image, as is their pitch, fit its tissue.

    ``depth`` is counts of all genes (spot,); ``expected`` factors that the pitch of the spots asks for.
    """
    footprint = Footprint(tissue, depth, pitch.px)
    here = footprint.match(xy)
    shift = footprint.best_shift(xy)
    shifted = footprint.match(xy + shift)
    turned = {
        how: (kind, footprint.match(at), BACK_OF_ARRAY if reflects and pitch.flipped else 0.0)
        for how, (kind, reflects, at) in orientations(xy, tissue.shape_px).items()
    }
    scaled = [] if here.overlap >= FITS and not expected else _scales(tissue, xy, depth, pitch, expected)
    all_matches = [here, shifted, *(match for _, match, _ in turned.values()), *(match for _, match, _ in scaled)]
    whole = max(match.overlap for match in all_matches) >= WHOLE

    def score(match: Match) -> float:
        return (match.overlap if whole else match.covered) + DEPTH_WEIGHT * match.depth

    margin = max(ORIENTATION_MARGIN, DEPTH_WEIGHT * CHANCE / math.sqrt(len(xy)))
    options = [(score(here), Explanation("fits", here, here))]
    for how, (kind, match, bonus) in turned.items():
        gain = score(match) + bonus - score(here)
        if gain > margin and (whole or match.depth >= PART_DEPTH):
            options.append((score(match) + bonus, Explanation(kind, here, match, how)))
    for factor, match, supported in scaled:
        if _scale_holds(here, match, factor, supported, score(match) - score(here)):
            options.append((score(match), Explanation("scaled", here, match, factor=factor)))
    if whole and not (expected and len(options) > 1):
        moved = (float(shift[0]), float(shift[1]))
        options.append((score(shifted) - SHIFT_PENALTY, Explanation("shifted", here, shifted, shift_px=moved)))
    return max(options, key=lambda option: option[0])[1]


def _scale_holds(here: Match, there: Match, factor: float, supported: bool, gain: float) -> bool:
    if abs(math.log(factor)) < math.log(1 + NEAR_ONE):
        return False
    if supported:
        return gain > SUPPORTED_MARGIN and there.on_tissue >= min(0.8, here.on_tissue)
    return gain > SCALE_MARGIN and there.overlap >= max(LEAST_OVERLAP, here.overlap + SCALE_MARGIN)


def _scales(
    tissue: Tissue, xy: Points, depth: NDArray[np.floating], pitch: Pitch, expected: Sequence[float]
) -> list[tuple[float, Match, bool]]:
    """The factor of the coordinates that fits the outline best, and those that the pitch asks for, with their match."""
    area = len(xy) * pitch.px**2
    typical = math.sqrt(max(float(tissue.mask.sum()) * tissue.full_per_px**2, 1.0) / area)
    footprint = Footprint(tissue, depth, pitch.px * typical)

    def match(factor: float) -> Match:
        return footprint.match(xy * factor, factor / typical)

    coarse = typical * np.exp(np.arange(-20, 21) * STEP)
    peak = max(coarse, key=lambda factor: match(factor).overlap)
    fine = peak * np.exp(np.arange(-4, 5) * STEP / 5)
    best = float(max(fine, key=lambda factor: match(factor).overlap))
    return [(best, match(best), False), *((factor, match(factor), True) for factor in expected)]
