"""Places that a capture may have on the mother image: found, refined, told apart, and ordered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.align.search import Candidate, Freedom, Picture, ascend, search
from iscale.align.structure import Agreement, Stain, Structures, agreement, channels
from iscale.geometry import Region
from iscale.transform import Transform

MARGIN = 0.2
"""Glass around the tissue that is compared too, as a share of its extent."""


@dataclass(frozen=True)
class Level:
    """A picture, and how its pixels relate to the overview's: overview = factor x picture + corner."""

    picture: Picture
    factor: int
    corner: tuple[int, int]

    @property
    def to_overview(self) -> NDArray[np.float64]:
        """(3, 3): takes x, y, 1 in its pixels to pixels of the overview."""
        return np.array(
            [[self.factor, 0.0, self.corner[0]], [0.0, self.factor, self.corner[1]], [0.0, 0.0, 1.0]], dtype=np.float64
        )


class Pyramid:
    """Pictures of a stain at any resolution; ``cropped`` to the tissue with a margin."""

    def __init__(self, stain: Stain, *, cropped: bool = False) -> None:
        strength = np.sqrt((stain.density**2).sum(-1))
        dense = float(np.quantile(strength[stain.mask], 0.9))
        # Half of the value is the outline, half the stain: neither alone tells all tissues.
        values = stain.mask * (0.5 + 0.5 * np.clip(strength / max(dense, 1e-3), 0, 1.5))
        h, w = stain.mask.shape
        margin = int(MARGIN * (max(stain.box.shape) - 1)) + 1
        window = stain.box.grown(margin, (h, w)) if cropped else Region(0, h, 0, w)
        self.corner = window.x0, window.y0
        layers = [values, stain.mask, *channels(stain)]
        self.layers = torch.from_numpy(np.stack([a[window.slices].astype(np.float32) for a in layers]))[None]

    def at(self, factor: float) -> Level:
        """The picture of about ``factor`` overview pixels per pixel."""
        times = max(1, min(round(factor), *self.layers.shape[2:]))
        values, tissue, *inner = functional.avg_pool2d(self.layers, times)[0]
        return Level(Picture(values, tissue, torch.stack(inner)), times, self.corner)


def to_overviews(candidate: Candidate, own: Level, theirs: Level) -> Candidate:
    """From pixels of pictures to pixels of overviews."""
    return Candidate(theirs.to_overview @ candidate.matrix @ np.linalg.inv(own.to_overview), candidate.score)


def to_pictures(candidate: Candidate, own: Level, theirs: Level) -> Candidate:
    """From pixels of overviews to pixels of pictures."""
    return Candidate(np.linalg.inv(theirs.to_overview) @ candidate.matrix @ own.to_overview, candidate.score)


COARSE_PX = 36
"""Width, in pixels, of the tissue that is searched for: enough to tell its outline and its larger structures."""

LARGEST_PX, WIDEST_PX = 512, 192
"""Longest side of the mother image in the search, and of the capture's."""

FINE = 2
"""The last refinement sees so many times more pixels per side than the search."""

CANDIDATES, FINALISTS = 48, 4
"""Distinct places that are refined, and that are refined to the end."""

FINE_GROWTH = 0.03
"""How much the last refinement may change the scale, relatively."""

LEAST_MOVE = 0.15
"""Places are distinct where they move the capture's corners by this share of its diagonal, in the mean."""


@dataclass(frozen=True)
class Placed:
    """A refined place, in overview pixels, and how well it agrees."""

    candidate: Candidate
    agreement: Agreement

    @property
    def promise(self) -> float:
        """What places are ordered by: outlines and stain alike, and structures inside of them too."""
        return self.candidate.score + max(self.agreement.value, 0.0) / 2


class Placing:
    """A capture and the mother image, pictured for one expected scale: mother per capture overview pixels."""

    def __init__(self, capture: Stain, mother: Stain, scale: float, known: bool) -> None:
        self.scale, self.known = scale, known
        self.shape = capture.mask.shape
        extent = math.sqrt(capture.mask.sum()) * scale  # of the tissue, in mother overview pixels
        self.own, self.theirs = Pyramid(capture, cropped=True), Pyramid(mother)
        width = max(self.own.layers.shape[2:]) * scale
        self.coarse = max(1.0, extent / COARSE_PX, width / WIDEST_PX, max(mother.mask.shape) / LARGEST_PX)
        self.inside = Structures(capture), Structures(mother)

    def judged(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """Distinct places of candidates, the most promising first."""
        return ordered([Placed(c, agreement(*self.inside, c.matrix)) for c in candidates], self.shape)

    def searched(self, factors: Sequence[float]) -> list[Placed]:
        """The places of a search over the mother image, at the expected scale times each of some factors."""
        a, b = self.own.at(self.coarse / self.scale), self.theirs.at(self.coarse)
        scales = [self.scale * factor * a.factor / b.factor for factor in factors]
        found = [to_overviews(c, a, b) for c in search(a.picture, b.picture, scales)]
        placed = self.refined(distinct(found, self.shape, CANDIDATES), 1, Freedom())
        first = self.refined([p.candidate for p in placed[:FINALISTS]], FINE, Freedom(growth=FINE_GROWTH))
        return ordered([*first, *placed[FINALISTS:]], self.shape)

    def refined(self, candidates: Sequence[Candidate], level: int, freedom: Freedom) -> list[Placed]:
        """Candidates moved to where they correlate most, at ``level`` times the resolution of the search."""
        a, b = self.own.at(self.coarse / self.scale / level), self.theirs.at(self.coarse / level)
        known = self.scale * a.factor / b.factor if self.known else None
        moved = ascend(a.picture, b.picture, [to_pictures(c, a, b) for c in candidates], freedom, known)
        return self.judged([to_overviews(c, a, b) for c in moved])

    def polished(self, place: Placed, freedom: Freedom) -> Placed:
        """One place refined to the end; its score stays comparable with those of other places."""
        best = self.refined([place.candidate], FINE, freedom)[0]
        return Placed(Candidate(best.candidate.matrix, place.candidate.score), best.agreement)


def ordered(placed: list[Placed], shape: tuple[int, ...]) -> list[Placed]:
    """Distinct places, the most promising first."""
    by_promise = sorted(placed, key=lambda p: -p.promise)
    few = distinct([p.candidate for p in by_promise], shape, len(by_promise))
    return [p for p in by_promise if any(p.candidate is candidate for candidate in few)]


def distinct(candidates: list[Candidate], shape: tuple[int, ...], most: int) -> list[Candidate]:
    """The first of every group of candidates that are about the same place."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if all(_are_distinct(candidate, other, shape) for other in kept):
            kept.append(candidate)
        if len(kept) == most:
            break
    return kept


def _are_distinct(one: Candidate, other: Candidate, shape: tuple[int, ...]) -> bool:
    h, w = shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], dtype=np.float64)
    moved = (corners @ one.matrix.T - corners @ other.matrix.T)[:, :2]
    return bool(np.hypot(*moved.T).mean() > LEAST_MOVE * math.hypot(h, w) * Transform(one.matrix).scale)
