"""Refining places by intensity: gradient ascent of the correlation over the parameters of a transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.align.search import Candidate, Picture
from iscale.transform import Kind

STEPS = 80
FIRST_STEP_PX, LAST_STEP_PX = 0.6, 0.02
"""What a step of the ascent moves the rim of the picture by, at the beginning and at the end."""

LARGEST_STRETCH = 0.15
"""An affine may scale one direction by about this more than another: sections are cut and mounted, not rolled out."""

DOUBT, PRICE = 0.03, 0.01
"""Neighbouring sections differ in size by some percent; correlations of right and wrong places by more than this."""

_TINY = 1e-6


@dataclass(frozen=True)
class Freedom:
    """How a transform may move.

    ``similarity`` moves by shift, rotation and scale, ``affine`` by stretch and shear as well; ``growth`` is how much
    the scale may change at most, relatively; with ``inner`` structures inside of the tissue are compared too, not only
    its outline and stain.
    """

    kind: Kind = "similarity"
    growth: float = 0.05
    inner: bool = False


def refine(
    capture: Picture, mother: Picture, starts: list[Candidate], freedom: Freedom, known: float | None = None
) -> list[Candidate]:
    """Move every candidate to the nearest maximum of the correlation, all at once; in their order.

    The correlation is over the capture's pixels that land on the mother image, times the share of the capture's tissue
    that does. Where the scale is ``known`` (mother pixels per capture pixel), a change of it by ``DOUBT`` costs
    ``PRICE`` of the correlation: an outline can be self-similar, and the corner of a section says nothing of its scale.
    """
    compare = _Comparison(capture, mother, freedom.inner)
    turn = torch.from_numpy(np.stack([s.matrix[:2, :2] for s in starts]))
    place = torch.from_numpy(np.stack([s.matrix[:2, :2] @ compare.centre + s.matrix[:2, 2] for s in starts]))
    count = 4 if freedom.kind == "similarity" else 6
    moves = torch.zeros(len(starts), count, dtype=torch.float64, requires_grad=True)
    ascent = torch.optim.Adam([moves], lr=FIRST_STEP_PX)
    decay = (LAST_STEP_PX / FIRST_STEP_PX) ** (1 / STEPS)
    for _ in range(STEPS):
        moved = _moved(turn, place, moves, compare.radius, freedom.growth)
        gain = compare.scores(*moved) - _doubt(moved[0], known)
        (moves.grad,) = torch.autograd.grad(-gain.sum(), [moves])
        ascent.step()
        for group in ascent.param_groups:
            group["lr"] *= decay
    with torch.no_grad():
        turn, place = _moved(turn, place, moves, compare.radius, freedom.growth)
        scores = compare.scores(turn, place)
    return [
        Candidate(_matrix(a.numpy(), p.numpy(), compare.centre), float(score))
        for a, p, score in zip(turn, place, scores, strict=True)
    ]


def _doubt(turn: torch.Tensor, known: float | None) -> torch.Tensor:
    """What a scale other than the known one costs."""
    if known is None:
        return torch.zeros(len(turn), dtype=torch.float64)
    off = torch.log(torch.linalg.det(turn).abs()) / 2 - math.log(known)
    return PRICE * (off / DOUBT) ** 2


def _moved(
    turn: torch.Tensor, place: torch.Tensor, moves: torch.Tensor, radius: float, most: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Transforms after moves, each of which is in mother pixels at the rim of the capture."""
    angle, growth = moves[:, 2] / radius, most * torch.tanh(moves[:, 3] / radius / most)
    c, s = torch.cos(angle), torch.sin(angle)
    step = torch.stack([c, -s, s, c], dim=-1).reshape(-1, 2, 2) * torch.exp(growth)[:, None, None]
    if moves.shape[1] == 6:
        a, b = (LARGEST_STRETCH / 2 * torch.tanh(moves[:, k] / radius / (LARGEST_STRETCH / 2)) for k in (4, 5))
        shear = torch.stack([1 + a, b, b, 1 - a], dim=-1).reshape(-1, 2, 2)
        step = shear @ step
    return step @ turn, place + moves[:, :2]


class _Comparison:
    """The correlation of two pictures as a function of the transform."""

    def __init__(self, capture: Picture, mother: Picture, inner: bool) -> None:
        self.centre = np.array(capture.centre)
        self.radius = math.hypot(*capture.shape) / 4
        self.tissue = capture.tissue
        self.own = torch.cat([capture.values[None], capture.inner]) if inner else capture.values[None]
        theirs = torch.cat([mother.values[None], mother.inner]) if inner else mother.values[None]
        self.theirs = torch.cat([theirs, torch.ones_like(mother.values)[None]])
        h, w = capture.shape
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        self.offset = torch.stack([x - self.centre[0], y - self.centre[1]], dim=-1).double()
        self.size = torch.tensor([mother.shape[1], mother.shape[0]], dtype=torch.float64)

    def scores(self, turn: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Correlation (candidate,), the mean over channels, times the share of tissue that is on the mother image."""
        at = torch.einsum("nij,yxj->nyxi", turn, self.offset) + place[:, None, None, :]
        grid = (2 * at / self.size - 1).float()
        seen = functional.grid_sample(self.theirs.expand(len(turn), -1, -1, -1), grid, align_corners=False)
        weight = seen[:, -1:]
        total = weight.sum((2, 3)).clamp_min(1)

        def mean(values: torch.Tensor) -> torch.Tensor:
            return (weight * values).sum((2, 3)) / total

        own, theirs = self.own[None], seen[:, :-1]
        off_m, off_c = theirs - mean(theirs)[..., None, None], own - mean(own)[..., None, None]
        ncc = mean(off_m * off_c) / (mean(off_m**2) * mean(off_c**2) + _TINY).sqrt()
        inside = (weight[:, 0] * self.tissue).sum((1, 2)) / self.tissue.sum().clamp_min(1)
        return ncc.mean(1) * inside


def _matrix(turn: NDArray[np.float64], place: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = place - turn @ centre
    return matrix
