"""Whether captures that overlap on the mother image measured the same there, and by how much they do not.

Where two captures lie on each other, spots near to each other should have similar counts, gene by gene, as far as their
noise allows. If they do not, one of them lies at a wrong place, is of another tissue, or is of another quality. What is
compared is ``log1p`` of counts per 10,000, so depth plays no part. Spots of the finer capture are added up at the
nearest spot of the coarser one; where both are dense, at the middle of squares of ``BLOCK_UM``.

Two sections of a tissue agree far less than their counting noise allows. On her2st, C3 and C5 (two sections apart) have
a median correlation of 0.19 where noise would allow 0.61; moved by 400 um 0.08, turned by 30 degrees 0.07, mirrored
0.05. What parts right from wrong, at a twentieth of the depth as well, is how much of the possible correlation there is
beyond that of random pairs: more than a fifth, against less than a tenth. MARGIN lies between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from iscale.captures.stacked import StackedSpots

BLOCK_UM = 100.0
"""Captures of a smaller pitch are added up in squares of this side."""
REACH = 0.7
"""Places belong together that are nearer than this, over the pitch: each spot of a square lattice has a partner."""
MOST_PITCHES = 20_000
"""Of more spots a part tells the distance of neighbours."""
LEAST_PLACES = 20
"""Fewer say nothing about a correlation."""
GENES = 100
"""Genes that are compared: those of the highest mean share of counts, which have the least noise."""
GOOD = 0.3
PER_SPOT = 1e4
DRAWS = 50
"""Random pairings of the same places, which show what no agreement looks like."""
MARGIN = 0.15
"""Captures disagree whose correlation exceeds that of random pairs by less than this, over what noise allows."""
LEAST_CEILING = 0.15
"""Where noise allows no more than this above random pairs, nothing can be told."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How far two captures agree where they overlap.

    ``places`` is how many both measured. ``correlation`` is the median over the genes of that over the places, NaN
    where there are too few; ``share`` that of the genes with more than 0.3; ``ceiling`` what the correlation would be
    if only the noise of counting parted the two; ``chance`` what it is with places paired at random: the upper end,
    exceeded by one pairing in 20.
    """

    captures: tuple[str, str]
    places: int
    genes: int
    correlation: float
    share: float
    ceiling: float
    chance: float

    @property
    def disagree(self) -> bool:
        """Whether the two agree hardly more than places paired at random, though their noise would let them."""
        can_be_told = self.ceiling > self.chance + LEAST_CEILING
        return can_be_told and self.correlation - self.chance < MARGIN * self.ceiling

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        first, second = self.captures
        if self.places < LEAST_PLACES:
            return f"{first} and {second} overlap at {self.places} places: too few to tell whether they agree."
        found = (
            f"the correlation is {self.correlation:.2f} (median of {self.genes} genes; {self.share:.0%} above "
            f"{GOOD:g}; about {self.ceiling:.2f} if only counting noise parted them)"
        )
        if self.disagree:
            return (
                f"Warning: {first} and {second} do not agree at the {self.places} places that both measured: {found}; "
                f"places paired at random reach {self.chance:.2f}. Check where both lie on the mother image."
            )
        return f"{first} and {second} overlap at {self.places} places, where {found}."

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON; numbers that are not known are None."""
        values = asdict(self) | {"captures": list(self.captures), "disagree": self.disagree}
        return {k: (None if isinstance(v, float) and not np.isfinite(v) else v) for k, v in values.items()}


def agreements(stacked: StackedSpots, xy_um: Values) -> tuple[Agreement, ...]:
    """Compare all pairs of captures that overlap, by counts as measured, at (spot, 2) um on the mother image."""
    found = []
    for pair in combinations(range(len(stacked.captures)), 2):
        rows = [stacked.rows_of(index) for index in pair]
        if not all(at.stop > at.start for at in rows):
            continue
        sums = _common_places([xy_um[at] for at in rows], [float(stacked.radius_um[at].max()) for at in rows])
        if sums[0].shape[0]:
            both = [
                _Measured(stacked, index, places, places @ stacked.depth[at])
                for index, places, at in zip(pair, sums, rows, strict=True)
            ]
            found.append(_compare((stacked.captures[pair[0]], stacked.captures[pair[1]]), *both))
    return tuple(found)


@dataclass(frozen=True)
class _Measured:
    """Counts of one capture at the common places: a (place, spot) matrix of its spots, and (place,) their depths."""

    stacked: StackedSpots
    capture: int
    places: sparse.csr_matrix
    depth: Values

    def _blocks(self, places: sparse.csr_matrix) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
        """The part of (place, spot) for each block of spots that belong to a place, and the block."""
        rows = np.unique(places.indices).astype(np.int64)
        by_spot = sparse.csc_matrix(places)[:, rows]
        for spots, block in self.stacked.blocks(self.capture, rows):
            yield sparse.csr_matrix(by_spot[:, spots.start : spots.stop]), block

    def genes(self, seen: NDArray[np.bool_]) -> Values:
        """(gene,) counts at those of the places that are seen."""
        total = np.zeros(len(self.stacked.genes))
        for places, block in self._blocks(sparse.csr_matrix(self.places[seen])):
            total += np.asarray(places.sum(axis=0)).reshape(-1) @ block.astype(np.float64)
        return total

    def counts(self, seen: NDArray[np.bool_], genes: NDArray[np.int64]) -> Values:
        """(place, gene) counts of some genes at the places that are seen."""
        found = np.zeros((int(seen.sum()), len(genes)))
        for places, block in self._blocks(sparse.csr_matrix(self.places[seen])):
            found += (places @ block[:, genes].astype(np.float64)).toarray()
        return found


def _common_places(xy: list[Values], radius: list[float]) -> list[sparse.csr_matrix]:
    """(place, spot) matrices of both captures: 1 where a spot belongs to a place that both measured."""
    pitches = [max(_pitch(places), r) for places, r in zip(xy, radius, strict=True)]
    coarse = int(np.argmax(pitches))
    sites, site, pitch = xy[coarse], np.arange(len(xy[coarse])), pitches[coarse]
    if pitch < BLOCK_UM / 2:
        block, site = np.unique(np.floor(sites / BLOCK_UM), axis=0, return_inverse=True)
        sites, site, pitch = (block + 0.5) * BLOCK_UM, site.reshape(-1), BLOCK_UM
    # The index is len(sites) where none is near.
    other = np.asarray(cKDTree(sites).query(xy[1 - coarse], distance_upper_bound=REACH * pitch)[1], dtype=np.int64)
    common = np.intersect1d(site, other)
    found = [_sums(site, common), _sums(other, common)]
    return found if coarse == 0 else found[::-1]


def _pitch(xy: Values) -> float:
    """Median distance of spots from the nearest other one; 0 of a single spot."""
    if len(xy) < 2:
        return 0.0
    some = xy[:: max(1, len(xy) // MOST_PITCHES)]
    return float(np.median(np.asarray(cKDTree(xy).query(some, k=2)[0])[:, 1]))


def _sums(place: NDArray[np.int64], common: NDArray[np.int64]) -> sparse.csr_matrix:
    spot = np.flatnonzero(np.isin(place, common))
    row = np.searchsorted(common, place[spot])
    return sparse.csr_matrix((np.ones(len(spot)), (row, spot)), shape=(len(common), len(place)))


def _compare(names: tuple[str, str], first: _Measured, second: _Measured) -> Agreement:
    """Compare counts of the same places."""
    seen = (first.depth > 0) & (second.depth > 0)
    depths = [measured.depth[seen] for measured in (first, second)]
    n = int(seen.sum())
    if n < LEAST_PLACES:
        return Agreement(names, n, 0, np.nan, np.nan, np.nan, np.nan)
    share = sum(of.genes(seen) / depth.sum() for of, depth in zip((first, second), depths, strict=True))
    best = np.sort(np.argsort(-np.asarray(share), kind="stable")[:GENES])
    ours, theirs = (measured.counts(seen, best) for measured in (first, second))
    ceiling = np.sqrt(_reliability(ours, depths[0]) * _reliability(theirs, depths[1]))
    ours, theirs = _standard(_logs(ours, depths[0])), _standard(_logs(theirs, depths[1]))
    r = (ours * theirs).mean(axis=0)
    known = np.isfinite(r)
    if not known.any():
        return Agreement(names, n, 0, np.nan, np.nan, np.nan, np.nan)
    rng = np.random.default_rng(0)
    random = [np.median((ours * theirs[rng.permutation(n)]).mean(axis=0)[known]) for _ in range(DRAWS)]
    return Agreement(
        names,
        places=n,
        genes=int(known.sum()),
        correlation=float(np.median(r[known])),
        share=float((r[known] > GOOD).mean()),
        ceiling=float(np.median(ceiling[known])),
        chance=float(np.quantile(random, 0.95)),
    )


def _logs(counts: NDArray[Any], depth: NDArray[Any]) -> Values:
    return np.log1p(np.asarray(PER_SPOT * counts / np.maximum(depth, 1.0)[:, None], dtype=np.float64))


def _standard(values: Values) -> Values:
    """Columns of mean 0 and variance 1; NaN where all values are the same."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, np.nan))


def _reliability(counts: Values, depth: Values) -> Values:
    """(gene,) correlation that a second count of the same molecules' number would have with this one.

    Counts are split in two at random; what halves have, the whole has more of (Spearman and Brown, 1910). As the
    logarithm bends, that is up to a tenth too low where most counts are 0 or 1.
    """
    rng = np.random.default_rng(0)
    whole = np.rint(counts).astype(np.int64)
    rest = np.rint(np.maximum(depth - counts.sum(axis=1), 0)).astype(np.int64)
    half, half_rest = rng.binomial(whole, 0.5), rng.binomial(rest, 0.5)
    of_half = half.sum(axis=1) + half_rest
    of_other = whole.sum(axis=1) + rest - of_half
    r = (_standard(_logs(half, of_half)) * _standard(_logs(whole - half, of_other))).mean(axis=0).clip(0)
    return np.asarray(2 * r / (1 + r))
