"""Least squares of points in the plane, and landmarks that agree: all but those that no plausible noise explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from iscale.transform import Kind, Transform

Points = NDArray[np.float64]

COLLINEAR = 0.01
"""Points are on a line where their spread across it is less than this, over that along it."""


def fit_points(source: Points, target: Points, *, penalty: float = math.inf, mirrored: bool = False) -> Points:
    """(3, 3) least squares of ``p z + q conj(z) + t`` over pairs (pair, 2), with a penalty of ``penalty |q|^2``.

    The penalty is in squared units of the source: infinite gives a similarity, 0 an affine. ``mirrored`` is the
    similarity, or that towards which an affine is drawn. Points must not all be at one place.
    """
    s_mean, t_mean = source.mean(axis=0), target.mean(axis=0)
    s, t = as_complex(source - s_mean, mirrored), as_complex(target - t_mean)
    if math.isinf(penalty):
        p, q = np.vdot(s, t) / np.vdot(s, s).real, 0j
    else:
        design = np.stack([s, s.conj()], axis=1)
        p, q = np.linalg.solve(_gram(s, penalty), design.conj().T @ t)
    images = [p + q, 1j * (p - q) * (-1 if mirrored else 1)]
    matrix = np.eye(3)
    matrix[:2, :2] = [[z.real for z in images], [z.imag for z in images]]
    matrix[:2, 2] = t_mean - matrix[:2, :2] @ s_mean
    return matrix


def leverage(source: Points, at: Points, *, penalty: float = math.inf, mirrored: bool = False) -> Points:
    """(place,) how uncertain a fit to ``source`` is at ``at``: variance of the prediction over a point's noise."""
    mean = source.mean(axis=0)
    s, z = as_complex(source - mean, mirrored), as_complex(at - mean, mirrored)
    if math.isinf(penalty):
        return np.asarray(1 / len(s) + np.abs(z) ** 2 / np.vdot(s, s).real)
    design = np.stack([z, z.conj()], axis=1)
    return np.asarray(
        1 / len(s) + np.einsum("pi,ij,pj->p", design, np.linalg.inv(_gram(s, penalty)), design.conj()).real
    )


def _gram(s: NDArray[np.complex128], penalty: float) -> NDArray[np.complex128]:
    design = np.stack([s, s.conj()], axis=1)
    return np.asarray(design.conj().T @ design + np.diag([0.0, penalty]))


def as_complex(xy: Points, mirrored: bool = False) -> NDArray[np.complex128]:
    """(point,) x + iy, or x - iy where mirrored."""
    return np.asarray(xy[:, 0] + (-1j if mirrored else 1j) * xy[:, 1])


def residuals(matrix: Points, source: Points, target: Points) -> Points:
    """(pair,) distances of transformed points from where they should be."""
    return np.asarray(np.hypot(*(source @ matrix[:2, :2].T + matrix[:2, 2] - target).T))


def stretch(matrix: Points, mirrored: bool = False) -> float:
    """``|q|`` of a transform: half of what separates the scale of one direction from that of another.

    >>> stretch(np.diag([1.1, 0.9, 1.0])), stretch(np.diag([2.0, -2.0, 1.0]), mirrored=True)
    (0.1, 0.0)
    """
    (a, b), (c, d) = matrix[:2, :2] @ np.diag([1.0, -1.0 if mirrored else 1.0])
    return round(float(np.hypot(a - d, b + c)) / 2, 12)


def rms(values: Points) -> float:
    """Root mean square; infinite of nothing."""
    return float(np.sqrt(np.mean(values**2))) if len(values) else math.inf


def on_a_line(points: Points) -> bool:
    """Whether points lie on a line, or nearly so.

    >>> on_a_line(np.array([[0.0, 0.0], [10.0, 10.0], [20.0, 20.1]]))
    True
    """
    along, across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:2]
    return bool(across <= COLLINEAR * along)


LEAST: dict[Kind, int] = {"similarity": 2, "affine": 3}
"""Pairs that determine a transform."""
ALL_NEEDED = 3
"""Of so few landmarks none can be told to be the wrong one."""

LEAST_TOLERANCE_UM, LEAST_TOLERANCE, MOST_LEAST = 100.0, 0.075, 0.25
"""A landmark is never left out for being off by less than the first, or than the second times the landmarks' spread,
which is their distance (root mean square) from their middle: so much is usual between neighbouring sections, which
differ by distances of their own and stretch as a whole. Never by more than the third times the spread."""
LARGEST_TOLERANCE = 0.15
"""Nor is one kept that is off by more than this, over the spread: sections are not so different."""
FALSE_ALARM = 0.01
"""In how many sets of good landmarks one is left out, at most."""
STRETCH_PRIOR = 0.05
"""Standard deviation of ``q / p`` per axis (see :mod:`iscale.align.consensus`): sections stretch by a few per cent,
and the six free numbers of an affine would fit the noise of a few landmarks."""
LARGEST_STRETCH = 0.2
"""No ``|q / p|`` beyond this is one of sections."""
NOISE_PRIOR_UM, NOISE_PRIOR_PAIRS = 30.0, 1.0
"""Noise of a landmark, per axis, that is assumed before its residuals are seen, and as how many pairs that counts."""
MOST_STARTS, REFINED = 2000, 10
"""Pairs of landmarks to start from (all, up to 63 landmarks), and the best of them that are refined."""


@dataclass(frozen=True)
class Problem:
    """Landmarks (landmark, 2), x, y in full-resolution pixels, and what is to be fitted to them.

    An affine is drawn towards a similarity as far as its noise asks; ``um_per_px`` is of the mother image.
    """

    source: Points
    target: Points
    kind: Kind
    um_per_px: float

    @property
    def least_px(self) -> float:
        """Off by how much a landmark is always kept."""
        spread = self._spread_px
        return min(max(LEAST_TOLERANCE_UM / self.um_per_px, LEAST_TOLERANCE * spread), MOST_LEAST * spread)

    @property
    def largest_px(self) -> float:
        """Off by how much no landmark is ever kept."""
        return max(self.least_px, LARGEST_TOLERANCE * self._spread_px)

    @property
    def _spread_px(self) -> float:
        return rms(np.hypot(*(self.target - self.target.mean(axis=0)).T))

    def fit(self, at: NDArray[np.int64], mirrored: bool) -> Fit:
        """Fit the landmarks ``at``."""
        source, target = self.source[at], self.target[at]
        matrix, penalty, of_stretch = fit_points(source, target, mirrored=mirrored), math.inf, 0.0
        if self.kind == "affine" and len(at) >= LEAST["affine"] and not on_a_line(source):
            squares = float((residuals(fit_points(source, target, penalty=0.0), source, target) ** 2).sum())
            penalty = self._noise(squares, 2 * len(at) - 6)[0] / (STRETCH_PRIOR * Transform(matrix).scale) ** 2
            matrix = fit_points(source, target, penalty=penalty, mirrored=mirrored)
            of_stretch = penalty * stretch(matrix, mirrored) ** 2
        residual = residuals(matrix, self.source, self.target)
        squares = float((residual[at] ** 2).sum()) + of_stretch
        # The prior of the stretch counts as a measurement of it, so an affine has no more free numbers.
        noise, weight = self._noise(squares, 2 * len(at) - 4)
        return Fit(matrix, residual, squares, noise, weight, penalty)

    def off_px(self, at: NDArray[np.int64], fit: Fit, others: NDArray[np.int64], mirrored: bool) -> Points:
        """(other,) how far ``others`` are from where a fit of ``at`` puts them, were it certain of that."""
        uncertain = leverage(self.source[at], self.source[others], penalty=fit.penalty, mirrored=mirrored)
        return np.asarray(fit.residual[others] / np.sqrt(1 + uncertain))

    def _noise(self, squares: float, free: int) -> tuple[float, float]:
        """Variance per axis in px^2, and its degrees of freedom, the assumed ones included."""
        assumed = 2 * NOISE_PRIOR_PAIRS
        weight = max(free, 0) + assumed
        return (squares + assumed * (NOISE_PRIOR_UM / self.um_per_px) ** 2) / weight, weight


@dataclass(frozen=True)
class Fit:
    """A fit to some landmarks.

    ``residual`` is (landmark,) of all of them, in pixels of the mother image; ``squares`` the sum over the fitted ones,
    and what an unusual stretch costs; ``noise`` their variance per axis in px^2, of ``weight`` degrees of freedom;
    ``penalty`` that of :func:`fit_points`.
    """

    matrix: Points
    residual: Points
    squares: float
    noise: float
    weight: float
    penalty: float


@dataclass(frozen=True)
class Consensus:
    """Landmarks that agree (landmark,), the fit to them, and the residuals of all, in pixels of the mother image.

    ``misfit`` is the root mean square of the residuals of those kept, an unusual stretch counted in.
    """

    matrix: Points
    kept: NDArray[np.bool_]
    residual: Points
    misfit: float


def majority(n: int) -> int:
    """Landmarks that must agree: half of those beyond the two that agree with any two, and so more than half of all.

    >>> [majority(n) for n in (2, 3, 4, 5, 6, 7, 12)]
    [2, 3, 3, 4, 4, 5, 7]
    """
    return n if n <= ALL_NEEDED else (n + 3) // 2


def consensus(problem: Problem, *, mirrored: bool, seed: int) -> Consensus:
    """The largest set of landmarks that agree; fewer than a majority where there is no such set.

    ``mirrored``: one of the images is seen from its back. ``seed`` chooses the pairs to start from where there are too
    many.
    """
    n = len(problem.source)
    chosen = np.arange(n) if n <= ALL_NEEDED else _least_trimmed(problem, mirrored, seed)
    fit = problem.fit(chosen, mirrored)
    even = stretch(fit.matrix, mirrored) <= LARGEST_STRETCH * stretch(fit.matrix, not mirrored)
    agree = chosen[even & (fit.residual[chosen] <= problem.largest_px)]
    while len(agree) == len(chosen) < n:
        others = np.setdiff1d(np.arange(n), chosen)
        off = problem.off_px(chosen, fit, others, mirrored)
        if off.min() > _tolerance_px(problem, fit):
            break
        chosen = agree = np.append(chosen, others[np.argmin(off)])
        fit = problem.fit(chosen, mirrored)
    return Consensus(fit.matrix, np.isin(np.arange(n), agree), fit.residual, math.sqrt(fit.squares / len(chosen)))


def _tolerance_px(problem: Problem, fit: Fit) -> float:
    """Off by how much a landmark may be from where others predict it, were they certain of it.

    Its square over twice the noise has an F distribution of 2 and ``weight`` degrees of freedom, whose quantiles are
    known in closed form.
    """
    level = FALSE_ALARM / len(problem.source)
    quantile = fit.weight / 2 * (level ** (-2 / fit.weight) - 1)
    explained = math.sqrt(2 * fit.noise * quantile)
    return min(max(explained, problem.least_px), problem.largest_px)


def _least_trimmed(problem: Problem, mirrored: bool, seed: int) -> NDArray[np.int64]:
    """The majority of landmarks that one fit serves best."""
    size = majority(len(problem.source))
    best, least = np.arange(size), math.inf
    for chosen in _starts(problem, mirrored, size, seed):
        for _ in range(3):
            residual = problem.fit(chosen, mirrored).residual
            chosen = np.argsort(residual, kind="stable")[:size]
        objective = problem.fit(chosen, mirrored).squares
        if objective < least:
            best, least = chosen, objective
    return best


def _starts(problem: Problem, mirrored: bool, size: int, seed: int) -> NDArray[np.int64]:
    """(start, size): for the best similarities through two landmarks, the landmarks that agree with it best."""
    s, t = as_complex(problem.source, mirrored), as_complex(problem.target)
    pairs = np.array(list(combinations(range(len(s)), 2)))
    if len(pairs) > MOST_STARTS:
        pairs = np.random.default_rng(seed).permutation(pairs)[:MOST_STARTS]
    a, b = pairs[s[pairs[:, 0]] != s[pairs[:, 1]]].T
    slope = (t[b] - t[a]) / (s[b] - s[a])
    residual = np.abs(slope[:, None] * (s - s[a][:, None]) + t[a][:, None] - t)
    order = np.argsort(residual, axis=1, kind="stable")[:, :size]
    worst = np.take_along_axis(residual, order[:, -1:], axis=1)[:, 0]
    best = np.sort(order[np.argsort(worst, kind="stable")], axis=1)
    return best[np.sort(np.unique(best, axis=0, return_index=True)[1])[:REFINED]]
