"""Search over the whole mother image at a coarse resolution, and the ascent from what it finds to the best place.

For one rotation, reflection and scale all shifts are scored at once, as a normalised cross-correlation over the pixels
that both images cover (D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image Process. 2012).
What lies outside of either image is unknown, not glass: so a capture of a part of the tissue finds its place as well.
From there gradient ascent moves the parameters of a transform to the nearest maximum of the correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.transform import Kind

ANGLES = 60
"""Rotations tried, evenly over the circle."""

LEAST_INSIDE = 0.8
"""Share of the capture's tissue that must land on the mother image."""

BATCH_PIXELS = 1 << 21
"""Templates are scored in batches of about so many pixels, some forty bytes for each."""

_TINY = 1e-6


@dataclass(frozen=True)
class Picture:
    """An image at some resolution, as float tensors (y, x).

    ``values`` are what is compared: outline and stain, 0 is glass; ``tissue`` is 1 where there is some; ``inner``
    (channel, y, x) are structures inside of it, compared by the last refinement.
    """

    values: torch.Tensor
    tissue: torch.Tensor
    inner: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.values.shape[0]), int(self.values.shape[1])

    @property
    def centre(self) -> tuple[float, float]:
        """x, y of the middle of the tissue's bounding box."""
        rows, columns = torch.nonzero(self.tissue > 0.5, as_tuple=True)
        if not len(rows):
            return self.shape[1] / 2, self.shape[0] / 2
        return float(columns.min() + columns.max() + 1) / 2, float(rows.min() + rows.max() + 1) / 2


@dataclass(frozen=True)
class Candidate:
    """A possible place: (3, 3), from x, y, 1 in the capture's picture to the mother's; its correlation, -1 to 1."""

    matrix: NDArray[np.float64]
    score: float


def search(capture: Picture, mother: Picture, scales: Sequence[float]) -> list[Candidate]:
    """Score every rotation and reflection at every scale (mother per capture pixels), at its best shift; best first.

    Pictures are of similar resolution, a few hundred pixels wide.
    """
    found: list[Candidate] = []
    angles = np.arange(ANGLES) * (2 * math.pi / ANGLES)
    for scale in scales:  # templates of one size share a transform length
        fixed = _Fixed(mother, math.ceil(math.hypot(*capture.shape) * scale) + 2)
        turns = [turned(angle, scale, mirrored) for mirrored in (False, True) for angle in angles]
        batch = max(1, BATCH_PIXELS // math.prod(fixed.length))
        for at in range(0, len(turns), batch):
            found += fixed.score(capture, turns[at : at + batch])
    return sorted(found, key=lambda candidate: -candidate.score)


def turned(angle: float, scale: float, mirrored: bool) -> NDArray[np.float64]:
    """(2, 2) rotation by an angle in radians, with scale, after a reflection of x where asked."""
    c, s = math.cos(angle), math.sin(angle)
    flip = np.diag([-1.0 if mirrored else 1.0, 1.0])
    return np.asarray(scale * np.array([[c, -s], [s, c]]) @ flip)


class _Fixed:
    """The mother's side of the correlation, transformed once."""

    def __init__(self, mother: Picture, side: int) -> None:
        self.mother, self.side = mother, side
        h, w = mother.shape
        self.length = tuple(_fast(n + side) for n in (h, w))
        domain = torch.ones_like(mother.values)
        self.spectra = self._forward(torch.stack([domain, mother.values, mother.values**2]))

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        spectra: torch.Tensor = torch.fft.rfft2(images, s=self.length)
        return spectra

    def _backward(self, spectra: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = torch.fft.irfft2(spectra, s=self.length)
        return images

    def score(self, capture: Picture, turns: list[NDArray[np.float64]]) -> list[Candidate]:
        """The best shift of each rotation."""
        templates = _templates(capture, turns, self.side)
        values, tissue, domain = templates.unbind(1)
        other = self._forward(torch.stack([domain, values, values**2, tissue], dim=1)).conj()
        one, mean, square = self.spectra
        size = self._backward(one * other[:, 0]).clamp_min(0)
        sum_m, sum_c = self._backward(mean * other[:, 0]), self._backward(one * other[:, 1])
        var_m = self._backward(square * other[:, 0]) - sum_m**2 / size.clamp_min(1)
        var_c = self._backward(one * other[:, 2]) - sum_c**2 / size.clamp_min(1)
        cross = self._backward(mean * other[:, 1]) - sum_m * sum_c / size.clamp_min(1)
        inside = self._backward(one * other[:, 3]) >= LEAST_INSIDE * tissue.sum((1, 2))[:, None, None]
        least = _TINY * size.clamp_min(1)
        ncc = cross / (var_m.clamp_min(least) * var_c.clamp_min(least)).sqrt()
        ncc = torch.where(inside & (size > 1), ncc, torch.full_like(ncc, -1.0))
        best, at = ncc.flatten(1).max(1)
        return [
            Candidate(self._matrix(capture, turn, int(place)), float(score))
            for turn, place, score in zip(turns, at, best, strict=True)
        ]

    def _matrix(self, capture: Picture, turn: NDArray[np.float64], place: int) -> NDArray[np.float64]:
        """The whole transform: turned about the middle of the picture, which lies in the middle of the template."""
        dy, dx = divmod(place, self.length[1])
        shift = np.array([_signed(dx, self.length[1], self.side), _signed(dy, self.length[0], self.side)])
        middle = np.array([capture.shape[1] / 2, capture.shape[0] / 2])
        return _matrix(turn, shift + self.side / 2, middle)


def _signed(index: int, length: int, side: int) -> int:
    """Shift of a template whose corner lies before the image's: it wraps round to the end."""
    return index - length if index > length - side else index


def _templates(capture: Picture, turns: list[NDArray[np.float64]], side: int) -> torch.Tensor:
    """The capture turned onto (side, side) squares: (turn, [values, tissue, domain], y, x)."""
    h, w = capture.shape
    layers = torch.stack([capture.values, capture.tissue, torch.ones_like(capture.values)])
    grids = []
    for turn in turns:
        back = np.linalg.inv(turn)
        theta = np.array(
            [
                [back[0, 0] * side / w, back[0, 1] * side / w, 0.0],
                [back[1, 0] * side / h, back[1, 1] * side / h, 0.0],
            ]
        )
        grids.append(torch.from_numpy(theta).float())
    size = [len(turns), 3, side, side]
    grid = functional.affine_grid(torch.stack(grids), size, align_corners=False)
    sampled = functional.grid_sample(layers.expand(size[0], -1, -1, -1), grid, align_corners=False)
    domain = (sampled[:, 2:] > 0.999).float()
    return torch.cat([sampled[:, :2] * domain, domain], dim=1)


def _fast(n: int) -> int:
    """The next length whose only factors are 2, 3 and 5."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


STEPS = 80
FIRST_STEP_PX, LAST_STEP_PX = 0.6, 0.02
"""What a step of the ascent moves the rim of the picture by, at the beginning and at the end."""

LARGEST_STRETCH = 0.15
"""An affine may scale one direction by about this more than another: sections are cut and mounted, not rolled out."""

DOUBT, PRICE = 0.03, 0.01
"""Neighbouring sections differ in size by some percent; correlations of right and wrong places by more than this."""


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


def ascend(
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
    """(3, 3) that turns about a centre, which it takes to a place."""
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = place - turn @ centre
    return matrix
