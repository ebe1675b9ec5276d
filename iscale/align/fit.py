"""Transforms fitted to pairs of points: plain least squares, and landmarks of which some may be wrong.

People set 4 to 10 landmarks. On neighbouring sections a good one is off by tens of um, a wrong one (set on another
vessel, two swapped) by hundreds. So what is wanted is not a tight consensus, which throws good landmarks away and with
them half the accuracy, but a fit to all landmarks except those that no plausible noise explains:

1. Find the fit that serves a majority best (least trimmed squares: Rousseeuw and Van Driessen, "Computing LTS
   regression for large data sets", 2006), from all smallest subsets where these are few, so that nothing is random.
2. Its residuals tell the noise; a landmark is left out where it lies beyond what that noise makes likely.
3. Fit all the others by least squares. An affine has a prior: sections stretch by a few per cent, and an affine with
   six free numbers would fit the noise of a few landmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from iscale.align.transform import Kind, Transform
from iscale.errors import InputError

Points = NDArray[np.float64]

LEAST: dict[Kind, int] = {"similarity": 2, "affine": 3}
"""Pairs that determine a transform."""
LEAST_FOR_MIRROR = 4
"""Fewer pairs cannot tell a mirrored section from landmarks that are off."""
DECISIVE = 3.0
"""A mirrored similarity is taken where its residuals are this many times smaller."""
COLLINEAR = 0.01
"""Points are on a line where they spread across it less than this, over their spread along it."""

LEAST_TOLERANCE_UM = 100.0
"""A landmark is never left out for being off by less: so much is usual between neighbouring sections."""
LARGEST_TOLERANCE = 0.25
"""Nor kept where it is off by more than this, over the landmarks' distance (root mean square) from their middle."""
CUT = math.sqrt(2 * math.log(100))
"""Residual over the noise of one axis that one good landmark in 100 exceeds."""
STRETCH_PRIOR = 0.05
"""Standard deviation of what an affine has over a similarity: half the stretch of one direction against another."""
NOISE_PRIOR_UM, NOISE_PRIOR_PAIRS = 30.0, 1.0
"""The noise of a landmark (one axis) that is assumed, and how many pairs that assumption weighs as much as."""
MOST_SUBSETS, REFINED = 2000, 20


@dataclass(frozen=True)
class LandmarkFit:
    """A transform fitted to landmarks.

    Attributes
    ----------
    matrix
        (3, 3) float64: takes (x, y, 1) in full-resolution pixels of the capture to those of the mother image.
    kind
        What was fitted.
    names
        (landmark,) names.
    inlier
        (landmark,) bool: landmarks that the transform was fitted to; the others do not agree with them.
    residual_um
        (landmark,) float64: distance on the mother image between where a landmark is and where the transform puts it.
    """

    matrix: Points
    kind: Kind
    names: tuple[str, ...]
    inlier: NDArray[np.bool_]
    residual_um: Points

    @property
    def outliers(self) -> tuple[str, ...]:
        """Names of the landmarks that were left out."""
        return tuple(name for name, kept in zip(self.names, self.inlier, strict=True) if not kept)

    @property
    def notices(self) -> tuple[str, ...]:
        """What was fitted, and what was left out, one sentence each."""
        of_kept = self.residual_um[self.inlier]
        says = (
            f"{int(self.inlier.sum())} of {len(self.names)} landmarks agree on this {self.kind}: residuals of "
            f"{np.median(of_kept):.0f} um (median), {of_kept.max():.0f} um (largest).",
        )
        if self.outliers:
            off = ", ".join(f"{self.names[i]} ({self.residual_um[i]:.0f} um)" for i in np.flatnonzero(~self.inlier))
            says += (f"Warning: left out, because the other landmarks put them elsewhere: {off}.",)
        elif len(self.names) == LEAST[self.kind]:
            says += (
                f"Warning: {len(self.names)} landmarks determine a {self.kind} exactly, so a wrong one goes "
                "unnoticed. Give 4 to 6.",
            )
        return says

    @property
    def transform(self) -> Transform:
        """The transform, with its residuals as measures."""
        measures = {
            "kind": self.kind,
            "landmarks": len(self.names),
            "residual_um": round(float(np.median(self.residual_um[self.inlier])), 2),
            "residuals_um": {n: round(float(r), 2) for n, r in zip(self.names, self.residual_um, strict=True)},
            "left_out": list(self.outliers),
        }
        return Transform(self.matrix, "landmarks", measures)


def fit_pairs(source: Points, target: Points, kind: Kind) -> Points:
    """Fit a transform to all pairs by least squares.

    A similarity (Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991) is
    mirrored only where there are four or more pairs and that makes residuals three times smaller.

    Parameters
    ----------
    source, target
        (pair, 2): x, y of the same points in both images.
    kind
        ``similarity`` (turn, scale, shift) or ``affine``.

    Returns
    -------
    matrix
        (3, 3) float64: takes (x, y, 1) of the source to the target.

    Raises
    ------
    InputError
        Too few pairs, all at one place, or (affine) on one line.
    """
    source, target = _checked(source, target, kind)
    if kind == "affine":
        return _affine(source, target, shrink=0.0, mirrored=False)
    plain = _similarity(source, target, mirrored=False)
    if len(source) < LEAST_FOR_MIRROR:
        return plain
    mirrored = _similarity(source, target, mirrored=True)
    better = _rms(_residuals(mirrored, source, target)) * DECISIVE < _rms(_residuals(plain, source, target))
    return mirrored if better else plain


def fit_landmarks(
    source: Points,
    target: Points,
    kind: Kind,
    *,
    um_per_px: float,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> LandmarkFit:
    """Fit a transform to landmarks, leaving out those that the others contradict.

    An affine is shrunk towards a similarity as far as the landmarks' noise asks (STRETCH_PRIOR): with six landmarks
    it is between the two, with many it is the affine of :func:`fit_pairs`.

    Parameters
    ----------
    source, target
        (landmark, 2): x, y in full-resolution pixels of the capture and of the mother image.
    kind
        ``similarity`` or ``affine``.
    um_per_px
        Side of a full-resolution pixel of the mother image, in um.
    names
        Names of the landmarks, for messages; their numbers, if None.
    seed
        Chooses subsets where there are too many landmarks to try all of them.

    Raises
    ------
    InputError
        Too few landmarks, all at one place or (affine) on one line, or fewer than half agree on any transform.
    """
    names = tuple(names) if names is not None else tuple(str(i + 1) for i in range(len(source)))
    source, target = _checked(source, target, kind)
    n, spread_px = len(source), _rms(np.hypot(*(target - target.mean(axis=0)).T))
    largest_px = LARGEST_TOLERANCE * spread_px
    least_px = min(LEAST_TOLERANCE_UM / um_per_px, largest_px)
    pairs = _Pairs(source, target, kind, um_per_px, least_px, largest_px)

    plain = _consensus(pairs, mirrored=False, seed=seed)
    chosen = plain
    if n >= LEAST_FOR_MIRROR:
        other = _consensus(pairs, mirrored=True, seed=seed)
        if other.kept.sum() >= plain.kept.sum() and other.rms * DECISIVE < plain.rms and plain.rms > least_px:
            chosen = other
    if chosen.kept.sum() < max(LEAST[kind], math.ceil(n / 2), min(n, 3)):
        raise _no_consensus(chosen.residual * um_per_px, names, largest_px * um_per_px, kind)
    _checked(source[chosen.kept], target[chosen.kept], kind)
    return LandmarkFit(chosen.matrix, kind, names, chosen.kept, chosen.residual * um_per_px)


@dataclass(frozen=True)
class _Pairs:
    source: Points
    target: Points
    kind: Kind
    um_per_px: float
    least_px: float
    largest_px: float

    def fit(self, at: NDArray[np.bool_] | NDArray[np.int64], mirrored: bool) -> Points:
        """Fit of some landmarks, as :func:`fit_landmarks` makes it."""
        source, target = self.source[at], self.target[at]
        similarity = _similarity(source, target, mirrored=mirrored)
        if self.kind == "similarity" or _thin(source):
            return similarity
        # The noise that the affine leaves, with the assumed noise as so many pairs more.
        squares = float((_residuals(_affine(source, target, 0.0, mirrored), source, target) ** 2).sum())
        assumed = 2 * NOISE_PRIOR_PAIRS * (NOISE_PRIOR_UM / self.um_per_px) ** 2
        noise = (squares + assumed) / (max(0, 2 * len(source) - 6) + 2 * NOISE_PRIOR_PAIRS)
        scale = abs(np.linalg.det(similarity[:2, :2]))
        return _affine(source, target, noise / (STRETCH_PRIOR**2 * scale), mirrored)


@dataclass(frozen=True)
class _Found:
    matrix: Points
    kept: NDArray[np.bool_]
    residual: Points
    rms: float


def _consensus(pairs: _Pairs, mirrored: bool, seed: int) -> _Found:
    n = len(pairs.source)
    kept = np.ones(n, dtype=np.bool_)
    if n > 3:
        best = _least_trimmed(pairs, mirrored, seed)
        kept = best.residual <= _tolerance(pairs, np.sort(best.residual)[: _majority(n)], n)
    for _ in range(10):
        if kept.sum() < LEAST[pairs.kind]:
            break
        matrix = pairs.fit(kept, mirrored)
        residual = _residuals(matrix, pairs.source, pairs.target)
        within = residual <= _tolerance(pairs, residual[kept], int(kept.sum()))
        if (within == kept).all():
            break
        kept = within
    return _Found(matrix, within, residual, _rms(residual[within]))
