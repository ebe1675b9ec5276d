"""What a recipe trains on: the spots' counts and the features of their discs, checked, on the device or in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.errors import InputError
from iscale.model.discs import disc_sizes, rows_of, spot_starts
from iscale.model.sizes import HELD_OUT_FRACTION
from iscale.store.scratch import FileRows

Epoch = dict[str, float]
"""One line of a history: ``epoch`` (from 1), ``train_loss``, ``held_out_loss`` (NaN where no spot is held out)."""

OnEpoch = Callable[[Epoch], None]

ROWS_AT_ONCE = 4096
"""Rows that are copied at a time."""


@dataclass(frozen=True)
class RowFile:
    """Rows of features that are too many to hold, indexed as if it were the (row, feature) tensor, in order of spots.

    Attributes
    ----------
    file
        Where the rows of each spot lie together.
    starts
        (spot + 1,): rows of spot ``s`` are ``starts[s]:starts[s + 1]``.
    first
        (spot,): the place in the file of a spot's first row.
    device
        Where rows are given.
    """

    file: FileRows
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), self.file.width

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return 4 * len(self) * self.file.width

    def __getitem__(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """(row, feature) float32 of these rows, on the device."""
        at = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        spot = np.searchsorted(self.starts, at, side="right") - 1
        place = at + (self.first - self.starts[:-1])[spot]
        return torch.from_numpy(self.file.take(place)).to(self.device)

    def to(self, device: torch.device) -> Tensor | RowFile:
        """The rows on a device: whole where that has room for them twice, else read as they are asked for."""
        moved = replace(self, device=device)
        if device.type != "cuda" or 2 * self.nbytes > torch.cuda.mem_get_info(device)[0]:
            return moved
        whole = torch.empty(self.shape, device=device)
        for a in range(0, len(self), ROWS_AT_ONCE):
            rows = np.arange(a, min(a + ROWS_AT_ONCE, len(self)))
            whole[a : a + len(rows)] = moved[rows]
        return whole


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

    def disc_rows(self, spots: NDArray[np.int64]) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Features (row, feature) of the discs of spots, places (row, 2) in um, and for each row which of the spots.

        The place of a row is taken to be its spot's centre.
        """
        rows, owner = rows_of(self.starts, spots)
        return self.features[rows], self.xy_um[spots[owner]], owner

    def disc_mean(self, spots: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Rows of the discs of spots, and the matrix (spot, row) that averages over each disc, on the device.

        A product with a matrix costs 1 % of the published network's products, and, unlike scattered additions, always
        adds in the same order, on any device.
        """
        rows, owner = rows_of(self.starts, spots)
        matrix = np.zeros((len(spots), len(rows)), dtype=np.float32)
        matrix[owner, np.arange(len(rows))] = 1 / np.bincount(owner)[owner]
        return torch.from_numpy(rows).to(self.counts.device), torch.from_numpy(matrix).to(self.counts.device)


@dataclass(frozen=True)
class SharedGenes:
    """All genes that every capture measured.

    Attributes
    ----------
    genes
        (gene,) names.
    counts
        Gives (spot, gene) float32 counts of all training spots, of a slice of the genes.
    """

    genes: tuple[str, ...]
    counts: Callable[[slice], NDArray[np.float32]]


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

    Refused are fewer than 16 spots to train on (the published batch is a 16th of the spots), and counts, depths or
    features that are not finite.
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
