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

from iscale.align.agreement import Agreement, agreement
from iscale.align.outline import Stain, stain_of
from iscale.align.refine import refine
from iscale.align.search import Candidate, Picture, search
from iscale.align.transform import Kind, Transform
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.overview import Overview

COARSE_PX = 36
"""Width, in pixels, of the tissue that is searched for: enough to tell its outline and its larger structures."""

LARGEST_PX = 512
"""Longest side of the mother image in the search."""

FINE = 4
"""The last refinement sees so many times more pixels per side than the search."""

CANDIDATES, FINALISTS = 16, 4
"""Distinct places that are refined, and that are refined to the end."""

APART = 0.15
"""Places are distinct where they move the capture's corners by this share of its diagonal, in the mean."""

MARGIN = 0.2
"""Glass around the tissue that is compared too, as a share of its extent."""

LEAST_SHARE = 0.005
"""With less tissue than this share of its image there is nothing to search for."""

LEAST_AGREEMENT, LEAST_LEAD = 0.3, 0.15
"""A place is believed where structures correlate this much, and by so much more than at any other place."""


class AlignmentRefusedError(InputError):
    """No place on the mother image could be told with confidence."""


@dataclass(frozen=True)
class Placed:
    """A refined place, in overview pixels, and how well it agrees."""

    candidate: Candidate
    agreement: Agreement


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
        Overviews; 2048 px is enough.
    kind
        ``similarity``, or ``affine`` for the last refinement.
    start
        A transform to begin from; it only sets the scale that is expected.
    tell
        Called with steps done and in all.

    Returns
    -------
    Transform
        From the capture's full-resolution pixels to the mother's, with the measures ``confidence`` (0 to 1),
        ``correlation``, ``agreement`` and ``lead`` over the best other place.

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
    scales = expected_scales(capture, mother, stains, start)
    placed: list[Placed] = []
    for number, scale in enumerate(scales):
        placed += _place(stains, scale, kind)
        if tell:
            tell(number + 1, len(scales))
    placed = _distinct_placed(placed, stains[0].mask.shape)
    best, lead = _decide(placed)
    matrix = mother.to_full @ best.candidate.matrix @ np.linalg.inv(capture.to_full)
    measures = {
        "confidence": round(min(1.0, lead / (2 * LEAST_LEAD)), 3),
        "correlation": round(best.candidate.score, 4),
        "agreement": round(best.agreement.value, 4),
        "lead": round(lead, 4),
    }
    return Transform(matrix, "automatic", measures)


def expected_scales(
    capture: Overview, mother: Overview, stains: tuple[Stain, Stain], start: Transform | None
) -> list[float]:
    """Mother overview pixels per capture overview pixel: what is worth searching around, best known first."""
    per_px = capture.full_per_px / mother.full_per_px
    if start is not None:
        return [start.scale * per_px]
    if capture.um_per_px and mother.um_per_px:
        return [capture.um_per_px / mother.um_per_px]
    by_area = math.sqrt(stains[1].mask.sum() / stains[0].mask.sum())
    return [by_area] if 1 / 1.2 < by_area / per_px < 1.2 else [per_px, by_area]


def _place(stains: tuple[Stain, Stain], scale: float, kind: Kind) -> list[Placed]:
    """Search and refine around one expected scale."""
    capture, mother = stains
    extent = math.sqrt(capture.mask.sum()) * scale  # of the tissue, in mother overview pixels
    coarse = max(1.0, extent / COARSE_PX, max(mother.mask.shape) / LARGEST_PX)
    own, theirs = _Pyramid(capture, cropped=True), _Pyramid(mother)
    a, b = own.at(coarse / scale), theirs.at(coarse)
    found = search(a.picture, b.picture, scale * a.factor / b.factor)
    few = _distinct(found, a.picture.shape, CANDIDATES)
    moved = sorted(refine(a.picture, b.picture, few), key=lambda c: -c.score)
    places = [_between(c, a, b) for c in _distinct(moved, a.picture.shape, FINALISTS)]
    fine_a, fine_b = own.at(coarse / scale / FINE), theirs.at(coarse / FINE)
    last = refine(fine_a.picture, fine_b.picture, [_onto(c, fine_a, fine_b) for c in places])
    if kind == "affine":
        last = refine(fine_a.picture, fine_b.picture, last, "affine")
    final = [_between(c, fine_a, fine_b) for c in last]
    return [Placed(c, agreement(capture, mother, c.matrix)) for c in final]


def _decide(placed: list[Placed]) -> tuple[Placed, float]:
    """The place to believe, and its lead over the next; refuse where there is none."""
    ordered = sorted(placed, key=lambda p: -p.candidate.score * max(p.agreement.value, 0.01))
    best = ordered[0]
    others = max((p.agreement.value for p in ordered[1:]), default=0.0)
    lead = best.agreement.value - max(others, 0.0)
    if best.agreement.value < LEAST_AGREEMENT or lead < LEAST_LEAD:
        raise AlignmentRefusedError(
            f"No place stands out: at the best one, structures inside the tissue agree by "
            f"{best.agreement.value:.2f} (at least {LEAST_AGREEMENT} is asked), {lead:+.2f} against the best other "
            f"place (at least +{LEAST_LEAD}); outlines correlate by {best.candidate.score:.2f}.",
            "Check that the capture is of this tissue, and its pixel size. Else give landmarks.",
        )
    return best, lead


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
        layers = np.stack([values[window.slices], stain.mask[window.slices]]).astype(np.float32)
        self.layers = torch.from_numpy(layers)[None]

    def at(self, factor: float) -> _Level:
        """The picture of about ``factor`` overview pixels per pixel."""
        times = max(1, min(round(factor), *self.layers.shape[2:]))
        values, tissue = functional.avg_pool2d(self.layers, times)[0]
        return _Level(Picture(values, tissue), times, self.corner)


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


def _distinct_placed(placed: list[Placed], shape: tuple[int, ...]) -> list[Placed]:
    ordered = sorted(placed, key=lambda p: -p.candidate.score)
    few = _distinct([p.candidate for p in ordered], shape, len(ordered))
    return [p for p in ordered if any(p.candidate is candidate for candidate in few)]


def _apart(one: Candidate, other: Candidate, shape: tuple[int, ...]) -> bool:
    h, w = shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], dtype=np.float64)
    moved = (corners @ one.matrix.T - corners @ other.matrix.T)[:, :2]
    scale = math.sqrt(abs(np.linalg.det(one.matrix[:2, :2])))
    return bool(np.hypot(*moved.T).mean() > APART * math.hypot(h, w) * scale)
