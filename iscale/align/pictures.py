"""Pictures of a stain at any resolution, and how their pixels relate to the overview's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from iscale.align.agreement import channels
from iscale.align.outline import Stain
from iscale.align.search import Candidate, Picture
from iscale.geometry import Region

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
    """Pictures of a stain at any resolution.

    Parameters
    ----------
    stain
        The stain.
    cropped
        Whether only the tissue with a margin is pictured.
    """

    def __init__(self, stain: Stain, *, cropped: bool = False) -> None:
        strength = np.sqrt((stain.density**2).sum(-1))
        dense = float(np.quantile(strength[stain.mask], 0.9))
        # Half of the value is the outline, half the stain: neither alone tells all tissues.
        values = stain.mask * (0.5 + 0.5 * np.clip(strength / max(dense, 1e-3), 0, 1.5))
        window = _tissue_window(stain.mask) if cropped else Region(0, stain.mask.shape[0], 0, stain.mask.shape[1])
        self.corner = window.x0, window.y0
        layers = [values, stain.mask, *channels(stain)]
        self.layers = torch.from_numpy(np.stack([a[window.slices].astype(np.float32) for a in layers]))[None]

    def at(self, factor: float) -> Level:
        """The picture of about ``factor`` overview pixels per pixel."""
        times = max(1, min(round(factor), *self.layers.shape[2:]))
        values, tissue, *inner = functional.avg_pool2d(self.layers, times)[0]
        return Level(Picture(values, tissue, torch.stack(inner)), times, self.corner)


def _tissue_window(mask: NDArray[np.bool_]) -> Region:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = int(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 1
    box = Region(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    return box.grown(margin, (mask.shape[0], mask.shape[1]))


def between(candidate: Candidate, own: Level, theirs: Level) -> Candidate:
    """From pixels of pictures to pixels of overviews."""
    return Candidate(theirs.to_overview @ candidate.matrix @ np.linalg.inv(own.to_overview), candidate.score)


def onto(candidate: Candidate, own: Level, theirs: Level) -> Candidate:
    """From pixels of overviews to pixels of pictures."""
    return Candidate(np.linalg.inv(theirs.to_overview) @ candidate.matrix @ own.to_overview, candidate.score)
