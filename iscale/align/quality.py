"""How good an alignment is: measures that need no truth, and the word for them: good, doubtful or bad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from iscale.align.structure import (
    ASSUMED_WIDTH_UM,
    Stain,
    compare_structures,
    disc_mean,
    haematoxylin,
    here_and_elsewhere,
    lies_inside,
    lies_on_tissue,
    overlaps,
    share_of,
    stain_of,
    value_at,
)
from iscale.slide.overview import Overview
from iscale.transform import Transform

FEWEST_SPOTS = 20
"""Fewer spots on tissue have no correlation worth the name."""
SMALL_RADIUS_UM, POOL_UM = 20.0, 100.0
"""Smaller spots (cells, bins) hold few counts each, so their counts are summed over squares of so many um."""


@dataclass(frozen=True)
class Quality:
    """What was measured of an alignment; None is what cannot be computed. JSON-able by ``dataclasses.asdict``.

    Attributes
    ----------
    overlap
        Share of the capture's tissue that lands on the mother's tissue, of what lands on the mother image.
    iou
        Intersection over union of both tissues, over the part of the capture's image that lands on the mother image.
    stain_correlation
        Correlation of structures, 0 to 1: multiple correlation of the mother's density (sum of channels) with the three
        channels of the capture, over pixels where both show tissue. Densities are smoothed (Gaussian, 40 um), and the
        trend (Gaussian, 400 um) is taken off, so it says nothing of outlines and of uneven light. Of three channels, as
        another stain has another colour; adjusted for what three channels explain by chance.
    stain_elsewhere
        The largest of the same at 17 places that are wrong: shifted by 600 um, turned, mirrored. Structures that are
        rightly placed correlate clearly more.
    spots
        Spots with counts.
    spots_on_own
        Share of the spots that lie on the tissue of the capture's own image, None where it has none.
    spots_on_tissue
        Share of them whose centre lies on the mother's tissue; with an image of the capture, of those that lie on its
        own tissue.
    spots_outside
        Share of them whose centre lies outside of the mother image.
    counts_correlation
        Spearman's correlation, over spots on the mother's tissue, of counts per spot with the mean haematoxylin density
        in the spot's disc on the mother image. Cells and bins of less than 40 um are summed over squares of 100 um.
    counts_elsewhere
        The largest of the same at the wrong places.
    residual_um
        Of landmarks, as given.
    """

    overlap: float | None
    iou: float | None
    stain_correlation: float | None
    stain_elsewhere: float | None
    spots: int
    spots_on_own: float | None
    spots_on_tissue: float | None
    spots_outside: float | None
    counts_correlation: float | None
    counts_elsewhere: float | None
    residual_um: float | None


def measure(
    capture: Overview | None,
    mother: Overview,
    transform: Transform,
    xy_px: NDArray[np.floating],
    radius_px: float,
    depth: NDArray[np.floating],
    residual_um: float | None = None,
    mother_stain: Stain | None = None,
) -> Quality:
    """Measure how well a capture fits the mother image where a transform puts it.

    Parameters
    ----------
    capture
        Overview of the capture's own image, None where it has none.
    mother
        Overview of the mother image.
    transform
        From the capture's full-resolution pixels to the mother's.
    xy_px
        (spot, 2) x, y in the capture's full-resolution pixels.
    radius_px
        Radius of a spot in the same.
    depth
        (spot,) counts of all genes.
    residual_um
        Root mean square residual of landmarks, where there are any.
    mother_stain
        ``stain_of(mother)``, where it is known already: it takes seconds.
    """
    seen = mother_stain or stain_of(mother)
    um = mother.full_um or ASSUMED_WIDTH_UM / max(seen.mask.shape) / mother.full_per_px
    counted = depth > 0
    xy_px, depth = np.asarray(xy_px, dtype=np.float64)[counted], np.asarray(depth, dtype=np.float64)[counted]
    own = None if capture is None else stain_of(capture)
    overlap = iou = stain = stain_elsewhere = None
    if capture is not None and own is not None:
        overlap, iou = overlaps(capture, own, mother, seen, transform)
        stain, stain_elsewhere = compare_structures(capture, own, mother, seen, transform, um)
    on_own = None if capture is None or own is None else lies_on_tissue(capture, own, xy_px)
    placed = transform.apply(xy_px)
    on_tissue = lies_on_tissue(mother, seen, placed)
    counts, counts_elsewhere = _counts(mother, seen, transform, xy_px, radius_px, depth, um)
    return Quality(
        overlap=overlap,
        iou=iou,
        stain_correlation=stain,
        stain_elsewhere=stain_elsewhere,
        spots=len(xy_px),
        spots_on_own=None if on_own is None else share_of(on_own),
        spots_on_tissue=share_of(on_tissue if on_own is None else on_tissue[on_own]),
        spots_outside=share_of(~lies_inside(mother, placed)),
        counts_correlation=counts,
        counts_elsewhere=counts_elsewhere,
        residual_um=None if residual_um is None or not math.isfinite(residual_um) else float(residual_um),
    )


def _counts(
    mother: Overview,
    seen: Stain,
    transform: Transform,
    xy_px: NDArray[np.float64],
    radius_px: float,
    depth: NDArray[np.float64],
    um: float,
) -> tuple[float | None, float | None]:
    """Correlation of counts with nuclei where the transform puts the spots, and the largest at wrong places."""
    if len(xy_px) < FEWEST_SPOTS:
        return None, None
    if radius_px * transform.scale * um < SMALL_RADIUS_UM:
        side = POOL_UM / um / transform.scale
        xy_px, depth = pooled(xy_px, depth, side)
        radius_px = side / math.sqrt(math.pi)
    nuclei = disc_mean(haematoxylin(seen.density), radius_px * transform.scale / mother.full_per_px)

    def correlation(place: Transform) -> tuple[float | None, int]:
        xy = place.apply(xy_px)
        on = lies_on_tissue(mother, seen, xy)
        values = value_at(nuclei, mother.from_full(xy[on]))
        if on.sum() < FEWEST_SPOTS or np.ptp(values) == 0 or np.ptp(depth[on]) == 0:
            return None, int(on.sum())
        return float(stats.spearmanr(depth[on], values).statistic), int(on.sum())

    return here_and_elsewhere(correlation, transform, np.median(xy_px, axis=0), um)


def pooled(
    xy_px: NDArray[np.float64], depth: NDArray[np.float64], side_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (square, 2) of the squares that hold spots, and the counts (square,) in each.

    >>> pooled(np.array([[1.0, 1.0], [2.0, 3.0], [11.0, 1.0]]), np.array([5.0, 1.0, 2.0]), 10.0)[1]
    array([6., 2.])
    """
    cells, which = np.unique(np.floor(xy_px / side_px), axis=0, return_inverse=True)
    total = np.asarray(np.bincount(which.ravel(), depth, len(cells)), dtype=np.float64)
    return (cells + 0.5) * side_px, total


GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"

GOOD_OVERLAP, BAD_OVERLAP = 0.9, 0.7
"""Neighbouring sections rightly placed overlap by 0.96 or more; a fold or a lost piece may take some of it. Turned by
90 degrees, mirrored, or off by half its width, compact tissue still overlaps by 0.4 to 0.9."""
GOOD_IOU = 0.85
"""0.88 and more where right, 0.83 when off by 200 um or turned by 10 degrees on 3 mm of tissue. Never bad by itself: a
capture of a piece of the tissue lacks what lies beside it."""
GOOD_ON_TISSUE, BAD_ON_TISSUE = 0.9, 0.6
"""0.96 and more where right, 0.91 when off by 200 um; in wrong orientations 0.6 to 0.9."""
MOST_OUTSIDE, BAD_OUTSIDE = 0.02, 0.25
"""A row of spots may stick out of the mother image, not a quarter of the capture."""
GOOD_STAIN = 0.2
"""Of three tissues 0.30 to 0.74 where right, also for HE on a keratin stain; below 0.2 in most wrong places."""
GOOD_LEAD = 1.25
"""Where right, structures correlate 1.7 times as much as at the best of the wrong places, or more; wrong alignments
hardly reach that best, 1.2 times as much when off by 100 um or 5 degrees."""
BETTER_STAIN, BETTER_TIMES = 0.35, 1.5
"""By chance no wrong place reaches this correlation, and so many times that of here: there the capture belongs."""
GOOD_COUNTS = 0.2
"""Of spots of 100 um 0.35 to 0.74 where right; with 180 spots 0.15 is chance. Only asked of captures without an image:
in some tissues cells are dense and hold little RNA."""
BETTER_COUNTS, BETTER_COUNTS_TIMES = 0.3, 1.3
"""Where counts follow the nuclei that much at a wrong place, and so many times as much as here, positions are wrong in
themselves: swapped, or mirrored."""
LEAST_ON_OWN = 0.85
"""A capture may hold spots beside its tissue; but then counts follow the nuclei where it lies."""
GOOD_RESIDUAL_UM, BAD_RESIDUAL_UM = 100.0, 300.0
"""One and three distances of Visium spots: beyond these landmarks place spots on their neighbours."""


def verdict(quality: Quality) -> tuple[str, list[str]]:
    """``good``, ``doubtful`` or ``bad``, and why not good: one sentence with its number for every reason.

    Bad is what one measure shows to be wrong; and what neither the outline supports nor the structures inside, which
    agree no better than at wrong places, nor landmarks.
    """
    wrong, shape, proof = _wrong(quality), _shape_doubts(quality), _proof_doubts(quality)
    reasons = [*wrong, *shape, *proof]
    residual = quality.residual_um
    if residual is not None and GOOD_RESIDUAL_UM < residual <= BAD_RESIDUAL_UM:
        reasons.append(f"Landmarks are off by {residual:.0f} um; {GOOD_RESIDUAL_UM:.0f} um is usual at most.")
    landmarks = residual is not None and residual <= GOOD_RESIDUAL_UM
    if wrong or (shape and _no_better_than_wrong(quality) and not landmarks):
        return BAD, reasons
    return (DOUBTFUL, reasons) if reasons else (GOOD, [])


def _no_better_than_wrong(q: Quality) -> bool:
    if q.overlap is None:
        here, there = q.counts_correlation, q.counts_elsewhere
    else:
        here, there = q.stain_correlation, q.stain_elsewhere
    return here is None or (there is not None and here < there)


def _wrong(q: Quality) -> list[str]:
    found = []
    if q.overlap is not None and q.overlap < BAD_OVERLAP:
        found.append(f"Only {q.overlap:.0%} of the capture's tissue lands on the mother's tissue.")
    if _too_few_on_tissue(q):
        found.append(f"Only {q.spots_on_tissue:.0%} of the spots land on the mother's tissue.")
    if q.spots_outside is not None and q.spots_outside > BAD_OUTSIDE:
        found.append(f"{q.spots_outside:.0%} of the spots land outside of the mother image.")
    counts, moved = q.counts_correlation, q.counts_elsewhere
    if q.spots_on_own is not None and q.spots_on_own < LEAST_ON_OWN and (counts or 0.0) < (moved or 0.0):
        found.append(
            f"Only {q.spots_on_own:.0%} of the spots lie on the tissue of the capture's own image, and counts follow "
            "the nuclei better at wrong places: are x and y swapped, or mirrored?"
        )
    if q.residual_um is not None and q.residual_um > BAD_RESIDUAL_UM:
        found.append(f"Landmarks are off by {q.residual_um:.0f} um.")
    here, there = q.stain_correlation, q.stain_elsewhere
    if here is not None and there is not None and there >= BETTER_STAIN and there > BETTER_TIMES * here:
        found.append(f"Structures agree better at another place (correlation {there:.2f}) than here ({here:.2f}).")
    return found


def _too_few_on_tissue(q: Quality) -> bool:
    """Without an image of the capture its spots may lie beside its own tissue: then counts can excuse them."""
    few = q.spots_on_tissue is not None and q.spots_on_tissue < BAD_ON_TISSUE
    return few and (q.overlap is not None or bool(_proof_doubts(q)))


def _shape_doubts(q: Quality) -> list[str]:
    found = []
    if q.overlap is not None and BAD_OVERLAP <= q.overlap < GOOD_OVERLAP:
        found.append(
            f"{q.overlap:.0%} of the capture's tissue lands on the mother's tissue ({GOOD_OVERLAP:.0%} wanted)."
        )
    if q.iou is not None and q.iou < GOOD_IOU:
        found.append(f"Outlines of the tissue agree by {q.iou:.0%} (intersection over union; {GOOD_IOU:.0%} wanted).")
    if q.spots_on_tissue is not None and q.spots_on_tissue < GOOD_ON_TISSUE and not _too_few_on_tissue(q):
        found.append(f"{q.spots_on_tissue:.0%} of the spots land on the mother's tissue ({GOOD_ON_TISSUE:.0%} wanted).")
    here, there = q.counts_correlation, q.counts_elsewhere
    if here is not None and there is not None and there > max(BETTER_COUNTS, BETTER_COUNTS_TIMES * here):
        found.append(
            f"Counts follow the nuclei better at a wrong place ({there:.2f}) than here ({here:.2f}): are the spots' x "
            "and y swapped, or mirrored?"
        )
    if q.spots_outside is not None and MOST_OUTSIDE < q.spots_outside <= BAD_OUTSIDE:
        found.append(f"{q.spots_outside:.0%} of the spots land outside of the mother image.")
    return found


def _proof_doubts(q: Quality) -> list[str]:
    """What is missing to believe it: structures that agree, or without an image counts that follow the nuclei."""
    if q.overlap is None:
        return _lack("Counts and nuclei", q.counts_correlation, q.counts_elsewhere, GOOD_COUNTS, 1.0)
    return _lack("Structures of both images", q.stain_correlation, q.stain_elsewhere, GOOD_STAIN, GOOD_LEAD)


def _lack(what: str, here: float | None, elsewhere: float | None, least: float, lead: float) -> list[str]:
    if here is None:
        return [f"{what} could not be compared: too little of the capture is on tissue."]
    if here < least:
        return [f"{what} correlate by {here:.2f} only ({least:g} wanted)."]
    if elsewhere is not None and here < lead * elsewhere:
        return [f"{what} correlate by {here:.2f}, at a place that is wrong for sure by {elsewhere:.2f}."]
    return []


COLUMNS = ("capture", "verdict", *(field.name for field in fields(Quality)), "reasons")


def quality_table(rows: Sequence[tuple[str, Quality]]) -> str:
    """One row per capture (name, quality), separated by tabs, with a header; empty where not known."""
    lines = ["\t".join(COLUMNS)]
    for name, quality in rows:
        word, reasons = verdict(quality)
        values = ["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in asdict(quality).values()]
        lines.append("\t".join([name, word, *values, " ".join(reasons)]))
    return "\n".join(lines) + "\n"


def quality_text(rows: Sequence[tuple[str, Quality]]) -> str:
    """The same for a terminal: what matters most, in aligned columns, without the reasons."""
    table: list[tuple[str, ...]] = [
        ("capture", "verdict", "overlap", "IoU", "on tissue", "outside", "structures", "counts", "residual")
    ]
    for name, q in rows:
        shares = (_percent(v) for v in (q.overlap, q.iou, q.spots_on_tissue, q.spots_outside))
        pairs = ((q.stain_correlation, q.stain_elsewhere), (q.counts_correlation, q.counts_elsewhere))
        residual = "-" if q.residual_um is None else f"{q.residual_um:.0f} um"
        table.append((name, verdict(q)[0], *shares, *(_against(*pair) for pair in pairs), residual))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in table)


def figures_of(quality: Quality) -> str:
    """What was measured, in a line.

    >>> figures_of(Quality(0.98, 0.967, 0.48, 0.16, 180, 0.99, 0.99, 0.0, None, None, 42.3))
    'Tissue overlap 98%, outlines 97%, spots on tissue 99%, structures 0.48 (elsewhere 0.16), landmarks off by 42 um'
    """
    shares = (
        ("tissue overlap", quality.overlap),
        ("outlines", quality.iou),
        ("spots on tissue", quality.spots_on_tissue),
    )
    parts = [f"{name} {value:.0%}" for name, value in shares if value is not None]
    if quality.spots_outside:
        parts.append(f"spots outside the image {quality.spots_outside:.1%}")
    for name, here, elsewhere in (
        ("structures", quality.stain_correlation, quality.stain_elsewhere),
        ("counts with nuclei", quality.counts_correlation, quality.counts_elsewhere),
    ):
        if here is not None:
            parts.append(f"{name} {here:.2f}" + (f" (elsewhere {elsewhere:.2f})" if elsewhere is not None else ""))
    if quality.residual_um is not None:
        parts.append(f"landmarks off by {quality.residual_um:.0f} um")
    text = ", ".join(parts) or "nothing could be measured"
    return text[0].upper() + text[1:]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _against(here: float | None, elsewhere: float | None) -> str:
    if here is None:
        return "-"
    return f"{here:.2f}" if elsewhere is None else f"{here:.2f} (else {elsewhere:.2f})"
