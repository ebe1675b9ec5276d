"""Automatic alignment: the capture's image is searched for on the mother image, refined, and believed only with proof.

The search goes by outline and stain together, which for a wrong place can look nearly as good as for the right one: one
blob of tissue on another. So what decides is something that the search did not use for its choice: whether the
structures inside of the tissue agree, at the place found and at the best of the other places (``agreement``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from iscale.align.candidates import FINE_GROWTH, Placed, Placing
from iscale.align.search import Candidate, Freedom
from iscale.align.structure import Stain, stain_of
from iscale.errors import InputError
from iscale.slide.overview import Overview
from iscale.transform import Kind, Transform

LEAST_SHARE = 0.005
"""With less tissue than this share of its image there is nothing to search for."""

LEAST_AGREEMENT, LEAST_LEAD = 0.4, 0.15
"""A place is believed where structures correlate this much, and by so much more than at any other place ..."""

LEAST_OUTLINE, LEAST_AHEAD = 0.85, 0.08
"""... or outline and stain do, and structures have to do with each other at all: another stain may invert them."""


class AlignmentRefusedError(InputError):
    """No place on the mother image could be told with confidence."""


def align_automatically(
    capture: Overview,
    mother: Overview,
    *,
    kind: Kind = "similarity",
) -> Transform:
    """Find where a capture's image lies on the mother image.

    Every rotation and both reflections are tried over the whole mother image. The capture may show a part of the
    tissue, or a neighbouring section. Both pixel sizes give the scale; where one is not known, scales from 0.7 to 1.5
    times the expected one are tried: that of equal pixels, and of equal areas of tissue.

    Parameters
    ----------
    capture, mother
        Overviews, of which the capture's may be coarser: 1024 and 2048 px are enough.
    kind
        ``similarity``, or ``affine`` for the last refinement.

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
    stains = _stains(capture, mother)
    best, sure = _first_decided(stains, expected_scales(capture, mother, stains), kind)
    return _transform(capture, mother, best, {"confidence": round(sure, 3)})


def refine_by_images(capture: Overview, mother: Overview, start: Transform, *, kind: Kind = "similarity") -> Transform:
    """Move a capture from where it is, by landmarks or a matrix, to the nearest place where the images agree most.

    Returns
    -------
    Transform
        With the measures of :func:`align_automatically` but for the confidence, and ``moved_px``: how far it moved
        the middle of the capture's image, in full-resolution pixels of the mother image.

    Raises
    ------
    AlignmentRefusedError
        No tissue was found, or the images agree no better than at the start.
    """
    stains = _stains(capture, mother)
    matrix = np.linalg.inv(mother.to_full) @ start.matrix @ capture.to_full
    placing = Placing(*stains, Transform(matrix).scale, known=True)
    (before,) = placing.judged([Candidate(matrix, 0.0)])
    coarse = placing.refined([before.candidate], 1, Freedom(growth=FINE_GROWTH))[0]
    inner = coarse.agreement.value >= LEAST_AGREEMENT
    after = placing.polished(coarse, Freedom(kind, FINE_GROWTH, inner))
    if after.agreement.strength <= before.agreement.strength:
        raise AlignmentRefusedError(
            f"The images do not say where to move it: structures inside the tissue agree by "
            f"{before.agreement.value:.2f} where it is, by {after.agreement.value:.2f} where outlines agree most.",
            "Keep it as it is.",
        )
    h, w = capture.rgb.shape[:2]
    middle = capture.to_full @ np.array([w / 2, h / 2, 1.0])
    found = _transform(capture, mother, after, {})
    moved = float(np.hypot(*(found.apply(middle[None, :2]) - start.apply(middle[None, :2]))[0]))
    return Transform(
        found.matrix, f"{start.how}, refined by the images", {**found.measures, "moved_px": round(moved, 1)}
    )


def _stains(capture: Overview, mother: Overview) -> tuple[Stain, Stain]:
    stains = stain_of(capture), stain_of(mother)
    for stain, what in zip(stains, ("capture's image", "mother image"), strict=True):
        if stain.share < LEAST_SHARE:
            raise AlignmentRefusedError(
                f"The {what} shows hardly any tissue: {stain.share:.2%} of it.",
                "Check that it is the right image; else give landmarks.",
            )
    return stains


def _transform(capture: Overview, mother: Overview, place: Placed, measures: dict[str, float]) -> Transform:
    """A place on overviews as a transform of full-resolution pixels."""
    matrix = mother.to_full @ place.candidate.matrix @ np.linalg.inv(capture.to_full)
    found = {
        "correlation": round(place.candidate.score, 4),
        "agreement": round(place.agreement.value, 4),
    }
    return Transform(matrix, "automatic", measures | found)


def _first_decided(stains: tuple[Stain, Stain], scales: list[Expected], kind: Kind) -> tuple[Placed, float]:
    """The first expected scale around which a place stands out."""
    refusals: list[AlignmentRefusedError] = []
    for expected in scales:
        try:
            return _decide(_place(stains, expected, kind))
        except AlignmentRefusedError as error:
            refusals.append(error)
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
    found = Transform(best.candidate.matrix).scale / scale
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


def expected_scales(capture: Overview, mother: Overview, stains: tuple[Stain, Stain]) -> list[Expected]:
    """What is worth searching, the best known first: pixel sizes are believed before they are doubted."""
    per_px = capture.full_per_px / mother.full_per_px
    if capture.um_per_px and mother.um_per_px:
        return [Expected(capture.um_per_px / mother.um_per_px, (1.0,), known=True)]
    by_area = math.sqrt(stains[1].mask.sum() / stains[0].mask.sum())
    return (
        [Expected(by_area, WIDE)]
        if 1 / 1.2 < by_area / per_px < 1.2
        else [Expected(per_px, WIDE), Expected(by_area, WIDE)]
    )


def _place(stains: tuple[Stain, Stain], expected: Expected, kind: Kind) -> list[Placed]:
    """Places around one expected scale, the most promising first and refined to the end."""
    placing = Placing(*stains, expected.scale, expected.known)
    placed = placing.searched(expected.factors)
    inner = placed[0].agreement.value >= LEAST_AGREEMENT
    if inner or kind == "affine":
        placed[0] = placing.polished(placed[0], Freedom(kind, FINE_GROWTH, inner))
    return placed


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
