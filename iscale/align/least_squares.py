"""Least squares of points in the plane: similarities, affines, and what is between the two.

Points are complex numbers here, x + iy: then a similarity is ``p z + t`` and an affine ``p z + q conj(z) + t``, where
``2 |q / p|`` is about how much more one direction is stretched than another. A mirrored one has conj(z) for z.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

COLLINEAR = 0.01
"""Points are on a line where their spread across it is less than this, over that along it."""


def fit_points(source: Points, target: Points, *, penalty: float = math.inf, mirrored: bool = False) -> Points:
    """Least squares of ``p z + q conj(z) + t`` with a penalty of ``penalty |q|^2``.

    Parameters
    ----------
    source, target
        (pair, 2): x, y of the same points in both images, not all at one place.
    penalty
        In squared units of the source: a similarity at infinity, an affine at 0.
    mirrored
        Whether the similarity, or that towards which an affine is drawn, is mirrored.

    Returns
    -------
    matrix
        (3, 3) float64: takes (x, y, 1) of the source to the target.
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
    """How uncertain a fit to points is elsewhere: variance of the prediction over that of one point's noise.

    Parameters
    ----------
    source
        (pair, 2): the points that are fitted.
    at
        (place, 2): where predictions are made.
    penalty, mirrored
        As for :func:`fit_points`.

    Returns
    -------
    leverage
        (place,) float64.
    """
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
