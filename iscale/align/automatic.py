"""Automatic alignment: the capture's image is searched for on the mother image, refined, and believed only with proof.

The search goes by outline and stain together, which for a wrong place can look nearly as good as for the right one: one
blob of tissue on another. So what decides is something that the search did not use for its choice: whether the
structures inside of the tissue agree, at the place found and at the best of the other places (``agreement``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.align.agreement import Agreement, Structures, agreement, channels
from iscale.align.outline import Stain, stain_of
from iscale.align.refine import Freedom, refine
from iscale.align.search import Candidate, Picture, search
from iscale.align.transform import Kind, Transform
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.overview import Overview

COARSE_PX = 36
"""Width, in pixels, of the tissue that is searched for: enough to tell its outline and its larger structures."""

LARGEST_PX = 512
"""Longest side of the mother image in the search."""

FINE = 2
"""The last refinement sees so many times more pixels per side than the search."""

CANDIDATES, FINALISTS = 48, 4
"""Distinct places that are refined, and that are refined to the end."""

APART = 0.15
"""Places are distinct where they move the capture's corners by this share of its diagonal, in the mean."""

MARGIN = 0.2
"""Glass around the tissue that is compared too, as a share of its extent."""

LEAST_SHARE = 0.005
"""With less tissue than this share of its image there is nothing to search for."""

LEAST_AGREEMENT, LEAST_LEAD = 0.4, 0.15
"""A place is believed where structures correlate this much, and by so much more than at any other place ..."""

LEAST_OUTLINE, LEAST_AHEAD = 0.85, 0.08
"""... or outline and stain do, and structures have to do with each other at all: another stain may invert them."""


class AlignmentRefusedError(InputError):
    """No place on the mother image could be told with confidence."""


@dataclass(frozen=True)
class Placed:
    """A refined place, in overview pixels, and how well it agrees."""

    candidate: Candidate
    agreement: Agreement

    @property
    def promise(self) -> float:
        """What places are ordered by: outlines and stain alike, and structures inside of them too."""
        return self.candidate.score + max(self.agreement.value, 0.0) / 2


def align_automatically(
    capture: Overview,
    mother: Overview,
    *,
    kind: Kind = "similarity",
    start: Transform | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Transform:
    """Find where a capture's image lies on the mother image.

    Every rotation and both reflections are tried over the whole mother image. The capture may show a part of the
    tissue, or a neighbouring section. Scales from 0.7 to 1.4 times the expected one are tried; it is expected from
    ``start``, else from both pixel sizes, else from the tissues' areas and from equal pixels.

    Parameters
    ----------
    capture, mother
        Overviews, of which the capture's may be coarser: 1024 and 2048 px are enough.
    kind
        ``similarity``, or ``affine`` for the last refinement.
    start
        A transform to begin from; it only sets the scale that is expected.
    tell
        Called with steps done and in all.

    Returns
    -------
    Transform
        From the capture's full-resolution pixels to the mother's, with the measures ``confidence`` (0.5,
        hardly believed, to 1), ``correlation`` of outline and stain, and ``agreement`` of structures.

    Raises
    ------
    AlignmentRefusedError
        No tissue was found, or no place stands out.
    """
    stains = stain_of(capture), stain_of(mother)
    for stain, what in zip(stains, ("capture's image", "mother image"), strict=True):
        if stain.share < LEAST_SHARE:
            raise AlignmentRefusedError(
                f"The {what} shows hardly any tissue: {stain.share:.2%} of it.",
                "Check that it is the right image; else give landmarks.",
            )
    best, sure = _first_decided(stains, expected_scales(capture, mother, stains, start), kind, tell)
    matrix = mother.to_full @ best.candidate.matrix @ np.linalg.inv(capture.to_full)
    measures = {
        "confidence": round(sure, 3),
        "correlation": round(best.candidate.score, 4),
        "agreement": round(best.agreement.value, 4),
    }
    return Transform(matrix, "automatic", measures)


def _first_decided(
    stains: tuple[Stain, Stain], scales: list[Expected], kind: Kind, tell: Callable[[int, int], None] | None
) -> tuple[Placed, float]:
    """The first expected scale around which a place stands out."""
    refusals: list[AlignmentRefusedError] = []
    for number, expected in enumerate(scales):
        try:
            return _decide(_place(stains, expected, kind))
        except AlignmentRefusedError as error:
            refusals.append(error)
        if tell:
            tell(number + 1, len(scales))
    if scales[0].known:
        raise _doubting_the_scale(stains, scales[0].scale, refusals[0])
    raise refusals[0]


def _doubting_the_scale(
    stains: tuple[Stain, Stain], scale: float, refusal: AlignmentRefusedError
) -> AlignmentRefusedError:
    """The refusal at the scale that the pixel sizes give, and whether another one would have done."""
    others = Expected(scale, tuple(factor for factor in WIDE if factor != 1))
    try:
        best, _ = _decide(_place(stains, others, "similarity"))
    except AlignmentRefusedError:
        return refusal
    found = math.sqrt(abs(np.linalg.det(best.candidate.matrix[:2, :2]))) / scale
    return AlignmentRefusedError(
        f"At the scale that the pixel sizes of both images give, no place on the mother image stands out. At "
        f"{found:.2f} times that scale a place would stand out.",
        f"Check both pixel sizes: the capture's would be {found:.2f} times what is stated, or the mother image's "
        f"{1 / found:.2f} times.",
    )


@dataclass(frozen=True)
class Expected:
    """Scales to search: mother overview pixels per capture overview pixel, and factors around them."""

    scale: float
    factors: tuple[float, ...]
    known: bool = False


WIDE = tuple(1.1**k for k in range(-4, 5))


def expected_scales(
    capture: Overview, mother: Overview, stains: tuple[Stain, Stain], start: Transform | None
) -> list[Expected]:
    """What is worth searching, the best known first: pixel sizes are believed before they are doubted."""
    per_px = capture.full_per_px / mother.full_per_px
    if capture.um_per_px and mother.um_per_px:
        return [Expected(capture.um_per_px / mother.um_per_px, (1.0,), known=True)]
    if start is not None:
        return [Expected(start.scale * per_px, WIDE)]
    by_area = math.sqrt(stains[1].mask.sum() / stains[0].mask.sum())
    return (
        [Expected(by_area, WIDE)]
        if 1 / 1.2 < by_area / per_px < 1.2
        else [Expected(per_px, WIDE), Expected(by_area, WIDE)]
    )


def _place(stains: tuple[Stain, Stain], expected: Expected, kind: Kind) -> list[Placed]:
    """Search and refine around one expected scale; the most promising first."""
    capture, mother = stains
    extent = math.sqrt(capture.mask.sum()) * expected.scale  # of the tissue, in mother overview pixels
    coarse = max(1.0, extent / COARSE_PX, max(mother.mask.shape) / LARGEST_PX)
    own, theirs = _Pyramid(capture, cropped=True), _Pyramid(mother)
    inside = Structures(capture), Structures(mother)

    def refined(candidates: list[Candidate], level: int, freedom: Freedom) -> list[Placed]:
        a, b = own.at(coarse / expected.scale / level), theirs.at(coarse / level)
        known = expected.scale * a.factor / b.factor if expected.known else None
        moved = refine(a.picture, b.picture, [_onto(c, a, b) for c in candidates], freedom, known)
        found = [_between(c, a, b) for c in moved]
        return _ordered([Placed(c, agreement(*inside, c.matrix)) for c in found], capture.mask.shape)

    a, b = own.at(coarse / expected.scale), theirs.at(coarse)
    scales = [expected.scale * factor * a.factor / b.factor for factor in expected.factors]
    found = [_between(c, a, b) for c in search(a.picture, b.picture, scales)]
    placed = refined(_distinct(found, capture.mask.shape, CANDIDATES), 1, Freedom())
    first = refined([p.candidate for p in placed[:FINALISTS]], FINE, Freedom(growth=0.03))
    placed = _ordered([*first, *placed[FINALISTS:]], capture.mask.shape)
    inner = placed[0].agreement.value >= LEAST_AGREEMENT
    if inner or kind == "affine":
        best = refined([placed[0].candidate], FINE, Freedom(kind, 0.03, inner))[0]
        placed[0] = Placed(Candidate(best.candidate.matrix, placed[0].candidate.score), best.agreement)
    return placed


def _ordered(placed: list[Placed], shape: tuple[int, ...]) -> list[Placed]:
    """Distinct places, the most promising first."""
    ordered = sorted(placed, key=lambda p: -p.promise)
    few = _distinct([p.candidate for p in ordered], shape, len(ordered))
    return [p for p in ordered if any(p.candidate is candidate for candidate in few)]


def _decide(placed: list[Placed]) -> tuple[Placed, float]:
    """The place to believe, and how sure that is, 0 to 1; refuse where there is none."""
    best, others = placed[0], placed[1:]
    agree, outline = best.agreement, best.candidate.score
    lead = agree.value - max((p.agreement.value for p in others), default=0.0)
    ahead = outline - max((p.candidate.score for p in others), default=0.0)
    by_structure = min(agree.value / LEAST_AGREEMENT, lead / LEAST_LEAD)
    by_outline = min(outline / LEAST_OUTLINE, ahead / LEAST_AHEAD, agree.strength / LEAST_AGREEMENT)
    sure = max(by_structure, by_outline)
    if sure < 1:
        raise AlignmentRefusedError(
            f"No place on the mother image stands out. At the best one, structures inside the tissue agree by "
            f"{agree.value:.2f} (asked: {LEAST_AGREEMENT}), {lead:+.2f} against other places (asked: +{LEAST_LEAD}); "
            f"outline and stain by {outline:.2f} (asked: {LEAST_OUTLINE}), {ahead:+.2f} against other places "
            f"(asked: +{LEAST_AHEAD}).",
            "Check that the capture is of this tissue, and the pixel sizes. Else give landmarks.",
        )
    return best, float(1 - 0.5**sure)


@dataclass(frozen=True)
class _Level:
    """A picture, and how its pixels relate to the overview's: overview = factor x picture + corner."""

    picture: Picture
    factor: int
    corner: tuple[int, int]

    @property
    def to_overview(self) -> NDArray[np.float64]:
        return np.array(
            [[self.factor, 0.0, self.corner[0]], [0.0, self.factor, self.corner[1]], [0.0, 0.0, 1.0]], dtype=np.float64
        )


class _Pyramid:
    """Pictures of a stain at any resolution."""

    def __init__(self, stain: Stain, *, cropped: bool = False) -> None:
        strength = np.sqrt((stain.density**2).sum(-1))
        dense = float(np.quantile(strength[stain.mask], 0.9))
        # Half of the value is the outline, half the stain: neither alone tells all tissues.
        values = stain.mask * (0.5 + 0.5 * np.clip(strength / max(dense, 1e-3), 0, 1.5))
        window = _tissue_window(stain.mask) if cropped else Region(0, stain.mask.shape[0], 0, stain.mask.shape[1])
        self.corner = window.x0, window.y0
        layers = [values, stain.mask, *channels(stain)]
        self.layers = torch.from_numpy(np.stack([a[window.slices].astype(np.float32) for a in layers]))[None]

    def at(self, factor: float) -> _Level:
        """The picture of about ``factor`` overview pixels per pixel."""
        times = max(1, min(round(factor), *self.layers.shape[2:]))
        values, tissue, *inner = functional.avg_pool2d(self.layers, times)[0]
        return _Level(Picture(values, tissue, torch.stack(inner)), times, self.corner)


def _tissue_window(mask: NDArray[np.bool_]) -> Region:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = int(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 1
    box = Region(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    return box.grown(margin, (mask.shape[0], mask.shape[1]))


def _between(candidate: Candidate, own: _Level, theirs: _Level) -> Candidate:
    """From pixels of pictures to pixels of overviews."""
    return Candidate(theirs.to_overview @ candidate.matrix @ np.linalg.inv(own.to_overview), candidate.score)


def _onto(candidate: Candidate, own: _Level, theirs: _Level) -> Candidate:
    """From pixels of overviews to pixels of pictures."""
    return Candidate(np.linalg.inv(theirs.to_overview) @ candidate.matrix @ own.to_overview, candidate.score)


def _distinct(ordered: list[Candidate], shape: tuple[int, ...], most: int) -> list[Candidate]:
    """The first of every group of candidates that are about the same place."""
    kept: list[Candidate] = []
    for candidate in ordered:
        if all(_apart(candidate, other, shape) for other in kept):
            kept.append(candidate)
        if len(kept) == most:
            break
    return kept


def _apart(one: Candidate, other: Candidate, shape: tuple[int, ...]) -> bool:
    h, w = shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], dtype=np.float64)
    moved = (corners @ one.matrix.T - corners @ other.matrix.T)[:, :2]
    scale = math.sqrt(abs(np.linalg.det(one.matrix[:2, :2])))
    return bool(np.hypot(*moved.T).mean() > APART * math.hypot(h, w) * scale)
