"""What a recipe trains on: counts of spots and features of their discs, gathered, checked and on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.encoders.base import FeatureGroup
from iscale.engine.progress import tell
from iscale.errors import InputError
from iscale.features.read import read_features
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.model.discs import blocks_of, disc_rows, disc_sizes, spot_starts
from iscale.model.sizes import HELD_OUT_FRACTION
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import RunStore
from iscale.store.scratch import ROWS_AT_ONCE, RowFile

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


HOLD_BYTES = 2**30
"""Rows up to so many bytes are held in memory, where nothing else is said."""

GATHER_COPIES = 6
"""Peak of reading the features of a tile, over those features."""


def gather_discs(
    store: RunStore,
    groups: Sequence[FeatureGroup],
    spots: TrainingSpots,
    grid: SlideGrid,
    *,
    hold_bytes: int = HOLD_BYTES,
) -> DiscFeatures:
    """Features of every tissue superpixel in every spot's disc.

    Spots are visited by the shard that holds their centre, so that each part of the store is read about once. The
    rows of a spot are put where they lie if all discs are whole: in memory, from where they are moved together in the
    end, or in a file in the store's scratch folder, which is read past the gaps.

    Parameters
    ----------
    store, groups, spots, grid
        Which features, of what.
    hold_bytes
        Rows are held in memory if they take no more than this, discs taken as whole.
    """
    from iscale.store.scratch import RowFile, ScratchFile

    n_features = sum(len(group.features) for group in groups)
    size = disc_sizes(spots.radius_um, grid.superpixel_um)
    first = np.cumsum(size) - size
    held = 4 * int(size.sum()) * n_features <= hold_bytes
    array = np.empty((int(size.sum()), n_features), np.float32) if held else None
    file = None if held else ScratchFile(store.scratch, n_features)
    count = np.zeros(len(size), np.int64)
    for spot, rows in _visit(store, groups, spots, grid):
        count[spot] = len(rows)
        if array is not None:
            array[first[spot] : first[spot] + len(rows)] = rows
        elif file is not None:
            file.write(int(first[spot]), rows)
    spot_of_row = np.repeat(np.arange(len(count)), count)
    if file is not None:
        return DiscFeatures(RowFile(file, np.concatenate([[0], np.cumsum(count)]), first), spot_of_row)
    assert array is not None
    return DiscFeatures(_without_gaps(array, first, count), spot_of_row)


def _without_gaps(
    array: NDArray[np.float32], first: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Move the rows of all spots together, in place."""
    end = 0
    for a, n in zip(first.tolist(), count.tolist(), strict=True):
        if a != end:
            array[end : end + n] = array[a : a + n]
        end += n
    return array[:end]


def _visit(
    store: RunStore, groups: Sequence[FeatureGroup], spots: TrainingSpots, grid: SlideGrid
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Every spot once, with the features of its disc, (row, feature) float32."""
    centres = np.floor(spots.xy_px[:, ::-1] / SUPERPIXEL_PX).astype(np.int64)
    tiles, tile_of = np.unique(centres // SHARD_SUPERPIXELS, axis=0, return_inverse=True)
    visited = 0
    for tile in range(len(tiles)):
        members = np.flatnonzero(tile_of.reshape(-1) == tile)
        own, at = disc_rows(centres[members], spots.radius_um[members], grid.superpixel_um, grid.superpixel_shape)
        (y0, x0), (y1, x1) = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
        features = read_features(store, groups, Region(y0, y1, x0, x1))
        starts = np.searchsorted(own, np.arange(len(members) + 1))
        for block in blocks_of(starts, np.arange(len(members))):
            a, b = starts[block[0]], starts[block[-1] + 1]
            values = features[:, at[a:b, 0] - y0, at[a:b, 1] - x0].T
            there = np.logical_not(np.isnan(values).any(axis=1))
            for k in block.tolist():
                part = slice(starts[k] - a, starts[k + 1] - a)
                yield int(members[k]), values[part][there[part]]
        visited += len(members)
        tell(visited, len(centres))
