"""Refining places by intensity: gradient ascent of the correlation over the parameters of a transform."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.align.search import Candidate, Picture
from iscale.align.transform import Kind

STEPS = 80
FIRST_STEP_PX, LAST_STEP_PX = 0.6, 0.02
"""What a step of the ascent moves the rim of the picture by, at the beginning and at the end."""

LARGEST_STRETCH = 0.15
"""An affine may scale one direction by about this more than another: sections are cut and mounted, not rolled out."""

_TINY = 1e-6


def refine(capture: Picture, mother: Picture, starts: list[Candidate], kind: Kind = "similarity") -> list[Candidate]:
    """Move every candidate to the nearest maximum of the correlation.

    The correlation is over the capture's pixels that land on the mother image, times the share of the capture's tissue
    that does.

    Parameters
    ----------
    capture, mother
        Pictures at the same resolutions as the candidates' matrices.
    starts
        Where to begin; all are moved at once.
    kind
        ``similarity`` moves by shift, rotation and scale, ``affine`` by stretch and shear as well.

    Returns
    -------
    list of Candidate
        In the order of ``starts``.
    """
    centre = np.array(capture.centre)
    radius = math.hypot(*capture.shape) / 4
    turn = torch.from_numpy(np.stack([s.matrix[:2, :2] for s in starts]))
    place = torch.from_numpy(np.stack([s.matrix[:2, :2] @ centre + s.matrix[:2, 2] for s in starts]))
    moves = torch.zeros(len(starts), 4 if kind == "similarity" else 6, dtype=torch.float64, requires_grad=True)
    ascent = torch.optim.Adam([moves], lr=FIRST_STEP_PX)
    decay = (LAST_STEP_PX / FIRST_STEP_PX) ** (1 / STEPS)
    for _ in range(STEPS):
        ascent.zero_grad()
        score = _scores(capture, mother, centre, *_moved(turn, place, moves, radius))
        (moves.grad,) = torch.autograd.grad(-score.sum(), [moves])
        ascent.step()
        for group in ascent.param_groups:
            group["lr"] *= decay
    with torch.no_grad():
        turn, place = _moved(turn, place, moves, radius)
        scores = _scores(capture, mother, centre, turn, place)
    return [
        Candidate(_matrix(a.numpy(), p.numpy(), centre), float(score))
        for a, p, score in zip(turn, place, scores, strict=True)
    ]


def _moved(
    turn: torch.Tensor, place: torch.Tensor, moves: torch.Tensor, radius: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Transforms after moves, each of which is in mother pixels at the rim of the capture."""
    angle, growth = moves[:, 2] / radius, moves[:, 3] / radius
    c, s = torch.cos(angle), torch.sin(angle)
    step = torch.stack([c, -s, s, c], dim=-1).reshape(-1, 2, 2) * torch.exp(growth)[:, None, None]
    if moves.shape[1] == 6:
        a, b = (LARGEST_STRETCH / 2 * torch.tanh(moves[:, k] / radius / (LARGEST_STRETCH / 2)) for k in (4, 5))
        shear = torch.stack([1 + a, b, b, 1 - a], dim=-1).reshape(-1, 2, 2)
        step = shear @ step
    return step @ turn, place + moves[:, :2]


def _scores(
    capture: Picture, mother: Picture, centre: NDArray[np.float64], turn: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    h, w = capture.shape
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    offset = torch.stack([x - centre[0], y - centre[1]], dim=-1).double()
    at = torch.einsum("nij,yxj->nyxi", turn, offset) + place[:, None, None, :]
    size = torch.tensor([mother.shape[1], mother.shape[0]], dtype=torch.float64)
    grid = (2 * at / size - 1).float()
    layers = torch.stack([mother.values, torch.ones_like(mother.values)])
    seen = functional.grid_sample(layers.expand(len(turn), -1, -1, -1), grid, align_corners=False)
    weight = seen[:, 1]
    total = weight.sum((1, 2)).clamp_min(1)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (weight * values).sum((1, 2)) / total

    own = capture.values[None]
    mean_m, mean_c = mean(seen[:, 0]), mean(own)
    off_m, off_c = seen[:, 0] - mean_m[:, None, None], own - mean_c[:, None, None]
    ncc = mean(off_m * off_c) / (mean(off_m**2) * mean(off_c**2) + _TINY).sqrt()
    inside = (weight * capture.tissue).sum((1, 2)) / capture.tissue.sum().clamp_min(1)
    return ncc * inside


def _matrix(turn: NDArray[np.float64], place: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = place - turn @ centre
    return matrix
