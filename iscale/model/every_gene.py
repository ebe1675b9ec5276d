"""Every gene that captures measured, from the factors of those that are imputed.

The default recipe predicts a few factors, in which the imputed genes vary together, and from them the genes. Any other
gene is regressed on the same factors over the training spots: for the imputed genes, whose principal directions the
factors are, this regression gives the loadings that they have. So a gene can be asked for afterwards, and nothing that
was predicted has to be predicted anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.basis.loadings import Loadings
from iscale.engine.memory import give_back
from iscale.engine.progress import tell
from iscale.model.additive import AdditiveEnsemble
from iscale.model.data import TrainingData
from iscale.model.discs import blocks_of, rows_of
from iscale.model.factors import Factors, LogCounts
from iscale.model.part import part
from iscale.model.sizes import EVERY_GENE_BYTES, FILE_GENES

SPOTS_AT_ONCE = 64
BYTES_EACH = 32
"""Of a count of a gene that is regressed: the count, its logarithm, that less its mean, and what weighs them."""
MOST_ROWS = 100_000
"""Superpixels in discs that expected counts are calibrated on: of more, evenly chosen spots."""


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


def extend(
    ensemble: AdditiveEnsemble, data: TrainingData, shared: SharedGenes, scale: Tensor, weight: Tensor
) -> Loadings:
    """Loadings of all shared genes.

    Parameters
    ----------
    ensemble
        Trained on the spots of ``data`` that are not held out.
    data
        Spots and discs.
    shared
        The genes, and their counts.
    scale, weight
        (spot,) float64, of the spots trained on: what counts are multiplied by, and how much a spot counts.
    """
    own, trained = ensemble.parts, set(ensemble.genes)
    others = np.array([i for i, gene in enumerate(shared.genes) if gene not in trained], dtype=np.int64)
    if not len(others):
        return Loadings(ensemble.genes, *(values.cpu().numpy() for values in (own.loading, own.level, own.share)))
    spots = data.train_spots
    at = torch.from_numpy(spots)
    factors = Factors.of(LogCounts(data.counts, at.to(data.counts.device), (scale[:, None].float(),)), weight)
    calibrated = _calibration_spots(data)
    with part(0.0, 0.4):
        loading, level, measured = _regress(factors.values, weight, scale, shared, others, spots, calibrated)
    names = tuple(shared.genes[i] for i in others)
    parts = replace(ensemble.parts, loading=loading, level=level, share=torch.ones_like(level))
    with part(0.4, 1.0):
        expected = _totals(AdditiveEnsemble(names, parts), data, calibrated)
    share = (measured.to(expected) / expected.clamp_min(1e-9)).float()
    joined = (
        torch.cat([own.loading, loading], 1),
        torch.cat([own.level, level]),
        torch.cat([own.share, share]),
    )
    return Loadings((*ensemble.genes, *names), *(values.cpu().numpy() for values in joined))


def _regress(
    values: Tensor,
    weight: Tensor,
    scale: Tensor,
    shared: SharedGenes,
    others: NDArray[np.int64],
    spots: NDArray[np.int64],
    calibrated: NDArray[np.int64],
) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (factor, gene) and levels (gene,) by least squares, and counts (gene,) of the spots to calibrate on."""
    share = (weight / weight.sum())[:, None]
    weighted = values * share
    square = values.T @ weighted
    loading, level, measured = [values.new_zeros(values.shape[1], 0)], [values.new_zeros(0)], [values.new_zeros(0)]
    at_once = min(FILE_GENES, max(1, EVERY_GENE_BYTES // (BYTES_EACH * len(spots))))

    def add(block: slice) -> None:
        own = others[(others >= block.start) & (others < block.stop)] - block.start
        counts = torch.from_numpy(shared.counts(block)[:, own]).to(values.device)
        measured.append(counts[calibrated].sum(dim=0, dtype=torch.float64))
        logs = counts[spots].double().mul_(scale[:, None]).log1p_()
        del counts
        level.append(torch.mv(logs.T, share[:, 0]))
        loading.append(torch.linalg.solve(square, weighted.T @ logs.sub_(level[-1])))

    for start in range(0, len(shared.genes), at_once):
        add(slice(start, min(start + at_once, len(shared.genes))))
        give_back()  # else what is let go of every block lies about in pieces, some MB more each time
        tell(min(start + at_once, len(shared.genes)), len(shared.genes))
    return torch.cat(loading, 1).float().contiguous(), torch.cat(level).float(), torch.cat(measured)


def _totals(ensemble: AdditiveEnsemble, data: TrainingData, spots: NDArray[np.int64]) -> Tensor:
    """(gene,) float64: expected counts of the discs of some spots together."""
    result = torch.zeros(len(ensemble.genes), dtype=torch.float64, device=data.counts.device)
    done = 0
    for at in blocks_of(data.starts, spots, most_spots=SPOTS_AT_ONCE):
        rows, owner = rows_of(data.starts, at)
        result += ensemble.totals(ensemble.hidden(data.features[rows], data.xy_um[at[owner]]))
        done += len(at)
        tell(done, len(spots))
    return result


def _calibration_spots(data: TrainingData) -> NDArray[np.int64]:
    """Spots trained on, or every n-th of them where their discs hold very many superpixels."""
    spots = data.train_spots
    rows = int(np.diff(data.starts)[spots].sum())
    return spots[:: max(1, -(-rows // MOST_ROWS))]
