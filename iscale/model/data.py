"""What a recipe trains on: the spots' counts and the features of their discs, checked and on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.errors import InputError
from iscale.model.discs import disc_sizes, spot_starts
from iscale.model.row_file import ROWS_AT_ONCE, RowFile
from iscale.model.sizes import HELD_OUT_FRACTION

Epoch = dict[str, float]
"""One line of a history: ``epoch`` (from 1), ``train_loss``, ``held_out_loss`` (NaN where no spot is held out)."""

OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class TrainingData:
    """Spots and their discs, as a recipe trains on them.

    Attributes
    ----------
    genes
        (gene,) names.
    features
        (row, feature) float32 on the device, rows sorted by spot; or a file of them, which gives the rows that it is
        indexed with, on the device.
    starts
        (spot + 1,): rows of spot ``s`` are ``starts[s]:starts[s + 1]``.
    counts
        (spot, gene) float32 on the device.
    depth
        (spot,) float32 on the device: counts of all genes.
    xy_um
        (spot, 2) float32 on the device: x, y of the spots' centres.
    disc_size
        (spot,) float32 on the device: superpixels of the full disc, those off tissue included.
    held_out
        (spot,): spots that no weight is trained on.
    capture
        (spot,): index of the capture of origin; -1 where spots of several were merged.
    """

    genes: tuple[str, ...]
    features: Tensor | RowFile
    starts: NDArray[np.int64]
    counts: Tensor
    depth: Tensor
    xy_um: Tensor
    disc_size: Tensor
    held_out: NDArray[np.bool_]
    capture: NDArray[np.int64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(spot,): spots that have a superpixel with features."""
        return np.diff(self.starts) > 0

    @property
    def train_spots(self) -> NDArray[np.int64]:
        """Indices of the spots to train on."""
        return np.flatnonzero(self.usable & ~self.held_out)

    @property
    def held_out_spots(self) -> NDArray[np.int64]:
        """Indices of the held-out spots."""
        return np.flatnonzero(self.usable & self.held_out)


def hold_out(usable: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Choose the held-out spots: a tenth of the usable ones, at least one, fixed by the seed.

    >>> int(hold_out(np.ones(347, dtype=bool), 0).sum())
    35
    """
    candidates = np.flatnonzero(usable)
    n = max(1, round(HELD_OUT_FRACTION * len(candidates)))
    held_out = np.zeros(len(usable), dtype=np.bool_)
    held_out[np.random.default_rng([seed, 0]).permutation(candidates)[:n]] = True
    return held_out


def training_data(
    spots: TrainingSpots,
    discs: DiscFeatures,
    *,
    pixel_size_um: float,
    superpixel_um: float,
    seed: int,
    device: torch.device,
) -> TrainingData:
    """Check the inputs of a fit, choose the held-out spots, and move everything to the device.

    Raises
    ------
    InputError
        If fewer than 16 spots can be trained on (the published batch is a 16th of the spots), or counts, depths or
        features are not finite.
    """
    starts = spot_starts(discs.spot, len(spots.counts))
    usable = np.diff(starts) > 0
    held_out = hold_out(usable, seed)
    _check(spots, discs, n_train=int((usable & ~held_out).sum()))

    def to_device(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    features = discs.features
    return TrainingData(
        genes=spots.genes,
        features=features.to(device) if isinstance(features, RowFile) else to_device(features),
        starts=starts,
        counts=to_device(spots.counts),
        depth=to_device(spots.depth),
        xy_um=to_device(spots.xy_px * pixel_size_um),
        disc_size=to_device(disc_sizes(spots.radius_um, superpixel_um)),
        held_out=held_out,
        capture=spots.capture,
    )


def _check(spots: TrainingSpots, discs: DiscFeatures, n_train: int) -> None:
    if n_train < 16:
        raise InputError(
            f"{n_train} of {len(spots.counts)} spots can be trained on (they lie on tissue and are not held out); "
            "at least 16 are needed",
            "Give more captures, or check that the spots of locs.tsv lie on the tissue of the mother image.",
        )
    for name, values in (("counts", spots.counts), ("depths", spots.depth), ("features", discs.features)):
        bad = _not_finite(values)
        if bad:
            raise InputError(
                f"{bad} of {math.prod(values.shape)} {name} of the training spots are NaN or infinite",
                "Counts and features must be finite; superpixels without features are to be left out of the discs.",
            )


def _not_finite(values: NDArray[np.float32] | RowFile) -> int:
    """Numbers that are NaN or infinite."""
    bad = 0
    for start in range(0, len(values), ROWS_AT_ONCE):
        block = np.asarray(values[np.arange(start, min(start + ROWS_AT_ONCE, len(values)))])
        bad += block.size - int(np.isfinite(block).sum())
    return bad
