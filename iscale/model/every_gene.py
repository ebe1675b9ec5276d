"""Genes as a few factors in which they vary together, and every gene that captures measured from these."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.engine.machine import give_back
from iscale.engine.progress import progress_between, tell
from iscale.model.additive import AdditiveEnsemble
from iscale.model.data import SharedGenes, TrainingData
from iscale.model.discs import SPOTS_AT_ONCE, blocks_of
from iscale.model.loadings import Loadings
from iscale.model.sizes import EVERY_GENE_BYTES, FACTORS, SPOT_BLOCK
from iscale.store.layout import FILE_GENES

BYTES_EACH = 32
"""Of a count of a gene that is regressed: the count, its logarithm, that less its mean, and what weighs them."""
CALIBRATION_ROWS = 100_000
"""Superpixels in discs that expected counts are calibrated on: of more, evenly chosen spots."""

LEAST_VARIANCE = 1e-5
"""Of a factor, over that of the first: less is rounding."""


@dataclass(frozen=True)
class LogCounts:
    """(spot, gene) float32 logarithms of scaled counts, computed for the spots that it is indexed with.

    Of ``counts`` (any spot, gene) float32, the ``spots`` (spot,), multiplied by one of ``scales`` (spot, 1) after the
    other.
    """

    counts: Tensor
    spots: Tensor
    scales: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.spots)

    def __getitem__(self, at: slice) -> Tensor:
        values = self.counts[self.spots[at]]
        for scale in self.scales:
            values.mul_(scale[at])
        return values.log1p_()


@dataclass(frozen=True)
class Factors:
    """Genes as directions in which they vary together over the spots.

    In float64: values (spot, factor), loading (factor, gene) and level (gene,); genes are ``values @ loading + level``.
    """

    values: Tensor
    loading: Tensor
    level: Tensor

    @classmethod
    def of(cls, genes: LogCounts | Tensor, weight: Tensor) -> Factors:
        """Principal directions of (spot, gene) float32 values, each gene scaled to variance 1, spots weighted."""
        weight = (weight / weight.sum())[:, None].float()
        blocks = [slice(a, a + SPOT_BLOCK) for a in range(0, len(genes), SPOT_BLOCK)]
        level = sum(((weight[at] * genes[at]).sum(dim=0) for at in blocks), start=torch.zeros(()).to(weight))
        variance = sum(((weight[at] * (genes[at] - level).square_()).sum(dim=0) for at in blocks), start=level * 0)
        spread = variance.sqrt().clamp_min(1e-6)

        def scaled(at: slice) -> Tensor:
            return (genes[at] - level).div_(spread)

        if len(genes) <= len(level):
            rooted = torch.cat([scaled(at).mul_(weight[at].sqrt()) for at in blocks])
            vectors = _leading((rooted @ rooted.T).double())
            of_genes = torch.stack([rooted[at].T.double() @ vectors[at] for at in blocks]).sum(dim=0)
            vectors = torch.nn.functional.normalize(of_genes, dim=0)
        else:
            square = level.new_zeros(len(level), len(level), dtype=torch.float64)
            for at in blocks:
                rooted = scaled(at).mul_(weight[at].sqrt())
                square += rooted.T @ rooted
            vectors = _leading(square)
        of_spots = torch.cat([(scaled(at) @ vectors.float()).double() for at in blocks])
        return cls(of_spots, vectors.T * spread, level.double())

    def genes(self, values: Tensor) -> Tensor:
        """(..., gene) of (..., factor)."""
        return values @ self.loading + self.level


def _leading(square: Tensor) -> Tensor:
    """(row, factor) eigenvectors of a symmetric float64 matrix, those that count, the largest first."""
    values, vectors = torch.linalg.eigh(square)
    kept = max(1, min(FACTORS, int((values > LEAST_VARIANCE * values[-1]).sum())))
    leading: Tensor = vectors[:, -kept:].flip(1)
    return leading


def extend(
    ensemble: AdditiveEnsemble, data: TrainingData, shared: SharedGenes, scale: Tensor, weight: Tensor, part: Tensor
) -> Loadings:
    """Loadings of all shared genes.

    The ensemble was trained on the spots of ``data`` that are not held out; for these, ``scale`` and ``weight`` (spot,)
    float64 say what counts are multiplied by, and how much a spot counts; ``part`` (spot,) what of the counts its
    superpixels on tissue have.
    """
    own, trained = ensemble.numbers, set(ensemble.genes)
    others = np.array([i for i, gene in enumerate(shared.genes) if gene not in trained], dtype=np.int64)
    if not len(others):
        return Loadings(ensemble.genes, *(values.cpu().numpy() for values in (own.loading, own.level, own.share)))
    spots = data.train_spots
    at = torch.from_numpy(spots)
    factors = Factors.of(LogCounts(data.counts, at.to(data.counts.device), (scale[:, None].float(),)), weight)
    every = slice(None, None, max(1, -(-int(np.diff(data.starts)[spots].sum()) // CALIBRATION_ROWS)))
    calibrated = spots[every]
    with progress_between(0.0, 0.4):
        loading, level, measured = _regress(
            factors.values, weight, scale, shared, others, spots, calibrated, part[every]
        )
    names = tuple(shared.genes[i] for i in others)
    numbers = replace(own, loading=loading, level=level, share=torch.ones_like(level))
    with progress_between(0.4, 1.0):
        expected, _ = expected_totals(AdditiveEnsemble(names, numbers), data, calibrated)
    share = (measured.to(expected) / expected.clamp_min(1e-9)).float()
    joined = torch.cat([own.loading, loading], 1), torch.cat([own.level, level]), torch.cat([own.share, share])
    return Loadings((*ensemble.genes, *names), *(values.cpu().numpy() for values in joined))


def _regress(
    values: Tensor,
    weight: Tensor,
    scale: Tensor,
    shared: SharedGenes,
    others: NDArray[np.int64],
    spots: NDArray[np.int64],
    calibrated: NDArray[np.int64],
    part: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (factor, gene) and levels (gene,) by least squares, and counts (gene,) of the spots to calibrate on.

    Of the latter, ``part`` (spot,) says what of their counts is meant.
    """
    share = (weight / weight.sum())[:, None]
    weighted = values * share
    square = values.T @ weighted
    loading, level, measured = [values.new_zeros(values.shape[1], 0)], [values.new_zeros(0)], [values.new_zeros(0)]
    at_once = min(FILE_GENES, max(1, EVERY_GENE_BYTES // (BYTES_EACH * len(spots))))

    def add(block: slice) -> None:
        own = others[(others >= block.start) & (others < block.stop)] - block.start
        counts = torch.from_numpy(shared.counts(block)[:, own]).to(values.device)
        measured.append(part @ counts[calibrated].double())
        logs = counts[spots].double().mul_(scale[:, None]).log1p_()
        del counts
        level.append(torch.mv(logs.T, share[:, 0]))
        loading.append(torch.linalg.solve(square, weighted.T @ logs.sub_(level[-1])))

    for start in range(0, len(shared.genes), at_once):
        add(slice(start, min(start + at_once, len(shared.genes))))
        give_back()  # else what is let go of every block lies about in pieces, some MB more each time
        tell(min(start + at_once, len(shared.genes)), len(shared.genes))
    return torch.cat(loading, 1).float().contiguous(), torch.cat(level).float(), torch.cat(measured)


def expected_totals(ensemble: AdditiveEnsemble, data: TrainingData, spots: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """(gene,) and () float64: expected counts of each gene, and of all, in the discs of some spots together."""
    genes = torch.zeros(len(ensemble.genes), dtype=torch.float64, device=data.counts.device)
    total = torch.zeros((), dtype=torch.float64, device=data.counts.device)
    done = 0
    for block in blocks_of(data.starts, spots, most_spots=SPOTS_AT_ONCE):
        features, xy_um, _ = data.disc_rows(block)
        hidden = ensemble.hidden(features, xy_um)
        genes += ensemble.totals(hidden)
        total += ensemble.depth(hidden).sum(dtype=torch.float64)
        done += len(block)
        tell(done, len(spots))
    return genes, total
