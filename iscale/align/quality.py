"""How good an alignment is, in numbers that need no truth, and the word for it: good, doubtful or bad.

Outlines tell a wrong place from the right one where the capture shows glass; where tissue fills both images only its
structures do. How strongly these correlate depends on stain, blur and distance of the sections, so the correlation is
also taken at places that are wrong for sure: shifted, turned and mirrored ones. All is computed on overviews.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal, stats

from iscale.align.outline import ASSUMED_WIDTH_UM, Stain, stain_of
from iscale.align.transform import Transform
from iscale.slide.overview import Overview

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
GOOD_RESIDUAL_UM, BAD_RESIDUAL_UM = 100.0, 300.0
"""One and three distances of Visium spots: beyond these landmarks place spots on their neighbours."""

SHIFT_UM = 600.0
"""Wrong places are off by this, farther than structures of tissue reach as a rule ..."""
TURNS_DEG = (-20.0, 20.0, 90.0, 180.0, 270.0)
"""... or turned by these, about the middle of the capture ..."""
MIRRORED_DEG = (0.0, 90.0, 180.0, 270.0)
"""... or mirrored and turned by these."""

SMOOTH_UM, TREND_UM = 40.0, 400.0
"""Structures compared are between these sizes (Gaussian sigmas): finer ones do not repeat in a neighbouring section."""
STEP_UM, MOST_PLACES = 20.0, 100_000
"""Images are compared at places this far apart, or farther where that would be too many."""
FEWEST_STRUCTURES = 20
"""Pieces of tissue that are independent after smoothing; fewer have no correlation worth the name."""

H_AND_E = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))
"""Density of haematoxylin and of eosin in red, green and blue (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001,
23:291, table 1)."""

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
        overlap, iou = _overlaps(capture, own, mother, seen, transform)
        stain, stain_elsewhere = _structures(capture, own, mother, seen, transform, um)
    on_own = np.ones(len(xy_px), bool) if capture is None or own is None else _on_tissue(capture, own, xy_px)
    placed = transform.apply(xy_px)
    on_tissue = _on_tissue(mother, seen, placed)
    counts, counts_elsewhere = _counts(mother, seen, transform, xy_px, radius_px, depth, um)
    return Quality(
        overlap=overlap,
        iou=iou,
        stain_correlation=stain,
        stain_elsewhere=stain_elsewhere,
        spots=len(xy_px),
        spots_on_tissue=_share(on_tissue[on_own]),
        spots_outside=_share(~_inside(mother, placed)),
        counts_correlation=counts,
        counts_elsewhere=counts_elsewhere,
        residual_um=None if residual_um is None or not math.isfinite(residual_um) else float(residual_um),
    )


def wrong_places(transform: Transform, middle: NDArray[np.float64], um_per_px: float) -> list[Transform]:
    """A transform spoilt in 17 ways, about a point (x, y) of the capture; ``um_per_px`` of the mother image."""
    centre = transform.apply(middle[None])[0]
    moves = []
    for angle in np.arange(8) * (math.pi / 4):
        move = np.eye(3)
        move[:2, 2] = SHIFT_UM / um_per_px * np.array([math.cos(angle), math.sin(angle)])
        moves.append(move)
    for turns, flip in ((TURNS_DEG, 1.0), (MIRRORED_DEG, -1.0)):
        for c, s in ((math.cos(a), math.sin(a)) for a in np.radians(turns)):
            move = np.eye(3)
            move[:2, :2] = np.array([[c, -s], [s, c]]) @ np.diag([flip, 1.0])
            move[:2, 2] = centre - move[:2, :2] @ centre
            moves.append(move)
    return [Transform(move @ transform.matrix) for move in moves]


def haematoxylin(density: NDArray[np.floating]) -> NDArray[np.float64]:
    """Density (y, x) of haematoxylin alone, 0 or more, of a density (y, x, 3) relative to glass.

    Colour deconvolution after Ruifrok and Johnston (2001); the third stain is what is unlike both.

    >>> float(haematoxylin(2 * np.array([[[0.65, 0.70, 0.29]]])).round(2)[0, 0])
    2.0
    """
    vectors = np.array([*H_AND_E, np.cross(*H_AND_E)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.maximum(density @ np.linalg.inv(vectors)[:, 0], 0.0))


def _overlaps(
    capture: Overview, own: Stain, mother: Overview, seen: Stain, transform: Transform
) -> tuple[float | None, float | None]:
    """Share of the capture's tissue on the mother's, and intersection over union, of what lands on the mother image."""
    h, w = own.mask.shape
    step = max(1.0, math.sqrt(h * w / MOST_PLACES))
    y, x = np.meshgrid(np.arange(0.5, h / step) * step, np.arange(0.5, w / step) * step, indexing="ij")
    full = _to_full(capture, np.stack([x.ravel(), y.ravel()], axis=-1))
    placed = transform.apply(full)
    inside = _inside(mother, placed)
    ours, theirs = _on_tissue(capture, own, full)[inside], _on_tissue(mother, seen, placed)[inside]
    return _share(theirs[ours]), _share(theirs[ours | theirs] & ours[ours | theirs])


class _Compared:
    """Both images at places on a grid over the capture's tissue, smoothed; the transform is free."""

    def __init__(self, capture: Overview, own: Stain, mother: Overview, seen: Stain, um: float, scale: float) -> None:
        rows, columns = np.nonzero(own.mask)
        low = np.array([columns.min(), rows.min()])
        extent = np.array([columns.max(), rows.max()]) + 1 - low
        own_um = capture.full_per_px * scale * um
        step = max(STEP_UM / own_um, math.sqrt(extent.prod() / MOST_PLACES))
        w, h = np.maximum(1, extent // step).astype(int)
        x, y = np.meshgrid(low[0] + (np.arange(w) + 0.5) * step, low[1] + (np.arange(h) + 0.5) * step)
        at = np.stack([x, y], axis=-1)
        self.step_um = step * own_um
        self.tissue = value_at(own.mask.astype(np.float32), at) > 0.5
        self.own = [value_at(layer, at) for layer in _smoothed(own, SMOOTH_UM / own_um)]
        self.full = _to_full(capture, at)
        self.mother = mother
        self.total = np.sum(_smoothed(seen, SMOOTH_UM / (mother.full_per_px * um)), axis=0)
        self.mask = seen.mask.astype(np.float32)

    def correlation(self, transform: Transform) -> tuple[float | None, int]:
        """Multiple correlation where a transform puts the capture, and of how many places."""
        at = self.mother.from_full(transform.apply(self.full.reshape(-1, 2))).reshape(self.full.shape)
        both = self.tissue & (value_at(self.mask, at) > 0.5)
        n = int(both.sum())
        pieces = n * self.step_um**2 / (4 * math.pi * SMOOTH_UM**2)
        if pieces < FEWEST_STRUCTURES:
            return None, n
        sigma = TREND_UM / self.step_um
        weight = np.maximum(ndimage.gaussian_filter(both.astype(np.float64), sigma), 1e-6)
        ours = np.stack([_without_trend(layer, both, weight, sigma) for layer in self.own], axis=-1)
        theirs = _without_trend(value_at(self.total, at), both, weight, sigma)
        spread = float(theirs @ theirs)
        if spread < 1e-9 * n:
            return None, n
        fit = ours @ np.linalg.lstsq(ours, theirs, rcond=1e-6)[0]
        unexplained = (1 - float(fit @ fit) / spread) * (pieces - 1) / (pieces - 1 - ours.shape[1])
        return math.sqrt(min(max(1 - unexplained, 0.0), 1.0)), n


def _structures(
    capture: Overview, own: Stain, mother: Overview, seen: Stain, transform: Transform, um: float
) -> tuple[float | None, float | None]:
    """Correlation of structures where the transform puts the capture, and the largest at wrong places."""
    if not own.mask.any():
        return None, None
    compared = _Compared(capture, own, mother, seen, um, transform.scale)
    here, n = compared.correlation(transform)
    middle = compared.full[compared.tissue].mean(axis=0)
    elsewhere = (compared.correlation(place) for place in wrong_places(transform, middle, um))
    return here, _largest([value for value, there in elsewhere if there > n / 2])


def _smoothed(stain: Stain, sigma_px: float) -> list[NDArray[np.float64]]:
    """Density per channel, smoothed within the tissue only."""
    weight = np.maximum(ndimage.gaussian_filter(stain.mask.astype(np.float64), sigma_px), 1e-3)
    return [np.asarray(ndimage.gaussian_filter(stain.density[..., c], sigma_px) / weight) for c in range(3)]


def _without_trend(
    values: NDArray[np.floating], both: NDArray[np.bool_], weight: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    trend = ndimage.gaussian_filter(np.where(both, values, 0.0), sigma) / weight
    left = (values - trend)[both]
    return np.asarray(left - left.mean())


def disc_mean(image: NDArray[np.floating], radius_px: float) -> NDArray[np.float64]:
    """Mean (y, x) of an image over a disc about every pixel; beyond the image there is nothing (0)."""
    radius = min(radius_px, min(image.shape) / 2)
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0.0, 1.0)
    return np.asarray(signal.fftconvolve(image, disc / disc.sum(), mode="same"))


def value_at(image: NDArray[np.floating], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate an image (y, x) at positions (..., 2) of x, y that count from the corner; 0 beyond it."""
    return np.asarray(ndimage.map_coordinates(image, [xy[..., 1] - 0.5, xy[..., 0] - 0.5], order=1), dtype=np.float64)


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
        on = _on_tissue(mother, seen, xy)
        values = value_at(nuclei, mother.from_full(xy[on]))
        if on.sum() < FEWEST_SPOTS or np.ptp(values) == 0 or np.ptp(depth[on]) == 0:
            return None, int(on.sum())
        return float(stats.spearmanr(depth[on], values).statistic), int(on.sum())

    found, n = correlation(transform)
    elsewhere = (correlation(place) for place in wrong_places(transform, np.median(xy_px, axis=0), um))
    return found, _largest([value for value, there in elsewhere if there > n / 2])


def pooled(
    xy_px: NDArray[np.float64], depth: NDArray[np.float64], side_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (square, 2) of the squares that hold spots, and the counts (square,) in each.

    >>> xy, total = pooled(np.array([[1.0, 1.0], [2.0, 3.0], [11.0, 1.0]]), np.array([5.0, 1.0, 2.0]), 10.0)
    >>> xy.tolist(), total.tolist()
    ([[5.0, 5.0], [15.0, 5.0]], [6.0, 2.0])
    """
    cells, which = np.unique(np.floor(xy_px / side_px), axis=0, return_inverse=True)
    total = np.asarray(np.bincount(which.ravel(), depth, len(cells)), dtype=np.float64)
    return (cells + 0.5) * side_px, total


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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _against(here: float | None, elsewhere: float | None) -> str:
    if here is None:
        return "-"
    return f"{here:.2f}" if elsewhere is None else f"{here:.2f} (else {elsewhere:.2f})"


def _to_full(overview: Overview, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Full-resolution positions (..., 2) of positions in an overview."""
    return np.asarray(xy @ overview.to_full[:2, :2].T + overview.to_full[:2, 2])


def _inside(overview: Overview, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    h, w = overview.rgb.shape[:2]
    at = overview.from_full(xy)
    return np.asarray(((at >= 0) & (at < (w, h))).all(axis=1))


def _on_tissue(overview: Overview, stain: Stain, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which positions (place, 2), in full-resolution pixels, lie on tissue."""
    inside = _inside(overview, xy)
    x, y = np.floor(overview.from_full(xy[inside])).astype(int).T
    inside[inside] = stain.mask[y, x]
    return inside


def _share(which: NDArray[np.bool_]) -> float | None:
    return float(which.mean()) if which.size else None


def _largest(values: list[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)
