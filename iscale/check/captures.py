"""What a check says of captures beside each other: twice the same, overlapping, disagreeing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from iscale.captures.counts import Counts, blocks, depth_of, gather
from iscale.captures.stacked import gene_variance
from iscale.check.finding import Finding
from iscale.check.positions import Verdict
from iscale.check.sample import Sample

MOST_GENES = 500
"""Profiles are compared over the most variable genes: the others are mostly noise."""

FEWEST_GENES, FEWEST_PAIRS = 20, 30
MOST_SPOTS = 4_000
"""Of more spots an even part is compared: agreement is a mean."""

SHUFFLES = 200


@dataclass(frozen=True)
class Placed:
    """Spots (spot, 2) of a capture on the mother image, in its full-resolution pixels, and counts (spot, gene).

    ``genes`` are columns of the genes that all captures share, in the same order for all.
    """

    name: str
    xy_px: NDArray[np.float64]
    counts: Counts
    genes: NDArray[np.int64]
    pitch_px: float


@dataclass(frozen=True)
class Agreement:
    """How alike two captures are over pairs of spots within a pitch: the mean correlation of standardised profiles.

    ``shuffled`` and ``spread`` are mean and standard deviation of the same for pairs drawn at random.
    """

    pairs: int
    correlation: float
    shuffled: float
    spread: float

    @property
    def above_chance(self) -> float:
        """By how many of its standard deviations the correlation is above that of random pairs."""
        return (self.correlation - self.shuffled) / max(self.spread, 1e-12)


def same_counts(a: Placed, b: Placed) -> bool:
    """Whether two captures have the same counts in their spots, in whatever order, of the genes that all share."""
    if len(a.xy_px) != len(b.xy_px) or not a.counts.nnz:
        return False
    of_all_genes = len(a.genes) == a.counts.shape[1] == b.counts.shape[1]
    if of_all_genes and not np.array_equal(np.sort(depth_of(a.counts)), np.sort(depth_of(b.counts))):
        return False  # told without reading the counts
    (by_spot, by_gene), (by_spot_too, by_gene_too) = (_sums(placed) for placed in (a, b))
    same = np.array_equal(np.sort(by_spot), np.sort(by_spot_too)) and np.array_equal(by_gene, by_gene_too)
    return same and bool(by_spot.any())


def _sums(placed: Placed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(spot,) and (gene,) sums over the shared genes."""
    by_spot, by_gene = np.empty(len(placed.xy_px)), np.zeros(len(placed.genes))
    for spots, block in blocks(placed.counts):
        shared = block[:, placed.genes]
        by_spot[spots] = np.asarray(shared.sum(axis=1, dtype=np.float64)).ravel()
        by_gene += np.asarray(shared.sum(axis=0, dtype=np.float64)).ravel()
    return by_spot, by_gene


def same_places(a: NDArray[np.float64], b: NDArray[np.float64], pitch_px: float) -> bool:
    """Whether two captures have their spots at the same places, to a hundredth of the pitch."""
    if len(a) != len(b):
        return False
    return bool((_nearest(a, b)[0] < 0.01 * pitch_px).all())


def overlap_share(a: Placed, b: Placed) -> float:
    """Share of the spots of one capture that have a spot of another within a pitch of the coarser of the two."""
    reach = max(a.pitch_px, b.pitch_px)
    return float((_nearest(a.xy_px, b.xy_px)[0] < reach).mean())


def agreement(a: Placed, b: Placed, seed: int = 0) -> Agreement | None:
    """How alike two captures are where they overlap, against pairs of the same spots drawn at random.

    Profiles are depth-normalised, log, and standardised per gene within each capture, so that what differs between two
    captures as wholes (chemistry, depth) does not count. None where too few spots or genes are common to tell.
    """
    a, b = _thinned(a), _thinned(b)
    distance, partner = _nearest(a.xy_px, b.xy_px)
    near = np.flatnonzero(distance < max(a.pitch_px, b.pitch_px))
    if len(near) < FEWEST_PAIRS:
        return None
    counts = _shared(a, near), _shared(b, partner[near])
    variance = np.minimum(*(gene_variance(table) for table in counts))
    genes = np.argsort(-variance, kind="stable")[:MOST_GENES]
    genes = np.sort(genes[variance[genes] > 0])
    if len(genes) < FEWEST_GENES:
        return None
    left, right = (_profiles(table, genes) for table in counts)
    rng = np.random.default_rng(seed)
    drawn = np.array([float((left * right[rng.permutation(len(right))]).sum(axis=1).mean()) for _ in range(SHUFFLES)])
    return Agreement(len(near), float((left * right).sum(axis=1).mean()), float(drawn.mean()), float(drawn.std()))


def _nearest(xy: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance of the nearest of the others, (spot,), and which it is."""
    distance, index = cKDTree(others).query(xy)
    return np.asarray(distance), np.asarray(index)


def _thinned(placed: Placed) -> Placed:
    step = -(-len(placed.xy_px) // MOST_SPOTS)
    if step == 1:
        return placed
    kept = np.arange(0, len(placed.xy_px), step)
    counts = gather(placed.counts, kept)
    return Placed(placed.name, placed.xy_px[kept], counts, placed.genes, placed.pitch_px)


def _shared(placed: Placed, rows: NDArray[np.int64]) -> sparse.csr_matrix:
    return sparse.csr_matrix(gather(placed.counts, rows)[:, placed.genes])


def _profiles(counts: sparse.csr_matrix, genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(spot, gene) profiles of length 1 whose genes have mean 0 and spread 1 over the spots."""
    depth = np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float64), 1)
    values = np.log1p(counts[:, genes].toarray() / depth * np.median(depth))
    values -= values.mean(axis=0)
    values /= np.maximum(values.std(axis=0), 1e-12)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


ABOVE_CHANCE = 2.5
"""Standard deviations. Sections of one block, laid rightly, have 14 and more, 4.5 with 40 spots in common."""

LEAST_SHARED = 0.05
"""Captures that share less of their spots than this do not overlap."""


def shared_placed(
    samples: Sequence[Sample], verdicts: Mapping[str, Verdict], doubted: Collection[str | None]
) -> list[tuple[Placed, bool]]:
    """Captures on the mother image over the genes that they share, and whether each can be compared with others.

    That cannot those of which something is told already that would make them disagree.
    """
    placed = [sample for sample in samples if sample.name in verdicts and sample.xy_px is not None]
    if not placed:
        return []
    genes = sorted(set.intersection(*(set(sample.genes) for sample in placed)))
    result = []
    for sample in placed:
        assert sample.xy_px is not None
        column = {gene: i for i, gene in enumerate(sample.genes)}
        columns = np.array([column[gene] for gene in genes], dtype=np.int64)
        pitch = verdicts[sample.name].placement.pitch.px
        result.append((Placed(sample.name, sample.xy_px, sample.counts, columns, pitch), sample.name not in doubted))
    return result


def capture_findings(placed: Sequence[tuple[Placed, bool]]) -> tuple[list[Finding], dict[str, str]]:
    """Compare captures two by two: findings, and a fact for every two that overlap."""
    findings: list[Finding] = []
    facts: dict[str, str] = {}
    for (a, a_sound), (b, b_sound) in combinations(placed, 2):
        if twice := _twice(a, b):
            findings.append(twice)
        elif a_sound and b_sound:
            found, fact = _overlapping(a, b)
            findings += found
            facts |= fact
    return findings, facts


def _twice(a: Placed, b: Placed) -> Finding | None:
    remedy = "Take one of the two out, or put its own measurement there: spots that count twice weigh twice."
    if same_counts(a, b):
        message = f"{a.name} and {b.name} have the same counts in all {len(a.xy_px)} spots: one is a copy of the other."
        return Finding("capture-twice", message, remedy)
    if same_places(a.xy_px, b.xy_px, a.pitch_px):
        message = f"{a.name} and {b.name} have all {len(a.xy_px)} spots at the same places, with other counts."
        return Finding("capture-twice", message, remedy)
    return None


def _overlapping(a: Placed, b: Placed) -> tuple[list[Finding], dict[str, str]]:
    shares = overlap_share(a, b), overlap_share(b, a)
    if max(shares) < LEAST_SHARED:
        return [], {}
    key = f"{a.name} and {b.name}"
    said = f"overlap: {shares[0]:.0%} of the spots of {a.name}, {shares[1]:.0%} of {b.name}"
    found = agreement(a, b)
    if found is None:
        return [], {key: said}
    paired = f"profiles of {found.pairs} paired spots correlate by {found.correlation:.2f}"
    chance = f"{found.shuffled:.2f} ± {found.spread:.2f} for pairs drawn at random"
    fact = {key: f"{said}; {paired} ({chance})"}
    if found.above_chance >= ABOVE_CHANCE:
        return [], fact
    message = f"{key} {said}, but they disagree there: {paired}, no more than chance ({chance})."
    remedy = "Check that the spots' ids belong to their positions, and the alignment of both; leave the wrong one out."
    return [Finding("captures-disagree", message, remedy)], fact
