"""Transforms fitted to pairs of points: to all of them, or to landmarks of which some may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.align.consensus import (
    ALL_NEEDED,
    LARGEST_STRETCH,
    LEAST,
    Consensus,
    Points,
    Problem,
    consensus,
    fit_points,
    majority,
    on_a_line,
    residuals,
    rms,
)
from iscale.errors import InputError
from iscale.transform import Kind
from iscale.words import by

DECISIVE = 3.0
"""A mirrored fit is taken where its residuals are this many times smaller."""


@dataclass(frozen=True)
class LandmarkFit:
    """A transform fitted to landmarks: (3, 3), from full-resolution pixels of the capture to those of the mother image.

    Landmarks that are no ``inlier`` (landmark,) do not agree with the others, and were left out; ``residual_um`` is the
    distance on the mother image between where a landmark is and where the transform puts it.
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
        says: tuple[str, ...] = (
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


def fit_pairs(source: Points, target: Points, kind: Kind) -> Points:
    """(3, 3) transform fitted by least squares to all pairs (pair, 2), x, y of the same points in both images.

    A similarity (Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991) is
    mirrored only where there are four or more pairs and that makes residuals three times smaller. An InputError where
    pairs are too few, all at one place, or (affine) on one line.
    """
    source, target = _checked(source, target, kind)
    if kind == "affine":
        return fit_points(source, target, penalty=0.0)
    plain = fit_points(source, target)
    if len(source) <= ALL_NEEDED:
        return plain
    mirrored = fit_points(source, target, mirrored=True)
    decisive = rms(residuals(mirrored, source, target)) * DECISIVE < rms(residuals(plain, source, target))
    return mirrored if decisive else plain


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

    An affine is shrunk towards a similarity as far as the noise of the landmarks asks: with six of them it is between
    the two, with many it is the affine of :func:`fit_pairs`.

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
        Chooses the pairs to start from where landmarks are too many to try all.

    Raises
    ------
    InputError
        Too few landmarks, all at one place or (affine) on one line, or no majority of them agrees.
    """
    source, target = _checked(source, target, kind)
    names = tuple(names) if names is not None else tuple(str(i + 1) for i in range(len(source)))
    problem = Problem(source, target, kind, um_per_px)
    found = consensus(problem, mirrored=False, seed=seed)
    if len(source) > ALL_NEEDED:
        other = consensus(problem, mirrored=True, seed=seed)
        found = other if _is_mirrored(other, found, problem.least_px) else found
    if found.kept.sum() < majority(len(source)):
        raise _no_consensus(found, names, problem)
    _checked(source[found.kept], target[found.kept], kind)
    return LandmarkFit(found.matrix, kind, names, found.kept, found.residual * um_per_px)


def _is_mirrored(mirrored: Consensus, plain: Consensus, usual_px: float) -> bool:
    """Whether only the mirrored fit has a majority, or more landmarks, or as many with far smaller residuals."""
    if plain.kept.sum() < majority(len(plain.kept)) <= mirrored.kept.sum():
        return True
    more = int(mirrored.kept.sum()) - int(plain.kept.sum())
    if more > 0:
        return mirrored.misfit < max(plain.misfit, usual_px)
    return more == 0 and mirrored.misfit * DECISIVE < plain.misfit


def _checked(source: Points, target: Points, kind: Kind) -> tuple[Points, Points]:
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    n = len(source)
    if source.shape != (n, 2) or target.shape != (n, 2) or not np.isfinite([source, target]).all():
        raise InputError(
            f"Landmarks of shapes {by(source.shape)} and {by(target.shape)}, {int(np.isfinite(source).sum())} and "
            f"{int(np.isfinite(target).sum())} numbers of them finite.",
            "Give as many finite x, y in both images.",
        )
    if n < LEAST[kind]:
        raise InputError(
            f"{n} landmarks are too few for a transform of the kind {kind}, which needs {LEAST[kind]}.",
            "Set 4 to 6 landmarks, spread over the capture.",
        )
    for points, where in ((source, "capture"), (target, "mother image")):
        extent = float(np.hypot(*np.ptp(points, axis=0)))
        if extent < 1:
            raise InputError(
                f"All {n} landmarks lie within {extent:.2g} px of the {where}.",
                "Give them in full-resolution pixels, spread over the capture.",
            )
        if kind == "affine" and on_a_line(points):
            raise InputError(
                f"The {n} landmarks lie on one line in the {where}, so they do not determine an affine transform.",
                "Set one away from the line, or fit a similarity.",
            )
    return source, target


def _no_consensus(found: Consensus, names: tuple[str, ...], problem: Problem) -> InputError:
    off = found.residual * problem.um_per_px
    order = np.argsort(-off, kind="stable")[:6]
    worst = ", ".join(f"{names[i]} ({off[i]:.0f} um)" for i in order)
    mirror = "" if len(names) > ALL_NEEDED else f" (a mirrored section needs {ALL_NEEDED + 1})"
    even = "" if problem.kind == "similarity" else f" that stretches sections by no more than {LARGEST_STRETCH:.0%}"
    return InputError(
        f"The landmarks contradict each other: only {int(found.kept.sum())} of {len(names)} agree with any one "
        f"{problem.kind}{even}, {majority(len(names))} would have to. Farthest off: {worst}.",
        f"Check that the same names mark the same places in both images, as x, y in full-resolution pixels{mirror}.",
    )
