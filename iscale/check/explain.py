"""Why spots do not fit the tissue: orientation, scale or shift, whichever makes them fit clearly better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iscale.check.footprint import Footprint, Match, Tissue
from iscale.check.pitch import Pitch

Points = NDArray[np.float64]
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
    """What makes the spots fit the tissue.

    Attributes
    ----------
    kind
        ``fits`` where they do as they are, or nothing makes them.
    how
        The orientation, in words.
    factor
        What the coordinates are to be multiplied by.
    shift_px
        What is to be added to them, in full-resolution pixels of the image. Only told of whole sections: a part finds
        room in many places.
    before, after
        How well they fit as they are, and with it.
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
    tissue: Tissue, xy: Points, depth: NDArray[np.floating], pitch: Pitch, asked: Sequence[float] = ()
) -> Explanation:
    """Find what makes spots fit the tissue of an image.

    Parameters
    ----------
    tissue
        The tissue of the image.
    xy
        (spot, 2) positions in full-resolution pixels of the image.
    depth
        (spot,) counts of all genes.
    pitch
        Their pitch, in the same pixels.
    asked
        Factors that the pitch of the spots asks for.
    """
    footprint = Footprint(tissue, depth, pitch.px)
    here = footprint.match(xy)
    shift = footprint.best_shift(xy)
    shifted = footprint.match(xy + shift)
    turned = {
        how: (kind, footprint.match(at), BACK_OF_ARRAY if reflects and pitch.flipped else 0.0)
        for how, (kind, reflects, at) in orientations(xy, tissue.shape_px).items()
    }
    scaled = [] if here.overlap >= FITS and not asked else _scales(tissue, xy, depth, pitch, asked)
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
    if whole and not (asked and len(options) > 1):
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
    tissue: Tissue, xy: Points, depth: NDArray[np.floating], pitch: Pitch, asked: Sequence[float]
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
    return [(best, match(best), False), *((factor, match(factor), True) for factor in asked)]
